"""The training loop: one device, one schedule, an event for every iteration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from models import worker
from models.torchvision.allocator import AllocatorPeaks
from models.torchvision.checkpoint import save_weights
from models.torchvision.data import Batch, Split, training_batches, with_objects
from models.torchvision.optim import build_optimizer, learning_rate, set_learning_rate
from models.torchvision.steps import Begun, Ended, follow


def train(
    model: nn.Module, split: Split, device: torch.device, job: dict[str, Any], events: worker.EventWriter
) -> None:
    """Train for the cell's schedule, its first ``measure.train_iterations``, or until the harness has enough; save.

    Raises WorkerError: kind "data" where no image has an object, "diverged" at the first loss that is not finite.
    """
    cell = job["cell"]
    recipe, measured = cell["recipe"], cell["measure"]["train_iterations"]
    scheduled = recipe["lr_schedule"]["iterations"]
    planned = scheduled if measured is None else min(measured, scheduled)
    samples = with_objects(split.samples)
    if not samples:
        raise worker.WorkerError("no training image has an object", kind="data")
    batch_size = cell["images_per_gpu"] * max(cell["gpus"], 1)
    batches = training_batches(
        samples, cell["masks"], batch_size, recipe["input"]["flip_probability"], cell["seed"],
        cell["runtime"]["data_workers"],
    )  # fmt: skip
    optimizer = build_optimizer(model.parameters(), recipe["optimizer"])
    model.train()
    epochs, peaks = Epochs(len(samples), events), AllocatorPeaks(device, events)
    steps = follow(device)
    iteration = 0
    while iteration < planned and not (iteration and worker.has_enough(job)):
        iteration += 1
        epochs.before(batch_size)
        batch = steps.batch(batches)
        lr = learning_rate(iteration, recipe["optimizer"]["lr"], recipe["lr_schedule"])
        set_learning_rate(optimizer, lr)
        losses = train_step(model, batch, device, optimizer, recipe["optimizer"]["clip_norm"])
        report(steps.add(Begun(iteration, lr), losses), planned, batch_size, events)
        peaks.after_step()
    report(steps.rest(), planned, batch_size, events)
    epochs.end()
    peaks.write()
    path = Path(job["paths"]["model"])
    size = save_weights(model, path)
    events.write(
        "checkpoint_saved",
        path=str(path),
        iteration=iteration,
        final=True,
        trained=iteration == scheduled,
        bytes=size,
    )


def report(ended: Iterable[Ended], planned: int, batch_size: int, events: worker.EventWriter) -> None:
    """Write a step event for every iteration that has ended. Raises WorkerError, "diverged"."""
    for step in ended:
        require_finite(step.losses, step.begun.iteration)
        events.write(
            "step",
            iteration=step.begun.iteration,
            iterations=planned,
            loss=sum(step.losses.values()),
            losses=step.losses,
            lr=step.begun.lr,
            iteration_time_s=step.iteration_time_s,
            data_time_s=step.data_time_s,
            batch_size=batch_size,
            end_s=step.end_s,
        )


class Epochs:
    """Reports where an epoch starts and stops in an endless stream of batches: after as many images as there are."""

    def __init__(self, images: int, events: worker.EventWriter) -> None:
        self._images = images
        self._events = events
        self._seen = 0
        self._epoch = 0

    def before(self, batch_size: int) -> None:
        """To be called before each batch is taken."""
        if self._seen >= self._epoch * self._images:
            self.end()
            self._epoch += 1
            self._events.write("epoch_start", epoch=self._epoch)
        self._seen += batch_size

    def end(self) -> None:
        """To be called after the last batch."""
        if self._epoch:
            self._events.write("epoch_stop", epoch=self._epoch)


def train_step(
    model: nn.Module, batch: Batch, device: torch.device, optimizer: Optimizer, clip_norm: float | None
) -> dict[str, Tensor]:
    """One iteration; returns its losses, which a GPU may still be working at."""
    images = [image.to(device, non_blocking=True).float().div_(255) for image in batch[0]]
    targets = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for target in batch[1]]
    losses: dict[str, Tensor] = model(images, targets)
    optimizer.zero_grad(set_to_none=True)
    sum(losses.values(), start=torch.zeros((), device=device)).backward()
    if clip_norm is not None:
        clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return {name: loss.detach() for name, loss in losses.items()}


def require_finite(losses: dict[str, float], iteration: int) -> None:
    """Raise WorkerError of kind "diverged" for a loss that is not finite."""
    bad = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if bad:
        named = ", ".join(f"{name} = {value}" for name, value in bad.items())
        raise worker.WorkerError(
            f"training diverged at iteration {iteration}: {named}. Lower the learning rate or clip the gradient.",
            kind="diverged",
        )
