"""COCO-format images for torchvision's detectors, as tensors, loaded ahead."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models import worker
from models.coco import Sample, load_masks, load_pixels
from models.schedule import EndlessBatches, batch_size

Target = dict[str, Tensor]
Batch = tuple[list[Tensor], list[Target]]


def load_image(sample: Sample) -> Tensor:
    """The image as uint8 [3, height, width], RGB. Raises WorkerError of kind "data" where the file is not it."""
    return torch.from_numpy(load_pixels(sample)).permute(2, 0, 1).contiguous()


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
            target["masks"] = torch.from_numpy(load_masks(sample))
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


def training_batches(
    samples: Sequence[Sample], cell: dict[str, Any], start: int = 0, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """A rank's share of the cell's batches without end, but for the first ``start``.

    The same under one seed for any number of loading processes (0: in this one).
    """
    flip = cell["recipe"]["input"]["flip_probability"]
    loader = DataLoader(
        TrainingSet(samples, cell["masks"]),
        batch_sampler=EndlessBatches(samples, batch_size(cell), flip, cell["seed"], start, share),
        collate_fn=_as_lists,
        # Of its own: it draws a number when it begins, which a training that is resumed would miss.
        generator=torch.Generator(),
        **_worker_values(cell["runtime"]["data_workers"]),
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
