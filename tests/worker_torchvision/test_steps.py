from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Cells, cell
from test_train import in_process, named

from models.torchvision.steps import AHEAD, Begun, follow

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


@CUDA
def test_on_a_gpu_steps_come_in_order_late_and_complete() -> None:
    device = torch.device("cuda", 0)
    steps = follow(device)
    started_s = time.monotonic()
    given = []
    for iteration in range(1, 41):
        loss = torch.full((), float(iteration), device=device)
        torch.cuda._sleep(20_000_000)
        given += list(steps.add(Begun(iteration, 0.1, 0.0), {"loss": loss}))
        assert len(given) >= iteration - AHEAD
    given += list(steps.rest())
    taken_s = time.monotonic() - started_s
    assert [step.begun.iteration for step in given] == list(range(1, 41))
    assert [step.losses["loss"] for step in given] == list(range(1, 41))
    assert sum(step.iteration_time_s for step in given) == pytest.approx(taken_s, rel=0.05)
