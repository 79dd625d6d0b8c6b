from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import SMALL, cell

from models import coco
from models.torchvision import data, infer
from models.torchvision.detectors import DETECTORS, build_detector

CPU = torch.device("cpu")


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_timed_stages_together_are_the_models_own_forward(detector: str, dataset: Path) -> None:
    torch.manual_seed(0)
    sample = coco.read_split(dataset, dataset / "instances.json", dataset / "index", masks=False).samples[0]
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
