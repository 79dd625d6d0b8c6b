"""Noise on the machine: found, told with its evidence, quarantined or marked. A real run on a simulated node."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
from node_zoo import GPU, NodeZoo
from simulated_node.curve import Curve
from simulated_node.node import GIB, Process
from simulated_node.play import judge

from zoo_bench.contamination import judge_telemetry
from zoo_bench.events import Event
from zoo_bench.noise import Noise
from zoo_bench.telemetry import HostSeries, Telemetry, floats
from zoo_bench.verify import values

RETINANET = ("--select", "*retinanet*")


def memory_shown(node: NodeZoo) -> str:
    """What the document's table says of RetinaNet's memory."""
    found = [
        value for place, value in values(node.call("render").stdout) if str(place) == "RetinaNet, R-50 1x, Mem (GB)"
    ]
    assert len(found) == 1
    return found[0]


def test_a_clean_run_on_a_gpu_says_what_the_gpu_gave(node: NodeZoo) -> None:
    assert node.call("run", *RETINANET).returncode == 0
    (record,) = node.records
    assert (record.noise, record.unwatched) == ((), ())
    memory, energy = record.measurements.memory, record.measurements.energy
    assert memory is not None
    assert [gpu.nvml_process_bytes for gpu in memory.gpus] == [5 * GIB]
    assert [gpu.nvml_delta_bytes for gpu in memory.gpus] == [5 * GIB]
    assert memory.problems == ()
    assert energy is not None
    assert energy.source == "counter"
    assert record.measurements.train is not None
    assert energy.joules_per_iteration == pytest.approx(250 * record.measurements.train.mean_s, rel=0.2)
    assert record.machine["driver"] == "570.86.15"
    assert memory_shown(node) == "5.0"


def test_a_foreign_process_quarantines_the_run_which_is_tried_again(node: NodeZoo, stranger: int) -> None:
    node.place(Process(Curve.constant(2 * GIB), pid=stranger))
    done = node.call("run", *RETINANET)
    assert done.returncode == 5
    assert [record.status for record in node.records] == ["quarantined"] * 3
    assert f"process {stranger}" in node.records[-1].reason
    assert "up to 2.0 GB" in done.stdout
    assert done.stderr.count("trying again") == 2
    assert memory_shown(node) == ""
    plan = node.call("plan", *RETINANET).stdout
    assert "  train, infer, evaluate  " in plan
    assert f"  quarantined in run {node.records[-1].run_id}" in plan


def test_a_process_that_has_gone_by_the_second_try_does_no_harm(node: NodeZoo, stranger: int) -> None:
    pid_file = node.root / "stranger.pid"
    pid_file.write_text(f"{stranger}\n")
    node.place(Process(Curve.constant(2 * GIB), pid_file=pid_file))
    with subprocess.Popen(node.command("run", *RETINANET), cwd=node.root, stderr=subprocess.DEVNULL) as running:
        while not list(node.root.glob("results/fake/*/*.json")) and running.poll() is None:
            time.sleep(0.02)
        pid_file.unlink()
    assert running.returncode == 0
    assert [record.status for record in node.records] == ["quarantined", "succeeded"]


def test_noise_can_be_allowed_and_is_then_marked(node: NodeZoo, stranger: int) -> None:
    node.place(Process(Curve.constant(2 * GIB), pid=stranger))
    assert node.call("run", "--allow-noisy", *RETINANET).returncode == 0
    (record,) = node.records
    assert record.status == "succeeded"
    assert [one.kind for one in record.noise] == ["foreign_process"]
    assert memory_shown(node) == "5.0"
    assert f"process {stranger}" in node.call("render").stdout


@pytest.mark.parametrize("kind", ["foreign_process", "thermal_slowdown", "clock_drop", "cpu_load"])
def test_simulated_contaminations_are_found(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    library = tmp_path_factory.getbasetemp() / "simulated_node"
    assert [seed for seed, _, found in judge("contaminated", 200, 6, library, kind) if not found] == []


def test_a_stranger_behind_hidden_pids_is_told_from_the_job(tmp_path_factory: pytest.TempPathFactory) -> None:
    library = tmp_path_factory.getbasetemp() / "simulated_node"
    found = judge("contaminated", 200, 6, library, "hidden_foreign_process")
    assert [seed for seed, _, kinds in found if "foreign_process" not in kinds] == []


def test_simulated_clean_runs_are_not_accused(tmp_path_factory: pytest.TempPathFactory) -> None:
    library = tmp_path_factory.getbasetemp() / "simulated_node"
    assert [verdict for verdict in judge("clean", 200, 24, library) if verdict[2]] == []


def test_work_beside_inference_is_noise_as_well() -> None:
    images = [
        Event("infer_step", 100.0 + 0.1 * n, 0.0, {"index": n, "images": 300, "warmup": n <= 10}) for n in range(1, 301)
    ]
    time_s = np.arange(95.0, 131.0, 0.2)
    outside_s = np.clip(time_s - 110, 0, 10) * 3.0  # 3 cores for 10 s
    nothing = floats([])
    host = HostSeries(8, time_s, np.full(len(time_s), 1e9), time_s - 95, outside_s)
    (one,) = judge_telemetry(images, Telemetry(host, (), (), nothing, (), None), 0).noise
    assert one.kind == "cpu_load"
    assert one.from_s == pytest.approx(15, abs=2.5)
    assert one.to_s == pytest.approx(25, abs=2.5)
    assert "3.0 of 8 cores" in one.detail


def test_a_short_burst_does_not_spoil_a_long_run_and_the_same_in_a_short_one_does() -> None:
    def found(hours: float) -> tuple[Noise, ...]:
        seconds = 3600 * hours
        steps = [
            Event("step", n, 0.0, {"iteration": n + 1, "iterations": int(seconds) + 1, "iteration_time_s": 1.0})
            for n in range(int(seconds) + 1)
        ]
        time_s = np.arange(0.0, seconds, 1.0)
        host = HostSeries(16, time_s, np.full(len(time_s), 1e9), time_s, np.clip(time_s - 40, 0, 6) * 4.0)
        return judge_telemetry(steps, Telemetry(host, (), (), floats([]), (), None), 0).noise

    assert found(12) == ()
    assert [one.kind for one in found(1 / 30)] == ["cpu_load"]


def test_what_was_kept_in_spite_of_noise_does_not_count_where_noise_quarantines(node: NodeZoo, stranger: int) -> None:
    node.place(Process(Curve.constant(2 * GIB), pid=stranger))
    assert node.call("run", "--allow-noisy", *RETINANET).returncode == 0
    plan = node.call("plan", *RETINANET).stdout
    assert f"noisy in run {node.records[0].run_id}" in plan
    node.place()
    assert node.call("run", *RETINANET).returncode == 0
    assert "fresh" in node.call("plan", *RETINANET).stdout


def test_a_run_that_could_not_be_watched_says_so(node: NodeZoo) -> None:
    node.options(iteration_s=0.3)
    node.place(gpu=replace(GPU, not_supported=("reasons", "processes")))
    assert node.call("run", "--allow-noisy", *RETINANET).returncode == 0
    (record,) = node.records
    assert [text.split(" on GPU 0: ")[0] for text in record.unwatched] == ["foreign processes", "slowdowns"]
