"""When iterations end, on a CPU, on a GPU that is played, and on a real one where there is one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Cells, cell, in_process, named

from models.torchvision.steps import AHEAD, Begun, CudaSteps, Ended, follow

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_the_harness_can_say_that_it_has_enough(cells: Cells) -> None:
    values = cell("faster-rcnn_fpn", "r18", SMALL)
    job = cells.job(values, phases=["train"])
    Path(job["paths"]["enough"]).touch()
    code, events = in_process(job)
    assert code == 0
    assert [step["iteration"] for step in named(events, "step")] == [1]
    (saved,) = named(events, "checkpoint_saved")
    assert saved["iteration"] == 1
    assert saved["final"]
    assert not saved["trained"]


def test_steps_say_when_their_iteration_ended(cells: Cells) -> None:
    code, events = in_process(cells.job(cell("faster-rcnn_fpn", "r18", SMALL), phases=["train"]))
    assert code == 0
    steps = named(events, "step")
    for before, step in itertools.pairwise(steps):
        assert step["end_s"] - before["end_s"] == pytest.approx(step["iteration_time_s"], abs=1e-6)
        assert step["end_s"] <= step["time_s"]


class Played:
    """A GPU and the program that feeds it. `rate`: how much faster the GPU's clock goes than the program's."""

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate
        self.now_s = 100.0
        self.free_s = 100.0
        self.steps = CudaSteps(lambda: PlayedMark(self, max(self.now_s, self.free_s)), lambda: self.now_s)

    def iterate(self, iteration: int, data_s: float, program_s: float, gpu_s: float) -> list[Ended]:
        """Wait for a batch, take the program's time to tell the GPU what to do; the GPU does it when it is free."""

        def batches() -> Iterator[None]:
            self.now_s += data_s
            yield

        self.steps.batch(batches())
        self.free_s = max(self.now_s, self.free_s) + gpu_s
        self.now_s += program_s
        losses = {"one": torch.tensor(float(iteration)), "two": torch.tensor(2.0)}
        return self.steps.add(Begun(iteration, 0.1), losses)


@dataclass
class PlayedMark:
    gpu: Played
    at_s: float

    def query(self) -> bool:
        return self.gpu.now_s >= self.at_s

    def synchronize(self) -> None:
        self.gpu.now_s = max(self.gpu.now_s, self.at_s)

    def elapsed_time(self, later: PlayedMark, /) -> float:
        return (later.at_s - self.at_s) * 1000 * self.gpu.rate


def test_a_gpu_that_is_behind_gives_steps_in_order_late_and_complete() -> None:
    played = Played()
    given = []
    for iteration in range(1, 41):
        given += played.iterate(iteration, data_s=0.02, program_s=0.01, gpu_s=0.1)
        assert iteration - AHEAD <= len(given) < iteration
    given += played.steps.rest()
    assert [step.begun.iteration for step in given] == list(range(1, 41))
    assert [step.values for step in given] == [{"one": number, "two": 2} for number in range(1, 41)]
    assert sum(step.iteration_time_s for step in given) == pytest.approx(played.now_s - 100)
    assert [step.end_s for step in given] == pytest.approx([100.02 + 0.1 * number for number in range(1, 41)])
    # The program waited for every batch, the GPU for the first alone.
    assert [step.data_time_s for step in given] == pytest.approx([0.02] + [0] * 39)


def test_a_gpu_that_waits_for_data_says_how_long() -> None:
    played = Played()
    given = [step for number in range(1, 21) for step in played.iterate(number, 0.3, 0.01, 0.1)]
    given += played.steps.rest()
    assert [step.data_time_s for step in given] == pytest.approx([0.3] + [0.21] * 19)
    assert [step.iteration_time_s for step in given] == pytest.approx([0.4] + [0.31] * 19)


def test_the_programs_own_slowness_is_no_wait_for_data() -> None:
    played = Played()
    given = [step for number in range(1, 21) for step in played.iterate(number, 0.01, 0.5, 0.1)]
    assert len(given) == 20
    assert sum(step.data_time_s for step in given) <= 20 * 0.01 + 1e-9


def test_steps_whose_results_nobody_looks_at_are_not_lost() -> None:
    played = Played()
    for number in range(1, 4):
        played.iterate(number, 0, 0.01, 0.1)
    assert [step.begun.iteration for step in played.steps.rest()] == [1, 2, 3]


@pytest.mark.parametrize("rate", [0.99, 1.01])
@pytest.mark.parametrize(("data_s", "program_s", "gpu_s"), [(0.0, 0.01, 0.1), (0.2, 0.01, 0.1), (0.0, 0.1, 0.01)])
def test_a_gpus_clock_that_drifts_moves_no_end(rate: float, data_s: float, program_s: float, gpu_s: float) -> None:
    played = Played(rate)
    given, truth_s = [], []
    for number in range(1, 2001):
        given += played.iterate(number, data_s, program_s, gpu_s)
        truth_s.append(played.free_s)
    given += played.steps.rest()
    ends_s = [step.end_s for step in given]
    assert ends_s == sorted(ends_s)
    assert ends_s == pytest.approx(truth_s, abs=data_s + program_s + gpu_s), "2 s by the GPU's clock alone"


@CUDA
def test_on_a_gpu_steps_come_in_order_late_and_complete() -> None:
    device = torch.device("cuda", 0)
    steps = follow(device)
    started_s = time.monotonic()
    given = []
    for iteration in range(1, 41):
        loss = torch.full((), float(iteration), device=device)
        steps.batch(itertools.repeat(None))
        torch.cuda._sleep(20_000_000)
        given += list(steps.add(Begun(iteration, 0.1), {"loss": loss}))
        assert len(given) >= iteration - AHEAD
    given += list(steps.rest())
    taken_s = time.monotonic() - started_s
    assert [step.begun.iteration for step in given] == list(range(1, 41))
    assert [step.values["loss"] for step in given] == list(range(1, 41))
    assert sum(step.iteration_time_s for step in given) == pytest.approx(taken_s, rel=0.05)
    assert sum(step.data_time_s for step in given) < 0.05 * taken_s, "the GPU was never without work"
