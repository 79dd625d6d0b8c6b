from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, Cells
from small import CPU, DETECTORS, built, samples_of, small_cell

from models import coco, worker
from models.gluoncv import data, infer
from models.gluoncv.detectors import Detector


@pytest.fixture(scope="module")
def masks_net() -> Detector:
    return built(small_cell("mask-rcnn_fpn"))


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> Detector:
    made = built(small_cell(request.param), category_ids=(1, 3))
    made.net.hybridize(static_alloc=True)
    return made


def limited(detector: Detector, **test: Any) -> Detector:
    """The detector with other limits to what counts."""
    recipe = {**detector.cell["recipe"], "test": {**detector.cell["recipe"]["test"], **test}}
    return detector._replace(cell={**detector.cell, "recipe": recipe})


def outputs_of(rows: list[list[float]], side: int = 16) -> tuple[mx.nd.NDArray, ...]:
    """What Mask R-CNN returns: class, score and corners in the rows, all of each mask set."""
    values = mx.nd.array(rows).reshape((1, -1, 6))
    masks = mx.nd.ones((1, len(rows), side, side))
    return values[:, :, :1], values[:, :, 1:2], values[:, :, 2:], masks


def test_boxes_are_placed_in_the_original_image_and_cut_at_its_sides(masks_net: Detector) -> None:
    outputs = outputs_of([[0, 0.9, 10, 20, 30, 40], [1, 0.8, -50, 10, 300, 500]])
    found = infer.postprocess(masks_net, outputs, (100, 200), (50, 400))
    assert found.corners.tolist() == [[20, 10, 60, 20], [0, 5, 400, 50]]
    assert found.category_ids == [1, 3]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_the_best_detections_above_the_threshold_are_kept_best_first(masks_net: Detector) -> None:
    rows = [
        [0, 0.3, 0, 0, 9, 9],
        [1, 0.9, 1, 0, 9, 9],
        [-1, 0.95, 2, 0, 9, 9],
        [0, 0.6, 3, 0, 9, 9],
        [1, 0.2, 4, 0, 9, 9],
    ]
    strict = limited(masks_net, score_threshold=0.25, detections_per_image=10)
    found = infer.postprocess(strict, outputs_of(rows), (64, 64), (64, 64))
    assert found.corners[:, 0].tolist() == [1, 3, 0]
    assert found.category_ids == [3, 1, 1]
    best = infer.postprocess(limited(masks_net, detections_per_image=2), outputs_of(rows), (64, 64), (64, 64))
    assert best.scores.tolist() == pytest.approx([0.9, 0.6])
    assert best.masks.shape == (2, 64, 64)


def test_boxes_outside_of_the_image_and_empty_ones_are_dropped(masks_net: Detector) -> None:
    rows = [[0, 0.9, 70, 0, 90, 9], [0, 0.8, 5, 5, 5, 9], [0, 0.7, 0, 0, 9, 9]]
    found = infer.postprocess(masks_net, outputs_of(rows), (64, 64), (64, 64))
    assert found.corners.tolist() == [[0, 0, 9, 9]]
    assert found.masks.shape == (1, 64, 64)


def test_masks_are_pasted_where_their_boxes_are(masks_net: Detector) -> None:
    whole, *others, masks = outputs_of([[0, 0.9, 8, 4, 40, 36], [1, 0.8, 0, 0, 64, 64]])
    masks[0, 1, :, 8:] = 0  # the left half of the whole image
    found = infer.postprocess(masks_net, (whole, *others, masks), (64, 64), (128, 64))
    assert found.masks.dtype == bool
    assert found.masks.shape == (2, 128, 64)
    for mask, (left, top, right, bottom) in zip(found.masks, ((8, 8, 40, 72), (0, 0, 32, 128))):
        wanted = np.zeros((128, 64), bool)
        wanted[top:bottom, left:right] = True
        overlap = (mask & wanted).sum() / (mask | wanted).sum()
        assert overlap > 0.93
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.subtract(extent, [left, top, right, bottom])).max() <= 1.5


def test_a_mask_is_of_its_whole_box_also_where_the_image_cuts_it(masks_net: Detector) -> None:
    *others, masks = outputs_of([[0, 0.9, -32, 0, 32, 64]])
    masks[0, 0, :, : masks.shape[-1] // 2] = 0  # of the box, the half that lies outside
    found = infer.postprocess(masks_net, (*others, masks), (64, 64), (64, 64))
    assert found.corners.tolist() == [[0, 0, 32, 64]]
    columns = found.masks[0].mean(axis=0)
    assert columns[2:30].min() > 0.9
    assert columns[34:].max() == 0


def test_an_image_without_detections_has_none(detector: Detector) -> None:
    strict = limited(detector, score_threshold=1.5)
    images = mx.nd.zeros((1, 3, 64, 80))
    found = infer.postprocess(strict, detector.net(images), (64, 80), (HEIGHT, WIDTH))
    assert found.corners.shape == (0, 4)
    assert (found.category_ids, found.scores.tolist()) == ([], [])
    assert found.masks is None or found.masks.shape == (0, HEIGHT, WIDTH)
    assert coco.encode(5, *found) == []


def test_detections_are_inside_of_the_image_best_first_and_named(detector: Detector, dataset: Path) -> None:
    sample = samples_of(dataset)[0]
    pixels = data.resized(coco.load_pixels(sample), 64, 96)
    found = infer._detect(detector, CPU, sample, pixels)
    assert 0 < len(found) <= 5
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True)
    for one in found:
        left, top, width, height = one["bbox"]
        assert left >= 0
        assert top >= 0
        assert 0 < width <= WIDTH - left + 1e-3
        assert 0 < height <= HEIGHT - top + 1e-3
        assert one["category_id"] in (1, 3)
        assert ("segmentation" in one) == (detector.cell["detector"] == "mask-rcnn_fpn")


def test_the_timed_stages_together_find_what_evaluation_finds(detector: Detector, cells: Cells) -> None:
    job = cells.job(detector.cell)
    split = coco.read_split(cells.dataset, cells.dataset / "instances.json", cells.dataset / "index", masks=False)
    events = worker.EventWriter(job["paths"]["events"])
    found = {}
    for count in (0, 2):
        with data.Loaders(count) as loaders:
            infer.evaluate(detector, split, CPU, loaders, job, events)
        found[count] = json.loads(Path(job["paths"]["detections"]).read_text())
    events.close()
    assert found[0] == found[2]
    assert {one["image_id"] for one in found[0]} == {1, 2, 3, 4, 5}
    for sample in split.samples:
        times, count = infer._timed(detector, CPU, sample)
        assert count == sum(one["image_id"] == sample.image_id for one in found[0])
        assert times.keys() == {"load_s", "preprocess_s", "forward_s", "postprocess_s", "encode_s"}
        assert times["forward_s"] > 0


def test_only_the_first_images_are_evaluated_where_the_cell_says_so(detector: Detector, cells: Cells) -> None:
    values = {**detector.cell, "measure": {**detector.cell["measure"], "evaluate_images": 2}}
    job = cells.job(values)
    split = coco.read_split(cells.dataset, cells.dataset / "instances.json", cells.dataset / "index", masks=False)
    events = worker.EventWriter(job["paths"]["events"])
    with data.Loaders(0) as loaders:
        infer.evaluate(detector._replace(cell=values), split, CPU, loaders, job, events)
    events.close()
    found = json.loads(Path(job["paths"]["detections"]).read_text())
    assert {one["image_id"] for one in found} == {1, 2}
