from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WIDTH, block

from models import worker
from models.coco import Split, read_split, with_objects
from models.torchvision import data


@pytest.fixture
def split(dataset: Path) -> Split:
    return read_split(dataset, dataset / "instances.json", dataset / "index", masks=True)


def test_a_flip_moves_image_boxes_and_masks_together(split: Split) -> None:
    image, target = data.TrainingSet(split.samples, masks=True)[0, False]
    mirrored, mirrored_target = data.TrainingSet(split.samples, masks=True)[0, True]
    assert torch.equal(mirrored, image.flip(-1))
    for before, after, mask in zip(target["boxes"], mirrored_target["boxes"], mirrored_target["masks"], strict=True):
        left, top, right, bottom = before.int().tolist()
        assert after.tolist() == [WIDTH - right, top, WIDTH - left, bottom]
        assert np.array_equal(mask, block(WIDTH - right, top, right - left, bottom - top))


def test_worker_processes_change_nothing(split: Split) -> None:
    samples = with_objects(split.samples)
    alone, together = (data.training_batches(samples, True, 2, 0.5, 3, workers) for workers in (0, 2))
    for (images, targets), (other_images, other_targets) in islice(zip(alone, together, strict=True), 4):
        assert all(torch.equal(a, b) for a, b in zip(images, other_images, strict=True))
        for target, other in zip(targets, other_targets, strict=True):
            assert all(torch.equal(value, other[name]) for name, value in target.items())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_in_a_loading_process_is_one_line(split: Split, tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no image")
    samples = [sample._replace(path=broken) for sample in with_objects(split.samples)]
    for stream in (data.image_stream(samples, workers), data.training_batches(samples, False, 2, 0.5, 0, workers)):
        with pytest.raises(worker.WorkerError, match="cannot read the image") as caught:
            next(stream)
        assert caught.value.kind == "data"
        assert "Traceback" not in str(caught.value)
