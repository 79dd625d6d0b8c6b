"""The smoke cells, trained anew: does every one learn, and how long do they take together?

Held to box AP (and mask AP) on the held-out split of shapes, and to minutes for all eight cells of a backend on two
CPU cores: see LIMITS. Arguments go to `zoo-bench run`: `python benchmarks/smoke.py --select '*r50*'`.
Exits with 1 when a cell failed or missed; the time of a backend is held against its limit only when all eight were run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from zoo_bench.record import Record
from zoo_bench.store import Store

ROOT = Path(__file__).resolve().parents[1]
ALL_CELLS = 8


class Limits(NamedTuple):
    """The least AP of a backend's cells, by backbone, and the most seconds that all of them may take together."""

    least_ap: dict[str, float]
    most_s: float


LIMITS = {
    "torchvision": Limits({"r50": 0.10, "r101": 0.05}, 8 * 60),
    "gluoncv": Limits({"r50": 0.05, "r101": 0.05}, 15 * 60),
}


def aps(record: Record) -> list[float]:
    """Box AP and, for mask models, mask AP; 0 for what was not measured."""
    scores = record.measurements.scores
    found = [scores.box if scores else None, *([scores.mask if scores else None] if record.cell["masks"] else [])]
    return [(metrics.ap or 0.0) if metrics else 0.0 for metrics in found]


def least_ap(record: Record) -> float:
    """The AP that a record is held to."""
    return LIMITS[record.cell["backend"]].least_ap[record.cell["backbone"]]


def is_slow(backend: str, records: list[Record]) -> bool:
    """Say how long a backend's cells took; whether that is too long."""
    took_s, most_s = sum(record.duration_s for record in records), LIMITS[backend].most_s
    print(f"{backend}: {len(records)} cells in {took_s:.0f} s (limit for all {ALL_CELLS}: {most_s:.0f} s)")
    return len(records) == ALL_CELLS and took_s > most_s


def main(arguments: list[str]) -> int:
    """Run, print a table, judge."""
    store = Store(ROOT / "results")
    before = {record.run_id for record in store.load().runs.records()}
    command = [sys.executable, "-m", "zoo_bench", "run", "--profile", "smoke", "--force", *arguments]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    records = [record for record in store.load().runs.records() if record.run_id not in before]
    rows = [
        [
            record.cell_id,
            " / ".join(f"{100 * ap:.1f}" for ap in aps(record)),
            f"{100 * least_ap(record):.0f}",
            f"{record.duration_s:.0f}",
        ]
        for record in records
    ]
    print(tabulate(rows, headers=["cell", "box AP / mask AP", "least", "took s"], tablefmt="pipe"))
    missed = any(min(aps(record)) < least_ap(record) for record in records)
    by_backend = {name: [record for record in records if record.cell["backend"] == name] for name in LIMITS}
    slow = [is_slow(name, mine) for name, mine in by_backend.items() if mine]
    return 1 if code or missed or any(slow) or not records else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
