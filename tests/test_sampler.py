"""What is seen of a job from outside, by real processes and by the real nvidia-ml-py on a simulated node."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from simulated_node.curve import Curve
from simulated_node.node import GIB, Failure, Gpu, Process, Scenario, run_python
from watching import grid, library_beside, watch

from zoo_bench.foreign import judge_processes
from zoo_bench.host import HostMeter, OutsideCpu, Processors, ProcessTimes, TreeCpu, places
from zoo_bench.problems import Problems
from zoo_bench.processes import JobProcesses
from zoo_bench.sampler import Sampler, Ticker
from zoo_bench.telemetry import OWNERS, ClocksEvent

NO_PID = 2**22 + 1  # above what Linux gives to any process

# A worker that evaluates every line it is sent, and answers with the value.
WORKER = """
import os, subprocess, sys
children = []
def child(code, *arguments, **more):
    command = [sys.executable, "-c", code, *arguments]
    children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more))
    return children[-1].pid
def wait():
    return children[-1].communicate()[0]
for line in sys.stdin:
    print(eval(line), flush=True)
"""
BURN = "import time, sys\nwhile time.process_time() < float(sys.argv[1]): pass\n"
REPORT = BURN + "print(time.process_time())"
# Starts one that burns CPU time and then sleeps, in a session of its own; prints its PID, and ends with its stdin.
MIDDLE = """
import subprocess, sys
burn = sys.argv[1] + "time.sleep(600)"
command = [sys.executable, "-c", burn, sys.argv[2]]
print(subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""
LEAVE_ONE = """
import subprocess, sys
command = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(command, stdout=subprocess.DEVNULL).pid)
"""


class Worker:
    """A process that leads a session and does as it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def do(self, expression: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()


@contextmanager
def job() -> Iterator[tuple[Worker, JobProcesses]]:
    processes = JobProcesses()
    worker = Worker()
    try:
        processes.follow(worker.pid)
        yield worker, processes
    finally:
        worker.end()


def until(condition: object, what: str) -> None:
    """Wait for something that another process does."""
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


# Whose a process is


def test_the_tree_and_the_session_are_the_jobs_and_nothing_else_is() -> None:
    with job() as (worker, processes):
        child = int(worker.do("child('input()', start_new_session=True)"))
        processes.refresh()
        assert processes.owner(worker.pid) == "job"
        assert processes.owner(child) == "job", "a child that has left the session is still of the tree"
        assert processes.owner(os.getpid()) == "foreign"
        assert processes.owner(1) == "foreign"
        assert processes.owner(NO_PID) == "unknown"
        assert processes.owner(0) == "unknown"
        worker.do("wait()")
        processes.refresh()
        assert processes.owner(child) == "job", "it was the job's when it was there"


def test_a_process_whose_parent_ended_unseen_is_known_by_its_session() -> None:
    with job() as (worker, processes):
        orphan = psutil.Process(int(worker.do(f"child({LEAVE_ONE!r}) and wait().strip()")))
        try:
            assert orphan.ppid() != worker.pid
            assert orphan.pid in processes.refresh()
            assert processes.owner(orphan.pid) == "job"
        finally:
            orphan.kill()


# CPU time


def test_cpu_time_of_children_counts_while_they_run_and_when_they_are_gone() -> None:
    with job() as (worker, processes):
        meter = HostMeter(processes, Problems(), time.monotonic)
        seen = []
        for _ in range(3):
            child = psutil.Process(int(worker.do(f"child({BURN!r} + 'input()', '0.3')")))
            until(lambda child=child: sum(child.cpu_times()[:2]) >= 0.28, "the child burns no CPU time")
            seen.append(meter.read())
            worker.do("wait()")
            seen.append(meter.read())
        truth = float(worker.do("sum(os.times()[:4])"))
        tree = [reading.tree_cpu_s for reading in seen if reading is not None]
        assert len(tree) == 6
        assert tree == sorted(tree)
        assert tree[-1] == pytest.approx(truth, abs=0.1)
        assert truth >= 0.8


def test_cpu_time_that_no_parent_waits_for_is_not_lost() -> None:
    with job() as (worker, processes):
        meter = HostMeter(processes, Problems(), time.monotonic)
        burner = psutil.Process(
            int(worker.do(f"child({MIDDLE!r}, {BURN!r}, '0.4') and children[-1].stdout.readline().strip()"))
        )
        try:
            until(lambda: sum(burner.cpu_times()[:2]) >= 0.38, "it burns no CPU time")
            before = meter.read()
            worker.do("wait()")
            assert burner.ppid() != worker.pid
            orphaned = meter.read()
        finally:
            burner.kill()
        until(lambda: not burner.is_running() or burner.status() == psutil.STATUS_ZOMBIE, "it does not end")
        after = meter.read()
        assert before is not None
        assert orphaned is not None
        assert after is not None
        assert 0.38 <= before.tree_cpu_s <= orphaned.tree_cpu_s <= after.tree_cpu_s


def times(own_s: float, children_s: float = 0.0, parent: int = 0) -> ProcessTimes:
    return ProcessTimes(own_s, children_s, parent)


def test_an_ended_process_counts_once_whoever_waited_for_it() -> None:
    tree = TreeCpu()
    assert tree.add({1: times(1), 2: times(5, parent=1), 3: times(7, parent=2)}) == 13
    # 3 was waited for by 2, and 2, with the 7 seconds of 3, by 1.
    assert tree.add({1: times(1, 12.5)}) == 13.5
    # 4 is seen, and ends with its parent 5 never having waited; 5 is waited for.
    assert tree.add({1: times(1, 12.5), 4: times(2, parent=5), 5: times(1, parent=1)}) == 16.5
    assert tree.add({1: times(1, 13.5)}) == 16.5
    # Now the parent takes no notice of its children at all.
    assert tree.add({1: times(1, 13.5), 6: times(3, parent=1)}) == 19.5
    assert tree.add({1: times(2, 13.5)}) == 20.5
    assert tree.add({}) == 20.5


def test_work_outside_the_job_is_told_from_work_inside_it() -> None:
    with job() as (worker, processes):
        meter, processors = HostMeter(processes, Problems(), time.monotonic), Processors()
        first, worked_s = meter.read(), processors.worked_s()
        stranger = subprocess.Popen([sys.executable, "-c", REPORT, "1"], stdout=subprocess.PIPE, text=True)
        worker.do(f"child({BURN!r}, '0.6') and wait()")
        burnt_s = float(stranger.communicate()[0])
        last, worked_s = meter.read(), processors.worked_s() - worked_s
        assert first is not None
        assert last is not None
        assert first.outside_cpu_s == 0
        tree_s = last.tree_cpu_s - first.tree_cpu_s
        assert tree_s >= 0.5
        assert last.outside_cpu_s / burnt_s >= 0.8
        assert last.outside_cpu_s <= worked_s - tree_s + 0.1, "what the job did is not outside"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not tell which processors are ours")
def test_only_the_processors_that_the_job_may_use_count() -> None:
    allowed = os.sched_getaffinity(0)
    mine = min(allowed)
    try:
        os.sched_setaffinity(0, {mine})
        with job() as (_, processes):
            meter, processors = HostMeter(processes, Problems(), time.monotonic), Processors()
            assert meter.cores == 1
            meter.read()
            before_s, worked_s = time.monotonic(), processors.worked_s()
            burnt_s = float(subprocess.check_output([sys.executable, "-c", REPORT, "0.6"]))
            os.sched_setaffinity(0, allowed - {mine} or allowed)
            elsewhere = [subprocess.Popen([sys.executable, "-c", BURN, "0.6"]) for _ in allowed]
            reading = meter.read()
            for process in elsewhere:
                process.wait()
            worked_s = processors.worked_s() - worked_s
            assert worked_s <= time.monotonic() - before_s + 0.1, "one processor cannot do more"
            assert reading is not None
            assert reading.outside_cpu_s / burnt_s >= 0.8
    finally:
        os.sched_setaffinity(0, allowed)


def test_processors_are_found_by_their_ids() -> None:
    assert places({3, 1}, (0, 1, 2, 3)) == (1, 3)
    assert places({3, 4}, (0, 1, 3, 4)) == (2, 3), "number 2 is switched off"
    assert places({0, 1}, (0, 1)) is None, "it is the whole machine"
    assert places({4, 5}, (0, 1)) is None, "a container that numbers its processors anew"
    assert places(None, (0, 1)) is None
    assert places({0}, ()) is None


def test_ticks_between_two_clocks_are_no_work_and_a_drift_hides_none() -> None:
    outside = OutsideCpu(cores=2)
    source = np.random.default_rng(1)
    machine_s, found = 0.0, 0.0
    for _ in range(10_000):
        machine_s += 0.4
        found = outside.add(machine_s + source.uniform(-0.02, 0.02), machine_s)
    assert found < 1, "400 of 4,000 CPU seconds would be noise added up"
    for _ in range(1_000):  # the machine seems to do less than the job alone
        machine_s += 0.4
        drifted = outside.add(machine_s * 0.99, machine_s)
    loaded = drifted
    for _ in range(10):
        machine_s += 0.4
        loaded = outside.add(machine_s * 0.99 + 2.0, machine_s)
    assert loaded - drifted == pytest.approx(2.0, abs=0.2)


# Memory of the host


def test_memory_counts_shared_pages_once_and_a_new_high_at_once() -> None:
    size = 64 * 2**20
    touch = f"children.append(b'x' * {size})"
    with job() as (worker, processes):
        meter = HostMeter(processes, Problems(), lambda: 0.0)  # by this clock no second reading is ever due
        worker.do("'up'")
        first = meter.read()
        worker.do(touch)
        grown = meter.read()
        same = meter.read()
        assert first is not None
        assert grown is not None
        assert same is not None
        assert grown.tree_bytes - first.tree_bytes == pytest.approx(size, rel=0.05)
        assert math.isnan(same.tree_bytes) or same.tree_bytes == pytest.approx(grown.tree_bytes, rel=0.05)
        worker.do("os.fork() or __import__('time').sleep(600)")
        forked = meter.read()
        for process in psutil.Process(worker.pid).children():
            process.kill()
        assert forked is not None
        assert forked.tree_bytes == pytest.approx(grown.tree_bytes, rel=0.2)


# The threads


def test_ticks_that_were_missed_are_dropped() -> None:
    period_s, stall_s, calls = 0.02, 0.4, 0
    enough = threading.Event()

    def take() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            time.sleep(stall_s)
        if calls == 20:
            enough.set()

    started_s = time.monotonic()
    ticker = Ticker("test", period_s, take, lambda _about, _problem: None)
    ticker.start()
    assert enough.wait(60)
    ticker.end()
    assert ticker.ended(60)
    assert calls <= (time.monotonic() - started_s - stall_s) / period_s + 2


def test_a_failing_sample_is_a_reason_and_the_next_is_taken() -> None:
    problems = Problems()
    calls = 0
    enough = threading.Event()

    def take() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            enough.set()
        raise RuntimeError("no such sensor")

    ticker = Ticker("test", 0.01, take, problems.add)
    ticker.start()
    assert enough.wait(60)
    ticker.end()
    assert ticker.ended(60)
    assert problems.texts == ("test samples are missing: RuntimeError: no such sensor",)


SAMPLE = """
import pickle, subprocess, sys, time
from pathlib import Path
from typing import Any
from zoo_bench.sampler import Sampler

folder, gpus = Path(sys.argv[1]), int(sys.argv[2])
with Sampler(range(gpus), folder / sys.argv[3], sample_period_s=0.02, process_period_s=0.1) as sampler:
    burn = "import time\\nwhile time.process_time() < 0.3: pass\\ninput()"
    worker = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, start_new_session=True)
    (folder / "worker.pid").write_text(f"{worker.pid}\\n")
    sampler.watch(worker.pid)
    time.sleep(1)
    worker.communicate()
