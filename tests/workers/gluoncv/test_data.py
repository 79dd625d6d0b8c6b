from __future__ import annotations

import multiprocessing
import os
import signal
import time
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import mxnet as mx
import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, block
from gluoncv.data.transforms.image import resize_short_within
from small import CATEGORY_IDS, CPU, batches_of, built, samples_of, small_cell

from models import worker
from models.coco import Samples, with_objects
from models.gluoncv import data
from models.gluoncv.detectors import proposal_levels
from models.gluoncv.loop import wanted_of
from models.gluoncv.steps import on_context

AS_IT_IS = data.Wanted(HEIGHT, WIDTH, True, CATEGORY_IDS, (), 0)
LEVELS = (data.AnchorLevel(8, (16,), (0.5, 1, 2)), data.AnchorLevel(16, (32,), (0.5, 1, 2)))


@pytest.fixture(scope="module")
def samples(dataset: Path) -> Samples:
    return with_objects(samples_of(dataset))


def test_an_image_that_is_not_flipped_nor_resized_is_the_file(samples: Samples) -> None:
    prepared = data.prepare(samples[0], False, AS_IT_IS)
    assert np.array_equal(prepared.pixels, cv2.imread(str(samples[0].path))[:, :, ::-1])
    assert prepared.boxes.tolist() == [[10, 20, 40, 44], [50, 8, 66, 24]]
    assert np.array_equal(prepared.masks, [block(10, 20, 30, 24), block(50, 8, 16, 16)])


def test_a_flip_moves_image_boxes_and_masks_together(samples: Samples) -> None:
    upright, mirrored = (data.prepare(samples[0], flip, AS_IT_IS) for flip in (False, True))
    assert np.array_equal(mirrored.pixels, upright.pixels[:, ::-1])
    assert mirrored.pixels.flags.c_contiguous
    for before, after, mask in zip(upright.boxes, mirrored.boxes, mirrored.masks):
        left, top, right, bottom = before.astype(int).tolist()
        assert after.tolist() == [WIDTH - right, top, WIDTH - left, bottom]
        assert np.array_equal(mask, block(WIDTH - right, top, right - left, bottom - top))


@pytest.mark.parametrize("flip", [False, True])
def test_resized_boxes_and_masks_stay_on_their_objects(flip: bool, samples: Samples) -> None:
    prepared = data.prepare(samples[0], flip, AS_IT_IS._replace(min_size=96, max_size=1000))
    assert prepared.pixels.shape == (96, 120, 3)
    for box, mask in zip(prepared.boxes, prepared.masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(box, extent, atol=1)
        assert mask.sum() == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), rel=0.1)


def test_category_ids_with_gaps_become_classes_in_their_order(samples: Samples) -> None:
    assert data.prepare(samples[0], False, AS_IT_IS).classes.tolist() == [0, 1]
    gaps = AS_IT_IS._replace(category_ids=(1, 2, 3, 7))
    assert data.prepare(samples[0], False, gaps).classes.tolist() == [0, 2]


@pytest.mark.parametrize(("short", "longest"), [(800, 1333), (64, 96), (600, 1000), (33, 33)])
def test_images_are_resized_as_gluoncv_resizes_them(short: int, longest: int) -> None:
    draw = np.random.RandomState(short)
    sizes = [(1, 1), (2, 3), (1, 40), (480, 640), (640, 480), (short, longest), (longest, short)]
    sizes += draw.randint(5, 700, (40, 2)).tolist()
    for height, width in sizes:
        scale = min(short / min(height, width), longest / max(height, width))
        if round(scale * min(height, width)) == 0:
            continue  # GluonCV asks for an image without pixels
        pixels = draw.randint(0, 256, (height, width, 3)).astype(np.uint8)
        expected = resize_short_within(mx.nd.array(pixels, dtype=np.uint8), short, longest, interp=1).asnumpy()
        found = data.resized(pixels, short, longest)
        assert found.shape == expected.shape, (height, width)
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_no_image_is_resized_to_nothing() -> None:
    assert data.resized(np.zeros((1, 500, 3), np.uint8), 64, 96).shape == (1, 96, 3)


