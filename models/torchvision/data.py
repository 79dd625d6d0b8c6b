"""COCO-format images for torchvision's detectors: which are used, in what order, and as what tensors."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models import worker

Target = dict[str, Tensor]
Batch = tuple[list[Tensor], list[Target]]


@dataclass(frozen=True)
class Sample:
    """One image with its objects: boxes [N, 4] as x1, y1, x2, y2 in pixels, category ids [N], COCO segmentations."""

    image_id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    segmentations: tuple[Any, ...]


@dataclass(frozen=True)
class Split:
    """One annotation file: its samples in file order, and the classes a model for it needs (0 is the background)."""

    samples: tuple[Sample, ...]
    num_classes: int


def read_split(images: Path, annotations: Path, masks: bool) -> Split:
    """Read a COCO annotation file. Crowd regions and boxes without an area are left out.

    Raises WorkerError of kind "data" for a file that cannot be read, or, where ``masks`` asks for them, an object
    without a segmentation.
    """
    try:
        content = json.loads(annotations.read_bytes())
        objects = defaultdict(list)
        for item in content.get("annotations", []):
            if not item.get("iscrowd", 0):
                objects[item["image_id"]].append(item)
        samples = tuple(_sample(images, image, objects[image["id"]], masks) for image in content["images"])
        num_classes = max(category["id"] for category in content["categories"]) + 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise worker.WorkerError(f"cannot read the annotations {annotations}: {error!r}", kind="data") from error
    return Split(samples, num_classes)


def with_objects(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples a detector can learn from: those with at least one box."""
    return tuple(sample for sample in samples if len(sample.boxes))


