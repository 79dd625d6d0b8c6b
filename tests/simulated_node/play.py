"""Plays simulated jobs to the real sampler in virtual time: what it would have recorded, in milliseconds.

To be run in a process that sees the node (`node.run_python`), since NVML's library is found when a process starts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo_bench.contamination import judge_telemetry
from zoo_bench.events import Event, EventReader
from zoo_bench.observer import Observer
from zoo_bench.processes import JobProcesses, Member
from zoo_bench.telemetry import Owner, Telemetry

from .clock import VirtualClock
from .incidents import NodeRun, clean, contaminated
from .node import build, run_python
from .runs import write_events

PERIOD_S, LIST_PERIOD_S = 0.1, 1.0
JUDGE = "from simulated_node.play import main; main()"


class KnownProcesses(JobProcesses):
    """The process table as the simulated run has it; none of its processes is alive here."""

    def __init__(self, run: NodeRun) -> None:
        super().__init__()
        self._run = run

    def refresh(self) -> dict[int, Member]:
        """Find nothing new."""
        return {}

    def owner(self, pid: int) -> Owner:
        """Say what the run says."""
        return self._run.owner(pid)


def telemetry(run: NodeRun, folder: Path, scenario_file: Path) -> Telemetry:
    """Sample a simulated job from its launch to its end, at times that nothing in it is aligned with."""
    jitter = np.random.default_rng([run.seed, 9])
    ticks = np.arange(jitter.uniform(0, PERIOD_S), run.duration_s, PERIOD_S)
    ticks = ticks + jitter.uniform(0, PERIOD_S / 10, len(ticks))
    lists = np.arange(jitter.uniform(0, LIST_PERIOD_S), run.duration_s, LIST_PERIOD_S)
    steps = sorted([*((float(t), "devices") for t in ticks), *((float(t), "lists") for t in lists)])
    now_s = -1.0
    with VirtualClock(folder / "clock") as clock:
        replace(run.scenario, clock=clock.path).write(scenario_file)
        clock.set(now_s)
        observer = Observer(range(len(run.scenario.gpus)), lambda: now_s, KnownProcesses(run))
        for now_s, what in steps:  # the observer's clock reads now_s
            clock.set(now_s)
            if what == "devices":
                observer.take_devices()
            else:
                observer.take_lists()
        observer.close()
    return replace(observer.telemetry(), host=run.host)


def events_of(run: NodeRun, folder: Path) -> list[Event]:
    """Read the job's events as the harness would."""
    path = folder / f"{run.seed}.jsonl"
    write_events(path, run.events)
    events = EventReader(path).read()
    path.unlink()
    return events


def verdicts(draw: Callable[[int], NodeRun], seeds: Iterable[int], folder: Path, scenario: Path) -> Iterator[str]:
    """Judge a run a seed; yield a line each: seed, kind, and what was found, kinds joined by commas or nothing."""
    for seed in seeds:
        run = draw(seed)
        events = events_of(run, folder)
        found = judge_telemetry(events, telemetry(run, folder, scenario), len(run.scenario.gpus)).noise
        yield f"{seed}\t{run.label.kind}\t{','.join(sorted({one.kind for one in found}))}"


def main() -> None:
    """Be the process that sees the node: ``clean|contaminated KIND|- FIRST_SEED RUNS FOLDER SCENARIO``."""
    which, kind, first, count, folder, scenario = sys.argv[1:]
    draw = clean if which == "clean" else contaminated
    seeds = range(int(first), int(first) + int(count))
    named = None if kind == "-" else kind
    for line in verdicts(lambda seed: draw(seed, named), seeds, Path(folder), Path(scenario)):
        sys.stdout.write(f"{line}\n")


def judge(which: str, first_seed: int, runs: int, library: Path, kind: str = "-") -> list[tuple[int, str, str]]:
    """Play and judge simulated runs in a process of their own: seed, kind, kinds of noise found."""
    build(library)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = (which, kind, str(first_seed), str(runs), str(folder), str(folder / "scenario"))
        (folder / "scenario").touch()
        lines = run_python(JUDGE, library, folder / "scenario", *arguments, timeout_s=3600).splitlines()
    return [(int(seed), name, found) for seed, name, found in (line.split("\t") for line in lines)]
