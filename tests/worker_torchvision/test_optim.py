from __future__ import annotations

import pytest
import torch
from torch import nn

from models import worker
from models.torchvision.optim import build_optimizer, learning_rate

SCHEDULE = {
    "iterations": 90000,
    "milestones": [60000, 80000],
    "gamma": 0.1,
    "warmup_iterations": 500,
    "warmup_factor": 0.001,
}


@pytest.mark.parametrize(
    ("iteration", "lr"),
    [(1, 0.00002), (251, 0.01001), (501, 0.02), (60000, 0.02), (60001, 0.002), (80000, 0.002), (80001, 0.0002)],
)
def test_the_published_schedule_warms_up_and_steps_down(iteration: int, lr: float) -> None:
    assert learning_rate(iteration, 0.02, SCHEDULE) == pytest.approx(lr)


def test_no_warm_up_starts_at_the_full_rate() -> None:
    assert learning_rate(1, 0.02, {**SCHEDULE, "warmup_iterations": 0}) == 0.02


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizers_lower_a_loss_and_leave_frozen_weights(name: str) -> None:
    values = {"name": name, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    free, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = build_optimizer([free, frozen], values)
    for _ in range(5):
        optimizer.zero_grad()
        (free + frozen).square().sum().backward()
        optimizer.step()
    assert (free < 1).all()
    assert (frozen == 1).all()


def test_an_unknown_optimizer_names_the_known_ones() -> None:
    values = {"name": "lamb", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    with pytest.raises(worker.WorkerError, match="sgd, adamw"):
        build_optimizer([nn.Parameter(torch.ones(3))], values)
