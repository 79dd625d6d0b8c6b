"""The simulated node as the real nvidia-ml-py sees it: every test asks it from a process of its own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .clock import VirtualClock
from .curve import Curve
from .node import GIB, Failure, Gpu, NodeError, Process, Scenario, build, run_python

PRELUDE = """
import json, sys
import pynvml as nvml
from simulated_node.clock import VirtualClock

clock, results = VirtualClock(sys.argv[1]), []
nvml.nvmlInit()

def gpu(index=0):
    return nvml.nvmlDeviceGetHandleByIndex(index)

def processes(index=0):
    return [[p.pid, p.usedGpuMemory] for p in nvml.nvmlDeviceGetComputeRunningProcesses(gpu(index))]

def error(function, *arguments):
    try:
        function(*arguments)
    except nvml.NVMLError as problem:
        return problem.value
"""


@dataclass(frozen=True)
class Node:
    """Where the library is, and a virtual clock that the asking process sets."""

    folder: Path
    home: Path

    def ask(self, scenario: Scenario | str, code: str, is_virtual: bool = True) -> list[Any]:
        clock = self.home / "clock"
        VirtualClock(clock).close()
        if is_virtual and isinstance(scenario, Scenario):
            scenario = replace(scenario, clock=clock)
        path = self.home / "scenario.txt"
        path.write_text(scenario if isinstance(scenario, str) else scenario.text(), encoding="utf-8")
        answer = run_python(f"{PRELUDE}\n{code}\nprint(json.dumps(results))", self.folder, path, str(clock))
        results: list[Any] = json.loads(answer)
        return results


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml")).parent


@pytest.fixture
def node(library_folder: Path, tmp_path: Path) -> Node:
    return Node(library_folder, tmp_path)


def one(**values: Any) -> Scenario:
    return Scenario(gpus=(Gpu(**values),))


def test_memory_is_what_is_reserved_and_what_the_processes_hold_at_that_time(node: Node) -> None:
    growing = Process(Curve.linear((10, 1 * GIB), (20, 3 * GIB)), pid=4242, from_s=5)
    late = Process(Curve.stepped((30, 4 * GIB), (31, 6 * GIB)), pid=4243, from_s=30, to_s=40)
    scenario = one(total_bytes=Curve.constant(16 * GIB), reserved_bytes=Curve.constant(GIB), processes=(growing, late))
    code = """
for time_s in (0, 5, 15, 29.999, 30, 31, 40):
    clock.set(time_s)
    first, second = nvml.nvmlDeviceGetMemoryInfo(gpu()), nvml.nvmlDeviceGetMemoryInfo(gpu(), nvml.nvmlMemory_v2)
    assert first.total == first.used + first.free == second.total == second.used + second.free + second.reserved
    results.append([first.used, second.used, processes()])
"""
    answers = node.ask(scenario, code)
    held = [0, 1, 2, 3, 7, 9, 3]
    assert [used / GIB for used, _, _ in answers] == [gib + 1 for gib in held]
    assert [used / GIB for _, used, _ in answers] == held
    assert [len(listed) for _, _, listed in answers] == [0, 1, 1, 1, 2, 2, 1]
    assert answers[4][2] == [[4242, 3 * GIB], [4243, 4 * GIB]]
    assert scenario.gpus[0].used_bytes(30) == 8 * GIB


def test_process_memory_that_is_not_told_becomes_none_and_still_counts(node: Node) -> None:
    process = Process(Curve.constant(2 * GIB), pid=77)
    scenario = one(reserved_bytes=Curve.constant(0), processes=(process,), not_supported=("process_memory",))
    code = "results += [processes(), nvml.nvmlDeviceGetMemoryInfo(gpu()).used]"
    assert node.ask(scenario, code) == [[[77, None]], 2 * GIB]


def test_a_lost_gpu_answers_every_call_with_that_and_the_others_go_on(node: Node) -> None:
    scenario = Scenario(gpus=(Gpu(), Gpu(failures=(Failure(15, from_s=8, to_s=9),))))
    code = """
handle = gpu(1)
for time_s in (7.9, 8, 8.9, 9):
    clock.set(time_s)
    calls = (nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlDeviceGetPowerUsage, nvml.nvmlDeviceGetComputeRunningProcesses)
    results.append([error(call, handle) for call in calls] + [error(gpu, 1), error(nvml.nvmlDeviceGetName, gpu(0))])
