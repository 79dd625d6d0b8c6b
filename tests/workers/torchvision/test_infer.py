from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import SMALL, cell

from models import coco
from models.torchvision import data, infer
from models.torchvision.detectors import DETECTORS, build_detector
from models.torchvision.folding import NORMS, folded

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


@pytest.mark.parametrize("norm", ["frozen", "live"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_folded_batch_norm_changes_nothing_but_rounding(detector: str, norm: str) -> None:
    torch.manual_seed(0)
    changes = {"model": {"batch_norm": norm}}
    model = build_detector(cell(detector, "r18", SMALL, changes), 4).eval().double()
    for module in model.modules():
        if isinstance(module, NORMS):
            for values in (module.weight, module.running_var):
                values.data.uniform_(0.5, 2.0)
            for values in (module.bias, module.running_mean):
                values.data.normal_()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    lean = folded(model)
    assert not any(isinstance(module, NORMS) for module in lean.modules())
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        for ours, theirs in zip(lean.backbone(image).values(), model.backbone(image).values(), strict=True):
            torch.testing.assert_close(ours, theirs)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
