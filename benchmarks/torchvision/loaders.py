"""Runs in the worker's environment: loading of training images beside the plain way; prints one JSON object.

    python loaders.py CELL.json images      images a second of one process, in turn, by side
    python loaders.py ANNOTATIONS index     the annotation index: seconds to make, seconds to open, memory of a process
    python loaders.py ANNOTATIONS objects   the same annotations as Python objects: seconds, memory of a process

Memory is what a forked process has to itself once it has looked at every image's objects.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import plain_loop
import torch
from torchvision.transforms import v2

from models.coco import read_split, with_objects
from models.torchvision.data import training_batches

ROUNDS, BATCHES = 5, 20


def rates(cell: dict[str, Any], _index: str) -> dict[str, list[float]]:
    """Images a second of this process: ours, and the plain way without resizing and with it."""
    torch.set_num_threads(1)
    images, annotations = cell["dataset"]
    limits, count = cell["recipe"]["input"], cell["images_per_gpu"]
    samples = with_objects(read_split(Path(images), Path(annotations), Path(_index), cell["masks"]).samples)
    resize = v2.RandomShortestSize(limits["min_size"], max_size=limits["max_size"], antialias=False)
    plain = plain_loop.dataset(images, annotations, cell["masks"])
    resized = plain_loop.dataset(images, annotations, cell["masks"], [resize])
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: training_batches(samples, cell),
        "plain": lambda: iter(plain_loop.loader(plain, count, 0)),
        "resized": lambda: iter(plain_loop.loader(resized, count, 0)),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, stream in ways.items():
            batches = stream()
            next(batches)
            started_s = time.perf_counter()
            loaded = sum(1 for _ in islice(batches, BATCHES)) * count
            found[name].append(loaded / (time.perf_counter() - started_s))
    return found


def own_bytes(samples: Sequence[Any]) -> int:
    """What a forked process adds to its private memory by looking at every sample."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = _private_bytes()
        for place in range(len(samples)):
            _ = samples[place]
        os.write(writer, str(_private_bytes() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reader, 100))


def _private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def index(annotations: str, folder: str) -> dict[str, Any]:
    """Make the index, open it again, and look at everything in a forked process."""
    times = []
    for _ in range(2):
        started_s = time.perf_counter()
        split = read_split(Path(folder), Path(annotations), Path(folder), masks=True)
        times.append(time.perf_counter() - started_s)
    return {"made_s": times[0], "opened_s": times[1], "own_bytes": own_bytes(with_objects(split.samples))}


def objects(annotations: str, _folder: str) -> dict[str, Any]:
    """The same, as lists of dictionaries by image."""
    started_s = time.perf_counter()
    by_image: dict[int, list[Any]] = {}
    for item in json.loads(Path(annotations).read_text())["annotations"]:
        by_image.setdefault(item["image_id"], []).append(item)
    samples = list(by_image.values())
    taken_s = time.perf_counter() - started_s
    return {"made_s": taken_s, "opened_s": taken_s, "own_bytes": own_bytes(_Touched(samples))}


class _Touched(Sequence[Any]):
    """Looks at every object of an image, as making its tensors does."""

    def __init__(self, samples: list[list[Any]]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, place: Any) -> Any:
        return [[item["bbox"], item["category_id"], item["segmentation"][0][0]] for item in self._samples[place]]


def main(arguments: list[str]) -> None:
    """Measure what is asked for."""
    warnings.simplefilter("ignore")
    given, what = arguments
    with tempfile.TemporaryDirectory() as folder:
        if what == "images":
            rows = rates(json.loads(Path(given).read_text()), folder)
            found: Any = {name: statistics.median(values) for name, values in rows.items()}
            found["ratios"] = [a / b for a, b in zip(rows["ours"], rows["resized"], strict=True)]
        else:
            found = {"index": index, "objects": objects}[what](given, folder)
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