"""
    well, lost = [None] * 5, [15, 15, 15, 15, None]
    assert node.ask(scenario, code) == [well, lost, lost, well]


def test_a_process_named_by_a_file_is_there_while_it_runs(node: Node, tmp_path: Path) -> None:
    ours, hidden = tmp_path / "ours.pid", tmp_path / "hidden.pid"
    memory = Curve.constant(GIB)
    scenario = one(processes=(Process(memory, pid_file=ours), Process(memory, pid=999_001, pid_file=hidden)))
    code = f"""
import subprocess
results.append(processes())
child = subprocess.Popen(["sleep", "60"])
for path in ({str(ours)!r}, {str(hidden)!r}):
    with open(path, "w") as stream:
        stream.write(str(child.pid))
        stream.flush()
        results.append(processes())  # a line without an end may still grow
        stream.write(chr(10))
    results.append(len(processes()))
results.append([pid == child.pid for pid, _ in processes()] + [processes()[1][0]])
child.kill()
child.wait()
results.append(processes())
"""
    first, unfinished, one_there, still_one, two_there, pids, after = node.ask(scenario, code)
    assert (first, unfinished, one_there, len(still_one), two_there, after) == ([], [], 1, 1, 2, [])
    assert pids == [True, False, 999_001]


def test_throttle_bits_clocks_temperature_and_load_follow_their_curves(node: Node) -> None:
    scenario = one(
        clocks_events=Curve.stepped((0, 0), (10, 0x20 | 0x4), (12, 0)),
        sm_clock_hz=Curve.linear((10, 1980e6), (12, 990e6)),
        mem_clock_hz=Curve.constant(2619e6),
        max_sm_clock_hz=Curve.constant(2000e6),
        temperature_c=Curve.linear((0, 30), (10, 90)),
        utilization=Curve.stepped((0, 0), (5, 0.97)),
        mem_utilization=Curve.constant(0.5),
        power_w=Curve.constant(312.3456),
        power_limit_w=Curve.constant(700),
    )
    code = """
for time_s in (0, 9.99, 10, 11, 12):
    clock.set(time_s)
    load = nvml.nvmlDeviceGetUtilizationRates(gpu())
    reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu())
    assert reasons == nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu())
    temperature = nvml.nvmlDeviceGetTemperature(gpu(), nvml.NVML_TEMPERATURE_GPU)
    assert temperature == nvml.nvmlDeviceGetTemperatureV(gpu(), nvml.NVML_TEMPERATURE_GPU)
    results.append([reasons, nvml.nvmlDeviceGetClockInfo(gpu(), nvml.NVML_CLOCK_SM), temperature, load.gpu])
results.append([load.memory, nvml.nvmlDeviceGetClockInfo(gpu(), nvml.NVML_CLOCK_MEM)])
results.append([nvml.nvmlDeviceGetMaxClockInfo(gpu(), nvml.NVML_CLOCK_SM), nvml.nvmlDeviceGetPowerUsage(gpu())])
results.append(nvml.nvmlDeviceGetPowerManagementLimit(gpu()))
"""
    *over_time, memory, most, limit = node.ask(scenario, code)
    assert over_time == [
        [0, 1980, 30, 0],
        [0, 1980, 90, 97],
        [0x24, 1980, 90, 97],
        [0x24, 1485, 90, 97],
        [0, 990, 90, 97],
    ]
    assert (memory, most, limit) == ([50, 2619], [2000, 312346], 700_000)


@pytest.mark.parametrize("steps", [False, True])
def test_the_energy_counter_is_the_integral_of_power(node: Node, steps: bool) -> None:
    rng = np.random.default_rng(5)
    power = Curve(np.sort(rng.uniform(-5, 60, 200)), rng.uniform(20, 700, 200), steps=steps)
    exact = Gpu(power_w=power, energy_start_j=Curve.constant(1000))
    stepping = replace(exact, energy_step_s=Curve.constant(0.1))
    times = [0.0, 0.3, 7.77, 31.4159, 60.0, 80.0]
    code = f"""
for time_s in {times}:
    clock.set(time_s)
    results.append([nvml.nvmlDeviceGetTotalEnergyConsumption(gpu(index)) / 1e3 for index in (0, 1)])
"""
    for time_s, (at_once, late) in zip(times, node.ask(Scenario(gpus=(exact, stepping)), code), strict=True):
        assert at_once == pytest.approx(1000 + power.integral(0, time_s), abs=0.002)
        assert late == pytest.approx(1000 + power.integral(0, np.floor(time_s * 10 + 1e-6) / 10), abs=0.002)


def test_curves_mean_the_same_here_and_in_the_library(node: Node) -> None:
    rng = np.random.default_rng(6)
    times = np.sort(rng.integers(0, 20, 30)).astype(float)  # some points share a time: the curve jumps there
    curves = [Curve(times, rng.uniform(0, 1e3, 30), steps=steps) for steps in (False, True)]
    asked = [*np.linspace(-2, 22, 241).round(3)]
    code = f"""
