"""Lets ``python -m zoo_bench`` stand in for the ``zoo-bench`` command."""

from zoo_bench.cli import main

main()