def _sample(folder: Path, image: dict[str, Any], objects: list[dict[str, Any]], masks: bool) -> Sample:
    width, height = image["width"], image["height"]
    corners = np.array([item["bbox"] for item in objects], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    corners = corners.clip(0, np.array([width, height, width, height], dtype=np.float32))
    kept = np.flatnonzero((corners[:, 2:] > corners[:, :2]).all(axis=1))
    if masks:
        for index in kept:
            if not objects[index].get("segmentation"):
                raise worker.WorkerError(f"object {objects[index].get('id')} has no segmentation", kind="data")
    return Sample(
        image_id=image["id"],
        path=folder / image["file_name"],
        width=width,
        height=height,
        boxes=corners[kept],
        labels=np.array([objects[index]["category_id"] for index in kept], dtype=np.int64),
        segmentations=tuple(objects[index]["segmentation"] for index in kept) if masks else (),
    )


def load_image(sample: Sample) -> Tensor:
    """The image as uint8 [3, height, width], RGB. Raises WorkerError of kind "data" where the file is not it."""
    try:
        with Image.open(sample.path) as image:
            pixels = np.array(image.convert("RGB"))
    except OSError as error:
        raise worker.WorkerError(f"cannot read the image {sample.path}: {error}", kind="data") from error
    if pixels.shape[:2] != (sample.height, sample.width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise worker.WorkerError(
            f"{sample.path} is {found}, its annotation says {sample.width} x {sample.height}", kind="data"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def load_masks(sample: Sample) -> Tensor:
    """The objects' masks as uint8 [N, height, width], from polygons or run lengths, compressed or not."""
    masks = np.zeros((len(sample.segmentations), sample.height, sample.width), dtype=np.uint8)
    for index, segmentation in enumerate(sample.segmentations):
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
            masks[index] = rle.decode(segmentation)
            continue
        encoded = rle.frPyObjects(segmentation, sample.height, sample.width)
        masks[index] = rle.decode(rle.merge(encoded) if isinstance(encoded, list) else encoded)
    return torch.from_numpy(masks)


def flipped(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Mirror an image and its objects left to right."""
    width = image.shape[-1]
    mirrored = dict(target)
    mirrored["boxes"] = target["boxes"][:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1.0, -1.0, 1.0])
    mirrored["boxes"][:, [0, 2]] += width
    if "masks" in target:
        mirrored["masks"] = target["masks"].flip(-1)
    return image.flip(-1), mirrored


class TrainingSet(Dataset["tuple[Tensor, Target] | worker.WorkerError"]):
    """Images and targets by (index, flip): the sampler draws the flips, so workers change nothing.

    A failure is returned, not raised: the loader would turn it into a page of its own traceback.
    """

    def __init__(self, samples: Sequence[Sample], masks: bool) -> None:
        self._samples = samples
        self._masks = masks

    def __getitem__(self, drawn: tuple[int, bool]) -> tuple[Tensor, Target] | worker.WorkerError:
        index, flip = drawn
        try:
            return self._load(self._samples[index], flip)
        except worker.WorkerError as error:
            return error

    def _load(self, sample: Sample, flip: bool) -> tuple[Tensor, Target]:
        target = {
            "boxes": torch.from_numpy(sample.boxes.copy()),
            "labels": torch.from_numpy(sample.labels.copy()),
        }
        if self._masks:
            target["masks"] = load_masks(sample)
        image = load_image(sample)
        return flipped(image, target) if flip else (image, target)


class ImageSet(Dataset["Tensor | worker.WorkerError"]):
    """The images alone, in order; failures as in `TrainingSet`."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Tensor | worker.WorkerError:
        try:
            return load_image(self._samples[index])
        except worker.WorkerError as error:
            return error


class EndlessBatches:
    """Batches of (index, flip) without end: one seeded shuffle of the images after another.

    A batch holds only upright or only wide images, so that little of it is padding (as in Detectron's and
    torchvision's own training). Endless, so that one loader, with its worker processes, serves the whole training.
    """

    def __init__(self, samples: Sequence[Sample], batch_size: int, flip_probability: float, seed: int) -> None:
        self._upright = [sample.height > sample.width for sample in samples]
        self._batch_size = batch_size
        self._flip_probability = flip_probability
        self._seed = seed

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        generator = torch.Generator().manual_seed(self._seed)
        waiting: dict[bool, list[tuple[int, bool]]] = {True: [], False: []}
        while True:
            order = torch.randperm(len(self._upright), generator=generator).tolist()
            flips = (torch.rand(len(order), generator=generator) < self._flip_probability).tolist()
            for index, flip in zip(order, flips, strict=True):
                batch = waiting[self._upright[index]]
                batch.append((index, flip))
                if len(batch) == self._batch_size:
                    yield list(batch)
                    batch.clear()


def training_batches(
    samples: Sequence[Sample], masks: bool, batch_size: int, flip_probability: float, seed: int, workers: int
) -> Iterator[Batch]:
    """Loaded batches without end; the same under one seed for any number of ``workers`` (0: in this process)."""
    loader = DataLoader(
        TrainingSet(samples, masks),
        batch_sampler=EndlessBatches(samples, batch_size, flip_probability, seed),
        collate_fn=_as_lists,
        **_worker_values(workers),
    )
    return _raised(loader)


def image_stream(samples: Sequence[Sample], workers: int) -> Iterator[Tensor]:
    """Every image once, in order, loaded ahead by ``workers`` processes."""
    return _raised(DataLoader(ImageSet(samples), batch_size=None, **_worker_values(workers)))


def _raised(loader: DataLoader[Any]) -> Iterator[Any]:
    """What a loader gives; a failure that a loading process handed over is raised here, in one line."""
    for item in loader:
        if isinstance(item, worker.WorkerError):
            raise item
        yield item


def _worker_values(workers: int) -> dict[str, Any]:
    if not workers:
        return {"num_workers": 0}
    # Forked workers are there at once; a spawned one imports torch for seconds. They never touch the GPU.
    return {
        "num_workers": workers,
        "multiprocessing_context": "fork",
        "worker_init_fn": _start_worker,
        "pin_memory": torch.cuda.is_available(),
    }


def _start_worker(_index: int) -> None:
    # Ctrl-C reaches the whole process group: the main process ends its workers, they do not end by themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _as_lists(items: list[Any]) -> Batch | worker.WorkerError:
    failure = next((item for item in items if isinstance(item, worker.WorkerError)), None)
    if failure is not None:
        return failure
    return [image for image, _ in items], [target for _, target in items]
