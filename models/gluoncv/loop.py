"""The training loop: every context trains on its share of the batch, an event for every iteration."""

import time
from pathlib import Path
from typing import Any, Dict, List

import mxnet as mx
import numpy as np
from mxnet import autograd

from models import report, worker
from models.coco import Split, with_objects
from models.gluoncv import data, steps
from models.gluoncv.contexts import images_per_context, read_options
from models.gluoncv.detectors import Detector, proposal_levels
from models.gluoncv.optim import apply_gradients, build_trainer
from models.gluoncv.weights import parameters_of, save_detector
from models.schedule import batch_size, learning_rate, planned_iterations


def train(
    detector: Detector,
    split: Split,
    contexts: List[mx.Context],
    loaders: data.Loaders,
    job: Dict[str, Any],
    events: worker.EventWriter,
) -> None:
    """Train for the cell's schedule, its first ``measure.train_iterations``, or until the harness has enough; save.

    Raises WorkerError: kind "data" where no image has an object, "diverged" at the first loss that is not finite.
    """
    cell = job["cell"]
    recipe, planned = cell["recipe"], planned_iterations(cell)
    samples = with_objects(split.samples)
    share = images_per_context(cell, contexts)
    images = batch_size(cell)
    batches = data.training_batches(samples, wanted_of(detector), cell, loaders)
    # Hybridized anew for every phase: a hybridized block takes the arguments of its first call ever after, and those
    # of training and inference differ.
    detector.net.hybridize(static_alloc=True)
    step = steps.build_step(detector, share)
    learning = [parameter for parameter in parameters_of(detector.net).values() if parameter.grad_req != "null"]
    trainer = build_trainer(learning, recipe["optimizer"], contexts, read_options(cell["options"]).kvstore)
    epochs = report.Epochs(len(samples), events)
    iteration, ended_s = 0, time.monotonic()
    while iteration < planned and not (iteration and worker.has_enough(job)):
        iteration += 1
        epochs.before(images)
        asked_s = time.monotonic()
        batch = next(batches)
        arrived_s = time.monotonic()
        lr = learning_rate(iteration, recipe["optimizer"]["lr"], recipe["lr_schedule"])
        trainer.set_learning_rate(lr)
        losses = backward(step, batch, share, contexts)
        apply_gradients(trainer, learning, contexts, recipe["optimizer"]["clip_norm"])
        mx.nd.waitall()  # MXNet only queues what it is told; the clock counts when it is done
        started_s, ended_s = ended_s, time.monotonic()
        report.step(
            events,
            iteration,
            planned,
            {name: float(np.mean([value.asscalar() for value in values])) for name, values in losses.items()},
            images,
            lr=lr,
            iteration_time_s=ended_s - started_s,
            data_time_s=arrived_s - asked_s,
            end_s=ended_s,
        )
    epochs.end()
    path = Path(job["paths"]["model"])
    save_detector(detector.net, detector.category_ids, path)
    report.final_checkpoint(events, path, iteration, recipe["lr_schedule"]["iterations"])


def wanted_of(detector: Detector) -> data.Wanted:
    """How the detector's training images are to be prepared."""
    recipe = detector.cell["recipe"]
    return data.Wanted(
        min_size=recipe["input"]["min_size"],
        max_size=recipe["input"]["max_size"],
        masks=detector.cell["masks"],
        category_ids=detector.category_ids,
        levels=proposal_levels(detector),
        anchors_sampled=recipe["model"]["rpn_batch_per_image"],
    )


def backward(
    step: steps.Step, batch: data.Batch, share: int, contexts: List[mx.Context]
) -> Dict[str, List[mx.nd.NDArray]]:
    """The gradients of every context on its share of the batch; returns each loss, a value a context."""
    given = [
        steps.on_context(batch.part(number * share, (number + 1) * share), context)
        for number, context in enumerate(contexts)
    ]
    found: Dict[str, List[mx.nd.NDArray]] = {}
    sums: List[mx.nd.NDArray] = []
    with autograd.record():
        for context, own in zip(contexts, given):
            with context:
                losses = step(own)
                sums.append(sum(losses.values()))
            for name, value in losses.items():
                found.setdefault(name, []).append(value)
    autograd.backward(sums)
    return found
