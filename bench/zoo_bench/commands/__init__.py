"""One verb, one file: parse, call, return an exit code."""
