"""COCO-format images for torchvision's detectors, decoded, resized and put into batches ahead of the training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models import worker
from models.coco import Sample, load_pixels
from models.schedule import Drawn, EndlessBatches, batch_size
from models.torchvision.batch import Batch, Outlines, Target
from models.torchvision.resize import Objects, output_size, resize_image, resize_objects

MULTIPLE = 32  # of the sides of a batch: the coarsest level of a feature pyramid
CHANNELS = 3
PREFETCHED = 2  # batches that each loading process has ready
SHARED_MEMORY = "/dev/shm"


def load_image(sample: Sample) -> Tensor:
    """The image as uint8 [3, height, width], RGB, pixel by pixel in memory.

    Raises WorkerError of kind "data" where the file is not it.
    """
    return torch.from_numpy(load_pixels(sample)).permute(2, 0, 1)


@dataclass(frozen=True)
class Loaded:
    """A batch as a loading process hands it over."""

    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[Objects, ...]

    def pin_memory(self) -> Loaded:
        """The same, for a GPU to fetch by itself; torch's DataLoader calls it."""
        return replace(self, images=self.images.pin_memory())

    def batch(self) -> Batch:
        """The batch that a detector is trained on."""
        return Batch(self.images, self.sizes, tuple(_target(objects) for objects in self.objects))


def _target(objects: Objects) -> Target:
    outlines = None if objects.outlines is None else Outlines(*map(torch.as_tensor, objects.outlines))
    return Target(torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels), outlines)


class TrainingSet(Dataset["tuple[Tensor, Objects] | worker.WorkerError"]):
    """Resized images and objects by (index, flip): the sampler draws the flips, so workers change nothing.

    A failure is returned, not raised: the loader would turn it into a page of its own traceback.
    """

    def __init__(self, samples: Sequence[Sample], min_size: int, max_size: int) -> None:
        self._samples = samples
        self._limits = (min_size, max_size)

    def __getitem__(self, drawn: Drawn) -> tuple[Tensor, Objects] | worker.WorkerError:
        index, flip = drawn
        sample = self._samples[index]
        size = output_size((sample.height, sample.width), *self._limits)
        try:
            return resize_image(load_image(sample), size, flip), resize_objects(sample, size, flip)
        except worker.WorkerError as error:
            return error


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


def training_batches(
    samples: Sequence[Sample], cell: dict[str, Any], start: int = 0, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Batches without end, from number ``start`` on; of each, the part of one rank: ``share`` is (rank, ranks).

    With outlines where the samples have segmentations. The same under one seed for any number of loading processes.
    """
    given, workers = cell["recipe"]["input"], cell["runtime"]["data_workers"]
    batch_bytes = batch_size(cell) * given["min_size"] * given["max_size"] * CHANNELS
    check_room(workers, batch_bytes)
    drawn = EndlessBatches(samples, batch_size(cell), given["flip_probability"], cell["seed"], start, share)
    images = TrainingSet(samples, given["min_size"], given["max_size"])
    # A generator of its own: the loader draws a number when it begins, which a training that is resumed would miss.
    own = torch.Generator()
    loader = DataLoader(images, batch_sampler=drawn, collate_fn=collate, generator=own, **_worker_values(workers))
    return (loaded.batch() for loaded in _raised(loader))


def collate(items: list[tuple[Tensor, Objects] | worker.WorkerError]) -> Loaded | worker.WorkerError:
    """Put images into one tensor [B, 3, H, W], black where they end; or the first failure."""
    good = []
    for item in items:
        if isinstance(item, worker.WorkerError):
            return item
        good.append(item)
    sizes = tuple((image.shape[1], image.shape[2]) for image, _ in good)
    height, width = (-(-max(sides) // MULTIPLE) * MULTIPLE for sides in zip(*sizes, strict=True))
    images = torch.zeros((len(good), height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for place, (image, _) in zip(images, good, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return Loaded(images, sizes, tuple(objects for _, objects in good))


def image_stream(samples: Sequence[Sample], workers: int) -> Iterator[Tensor]:
    """Every image once, in order, loaded ahead by ``workers`` processes."""
    return _raised(DataLoader(ImageSet(samples), batch_size=None, **_worker_values(workers)))


def check_room(workers: int, batch_bytes: int) -> None:
    """Refuse to load ahead what shared memory cannot hold: torch's loader would say so in the log, and wait for ever.

    Containers have 64 MB of it unless told otherwise. ``batch_bytes`` is what all ranks load for one iteration.
    """
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:  # another system, which shares memory in another way
        return
    # Its size, not what is free: of several ranks one looks while others load already.
    needed, there = workers * PREFETCHED * batch_bytes, found.f_blocks * found.f_frsize
    if needed > there:
        raise worker.WorkerError(
            f"{SHARED_MEMORY} has {there / 1e6:.0f} MB, and {workers} loading processes hold up to "
            f"{needed / 1e6:.0f} MB there: give the container more (docker run --shm-size=8g), or set "
            "runtime.data_workers to less"
        )


def _raised(loader: DataLoader[Any]) -> Iterator[Any]:
    """What a loader gives; a failure that a loading process handed over is raised here, in one line."""
    for item in loader:
        if isinstance(item, worker.WorkerError):
            raise item
        yield item


def _worker_values(workers: int) -> dict[str, Any]:
    pinned = {"pin_memory": torch.cuda.is_available()}
    if not workers:
        return pinned
    # Forked workers are there at once; a spawned one imports torch for seconds. They never touch the GPU.
    return {
        **pinned,
        "num_workers": workers,
        "prefetch_factor": PREFETCHED,
        "multiprocessing_context": "fork",
        "worker_init_fn": _start_worker,
    }


def _start_worker(_index: int) -> None:
    # Ctrl-C reaches the whole process group: the main process ends its workers, they do not end by themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
