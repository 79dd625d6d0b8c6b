"""The generators: a seed always gives the same run, and what a run says of itself is true of what it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo_bench.events import EventReader
from zoo_bench.telemetry import ClocksEvent, Floats

from .clock import VirtualClock
from .incidents import NodeRun, clean, contaminated
from .jobs import WARM_S
from .kinds import CONTAMINATIONS, NORMAL
from .node import Process, build, run_python
from .runs import SimulatedRun, iterations, write_events

EVENT = ClocksEvent
FAULTS = EVENT.SW_THERMAL_SLOWDOWN | EVENT.HW_THERMAL_SLOWDOWN | EVENT.HW_SLOWDOWN | EVENT.HW_POWER_BRAKE_SLOWDOWN
FULL = {"warmup": True, "checkpoints": True, "evaluations": True}


def trained(run: SimulatedRun | NodeRun) -> tuple[float, float]:
    """From when to when the run trained."""
    steps = [line for line in run.events if line["event"] == "step"]
    ends = [line.get("end_s", line["time_s"]) for line in steps]
    return float(ends[0] - steps[0]["iteration_time_s"]), float(ends[-1])


def grid(run: NodeRun) -> Floats:
    """Times over the training."""
    return np.arange(*trained(run), 0.02)


def foreign(run: NodeRun) -> list[Process]:
    """Processes of others on the run's GPUs."""
    return [process for gpu in run.scenario.gpus for process in gpu.processes if process.pid in run.foreign_pids]


def test_a_seed_always_gives_the_same_run() -> None:
    assert iterations(3, **FULL).events == iterations(3, **FULL).events
    assert iterations(3, **FULL).events != iterations(4, **FULL).events
    for draw in (contaminated, clean):
        first, second, other = draw(11), draw(11), draw(12)
        assert first.scenario.text() == second.scenario.text() != other.scenario.text()
        assert first.events == second.events
        assert first.label == second.label
        np.testing.assert_array_equal(first.host.outside_cpu_s, second.host.outside_cpu_s)


def test_every_line_is_an_event_of_the_protocol_in_the_order_of_writing(tmp_path: Path) -> None:
    runs = [iterations(1, **FULL, late=True), contaminated(1), clean(1), clean(2, "checkpoints")]
    for index, run in enumerate(runs):
        reader = EventReader(write_events(tmp_path / f"{index}.jsonl", run.events))
        times = [event.time_s for event in reader.read()]
        assert (len(times), reader.malformed) == (len(run.events), 0)
        assert times == sorted(times)


def test_the_mean_of_many_runs_is_the_stated_one() -> None:
    runs = [iterations(seed) for seed in range(150)]
    steps = [[line for line in run.events if line["event"] == "step"] for run in runs]
    means = [np.mean([line["iteration_time_s"] for line in lines]) for lines in steps]
    errors = np.array([mean / run.mean_s - 1 for mean, run in zip(means, runs, strict=True)])
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(len(runs))
    assert 400 <= min(map(len, steps)) < 700
    assert 3700 < max(map(len, steps)) <= 4000
    waits = [np.mean([line["data_time_s"] for line in lines]) for lines in steps]
    shares = np.array(waits) / means - [run.data_share for run in runs]
    assert shares.mean() == pytest.approx(0, abs=0.001)


def test_iterations_are_as_autocorrelated_as_stated() -> None:
    runs = [iterations(seed, count=4000) for seed in range(60)]
    found = [np.corrcoef(run.course.times_s[1:], run.course.times_s[:-1])[0, 1] for run in runs]
    stated = [run.phi for run in runs]
    assert np.mean(np.array(found) - stated) == pytest.approx(0, abs=0.02)
    assert np.corrcoef(found, stated)[0, 1] > 0.98
    assert (min(stated) < 0.05, max(stated) > 0.75) == (True, True)


def test_what_is_no_steady_state_is_in_the_excess_and_announced() -> None:
    run = iterations(8, count=10_000, **FULL)
    course = run.course
    np.testing.assert_allclose(course.times_s - course.excess_s, iterations_without_excess(run), rtol=1e-9)
    assert {pause.event for pause in course.pauses} == {"checkpoint_saved", "eval_stop"}
    for pause in course.pauses:
        assert course.excess_s[pause.after] >= pause.length_s  # the iteration that follows, counted from 0
    saved = {line["iteration"] for line in run.events if line["event"] == "checkpoint_saved" and not line["final"]}
    assert saved == {pause.after for pause in course.pauses if pause.event == "checkpoint_saved"}
    late = course.excess_s[100:]
    assert np.count_nonzero(late > 1e-3 * run.mean_s) == len({p.after for p in course.pauses if p.after >= 100})
    assert course.excess_s[0] > run.mean_s


def iterations_without_excess(run: SimulatedRun) -> Floats:
    """The same seed's iterations with nothing but their jitter: options add, they change nothing."""
    return iterations(run.seed, count=len(run.course.times_s)).course.times_s


def test_late_steps_say_when_they_ended() -> None:
    prompt, late = (
        [line for line in iterations(5, late=late).events if line["event"] == "step"] for late in (False, True)
    )
    assert all("end_s" not in line for line in prompt)
    assert all(line["end_s"] <= line["time_s"] for line in late)
    assert sum(line["time_s"] - line["end_s"] > line["iteration_time_s"] for line in late) > 0.9 * len(late)
    ends = [line["end_s"] for line in late]
    assert np.diff(ends) == pytest.approx([line["iteration_time_s"] for line in late[1:]])


