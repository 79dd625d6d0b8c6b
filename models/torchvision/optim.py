"""The optimizer of a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from models import worker


def build_optimizer(parameters: Iterable[nn.Parameter], values: dict[str, Any]) -> Optimizer:
    """SGD with momentum, or AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101) with beta1 = momentum."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    lr, decay = values["lr"], values["weight_decay"]
    # Fused: one pass over the weights a step, the larger part of a step of a small CPU run otherwise.
    if values["name"] == "sgd":
        return SGD(learning, lr=lr, momentum=values["momentum"], weight_decay=decay, fused=True)
    if values["name"] == "adamw":
        return AdamW(learning, lr=lr, betas=(values["momentum"], 0.999), weight_decay=decay, fused=True)
    raise worker.WorkerError(f"unknown optimizer {values['name']!r}; this worker has sgd, adamw")


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Use ``lr`` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr
