"""How long a person waits for `zoo-bench --help` (limit 0.3 s) and for `zoo-bench render --profile smoke` (1 s).

The render is of the smoke records in this checkout, so run `make smoke` first for a full document. Prints the median
and the spread of ten runs each, beside an empty Python on the same machine; exits with 1 above a limit.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
RUNS = 10
CASES = (
    ("empty Python", [sys.executable, "-c", "pass"], None),
    ("--help", [sys.executable, "-m", "zoo_bench", "--help"], 0.3),
    ("render --profile smoke", [sys.executable, "-m", "zoo_bench", "render", "--profile", "smoke"], 1.0),
)


def seconds(command: list[str]) -> list[float]:
    """Time whole processes, after one to warm up the file cache."""
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return times[1:]


def main() -> int:
    """Print the table; 1 when a limit is passed."""
    rows, passed = [], True
    for name, command, limit_s in CASES:
        times = seconds(command)
        median_s = statistics.median(times)
        passed = passed and (limit_s is None or median_s < limit_s)
        rows.append([name, f"{median_s:.3f}", f"{min(times):.3f}", f"{max(times):.3f}", limit_s or ""])
    print(tabulate(rows, headers=["command", "median s", "min s", "max s", "limit s"], tablefmt="pipe"))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
