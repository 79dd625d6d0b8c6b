from __future__ import annotations

import pytest
import torch
from torch import nn

from models import worker
from models.torchvision.optim import build_optimizer


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
