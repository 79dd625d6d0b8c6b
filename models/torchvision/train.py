"""``python -m models.torchvision.train --job JOB``: run a cell's phases (train, infer, evaluate) in one process.

The protocol is described at the top of models/worker.py.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models import report, worker
from models.coco import Split, read_splits
from models.torchvision import infer
from models.torchvision.checkpoint import load_detector
from models.torchvision.detectors import build_detector
from models.torchvision.launch import run_ranks
from models.torchvision.loop import train
from models.torchvision.precision import prepare_arithmetic
from models.torchvision.probe import versions
from models.torchvision.ranks import Group, Rank, count_ranks


def main(job: dict[str, Any], events: worker.EventWriter) -> None:
    """Run the job's phases in order: train, infer, evaluate; on several devices in a process each."""
    count = count_ranks(job)
    if count > 1:
        run_ranks(job, count, events)
    else:
        run_rank(job, 0, 1, events)


def run_rank(job: dict[str, Any], number: int, count: int, events: worker.EventWriter) -> None:
    """The phases, as the rank of that number among ``count``."""
    cell = job["cell"]
    events.write("init_start")
    rank = Rank(number, count, prepare_device(cell, job["devices"], number, count))
    group = Group(rank, cell["runtime"]["collective_timeout_s"])
    # Rank 0 makes the index of the annotations where there is none yet: all at once would parse the file eight times.
    group.first_alone(lambda: read_splits(job))
    splits = read_splits(job)
    model = prepare_model(job, splits, rank.device)
    events.write(
        "init_stop",
        environment=versions(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        images={name: len(split.samples) for name, split in splits.items()},
    )

    def measure() -> None:
        infer.measure_inference(model, splits["val"], rank.device, cell, events)

    work = {
        "train": lambda: train(model, splits["train"], group, job, events),
        # One image on one GPU: beside it the other ranks are to leave the processors and the memory alone.
        "infer": lambda: group.first_alone(measure),
        "evaluate": lambda: infer.evaluate(model, splits["val"], group, job, events),
    }
    report.run_phases(events, job["phases"], work)
    group.close()


def prepare_device(cell: dict[str, Any], devices: list[str], number: int, count: int) -> torch.device:
    """Seed everything and pick this rank's device; raises WorkerError for what this worker cannot do."""
    seed = cell["seed"] + number  # the ranks' samples of anchors and regions are to differ
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))  # of the ranks, those on this machine
    threads = cell["runtime"]["threads"] or (max(1, (os.cpu_count() or 1) // here) if count > 1 else None)
    if threads:
        torch.set_num_threads(threads)
    device = _device(devices[number % len(devices)])  # every node has as many
    prepare_arithmetic(cell["precision"], device)
    return device


def _device(name: str) -> torch.device:
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available() or int(index) >= torch.cuda.device_count():
        raise worker.WorkerError(f"the job wants {name}; torch sees {torch.cuda.device_count()} GPUs")
    torch.cuda.set_device(int(index))
    return torch.device("cuda", int(index))


def prepare_model(job: dict[str, Any], splits: dict[str, Split], device: torch.device) -> nn.Module:
    """The cell's detector on its device: to be trained, or loaded from the job's checkpoint."""
    is_trained_here = "train" in job["phases"]
    if not is_trained_here and not job["checkpoint"]:
        raise worker.WorkerError("nothing to measure: the job neither trains nor names a checkpoint", kind="data")
    # Classes are category ids, 0 being the background, as in torchvision's published models.
    num_classes = max(split.category_ids[-1] for split in splits.values()) + 1
    model = build_detector(job["cell"], num_classes, load_backbone=is_trained_here)
    if not is_trained_here:
        load_detector(model, Path(job["checkpoint"]))
    return model.to(device)


if __name__ == "__main__":
    sys.exit(worker.run(main))
