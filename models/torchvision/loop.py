"""The training loop: one device, one schedule, an event for every iteration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from models import report, worker
from models.coco import Split, with_objects
from models.schedule import batch_size, learning_rate, planned_iterations
from models.torchvision.allocator import AllocatorPeaks
from models.torchvision.checkpoint import save_weights
from models.torchvision.data import Batch, training_batches
from models.torchvision.optim import build_optimizer, set_learning_rate
from models.torchvision.steps import Begun, Ended, follow


def train(
    model: nn.Module, split: Split, device: torch.device, job: dict[str, Any], events: worker.EventWriter
) -> None:
    """Train for the cell's schedule, its first ``measure.train_iterations``, or until the harness has enough; save.

    Raises WorkerError: kind "data" where no image has an object, "diverged" at the first loss that is not finite.
    """
    cell = job["cell"]
    recipe, planned = cell["recipe"], planned_iterations(cell)
    samples = with_objects(split.samples)
    images = batch_size(cell)
    batches = training_batches(
        samples, cell["masks"], images, recipe["input"]["flip_probability"], cell["seed"],
        cell["runtime"]["data_workers"],
    )  # fmt: skip
    optimizer = build_optimizer(model.parameters(), recipe["optimizer"])
    model.train()
    epochs, peaks = report.Epochs(len(samples), events), AllocatorPeaks(device, events)
    steps = follow(device)
    iteration = 0
    while iteration < planned and not (iteration and worker.has_enough(job)):
        iteration += 1
        epochs.before(images)
        batch = steps.batch(batches)
        lr = learning_rate(iteration, recipe["optimizer"]["lr"], recipe["lr_schedule"])
        set_learning_rate(optimizer, lr)
        losses = train_step(model, batch, device, optimizer, recipe["optimizer"]["clip_norm"])
        write_steps(steps.add(Begun(iteration, lr), losses), planned, images, events)
        peaks.after_step()
    write_steps(steps.rest(), planned, images, events)
    epochs.end()
    peaks.write()
    path = Path(job["paths"]["model"])
    save_weights(model, path)
    report.final_checkpoint(events, path, iteration, recipe["lr_schedule"]["iterations"])


def write_steps(ended: Iterable[Ended], planned: int, images: int, events: worker.EventWriter) -> None:
    """Write a step event for every iteration that has ended. Raises WorkerError, "diverged"."""
    for step in ended:
        report.step(
            events,
            step.begun.iteration,
            planned,
            step.losses,
            images,
            lr=step.begun.lr,
            iteration_time_s=step.iteration_time_s,
            data_time_s=step.data_time_s,
            end_s=step.end_s,
        )


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
