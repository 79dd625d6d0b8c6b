from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, block
from PIL import Image
from pycocotools import mask as rle

from models import coco, worker


@pytest.fixture
def split(dataset: Path, tmp_path: Path) -> coco.Split:
    return coco.read_split(dataset, dataset / "instances.json", tmp_path, masks=True)


def test_crowds_and_boxes_without_area_are_left_out(split: coco.Split) -> None:
    assert split.category_ids == (1, 3)
    assert [len(sample.boxes) for sample in split.samples] == [2, 1, 1, 1, 0]
    first = split.samples[0]
    assert first.boxes.tolist() == [[10, 20, 40, 44], [50, 8, 66, 24]]
    assert first.labels.tolist() == [1, 3]


def test_images_without_objects_are_not_trained_on(split: coco.Split) -> None:
    assert [sample.image_id for sample in coco.with_objects(split.samples)] == [1, 2, 3, 4]


def test_masks_of_polygons_and_both_kinds_of_run_lengths_are_the_same(split: coco.Split) -> None:
    polygon, counts = coco.load_masks(split.samples[0])
    assert np.array_equal(polygon, block(10, 20, 30, 24))
    assert np.array_equal(counts, block(50, 8, 16, 16))
    assert np.array_equal(coco.load_masks(split.samples[1])[0], block(8, 4, 20, 20))


def test_boxes_are_cut_at_the_image(dataset: Path, tmp_path: Path) -> None:
    content = json.loads((dataset / "instances.json").read_text())
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, -5, 40, 20]}]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    sample = coco.read_split(dataset, tmp_path / "instances.json", tmp_path, masks=False).samples[0]
    assert sample.boxes.tolist() == [[60, 0, WIDTH, 15]]


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [{"id": 1}]}', '{"images": [], "categories": []}'])
def test_broken_annotations_are_a_data_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(worker.WorkerError, match="cannot read the annotations") as caught:
        coco.read_split(tmp_path, tmp_path / "instances.json", tmp_path, masks=False)
    assert caught.value.kind == "data"


def test_an_object_of_a_category_that_the_file_lacks_is_a_data_error(dataset: Path, tmp_path: Path) -> None:
    content = json.loads((dataset / "instances.json").read_text())
    content["categories"] = [{"id": 1}, {"id": 7}]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(worker.WorkerError, match=r"categories \[1, 3\], it declares \[1, 7\]"):
        coco.read_split(dataset, tmp_path / "instances.json", tmp_path, masks=False)


def test_an_image_that_is_not_what_its_annotation_says_is_a_data_error(split: coco.Split, tmp_path: Path) -> None:
    sample = split.samples[0]
    assert coco.load_pixels(sample).shape == (HEIGHT, WIDTH, 3)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (10, 12)).save(tmp_path / "small.png")
    for name, said in (
        ("broken.jpg", "cannot read the image"),
        ("small.png", "is 10 x 12, its annotation says 80 x 64"),
    ):
        other = coco.Sample(1, tmp_path / name, WIDTH, HEIGHT, sample.boxes, sample.labels, None)
        with pytest.raises(worker.WorkerError, match=said):
            coco.load_pixels(other)


def test_nothing_to_learn_from_is_a_data_error(split: coco.Split) -> None:
    with pytest.raises(worker.WorkerError, match="no training image has an object") as caught:
        coco.with_objects(split.samples[-1:])
    assert caught.value.kind == "data"


def test_encoding_gives_coco_boxes_and_run_lengths() -> None:
    masks = np.zeros((1, 6, 8), dtype=bool)
    masks[0, 2:5, 1:4] = True
    (result,) = coco.encode(42, np.array([[1.0, 2.0, 4.0, 5.0]], np.float32), np.array([3]), np.array([0.5]), masks)
    assert (result["image_id"], result["category_id"], result["score"]) == (42, 3, 0.5)
    assert result["bbox"] == [1.0, 2.0, 3.0, 3.0]
    assert isinstance(result["segmentation"]["counts"], str)
    assert np.array_equal(rle.decode(result["segmentation"]), masks[0])
    assert json.dumps(result)


def test_an_image_without_detections_encodes_to_nothing() -> None:
    assert coco.encode(1, np.zeros((0, 4)), [], [], np.zeros((0, 6, 8), dtype=bool)) == []
