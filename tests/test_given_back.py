"""A GPU whose memory a job has not given back is not used until it is: real runs on a simulated node."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from node_zoo import GPU, NodeZoo
from simulated_node.curve import Curve
from simulated_node.node import GIB, Process, Scenario

from zoo_bench.locks import is_held


@pytest.fixture
def clinging(node: NodeZoo, stranger: int) -> NodeZoo:
    """A node on whose first GPU 2 GiB stay in use from the first job on, as long as stranger.pid names who has them."""
    (node.root / "stranger.pid").write_text("")
    node.change({"profiles": {"quick": {"set": {"trust": {"on_noise": "mark"}}}}})

    def cling() -> None:
        while not (node.root / "worker.pid").exists():
            time.sleep(0.01)
        (node.root / "stranger.pid").write_text(f"{stranger}\n")

    threading.Thread(target=cling, daemon=True).start()
    return node


def place(node: NodeZoo, gpus: int) -> None:
    """Put nothing on the GPUs but what stays; the job's own memory is of no interest here."""
    stays = Process(Curve.constant(2 * GIB), pid_file=node.root / "stranger.pid")
    every = (replace(GPU, processes=(stays,)), GPU)
    Scenario(every[:gpus], start_s=time.monotonic()).write(node.root / "scenario")


def gpus_used(node: NodeZoo) -> list[int]:
    """The GPU of each run, oldest first."""
    return [
        gpu.index for record in node.records if record.measurements.memory for gpu in record.measurements.memory.gpus
    ]


def test_the_next_cell_begins_on_another_gpu_and_the_first_is_let_go_once_it_is_free(clinging: NodeZoo) -> None:
    clinging.options(pid_file=str(clinging.root / "worker.pid"), iteration_s=0.3)
    place(clinging, gpus=2)
    told = "GPU 0 is set aside: the job has ended, and 2.0 GB more of its memory are in use than before it"
    with subprocess.Popen(clinging.command("run"), cwd=clinging.root, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while told not in process.stderr.readline():
            assert process.poll() is None
        samples = (clinging.root / clinging.records[0].files["samples"]).read_text(encoding="utf-8")
        uuid = json.loads(samples.partition("\n")[0])["gpus"][0]["uuid"]
        lease = Path(os.environ["ZOO_BENCH_LEASES"]) / f"{uuid}.lock"
        while "[2/2]" not in process.stderr.readline():  # before, the next cell might begin on the first GPU after all
            assert process.poll() is None
        assert is_held(lease)
        (clinging.root / "stranger.pid").write_text("")
        while is_held(lease):
            assert process.poll() is None
            time.sleep(0.1)
        assert len(clinging.records) == 1
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert gpus_used(clinging) == [0, 1]


def test_the_next_cell_waits_for_the_only_gpu(clinging: NodeZoo) -> None:
    place(clinging, gpus=1)
    said = list[str]()
    with subprocess.Popen(clinging.command("run"), cwd=clinging.root, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith("waiting for GPU 0, which process "):
                assert f"process {process.pid} on {os.uname().nodename}" in line
                assert len(clinging.records) == 1
                (clinging.root / "stranger.pid").write_text("")
    assert process.returncode == 0
    assert sum("GPU 0 is set aside" in line for line in said) == 1
    assert gpus_used(clinging) == [0, 0]


def test_memory_that_is_given_back_is_not_told(node: NodeZoo) -> None:
    done = node.call("run")
    assert done.returncode == 0, done.stderr
    assert "set aside" not in done.stderr