@pytest.mark.parametrize("kind", CONTAMINATIONS)
def test_a_contamination_is_in_what_can_be_seen(kind: str) -> None:
    for seed in range(12):
        run = contaminated(seed, kind)
        label, time_s = run.label, grid(run)
        assert (label.kind, label.contaminated) == (kind, True)
        assert label.to_s > trained(run)[0] + WARM_S
        if kind == "cpu_load":
            spent = np.interp([label.from_s, label.to_s], run.host.time_s, run.host.outside_cpu_s)
            assert label.to_s - label.from_s >= 5
            assert np.diff(spent) / (label.to_s - label.from_s) > 0.45
            continue
        assert label.gpu is not None
        gpu = run.scenario.gpus[label.gpu]
        bits = gpu.clocks_events.at(time_s).astype(int)
        inside, busy = (time_s >= label.from_s) & (time_s < label.to_s), (bits & EVENT.GPU_IDLE) == 0
        if kind == "foreign_process":
            (process,) = foreign(run)
            assert run.owner(process.pid or 0) == "foreign"
            assert process.to_s - process.from_s >= 2
        elif kind == "thermal_slowdown":
            assert np.mean((bits & FAULTS) != 0) >= 0.05
        else:
            # Up to WARM_S clocks may still rise.
            outside = ~inside & busy & (time_s > trained(run)[0] + WARM_S)
            clock = gpu.sm_clock_hz.at(time_s)
            assert np.mean(inside & busy) >= 0.05
            assert np.median(clock[inside & busy]) < 0.91 * np.median(clock[outside])
            assert not np.any(bits[inside] & EVENT.SW_POWER_CAP)


@pytest.mark.parametrize("kind", NORMAL)
def test_a_clean_run_has_what_its_kind_says_and_no_fault(kind: str) -> None:
    for seed in range(8):
        run = clean(seed, kind)
        bits = [gpu.clocks_events.at(grid(run)).astype(int) for gpu in run.scenario.gpus]
        assert not run.label.contaminated
        assert not np.any(np.array(bits) & FAULTS)
        assert foreign(run) == []
        assert_as_its_kind(run, kind, np.array(bits))


def assert_as_its_kind(run: NodeRun, kind: str, bits: np.ndarray) -> None:
    """Fails where a clean run lacks what its kind is about."""
    ranks = [gpu.processes[0] for gpu in run.scenario.gpus]
    if kind == "hidden_pids":
        assert {rank.pid for rank in ranks} == run.hidden_pids
        for index, rank in enumerate(ranks):
            peaks = [line for line in run.events if line["event"] == "allocator_peak" and line["rank"] == index]
            context = rank.memory_bytes.peak(0, peaks[-1]["time_s"]) - peaks[-1]["reserved_bytes"]
            assert 0.29 < context / 2**30 < 0.91
    elif kind == "late_child":
        (child,) = [p for gpu in run.scenario.gpus for p in gpu.processes[1:]]
        assert run.owner(child.pid or 0) == "job"
        assert child.from_s > trained(run)[0] + 10
    elif kind == "power_cap":
        assert np.any(bits & EVENT.SW_POWER_CAP)
    elif kind == "checkpoints":
        assert any(line["event"] == "checkpoint_saved" and not line["final"] for line in run.events)
        assert np.any(bits & EVENT.GPU_IDLE)
    elif kind == "cpu_blip":
        steps = np.diff(run.host.outside_cpu_s) / np.diff(run.host.time_s)
        assert steps.max() > 0.4


def test_the_host_never_does_more_than_its_processors_can() -> None:
    for seed in range(30):
        host = contaminated(seed, "cpu_load").host
        done = host.tree_cpu_s + host.outside_cpu_s
        assert (done[-1] - done[0]) / (host.time_s[-1] - host.time_s[0]) <= host.cores
        assert np.all(np.diff(host.tree_cpu_s) >= 0)
        assert np.diff(host.outside_cpu_s).min() > -0.5


def test_a_drawn_scenario_plays_in_the_library(tmp_path: Path) -> None:
    run = contaminated(23, "foreign_process")
    label, process = run.label, foreign(run)[0]
    assert label.gpu is not None
    with VirtualClock(tmp_path / "clock") as clock:
        path = replace(run.scenario, clock=clock.path).write(tmp_path / "scenario.txt")
    code = f"""
import sys
import pynvml as nvml
from simulated_node.clock import VirtualClock
clock = VirtualClock(sys.argv[1])
nvml.nvmlInit()
handle = nvml.nvmlDeviceGetHandleByIndex({label.gpu})
for time_s in {[label.from_s - 0.1, label.from_s + 0.1]}:
    clock.set(time_s)
    listed = [process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    print({process.pid} in listed, nvml.nvmlDeviceGetMemoryInfo(handle).used)
"""
    before, after = run_python(code, build(tmp_path / "nvml").parent, path, str(clock.path)).splitlines()
    gpu = run.scenario.gpus[label.gpu]
    assert before == f"False {gpu.used_bytes(label.from_s - 0.1):.0f}"
    assert after == f"True {gpu.used_bytes(label.from_s + 0.1):.0f}"


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        clean(1, "foreign_process")
    with pytest.raises(KeyError):
        contaminated(1, "power_cap")