(folder / "telemetry").write_bytes(pickle.dumps(sampler.telemetry()))
"""


def test_a_live_job_on_a_node_is_sampled_and_the_file_tells_the_same(tmp_path: Path) -> None:
    mine = Process(Curve.constant(3 * GIB), pid_file=tmp_path / "worker.pid")
    theirs = Process(Curve.constant(GIB), pid=os.getpid())
    scenario = Scenario(gpus=(Gpu(processes=(mine,)), Gpu(processes=(mine, theirs)))).write(tmp_path / "scenario.txt")
    run_python(SAMPLE, library_beside(tmp_path), scenario, str(tmp_path), "2", "samples.jsonl")
    seen = pickle.loads((tmp_path / "telemetry").read_bytes())
    assert seen.problems == ()
    assert 0 < seen.own_cpu_share < 1
    assert [gpu.baseline_bytes for gpu in seen.gpus] == [0.5 * GIB, 1.5 * GIB]
    assert [gpu.used_bytes.max() for gpu in seen.gpus] == [3.5 * GIB, 4.5 * GIB]
    assert {
        (one.gpu, OWNERS[owner], held)
        for one in seen.processes
        for owner, held in zip(one.owners, one.memory_bytes, strict=True)
    } == {
        (0, "job", 3 * GIB),
        (1, "job", 3 * GIB),
        (1, "foreign", GIB),
    }
    assert seen.host.tree_cpu_s[-1] > 0
    head, *lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [gpu["uuid"] for gpu in head["gpus"]] == [gpu.uuid for gpu in seen.gpus]
    for number, gpu in enumerate(seen.gpus):
        written = [
            dict(zip(head["gpu_columns"], line["gpus"][number], strict=True)) for line in lines if "gpus" in line
        ]
        for column in head["gpu_columns"]:
            assert [row[column] for row in written] == pytest.approx(getattr(gpu, column).tolist())
    host = [line["host"] for line in lines if "host" in line]
    assert [row[head["host_columns"].index("tree_cpu_s")] for row in host] == pytest.approx(
        seen.host.tree_cpu_s.tolist()
    )
    assert [line["list_time_s"] for line in lines if "processes" in line] == seen.list_times_s.tolist()
    assert sum(len(line.get("processes", ())) for line in lines) == sum(len(one.time_s) for one in seen.processes)


def test_a_file_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    with Sampler((), tmp_path / "none" / "samples.jsonl", sample_period_s=0.02, process_period_s=0.1) as sampler:
        worker = Worker()
        sampler.watch(worker.pid)
        worker.end()
    seen = sampler.telemetry()
    assert seen.problems == ("the samples' file is not complete: No such file or directory",)


def test_without_gpus_nvml_is_not_asked_for(tmp_path: Path) -> None:
    with Sampler((), tmp_path / "samples.jsonl", sample_period_s=0.02, process_period_s=0.1) as sampler:
        worker = Worker()
        sampler.watch(worker.pid)
        worker.do("'up'")
        time.sleep(0.3)
        worker.end()
    seen = sampler.telemetry()
    assert (seen.gpus, seen.processes, seen.problems) == ((), (), ())
    assert np.nanmax(seen.host.tree_bytes) > 2**20
    assert (np.diff(seen.host.tree_cpu_s) >= 0).all()
    assert (np.diff(seen.host.outside_cpu_s) >= 0).all()


def test_a_job_that_could_not_be_launched_leaves_nothing(tmp_path: Path) -> None:
    with Sampler((), tmp_path / "samples.jsonl", sample_period_s=0.02, process_period_s=0.1) as sampler:
        pass
    seen = sampler.telemetry()
    assert len(seen.host.time_s) == 0
    assert seen.own_cpu_share is None
    assert not (tmp_path / "samples.jsonl").exists()


# A simulated node


def test_every_figure_of_eight_gpus_is_what_the_node_says(tmp_path: Path) -> None:
    def gpu(number: int) -> Gpu:
        return Gpu(
            power_w=Curve.constant(300 + number),
            sm_clock_hz=Curve.stepped((0, 1980e6), (2, 1500e6)),
            temperature_c=Curve.constant(50 + number),
            utilization=Curve.constant(0.5),
            clocks_events=Curve.stepped((0, 0), (2, ClocksEvent.SW_POWER_CAP | ClocksEvent.HW_THERMAL_SLOWDOWN)),
        )

    seen = watch(tmp_path, Scenario(gpus=tuple(gpu(number) for number in range(8))), devices_s=grid(4, 0.5))
    assert seen.problems == ()
    assert len({gpu.uuid for gpu in seen.gpus}) == 8
    for number, series in enumerate(seen.gpus):
        early, late = series.time_s < 2, series.time_s >= 2
        assert series.index == number
        assert series.time_s.tolist() == grid(4, 0.5)
        assert set(series.power_w) == {300 + number}
        assert np.allclose(series.energy_j, series.energy_j[0] + (300 + number) * series.time_s)
        assert set(series.sm_clock_hz[early]) == {1980e6}
        assert set(series.sm_clock_hz[late]) == {1500e6}
        assert set(series.temperature_c) == {50 + number}
        assert set(series.utilization) == {0.5}
        assert set(series.clocks_events[early]) == {0}
        assert set(series.clocks_events[late]) == {0x44}


def test_what_a_gpu_does_not_tell_is_nan_with_one_reason_each(tmp_path: Path) -> None:
    lacking = ("memory", "power", "energy", "clocks", "reasons", "temperature", "utilization", "processes", "mig")
    node = Scenario(gpus=(Gpu(not_supported=lacking), Gpu()))
    seen = watch(tmp_path, node, devices_s=grid(1, 0.1), lists_s=(0, 1))
    mute, other = seen.gpus
    for name in ("used_bytes", "power_w", "energy_j", "sm_clock_hz", "temperature_c", "utilization"):
        assert np.isnan(getattr(mute, name)).all()
        assert np.isfinite(getattr(other, name)).all()
    assert set(mute.clocks_events) == {-1}
    assert math.isnan(mute.baseline_bytes)
    assert sorted(seen.problems) == [
        "GPU 0: SM clock: Not Supported",
        "GPU 0: clocks event reasons: Not Supported",
        "GPU 0: energy counter: Not Supported",
        "GPU 0: memory: Not Supported",
        "GPU 0: power: Not Supported",
        "GPU 0: process list: Not Supported",
        "GPU 0: temperature: Not Supported",
        "GPU 0: utilisation: Not Supported",
    ]


def test_a_gpu_that_is_lost_leaves_the_others_alone(tmp_path: Path) -> None:
    lost = Gpu(failures=(Failure(15, from_s=3),))
    seen = watch(tmp_path, Scenario(gpus=(Gpu(), lost)), devices_s=grid(10, 0.5), lists_s=grid(10, 1))
    assert np.isfinite(seen.gpus[0].used_bytes).all()
    assert np.array_equal(np.isfinite(seen.gpus[1].used_bytes), seen.gpus[1].time_s < 3)
    assert seen.problems == ("GPU 1: lost 3.0 s after sampling began: GPU is lost",)


def test_a_gpu_that_was_never_there_is_a_reason(tmp_path: Path) -> None:
    gone = Gpu(failures=(Failure(15),))
    seen = watch(tmp_path, Scenario(gpus=(gone, Gpu())), devices_s=grid(1, 0.5), lists_s=(0, 1))
    assert np.isnan(seen.gpus[0].used_bytes).all()
    assert np.isfinite(seen.gpus[1].used_bytes).all()
    assert [problem for problem in seen.problems if not problem.startswith("GPU 0: ")] == []
    assert len(seen.problems) == 1


def test_an_error_that_passes_is_a_gap_and_a_reason(tmp_path: Path) -> None:
    seen = watch(tmp_path, Scenario(gpus=(Gpu(failures=(Failure(999, 3, 5),)),)), devices_s=grid(10, 0.5))
    series = seen.gpus[0]
    assert np.array_equal(np.isfinite(series.power_w), (series.time_s < 3) | (series.time_s >= 5))
    assert "GPU 0: power, 3.0 s after sampling began: Unknown Error" in seen.problems
    assert len(seen.problems) == len(set(seen.problems)) == 7


def test_the_owner_of_what_nvml_lists(tmp_path: Path) -> None:
    def process(**more: Any) -> Process:
        return Process(Curve.constant(GIB), **more)

    node = Scenario(
        gpus=(
            Gpu(
                processes=(
                    process(pid_file=tmp_path / "worker.pid"),
                    process(pid_file=tmp_path / "child.pid"),
                    process(pid=os.getpid(), from_s=4, to_s=6.5),
                    process(pid=NO_PID, from_s=8),
                )
            ),
        )
    )
    seen = watch(tmp_path, node, lists_s=grid(10, 1), child_s=2.5)
    owners = {
        time_s: " ".join(sorted(OWNERS[owner] for one in seen.processes for owner in one.owners[one.time_s == time_s]))
        for time_s in seen.list_times_s
    }
    assert owners == {
        **dict.fromkeys((0, 1, 2), "job"),
        **dict.fromkeys((3, 7), "job job"),
        **dict.fromkeys((4, 5, 6), "foreign job job"),
        **dict.fromkeys((8, 9, 10), "job job unknown"),
    }
    assert {one.pid for one in seen.processes if one.found("foreign").any()} == {os.getpid()}


def test_hidden_process_memory_is_nan_and_so_is_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "worker.pid"
    hidden = Gpu(processes=(Process(Curve.constant(GIB), pid_file=mine),), not_supported=("process_memory",))
    empty = Gpu(processes=(Process(Curve.constant(0), pid_file=mine),))
    seen = watch(tmp_path, Scenario(gpus=(hidden, empty)), lists_s=(1,))
    assert [one.gpu for one in seen.processes] == [0, 1]
    assert all(np.isnan(one.memory_bytes).all() and one.found("job").all() for one in seen.processes)


def test_with_mig_no_process_is_a_stranger_and_that_is_told(tmp_path: Path) -> None:
    neighbour = Process(Curve.constant(GIB), pid=os.getpid())
    node = Scenario(gpus=(Gpu(mig=Curve.constant(1), processes=(neighbour,)), Gpu(processes=(neighbour,))))
    seen = watch(tmp_path, node, devices_s=(0, 1), lists_s=(0, 1))
    assert [gpu.mig for gpu in seen.gpus] == [True, False]
    noise, _ = judge_processes([], seen, [(0, 1)])
    assert [(one.kind, one.gpu) for one in noise] == [("foreign_process", 1)]
    assert seen.problems[0].startswith("GPU 0: MIG is on: figures are of the whole device, not of the instance")
    assert not any(problem.startswith("GPU 1") for problem in seen.problems)
    assert np.isfinite(seen.gpus[0].used_bytes).all()


@pytest.mark.parametrize(("code", "word"), [(9, "Driver Not Loaded"), (12, "NVML Shared Library Not Found")])
def test_no_nvml_is_a_reason_and_the_host_is_still_seen(tmp_path: Path, code: int, word: str) -> None:
    scenario = Scenario(gpus=(Gpu(),), init_code=code).write(tmp_path / "scenario.txt")
    run_python(SAMPLE, library_beside(tmp_path), scenario, str(tmp_path), "1", "samples.jsonl")
    seen = pickle.loads((tmp_path / "telemetry").read_bytes())
    assert seen.gpus == ()
    assert seen.problems == (f"NVML: {word}: nothing is known of the GPUs from outside the job",)
    assert np.nanmax(seen.host.tree_bytes) > 2**20