@pytest.mark.parametrize("detector", ["faster-rcnn_c4", "faster-rcnn_fpn", "mask-rcnn_fpn"])
def test_anchors_are_those_of_the_network(detector: str) -> None:
    made = built(small_cell(detector, {"input": {"min_size": 64, "max_size": 150}}))
    generator = made.net.rpn.anchor_generator
    generators = [generator] if made.net.num_stages == 1 else list(generator)
    for height, width in ((64, 64), (64, 96), (65, 97), (150, 150), (33, 149), (64, 150)):
        features = made.net.features(mx.nd.zeros((1, 3, height, width)))
        features = features if isinstance(features, list) else [features]
        expected = np.concatenate([own(feature).asnumpy()[0] for own, feature in zip(generators, features)])
        found = data.anchors_of(proposal_levels(made), height, width)
        assert found.shape == expected.shape, (height, width)
        assert np.array_equal(found, expected)


def prepared_of(height: int, width: int, boxes: list[list[float]]) -> data.Prepared:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return data.Prepared(np.zeros((height, width, 3), np.uint8), corners, np.zeros(len(corners), np.float32), None)


def decoded(anchors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    size = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + size / 2 + targets[:, :2] * size
    half = np.exp(targets[:, 2:]) * size / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def test_the_targets_of_objects_decode_back_to_their_boxes() -> None:
    boxes = [[10, 12, 30, 28], [40, 20, 75, 60]]
    anchors = data.anchors_of(LEVELS, 96, 96)
    np.random.seed(0)
    found = data.propose(prepared_of(64, 80, boxes), anchors, data.by_size(anchors), 32)
    objects = found.wanted == 1
    places = found.places[objects]
    back = decoded(anchors[places], found.targets[objects])
    nearest = [min(boxes, key=lambda box, row=row: np.abs(row - box).max()) for row in back]
    np.testing.assert_allclose(back, nearest, atol=1e-3)
    assert {tuple(box) for box in nearest} == {tuple(box) for box in boxes}
    assert (found.targets[~objects] == 0).all()


def test_anchors_are_sampled_inside_of_the_image_once_and_half_of_them_objects_at_most() -> None:
    anchors = data.anchors_of(LEVELS, 96, 96)
    for seed in range(20):
        np.random.seed(seed)
        found = data.propose(prepared_of(64, 80, [[8, 8, 26, 24], [30, 30, 60, 56]]), anchors, data.by_size(anchors), 8)
        assert found.wanted.shape == (8,)
        assert 0 < (found.wanted == 1).sum() <= 4
        assert len(set(found.places.tolist())) == 8
        left, top, right, bottom = anchors[found.places].T
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (right < 80).all()
        assert (bottom < 64).all()


def test_places_that_are_left_over_count_for_nothing() -> None:
    anchors = data.anchors_of(LEVELS[:1], 32, 32)
    found = data.propose(prepared_of(32, 32, [[8, 8, 24, 24]]), anchors, data.by_size(anchors), 64)
    sampled = int((found.wanted >= 0).sum())
    assert 0 < sampled < 48
    assert (found.wanted[sampled:] == -1).all()
    assert (found.targets[sampled:] == 0).all()


def test_where_no_anchor_lies_inside_none_is_sampled() -> None:
    anchors = data.anchors_of((data.AnchorLevel(16, (64,), (1,)),), 32, 32)
    found = data.propose(prepared_of(32, 32, [[8, 8, 24, 24]]), anchors, data.by_size(anchors), 4)
    assert (found.wanted == -1).all()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(mine, its) for mine, its in zip(one, other))
    return np.array_equal(one, other)


