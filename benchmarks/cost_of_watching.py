"""What does it cost to be measured? The same worker bare and under ``zoo-bench run``, in turn, ten times each.

The worker keeps every core busy, so that whatever zoo-bench does beside it is taken away from it; `--idle-cores 1`
leaves one free, as the CPUs of a GPU machine mostly are. 8 simulated GPUs are sampled meanwhile. Prints s/iter of both,
pair by pair, and the sampler's own share of one core; exits with 1 unless the median of the pairs differs by less than
1 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import psutil
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from simulated_node.curve import Curve
from simulated_node.node import GIB, Gpu, Process, Scenario
from simulated_node.zoo import NodeWorkspace

from zoo_bench.events import EventReader
from zoo_bench.steady import steady_state
from zoo_bench.timing import train_timing

LIMIT = 0.01
LEAST_WARMUP, ITERATIONS, GPUS = 10, 400, 8
HASH_BYTES = 40_000_000


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--idle-cores", type=int, default=0)
    options = parser.parse_args()
    threads = max(1, (psutil.cpu_count() or 1) - options.idle_cores)
    rows: list[tuple[float, float, float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        workspace = prepared(Path(name), threads)
        workspace.run()  # the dataset and the caches, once
        for pair in range(options.pairs):
            rows.append(measured(workspace, pair))
            print(f"pair {pair + 1}: {100 * rows[-1][2]:+.2f} %", file=sys.stderr)
    heads = ["bare s/iter", "watched s/iter", "difference", "sampler, cores"]
    print(tabulate(rows, heads, tablefmt="pipe", floatfmt=(".5f", ".5f", "+.2%", ".3f")))
    median = statistics.median(row[2] for row in rows)
    print(f"median difference {median:+.2%} with {threads} of {psutil.cpu_count()} cores busy (limit {LIMIT:.0%})")
    print(f"median CPU of the sampler {statistics.median(row[3] for row in rows):.2%} of a core")
    return int(abs(median) >= LIMIT)


def prepared(root: Path, threads: int) -> NodeWorkspace:
    """Return the workspace, its GPUs in use."""
    values = {
        "gpus": GPUS,
        "runtime": {"threads": threads},
        "options": {"hash_bytes": HASH_BYTES, "iteration_s": 0.0, "pid_file": str(root / "pid")},
        "measure": {"warmup_iterations": LEAST_WARMUP},
    }
    workspace = NodeWorkspace(root, ITERATIONS, values)
    gpu = Gpu(processes=(Process(Curve.constant(8 * GIB), pid_file=root / "pid"),))
    Scenario((gpu,) * GPUS).write(workspace.scenario)
    return workspace


def measured(workspace: NodeWorkspace, pair: int) -> tuple[float, float, float, float]:
    """Run both, in an order that changes; return their s/iter, the difference as a share, and the sampler's CPU."""
    bare_s = bare(workspace, pair) if pair % 2 else None
    record = workspace.run()
    train, share = record.measurements.train, record.measurements.sampler_cpu_share
    assert train is not None
    assert share is not None
    if bare_s is None:
        bare_s = bare(workspace, pair)
    return bare_s, train.mean_s, train.mean_s / bare_s - 1, share


def bare(workspace: NodeWorkspace, pair: int) -> float:
    """Run the worker alone; return its s/iter by the same rule."""
    record = workspace.records()[-1]
    events = EventReader(workspace.run_bare(record, workspace.root / f"bare{pair}")).read()
    timing = train_timing(events, steady_state(events, LEAST_WARMUP), schedule=ITERATIONS, half_width=None)
    assert timing is not None
    return timing.mean_s


if __name__ == "__main__":
    sys.exit(main())
