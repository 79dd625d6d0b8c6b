from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, cell
from pycocotools import mask as rle

from models.torchvision import data, infer
from models.torchvision.detectors import DETECTORS, build_detector

CPU = torch.device("cpu")


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_timed_stages_together_are_the_models_own_forward(detector: str, dataset: Path) -> None:
    torch.manual_seed(0)
    sample = data.read_split(dataset, dataset / "instances.json", masks=False).samples[0]
    model = build_detector(cell(detector, "r18", SMALL), 4).eval()
    pixels = data.load_image(sample)
    with torch.inference_mode():
        expected = model([pixels.float() / 255])[0]
        images = infer.preprocess(model, pixels, CPU)
        found = infer.postprocess(model, infer.forward(model, images), images, (sample.height, sample.width))
    assert len(expected["boxes"]) > 0
    if "masks" in expected:
        expected["masks"] = expected["masks"][:, 0] >= 0.5
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_encoding_gives_coco_boxes_and_run_lengths() -> None:
    masks = torch.zeros((1, 6, 8), dtype=torch.bool)
    masks[0, 2:5, 1:4] = True
    detections = {
        "boxes": torch.tensor([[1.0, 2.0, 4.0, 5.0]]),
        "labels": torch.tensor([3]),
        "scores": torch.tensor([0.5]),
        "masks": masks,
    }
    (result,) = infer.encode(detections, image_id=42)
    assert (result["image_id"], result["category_id"], result["score"]) == (42, 3, 0.5)
    assert result["bbox"] == [1.0, 2.0, 3.0, 3.0]
    assert isinstance(result["segmentation"]["counts"], str)
    assert np.array_equal(rle.decode(result["segmentation"]), masks[0].numpy())


def test_an_image_without_detections_encodes_to_nothing() -> None:
    empty = {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    assert infer.encode({**empty, "masks": torch.zeros((0, 6, 8), dtype=torch.bool)}, image_id=1) == []
