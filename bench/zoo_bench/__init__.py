"""zoo-bench: makes a detection model zoo's table the output of a program."""

__version__ = "0.1.0"
