"""The smoke cells, trained anew: does every one learn, and how long do they take together?

Held to box AP (and mask AP) of 10 points for R-50 and 5 for R-101 on the held-out split of shapes, and to 8 minutes for
all eight on two CPU cores. Arguments go to `zoo-bench run`: `python benchmarks/smoke.py --select '*r50*'`.
Exits with 1 when a cell failed or missed; the time is held against the limit only when all eight were run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

from zoo_bench.record import Record
from zoo_bench.store import Store

ROOT = Path(__file__).resolve().parents[1]
LEAST_AP = {"r50": 0.10, "r101": 0.05}
MOST_S = 8 * 60
ALL_CELLS = 8


def aps(record: Record) -> list[float]:
    """Box AP and, for mask models, mask AP; 0 for what was not measured."""
    scores = record.measurements.scores
    found = [scores.box if scores else None, *([scores.mask if scores else None] if record.cell["masks"] else [])]
    return [(metrics.ap or 0.0) if metrics else 0.0 for metrics in found]


def main(arguments: list[str]) -> int:
    """Run, print a table, judge."""
    store = Store(ROOT / "results")
    before = {record.run_id for record in store.load().records}
    started = time.monotonic()
    command = [sys.executable, "-m", "zoo_bench", "run", "--profile", "smoke", "--force", *arguments]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    took_s = time.monotonic() - started
    records = [record for record in store.load().records if record.run_id not in before]
    missed = [record for record in records if min(aps(record)) < LEAST_AP[record.cell["backbone"]]]
    rows = [
        [
            record.cell_id,
            " / ".join(f"{100 * ap:.1f}" for ap in aps(record)),
            f"{100 * LEAST_AP[record.cell['backbone']]:.0f}",
            f"{record.duration_s:.0f}",
        ]
        for record in records
    ]
    print(tabulate(rows, headers=["cell", "box AP / mask AP", "least", "took s"], tablefmt="pipe"))
    print(f"{len(records)} cells in {took_s:.0f} s (limit for all {ALL_CELLS}: {MOST_S} s)")
    slow = len(records) == ALL_CELLS and took_s > MOST_S
    return 1 if code or missed or slow or not records else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
