"""Detectors and batches small enough for a test, on contexts of the CPU."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import mxnet as mx
from conftest import SMALL, cell

from models import coco
from models.gluoncv import data
from models.gluoncv.detectors import BUILDERS, Detector, build_detector
from models.gluoncv.loop import wanted_of

CPU = mx.cpu()
CATEGORY_IDS = (1, 3)
SHARE = 2
DETECTORS = tuple(BUILDERS)
STEADY: dict[str, dict[str, Any]] = {"model": {"batch_norm": "frozen"}}


def small_cell(detector: str, *changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A cell whose heads and images are small."""
    return cell(detector, "r18", SMALL, *changes)


def built(
    values: dict[str, Any],
    contexts: tuple[mx.Context, ...] = (CPU,),
    category_ids: tuple[int, ...] = CATEGORY_IDS,
    seed: int = 0,
) -> Detector:
    """Its detector, with random weights of a seed."""
    mx.random.seed(seed)
    return build_detector(values, category_ids, list(contexts), SHARE // len(contexts), 8, has_checkpoint=False)


def samples_of(dataset: Path, masks: bool = True) -> coco.Samples:
    """All images of the small dataset, the last without objects."""
    return coco.read_split(dataset, dataset / "instances.json", dataset / "index", masks).samples


def batches_of(detector: Detector, dataset: Path, count: int) -> list[data.Batch]:
    """The first batches that the detector would be trained on."""
    samples = coco.with_objects(samples_of(dataset))
    with data.Loaders(0) as loaders:
        return list(islice(data.training_batches(samples, wanted_of(detector), detector.cell, loaders), count))
