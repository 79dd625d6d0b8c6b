"""Is spoilt spoilt, and clean clean? The judge against simulated runs of which the truth is known.

The runs are those of tests/simulated_node/incidents.py, from seeds that nothing was tuned on, sampled in virtual time
by the real sampler through the real nvidia-ml-py from a simulated NVML. Prints how many of each kind were found noisy,
and exits with 1 unless all of the contaminated ones were and under 1 % of the clean ones.

Foreign processes inside a container that hides PIDs are shown beside, and not judged: nothing but the allocator's curve
tells them from the job's own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from simulated_node.node import build
from simulated_node.play import judge

FIRST_SEED = 1_000_000
PROCESSES = 2
Verdict = tuple[int, str, str]


def main() -> int:
    """Judge, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="contaminated and clean ones, each (default: 500)")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        library = Path(name)
        build(library)
        spoilt = judged("contaminated", options.first_seed, options.runs, library)
        clean = judged("clean", options.first_seed, options.runs, library)
        hidden = judged(
            "contaminated", options.first_seed, max(options.runs // 10, 1), library, "hidden_foreign_process"
        )
    rows = [*rows_of(spoilt, "contaminated"), *rows_of(hidden, "contaminated, not judged"), *rows_of(clean, "clean")]
    print(tabulate(rows, ["kind", "truth", "runs", "found noisy", "seeds judged wrongly"], tablefmt="pipe"))
    missed = [seed for seed, _, found in spoilt if not found]
    accused = [seed for seed, _, found in clean if found]
    print(f"{len(spoilt) - len(missed)} of {len(spoilt)} contaminated runs were found (limit: all)")
    print(f"{len(accused)} of {len(clean)} clean runs were accused (limit: under 1 %)")
    return int(bool(missed) or len(accused) >= 0.01 * len(clean))


def judged(which: str, first_seed: int, runs: int, library: Path, kind: str = "-") -> list[Verdict]:
    """Judge `runs` runs, on all cores."""
    share = -(-runs // PROCESSES)
    parts = [(first_seed + begin, min(share, runs - begin)) for begin in range(0, runs, share)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        return [
            verdict for part in pool.map(lambda part: judge(which, *part, library, kind), parts) for verdict in part
        ]


def rows_of(verdicts: Iterable[Verdict], truth: str) -> list[list[object]]:
    """Return a row a kind."""
    by_kind: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_kind.setdefault(verdict[1], []).append(verdict)
    rows = []
    for kind, mine in sorted(by_kind.items()):
        noisy = [verdict for verdict in mine if verdict[2]]
        wrong = [seed for seed, _, found in mine if bool(found) == (truth == "clean")]
        rows.append([kind, truth, len(mine), len(noisy), ", ".join(map(str, wrong))])
    return rows


if __name__ == "__main__":
    sys.exit(main())
