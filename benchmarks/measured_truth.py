"""Does a record say what happened? A real ``zoo-bench run`` of a scripted worker on a simulated node of known truth.

The worker goes through 10,000 iterations whose times were drawn beforehand (jitter, warm-up spikes, decay, checkpoints)
on 8 simulated GPUs whose memory and power follow known curves. Prints what the record says beside the truth:

- s/iter: the mean of the script without warm-up and pauses; at most 1 % off;
- peak memory: the curve's value at the moments of the sampler's process lists, the largest of them; equal to the byte;
- energy: the curves' integral over the job, and over the steady iterations; at most 1 % off.

Exits with 1 for a miss.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from simulated_node.curve import Curve
from simulated_node.node import GIB, Gpu, Process, Scenario
from simulated_node.runs import SimulatedRun, iterations
from simulated_node.zoo import NodeWorkspace

from zoo_bench.events import EventReader
from zoo_bench.record import Record
from zoo_bench.steady import steady_state

FIRST_SEED = 1_000_000
ITERATIONS, GPUS = 10_000, 8
MEAN_S = 0.003
LEAST_WARMUP = 10
LONG_S = 300.0


@dataclass(frozen=True)
class Line:
    """One figure beside its truth, and how far it may be off, as a share."""

    name: str
    measured: float
    truth: float
    limit: float

    @property
    def error(self) -> float:
        """How far it is off, as a share of the truth."""
        return abs(self.measured / self.truth - 1)


def main() -> int:
    """Run, compare, print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    lines = [line for run in range(options.runs) for line in measured(options.first_seed + run)]
    rows = [[line.name, line.measured, line.truth, 100 * line.error, 100 * line.limit] for line in lines]
    print(tabulate(rows, ["figure", "record", "truth", "error %", "limit %"], tablefmt="pipe", floatfmt=".6g"))
    return int(any(line.error > line.limit for line in lines))


def measured(seed: int) -> list[Line]:
    """Run once; return the figures beside their truths."""
    run = iterations(seed, count=ITERATIONS, mean_s=MEAN_S, warmup=True, checkpoints=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "script.json").write_text(json.dumps(script_of(run)), encoding="utf-8")
        options = {"script": str(root / "script.json"), "pid_file": str(root / "pid")}
        values = {"gpus": GPUS, "options": options, "measure": {"warmup_iterations": LEAST_WARMUP}}
        workspace = NodeWorkspace(root, ITERATIONS, values)
        started_s = time.monotonic()
        curves = [(memory_curve(seed, gpu), power_curve(seed, gpu)) for gpu in range(GPUS)]
        gpus = tuple(
            Gpu(power_w=power, energy_step_s=Curve.constant(0.1), processes=(Process(memory, pid_file=root / "pid"),))
            for memory, power in curves
        )
        Scenario(gpus, start_s=started_s).write(workspace.scenario)
        record = workspace.run()
        return compared(seed, run, record, root, curves, started_s)


def script_of(run: SimulatedRun) -> list[dict[str, object]]:
    """Return what the fake worker is told: an entry an iteration."""
    course = run.course
    entries: list[dict[str, object]] = [
        {"time_s": float(time_s), "data_time_s": float(data_s)}
        for time_s, data_s in zip(course.times_s, course.data_s, strict=True)
    ]
    for pause in course.pauses:
        entries[pause.after - 1]["then"] = "checkpoint"
    return entries


def memory_curve(seed: int, gpu: int) -> Curve:
    """Memory in steps: it goes up and down, and is highest at a time of its own."""
    rng = np.random.default_rng([seed, gpu, 1])
    times = np.arange(0.0, LONG_S, 0.7)
    return Curve.stepped(*zip(times.tolist(), rng.integers(2 * GIB, 14 * GIB, len(times)).tolist(), strict=True))


def power_curve(seed: int, gpu: int) -> Curve:
    """Power that wanders between idle and the limit."""
    rng = np.random.default_rng([seed, gpu, 2])
    times = np.arange(0.0, LONG_S, 0.35)
    return Curve.linear(*zip(times.tolist(), rng.uniform(60, 300, len(times)).tolist(), strict=True))


def compared(
    seed: int, run: SimulatedRun, record: Record, root: Path, curves: list[tuple[Curve, Curve]], started_s: float
) -> list[Line]:
    """Put every figure of the record beside its truth."""
    events = EventReader(root / record.files["events"]).read()
    steady = steady_state(events, LEAST_WARMUP)
    # The first line names the columns.
    samples = [json.loads(line) for line in (root / record.files["samples"]).read_text().splitlines()[1:]]
    lists_s = np.array([one["list_time_s"] for one in samples if "list_time_s" in one and one["processes"]])
    lists_s = lists_s[lists_s <= steady.ends_s[-1]] - started_s
    rows_s = [row[0] for one in samples for row in one.get("gpus", ())[:1]]
    train, memory, energy = record.measurements.train, record.measurements.memory, record.measurements.energy
    assert train is not None
    assert memory is not None
    assert energy is not None
    job_j = sum(power.integral(rows_s[0] - started_s, rows_s[-1] - started_s) for _, power in curves)
    spans = [(from_s - started_s, to_s - started_s) for from_s, to_s in steady.spans]
    steady_j = sum(power.integral(*span) for _, power in curves for span in spans)
    course = run.course
    peaks = [
        Line(
            f"seed {seed}: GPU {gpu.index}, peak bytes",
            gpu.nvml_process_bytes or 0,
            float(curves[gpu.index][0].at(lists_s).max()),
            0.0,
        )
        for gpu in memory.gpus
    ]
    return [
        Line(f"seed {seed}: s/iter", train.mean_s, float(np.mean(course.times_s - course.excess_s)), 0.01),
        *peaks,
        Line(f"seed {seed}: kWh of the job", energy.kwh, job_j / 3.6e6, 0.01),
        Line(f"seed {seed}: J/iter", energy.joules_per_iteration or 0, steady_j / len(steady.iterations), 0.01),
    ]


if __name__ == "__main__":
    sys.exit(main())