def test_loading_processes_change_nothing_and_the_seed_does(samples: Samples) -> None:
    detector = built(small_cell("mask-rcnn_fpn"))

    def batches(count: int, seed: int) -> list[data.Batch]:
        with data.Loaders(count) as loaders:
            stream = data.training_batches(samples, wanted_of(detector), {**detector.cell, "seed": seed}, loaders)
            return list(islice(stream, 6))

    alone = batches(0, 3)
    assert same(alone, batches(0, 3))
    assert same(alone, batches(2, 3))
    assert not same(alone, batches(0, 4))


def test_a_detector_that_finds_its_targets_itself_gets_no_proposals(dataset: Path) -> None:
    (batch,) = batches_of(built(small_cell("retinanet_fpn")), dataset, 1)
    assert batch.proposals == []
    assert [image.masks for image in batch.images] == [None, None]


@pytest.mark.parametrize("count", [0, 1])
def test_an_image_that_breaks_in_a_loading_process_is_one_line(
    samples: Samples, tmp_path: Path, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    broken = [sample._replace(path=tmp_path / "broken.jpg") for sample in samples]
    cell = small_cell("faster-rcnn_fpn")
    with data.Loaders(count) as loaders, pytest.raises(worker.WorkerError, match="cannot read the image") as caught:
        next(data.training_batches(broken, AS_IT_IS, cell, loaders))
    assert caught.value.kind == "data"
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def tenfold(item: float) -> float:
    if item < 0:
        raise ValueError(f"{item} is negative")
    time.sleep(item)
    return 10 * item


def kill_loaders() -> None:
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_answers_come_in_the_order_of_the_questions(count: int) -> None:
    with data.Loaders(count) as loaders:
        assert list(loaders.in_order(tenfold, [0.2, 0, 0.1, 0, 0])) == [2, 0, 1, 0, 0]
        assert list(loaders.in_order(tenfold, [])) == []


@pytest.mark.parametrize("at_work", [False, True])
def test_a_killed_loading_process_is_an_error_at_once(at_work: bool) -> None:
    started_s = time.monotonic()
    with data.Loaders(2) as loaders:
        answers = loaders.in_order(tenfold, [0, 60, 60, 60, 60, 60])
        if at_work:
            next(answers)
        kill_loaders()
        with pytest.raises(worker.WorkerError, match="has died") as caught:
            next(answers)
    assert caught.value.kind == "data"
    assert time.monotonic() - started_s < 10


def test_a_loading_process_that_hangs_is_an_error_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PATIENCE_S", 0.2)
    started_s = time.monotonic()
    with data.Loaders(1) as loaders, pytest.raises(worker.WorkerError, match="gave nothing for"):
        next(loaders.in_order(tenfold, [60]))
    assert time.monotonic() - started_s < 10
    assert not multiprocessing.active_children()


def test_an_unforeseen_failure_in_a_loading_process_is_raised_and_shows_where(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with data.Loaders(1) as loaders, pytest.raises(ValueError, match="-1 is negative"):
        list(loaders.in_order(tenfold, [0, -1]))
    assert "in tenfold" in capfd.readouterr().err


def test_padding_of_a_batch_is_black_and_boxless(dataset: Path) -> None:
    (batch,) = batches_of(built(small_cell("mask-rcnn_fpn")), dataset, 1)
    taller = batch._replace(height=batch.height + 32, width=batch.width + 32)
    share = on_context(taller, CPU)
    pixels, boxes, classes, masks = (value.asnumpy() for value in share[:4])
    assert pixels.shape[2:] == masks.shape[2:] == (batch.height + 32, batch.width + 32)
    for row, image in enumerate(batch.images):
        (height, width), count = image.pixels.shape[:2], len(image.boxes)
        assert (pixels[row, :, height:] == 0).all()
        assert (pixels[row, :, :, width:] == 0).all()
        assert pixels[row, :, height - 1, width - 1].any()
        assert np.array_equal(boxes[row, :count], image.boxes)
        assert np.array_equal(classes[row, :count], image.classes)
        assert np.array_equal(masks[row, :count, :height, :width], image.masks)
        assert masks[row].sum() == image.masks.sum()
        assert (boxes[row, count:] == -1).all()
        assert (classes[row, count:] == -1).all()
