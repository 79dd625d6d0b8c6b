"""What is seen of a real worker on a simulated node at the times that a test says: the node's clock stands in between.

`watch` starts a process that sees the node, launches a worker and takes the samples; it returns the telemetry.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from simulated_node.clock import VirtualClock
from simulated_node.node import Scenario, build, run_python

from zoo_bench.observer import Observer
from zoo_bench.telemetry import Telemetry

# A worker that answers every line with "done". It leaves its PID in worker.pid; told "child", it starts a process that
# leaves its session, and writes that one's PID to child.pid.
WORKER = """
import os, subprocess, sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "worker.pid").write_text(f"{os.getpid()}\\n")
print("done", flush=True)
for line in sys.stdin:
    if line == "child\\n":
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
        (folder / "child.pid").write_text(f"{child.pid}\\n")
    print("done", flush=True)
"""


def watch(
    folder: Path,
    scenario: Scenario,
    devices_s: Iterable[float] = (),
    lists_s: Iterable[float] = (),
    child_s: float | None = None,
) -> Telemetry:
    """Sample the devices and take the process lists at these times; at `child_s` the worker starts a child."""
    steps = [(time_s, "devices") for time_s in devices_s] + [(time_s, "lists") for time_s in lists_s]
    steps += [] if child_s is None else [(child_s, "child")]
    library = library_beside(folder)
    with VirtualClock(folder / "clock"):
        written = replace(scenario, clock=folder / "clock").write(folder / "scenario.txt")
        (folder / "steps").write_bytes(pickle.dumps((sorted(steps), len(scenario.gpus))))
        run_python("import watching; watching.main()", library, written, str(folder))
    found = pickle.loads((folder / "telemetry").read_bytes())
    assert isinstance(found, Telemetry)
    return found


def library_beside(folder: Path) -> Path:
    """Build the node's library in the folder that all tests of this session share; return it."""
    shared = folder.parent / "simulated_node"
    build(shared)
    return shared


def main() -> None:
    """Be the process that sees the node."""
    folder = Path(sys.argv[1])
    steps, gpus = pickle.loads((folder / "steps").read_bytes())
    with VirtualClock(folder / "clock") as clock:
        time_s = 0.0
        observer = Observer(range(gpus), clock=lambda: time_s)
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "done\n"
        observer.follow(worker.pid, folder / "samples.jsonl")
        for time_s, step in steps:  # the observer's clock reads time_s
            clock.set(time_s)
            if step == "devices":
                observer.take_devices()
            elif step == "lists":
                observer.take_lists()
            else:
                worker.stdin.write(f"{step}\n")
                worker.stdin.flush()
                assert worker.stdout.readline() == "done\n"
        worker.communicate()
        observer.close()
        (folder / "telemetry").write_bytes(pickle.dumps(observer.telemetry()))


def grid(until_s: float, period_s: float) -> Sequence[float]:
    """Return the times of a sampler that keeps its period."""
    return [round(number * period_s, 6) for number in range(int(until_s / period_s) + 1)]