for time_s in {[float(time_s) for time_s in asked]}:
    clock.set(time_s)
    results.append([nvml.nvmlDeviceGetPowerUsage(gpu(index)) / 1e3 for index in (0, 1)])
"""
    answers = np.array(node.ask(Scenario(gpus=tuple(Gpu(power_w=curve) for curve in curves)), code))
    for index, curve in enumerate(curves):
        np.testing.assert_allclose(answers[:, index], curve.at(asked), atol=0.0006)
        # The mean of many short slices is the integral; jumps make it inexact.
        fine = np.linspace(0, 20, 400_001)
        assert curve.integral(0, 20) == pytest.approx(curve.at(fine).mean() * 20, rel=1e-3)


def test_eight_gpus_are_told_apart(node: Node) -> None:
    gpu = Gpu(nvlinks=Curve.constant(4), topology=Curve.constant(20))
    gpus = tuple(
        replace(gpu, name=f"NVIDIA H{index} 80GB", uuid=f"GPU-{index}", power_w=Curve.constant(index))
        for index in range(8)
    )
    code = """
for index in range(nvml.nvmlDeviceGetCount()):
    by_uuid = nvml.nvmlDeviceGetHandleByUUID(nvml.nvmlDeviceGetUUID(gpu(index)))
    results.append([nvml.nvmlDeviceGetIndex(by_uuid), nvml.nvmlDeviceGetName(by_uuid)])
    results[-1] += [nvml.nvmlDeviceGetPciInfo(by_uuid).busId, nvml.nvmlDeviceGetPowerUsage(by_uuid)]
results.append([nvml.nvmlSystemGetDriverVersion(), nvml.nvmlSystemGetCudaDriverVersion_v2()])
results.append(nvml.nvmlDeviceGetCudaComputeCapability(gpu(3)))
results.append([nvml.nvmlDeviceGetNvLinkState(gpu(), link) for link in (0, 3, 4)])
results.append(nvml.nvmlDeviceGetTopologyCommonAncestor(gpu(0), gpu(1)))
results.append([error(gpu, 8), error(nvml.nvmlDeviceGetHandleByUUID, "GPU-8")])
"""
    *answers, versions, capability, links, level, missing = node.ask(Scenario(gpus=gpus), code)
    assert answers == [[i, f"NVIDIA H{i} 80GB", f"00000000:{i + 1:02X}:00.0", 1000 * i] for i in range(8)]
    assert (versions, capability, links, level, missing) == (["570.86.15", 12080], [9, 0], [1, 1, 0], 20, [2, 6])


def test_a_list_that_does_not_fit_says_how_many_there_are(node: Node) -> None:
    processes = tuple(Process(Curve.constant(GIB), pid=100 + index) for index in range(20))
    screen = Process(Curve.constant(2**20), pid=50, graphics=True)
    code = """
from ctypes import byref, c_uint
assert [pid for pid, _ in processes()] == list(range(100, 120))
for room in (0, 5, 19, 20, 64):
    count, array = c_uint(room), (nvml.c_nvmlProcessInfo_v3_t * 64)()
    code = nvml.nvmlLib.nvmlDeviceGetComputeRunningProcesses_v3(gpu(), byref(count), array)
    results.append([code, count.value, sum(entry.pid > 0 for entry in array)])
