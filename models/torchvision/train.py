"""``python -m models.torchvision.train --job JOB``: run a cell's phases (train, infer, evaluate) in one process.

The protocol is described at the top of models/worker.py.
"""

from __future__ import annotations

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
from models.torchvision.loop import train
from models.torchvision.probe import versions


def main(job: dict[str, Any], events: worker.EventWriter) -> None:
    """Run the job's phases in order: train, infer, evaluate."""
    cell = job["cell"]
    events.write("init_start")
    device = prepare_device(cell, job["devices"])
    splits = read_splits(job)
    model = prepare_model(job, splits, device)
    events.write(
        "init_stop",
        environment=versions(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        images={name: len(split.samples) for name, split in splits.items()},
    )
    limit, workers = cell["measure"]["evaluate_images"], cell["runtime"]["data_workers"]
    path = Path(job["paths"]["detections"])
    work = {
        "train": lambda: train(model, splits["train"], device, job, events),
        "infer": lambda: infer.measure_inference(model, splits["val"], device, cell["measure"], events),
        "evaluate": lambda: infer.evaluate(model, splits["val"], device, limit, workers, path, events),
    }
    report.run_phases(events, job["phases"], work)


def prepare_device(cell: dict[str, Any], devices: list[str]) -> torch.device:
    """Seed everything and pick the one device; raises WorkerError for what this worker cannot do."""
    if len(devices) != 1:
        raise worker.WorkerError(f"this worker trains on one device; the job gives it {len(devices)}: {devices}")
    if cell["precision"] != "fp32":
        raise worker.WorkerError(f"unknown precision {cell['precision']!r}; this worker has fp32")
    random.seed(cell["seed"])
    np.random.seed(cell["seed"])
    torch.manual_seed(cell["seed"])
    if cell["runtime"]["threads"]:
        torch.set_num_threads(cell["runtime"]["threads"])
    kind, _, index = devices[0].partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available() or int(index) >= torch.cuda.device_count():
        raise worker.WorkerError(f"the job wants {devices[0]}; torch sees {torch.cuda.device_count()} GPUs")
    # fp32 means fp32: not the 10-bit TF32 that torch's convolutions would use from Ampere on.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
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
