"""Runs in the worker's environment: our training step and inference beside the plain ones; prints one JSON object.

    python steps.py CELL.json time            seconds a step, in turn, on the same images from the same weights
    python steps.py CELL.json memory SIDE     peak resident bytes of a process that trains one way (ours, plain)
    python steps.py CELL.json infer           seconds an image, in turn, from the same trained weights

CELL.json is a resolved cell, in whose dataset's place stand the folder of images and the annotation file.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import plain_loop
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from models.coco import read_split, with_objects
from models.torchvision import infer
from models.torchvision.data import training_batches
from models.torchvision.detectors import build_detector
from models.torchvision.folding import folded
from models.torchvision.loop import train_step
from models.torchvision.optim import build_optimizer, set_learning_rate

CPU = torch.device("cpu")
BATCHES, ROUNDS = 6, 3
LR = 1e-4  # keeps random weights finite
TRAINED_ITERATIONS, TRAINED_IMAGES, TIMED_IMAGES = 60, 4, 8
RESIDUAL = 0.2  # of each block's branch: without its own batch norm, a random ResNet's activations grow without end


def sides(cell: dict[str, Any]) -> dict[str, nn.Module]:
    """Both models, with the same weights, in training."""
    torch.manual_seed(0)
    limits = cell["recipe"]["input"]
    plain = plain_loop.build(cell["detector"], limits["min_size"], limits["max_size"])
    for name, module in plain.named_modules():
        if name.endswith("bn3") and isinstance(module, FrozenBatchNorm2d):
            module.weight.fill_(RESIDUAL)
    ours = build_detector(cell, plain_loop.CLASSES, load_backbone=False)
    ours.load_state_dict(plain.state_dict())
    return {"ours": ours.train(), "plain": plain.train()}


def batches_of(cell: dict[str, Any], side: str, index: str) -> list[Any]:
    """The first batches of a side, loaded: in file order, nothing mirrored, so that both have the same images."""
    images, annotations = cell["dataset"]
    if side == "plain":
        torch.manual_seed(0)
        data = plain_loop.dataset(images, annotations, cell["masks"])
        return list(islice(plain_loop.loader(data, cell["images_per_gpu"], 0), BATCHES))
    samples = with_objects(read_split(Path(images), Path(annotations), Path(index), cell["masks"]).samples)
    count = cell["images_per_gpu"]
    return [
        next(training_batches([samples[place] for place in range(first, first + count)], cell))
        for first in range(0, BATCHES * count, count)
    ]


def stepper(cell: dict[str, Any], side: str, model: nn.Module) -> Callable[[Any], Any]:
    """What a side does with a batch."""
    if side == "plain":
        optimizer = plain_loop.optimizer_of(model, LR)
        return lambda batch: plain_loop.step(model, optimizer, *batch)
    own = build_optimizer(model.parameters(), cell["recipe"]["optimizer"])
    set_learning_rate(own, LR)
    return lambda batch: train_step(model, batch, CPU, own, cell)


def in_turn(works: dict[str, list[Callable[[], Any]]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work (a median over the rounds), the sides one after the other, each first in turn."""
    found: dict[str, list[list[float]]] = {side: [[] for _ in pieces] for side, pieces in works.items()}
    order = list(works)
    for _ in range(rounds):
        for place in range(len(works[order[0]])):
            order.reverse()
            for side in order:
                started_s = time.perf_counter()
                works[side][place]()
                found[side][place].append(time.perf_counter() - started_s)
    return {side: [statistics.median(times) for times in pieces] for side, pieces in found.items()}


def time_steps(cell: dict[str, Any], index: str) -> dict[str, Any]:
    """Seconds of a step on each batch, by side."""
    works = {}
    for side, model in sides(cell).items():
        step, batches = stepper(cell, side, model), batches_of(cell, side, index)
        step(batches[0])
        works[side] = [lambda batch=batch, step=step: step(batch) for batch in batches]
    return in_turn(works, ROUNDS)


def peak_memory(cell: dict[str, Any], index: str, side: str) -> dict[str, Any]:
    """Peak resident bytes of this process, which trains one way on every batch."""
    step = stepper(cell, side, sides(cell)[side])
    for batch in batches_of(cell, side, index):
        step(batch)
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def time_inference(cell: dict[str, Any], index: str) -> dict[str, Any]:
    """Seconds from pixels to detections and masks in the original image, after a short training on a few images."""
    models = sides(cell)
    images, annotations = cell["dataset"]
    split = with_objects(read_split(Path(images), Path(annotations), Path(index), cell["masks"]).samples)
    few = [split[place] for place in range(TRAINED_IMAGES)]
    optimizer = torch.optim.AdamW([value for value in models["ours"].parameters() if value.requires_grad], lr=3e-4)
    for batch in islice(training_batches(few, cell), TRAINED_ITERATIONS):
        train_step(models["ours"], batch, CPU, optimizer, cell)
    models["plain"].load_state_dict(models["ours"].state_dict())
    pixels = [infer.load_image(sample) for sample in islice(cycle(few), TIMED_IMAGES)]
    count = {"ours": 0, "plain": 0}

    def ours(image: torch.Tensor) -> None:
        model, size = models["ours"], (image.shape[1], image.shape[2])
        given = infer.preprocess(model, image, CPU)
        count["ours"] += len(infer.postprocess(model, infer.forward(model, given), given, size)["boxes"])

    def plain(image: torch.Tensor) -> None:
        found = models["plain"]([image.float() / 255])[0]
        if "masks" in found:
            found["masks"] = found["masks"] >= 0.5
        count["plain"] += len(found["boxes"])

    with torch.inference_mode():
        models["plain"].eval()
        models["ours"] = folded(models["ours"])
        works = {
            side: [lambda image=image, way=way: way(image) for image in pixels]
            for side, way in (("ours", ours), ("plain", plain))
        }
        times = in_turn(works, ROUNDS)
    return {**times, "detections": {side: total / ROUNDS / TIMED_IMAGES for side, total in count.items()}}


def main(arguments: list[str]) -> None:
    """Measure what is asked for."""
    warnings.simplefilter("ignore")
    cell = json.loads(Path(arguments[0]).read_text())
    torch.set_num_threads(cell["runtime"]["threads"])
    with tempfile.TemporaryDirectory() as index:
        what = {"time": time_steps, "memory": peak_memory, "infer": time_inference}[arguments[1]]
        sys.stdout.write("\n" + json.dumps(what(cell, index, *arguments[2:])) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