results.append([process.pid for process in nvml.nvmlDeviceGetGraphicsRunningProcesses(gpu())])
results.append(processes(1))
"""
    *rooms, graphics, empty = node.ask(Scenario(gpus=(Gpu(processes=(*processes, screen)), Gpu())), code)
    assert rooms == [[7, 20, 0], [7, 20, 5], [7, 20, 19], [0, 20, 20], [0, 20, 20]]
    assert (graphics, empty) == ([50], [])


CALLS = {
    "memory": "nvmlDeviceGetMemoryInfo(gpu())",
    "power": "nvmlDeviceGetPowerUsage(gpu())",
    "power_limit": "nvmlDeviceGetPowerManagementLimit(gpu())",
    "energy": "nvmlDeviceGetTotalEnergyConsumption(gpu())",
    "clocks": "nvmlDeviceGetClockInfo(gpu(), 1)",
    "reasons": "nvmlDeviceGetCurrentClocksThrottleReasons(gpu())",
    "temperature": "nvmlDeviceGetTemperature(gpu(), 0)",
    "utilization": "nvmlDeviceGetUtilizationRates(gpu())",
    "processes": "nvmlDeviceGetComputeRunningProcesses(gpu())",
    "mig": "nvmlDeviceGetMigMode(gpu())",
    "nvlink": "nvmlDeviceGetNvLinkState(gpu(), 0)",
}


def test_each_field_can_be_missing_alone(node: Node) -> None:
    gpus = tuple(Gpu(nvlinks=Curve.constant(1), not_supported=(field,)) for field in CALLS)
    calls = [f"error(lambda: nvml.{call})" for call in CALLS.values()]
    lines = [f"results.append([{', '.join(calls).replace('gpu()', f'gpu({index})')}])" for index in range(len(CALLS))]
    answers = node.ask(Scenario(gpus=gpus), "\n".join(lines))
    assert answers == [[3 if column == row else None for column in range(len(CALLS))] for row in range(len(CALLS))]


def test_a_divided_gpu_has_a_mode_and_no_utilization(node: Node) -> None:
    code = "results += [nvml.nvmlDeviceGetMigMode(gpu()), error(nvml.nvmlDeviceGetUtilizationRates, gpu())]"
    assert node.ask(one(mig=Curve.constant(1)), code) == [[1, 1], 3]


def test_real_time_counts_from_a_start_that_may_appear_later(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "start"
    power = Curve.stepped((0, 1), (500, 2), (1e9, 3))
    code = f"""
import time
results.append(nvml.nvmlDeviceGetPowerUsage(gpu()))
with open({str(file)!r}, "w") as stream:
    print(time.monotonic() - 1000, file=stream)
results.append(nvml.nvmlDeviceGetPowerUsage(gpu()))
"""
    waiting = Scenario(gpus=(Gpu(power_w=power),), start_s=file)
    assert node.ask(waiting, code, is_virtual=False) == [1000, 2000]
    assert node.ask(replace(waiting, start_s=time.monotonic() - 1000), code, is_virtual=False) == [2000, 2000]


def test_init_fails_with_the_code_that_the_scenario_says(node: Node) -> None:
    with pytest.raises(NodeError, match="Driver Not Loaded"):
        node.ask(Scenario(init_code=9), "")


def test_init_and_shutdown_are_counted_and_the_next_init_reads_again(node: Node) -> None:
    code = """
nvml.nvmlInit()
nvml.nvmlShutdown()
results.append(nvml.nvmlDeviceGetCount())
nvml.nvmlShutdown()
results.append(error(nvml.nvmlDeviceGetCount))
nvml.nvmlInit()
results.append(nvml.nvmlDeviceGetCount())
"""
    assert node.ask(Scenario(gpus=(Gpu(), Gpu())), code) == [2, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# fine\nfoo 1", ":2: 'foo' is unknown, or stands before gpus"),
        ("gpus 1\npower 1 5", ":2: 1 is no whole number from 0 to 0"),
        ("gpus 1\npower 0 1:2 0:3", ":2: the points of a curve stand in order of time; 0 came late"),
        ("gpus 1\npower 0 1:2 3", ":2: expected TIME:VALUE before ''"),
        ("gpus 1\npower 0 watts", ":2: expected a number at 'watts'"),
        ("gpus 1\nna * power warp", ":2: unknown field 'warp'"),
        ("gpus 1\nprocess 0 x 0 1 5", ":2: expected PID, @FILE or PID@FILE"),
        ("gpus 1\nspeed 0 5", ":2: unknown directive 'speed'"),
        ("cuda 12080 x", ":1: too much: 'x'"),
        ("clock /nowhere", ":1: cannot map the 8 bytes of the clock /nowhere"),
    ],
)
def test_a_scenario_that_is_wrong_says_where(node: Node, text: str, message: str) -> None:
    with pytest.raises(NodeError, match="Unknown Error") as caught:
        node.ask(f"{text}\n", "")
    assert f"scenario.txt{message}\n" in str(caught.value)


def test_a_star_stands_for_every_gpu_and_comments_for_nothing(node: Node) -> None:
    text = "gpus 2  # two\n\npower * 2\nprocess * 7 -inf inf 10\nname 1 A name # with words\n"
    code = "results += [nvml.nvmlDeviceGetPowerUsage(gpu(1)), processes(0), processes(1)]"
    code += "; results.append(nvml.nvmlDeviceGetName(gpu(1)))"
    power, first, second, name = node.ask(text, code)
    assert (power, first, second, name.strip()) == (2000, [[7, 10]], [[7, 10]], "A name")


def test_without_gcc_build_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeError, match="install it"):
        build(tmp_path)
