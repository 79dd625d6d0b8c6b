"""The training loop: one schedule on every rank, an event for every iteration."""

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
from models.schedule import batch_size, largest_samples, learning_rate, planned_iterations
from models.torchvision.allocator import AllocatorPeaks
from models.torchvision.batch import Batch
from models.torchvision.checkpoint import save_weights
from models.torchvision.data import training_batches
from models.torchvision.exchange import heard, tell
from models.torchvision.optim import build_optimizer, set_learning_rate
from models.torchvision.precision import arithmetic
from models.torchvision.ranks import Group
from models.torchvision.resume import Checkpoints
from models.torchvision.steps import AHEAD, Begun, Ended, follow


def train(model: nn.Module, split: Split, group: Group, job: dict[str, Any], events: worker.EventWriter) -> None:
    """Train for the cell's schedule, its first ``measure.train_iterations``, or until the harness has enough; save.

    A training that was interrupted goes on after its newest checkpoint. Raises WorkerError: kind "data" where no image
    has an object, "diverged" at the first loss that is not finite.
    """
    cell = job["cell"]
    optimizer = build_optimizer(model.parameters(), cell["recipe"]["optimizer"])
    checkpoints = Checkpoints(Path(job["paths"]["checkpoints"]), group)
    done = checkpoints.restore(model, optimizer)
    if done:
        events.write("train_resumed", iteration=done, path=job["paths"]["checkpoints"])
    training = _Training(model, optimizer, group, job, events, checkpoints)
    done = training.run(split, done)
    path = Path(job["paths"]["model"])

    def save() -> None:
        save_weights(model, path)
        report.final_checkpoint(events, path, done, cell["recipe"]["lr_schedule"]["iterations"])

    group.first_alone(save)


class _Training:
    """The iterations of one process; all ranks go through them in step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        group: Group,
        job: dict[str, Any],
        events: worker.EventWriter,
        checkpoints: Checkpoints,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._group = group
        self._job = job
        self._cell = job["cell"]
        self._events = events
        self._checkpoints = checkpoints
        self._planned = planned_iterations(self._cell)
        self._peaks = AllocatorPeaks(group.rank, events)

    def run(self, split: Split, done: int) -> int:
        """Go on from iteration ``done``; return the last one."""
        recipe, rank, images = self._cell["recipe"], self._group.rank, batch_size(self._cell)
        samples = with_objects(split.samples)
        if self._job["trial"]:
            samples = largest_samples(samples, recipe["input"], images)
        batches = training_batches(samples, self._cell, start=done, share=rank.share)
        parallel = self._group.parallel(self._model).train()
        epochs = report.Epochs(len(samples), self._events, done * images)
        steps = follow(rank.device)
        last = self._planned
        self._checkpoints.restore_generators()
        while done < last:
            done += 1
            epochs.before(images)
            batch = steps.batch(batches)
            lr = learning_rate(done, recipe["optimizer"]["lr"], recipe["lr_schedule"])
            set_learning_rate(self._optimizer, lr)
            losses = train_step(parallel, batch, rank.device, self._optimizer, self._cell)
            told = tell(self._group, losses, worker.has_enough(self._job), self._peaks.own())
            last = min(last, self._write(steps.add(Begun(done, lr), told)))
            self._save_sometimes(done)
        self._write(steps.rest())
        epochs.end()
        self._peaks.write(self._group.gather(self._peaks.read()))
        return done

    def _write(self, ended: Iterable[Ended]) -> int:
        """Write what has ended; return the iteration that is to be the last.

        Raises WorkerError, "diverged".
        """
        last = self._planned
        for step in ended:
            told = heard(step.values)
            report.step(
                self._events,
                step.begun.iteration,
                self._planned,
                told.losses,
                batch_size(self._cell),
                lr=step.begun.lr,
                iteration_time_s=step.iteration_time_s,
                data_time_s=step.data_time_s,
                end_s=step.end_s,
            )
            self._peaks.write_sometimes(told.peaks)
            if told.enough:
                # Every rank has read this one at the latest when it is so far ahead: all end at the same iteration.
                last = min(last, step.begun.iteration + (AHEAD if self._group.rank.count > 1 else 0))
        return last

    def _save_sometimes(self, done: int) -> None:
        if done % self._cell["runtime"]["checkpoint_interval"] == 0 or (self._job["trial"] and done == self._planned):
            path = self._checkpoints.save(done, self._model, self._optimizer)
            if path is not None:
                report.checkpoint(self._events, path, done)


def train_step(
    model: nn.Module, batch: Batch, device: torch.device, optimizer: Optimizer, cell: dict[str, Any]
) -> dict[str, Tensor]:
    """One iteration; returns its losses, which a GPU may still be working at."""
    with arithmetic(cell["precision"], device):
        losses: dict[str, Tensor] = model(batch.to(device))
    optimizer.zero_grad(set_to_none=True)
    sum(losses.values(), start=torch.zeros((), device=device)).backward()
    clip_norm = cell["recipe"]["optimizer"]["clip_norm"]
    if clip_norm is not None:
        clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return {name: loss.detach() for name, loss in losses.items()}
