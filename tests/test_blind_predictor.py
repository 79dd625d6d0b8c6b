"""`shapes` cannot be solved without looking: boxes that are merely frequent score next to nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo_bench.datasets.shapes import ShapesSettings, generate
from zoo_bench.evaluate import score

DETECTIONS_PER_IMAGE = 100
# Category, box, score.
Prediction = tuple[int, list[float], float]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("blind") / "shapes"
    generate(root, ShapesSettings())
    return root


def training_objects(root: Path) -> list[dict[str, Any]]:
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    return [entry for entry in content["annotations"] if not entry["iscrowd"]]


def blind_ap(root: Path, predictions: list[Prediction]) -> float:
    """Box AP, in points, of the same predictions for every image of the held-out split."""
    annotations = root / "annotations" / "instances_val.json"
    images = json.loads(annotations.read_text())["images"]
    assert len(predictions) == DETECTIONS_PER_IMAGE
    detections = [
        {"image_id": image["id"], "category_id": category, "bbox": box, "score": confidence}
        for image in images
        for category, box, confidence in predictions
    ]
    path = root / "blind.json"
    path.write_text(json.dumps(detections))
    scores = score(annotations, path, masks=False)
    assert scores.box is not None
    assert scores.box.ap is not None
    return 100 * scores.box.ap


@pytest.mark.parametrize("grid_px", [1, 2, 4, 8])
def test_the_most_frequent_boxes_score_under_one_point(shapes: Path, grid_px: int) -> None:
    boxes = Counter(
        (entry["category_id"], *(round(value / grid_px) * grid_px for value in entry["bbox"]))
        for entry in training_objects(shapes)
    )
    frequent = boxes.most_common(DETECTIONS_PER_IMAGE)
    total = boxes.total()
    assert blind_ap(shapes, [(category, box, n / total) for (category, *box), n in frequent]) < 1


@pytest.mark.parametrize("overlap", [0.5, 0.7])
def test_boxes_chosen_to_meet_as_many_objects_as_they_can_score_under_one_point(shapes: Path, overlap: float) -> None:
    """For each category 25 boxes, each the one that meets most of the training objects not met so far."""
    predictions: list[Prediction] = []
    for category in (1, 2, 3, 4):
        objects = training_objects(shapes)
        boxes = np.array([e["bbox"] for e in objects if e["category_id"] == category], dtype=float)
        meets = pairwise_iou(boxes) >= overlap
        unmet = np.ones(len(boxes), dtype=bool)
        for _ in range(DETECTIONS_PER_IMAGE // 4):
            met = (meets & unmet).sum(axis=1)
            best = int(met.argmax())
            predictions.append((category, boxes[best].tolist(), met[best] / len(boxes)))
            unmet &= ~meets[best]
    assert blind_ap(shapes, predictions) < 1


def pairwise_iou(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    common = sides.clip(min=0).prod(axis=2)
    areas = boxes[:, 2:].prod(axis=1)
    overlap: NDArray[np.float64] = common / (areas[:, None] + areas[None] - common)
    return overlap
