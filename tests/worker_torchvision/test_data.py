from __future__ import annotations

import dataclasses
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEIGHT, WIDTH, block
from PIL import Image

from models import worker
from models.torchvision import data


@pytest.fixture
def split(dataset: Path) -> data.Split:
    return data.read_split(dataset, dataset / "instances.json", masks=True)


def test_crowds_and_boxes_without_area_are_left_out(split: data.Split) -> None:
    assert split.num_classes == 4
    assert [len(sample.boxes) for sample in split.samples] == [2, 1, 1, 1, 0]
    first = split.samples[0]
    assert first.boxes.tolist() == [[10, 20, 40, 44], [50, 8, 66, 24]]
    assert first.labels.tolist() == [1, 3]


def test_images_without_objects_are_not_trained_on(split: data.Split) -> None:
    assert [sample.image_id for sample in data.with_objects(split.samples)] == [1, 2, 3, 4]


def test_masks_of_polygons_and_both_kinds_of_run_lengths_are_the_same(split: data.Split) -> None:
    polygon, counts = data.load_masks(split.samples[0])
    assert np.array_equal(polygon, block(10, 20, 30, 24))
    assert np.array_equal(counts, block(50, 8, 16, 16))
    assert np.array_equal(data.load_masks(split.samples[1])[0], block(8, 4, 20, 20))


def test_a_flip_moves_image_boxes_and_masks_together(split: data.Split) -> None:
    image, target = data.TrainingSet(split.samples, masks=True)[0, False]
    mirrored, mirrored_target = data.TrainingSet(split.samples, masks=True)[0, True]
    assert torch.equal(mirrored, image.flip(-1))
    for before, after, mask in zip(target["boxes"], mirrored_target["boxes"], mirrored_target["masks"], strict=True):
        left, top, right, bottom = before.int().tolist()
        assert after.tolist() == [WIDTH - right, top, WIDTH - left, bottom]
        assert np.array_equal(mask, block(WIDTH - right, top, right - left, bottom - top))


def test_boxes_are_cut_at_the_image(dataset: Path, tmp_path: Path) -> None:
    content = json.loads((dataset / "instances.json").read_text())
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, -5, 40, 20]}]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    sample = data.read_split(dataset, tmp_path / "instances.json", masks=False).samples[0]
    assert sample.boxes.tolist() == [[60, 0, WIDTH, 15]]


def samples_of(sizes: list[tuple[int, int]]) -> list[data.Sample]:
    nothing = np.zeros((0, 4), dtype=np.float32)
    return [
        data.Sample(number, Path(), width, height, nothing, np.zeros(0, dtype=np.int64), ())
        for number, (width, height) in enumerate(sizes)
    ]


def test_batches_go_through_all_images_before_any_again() -> None:
    batches = data.EndlessBatches(samples_of([(9, 9)] * 6), 3, 0.5, seed=1)
    drawn = [index for batch in islice(batches, 4) for index, _ in batch]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))
    assert drawn[:6] != drawn[6:]


def test_batches_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> list[list[tuple[int, bool]]]:
        return list(islice(data.EndlessBatches(samples_of([(9, 9)] * 20), 4, 0.5, seed), 10))

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize(("probability", "flips"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_flips_are_drawn_with_their_probability(probability: float, flips: set[bool]) -> None:
    batches = data.EndlessBatches(samples_of([(9, 9)] * 20), 4, probability, seed=1)
    assert {flip for batch in islice(batches, 5) for _, flip in batch} == flips


def test_a_batch_is_all_upright_or_all_wide() -> None:
    batches = data.EndlessBatches(samples_of([(9, 5), (5, 9)] * 5), 4, 0.5, seed=1)
    for batch in islice(batches, 10):
        assert len({index % 2 for index, _ in batch}) == 1


def test_worker_processes_change_nothing(split: data.Split) -> None:
    samples = data.with_objects(split.samples)
    alone, together = (data.training_batches(samples, True, 2, 0.5, 3, workers) for workers in (0, 2))
    for (images, targets), (other_images, other_targets) in islice(zip(alone, together, strict=True), 4):
        assert all(torch.equal(a, b) for a, b in zip(images, other_images, strict=True))
        for target, other in zip(targets, other_targets, strict=True):
            assert all(torch.equal(value, other[name]) for name, value in target.items())


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [{"id": 1}]}'])
def test_broken_annotations_are_a_data_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(worker.WorkerError, match="cannot read the annotations") as caught:
        data.read_split(tmp_path, tmp_path / "instances.json", masks=False)
    assert caught.value.kind == "data"


def test_an_image_that_is_not_what_its_annotation_says_is_a_data_error(split: data.Split, tmp_path: Path) -> None:
    sample = split.samples[0]
    assert data.load_image(sample).shape == (3, HEIGHT, WIDTH)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (10, 12)).save(tmp_path / "small.png")
    for name, said in (
        ("broken.jpg", "cannot read the image"),
        ("small.png", "is 10 x 12, its annotation says 80 x 64"),
    ):
        other = data.Sample(1, tmp_path / name, WIDTH, HEIGHT, sample.boxes, sample.labels, ())
        with pytest.raises(worker.WorkerError, match=said):
            data.load_image(other)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_in_a_loading_process_is_one_line(split: data.Split, tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no image")
    samples = [dataclasses.replace(sample, path=broken) for sample in data.with_objects(split.samples)]
    for stream in (data.image_stream(samples, workers), data.training_batches(samples, False, 2, 0.5, 0, workers)):
        with pytest.raises(worker.WorkerError, match="cannot read the image") as caught:
            next(stream)
        assert caught.value.kind == "data"
        assert "Traceback" not in str(caught.value)
