from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import batch_of, block
from conftest import SMALL, cell
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops.misc import FrozenBatchNorm2d

from models import worker
from models.torchvision import checkpoint
from models.torchvision.backbones import STAGES
from models.torchvision.detectors import DETECTORS, build_detector

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "faster-rcnn_fpn": detection.fasterrcnn_resnet50_fpn,
    "mask-rcnn_fpn": detection.maskrcnn_resnet50_fpn,
    "retinanet_fpn": detection.retinanet_resnet50_fpn,
}
COCO_CLASSES = 91
FROZEN = {"model": {"batch_norm": "frozen", "frozen_stages": 2}}


def reference(detector: str, **values: Any) -> nn.Module:
    return BUILDERS[detector](weights=None, weights_backbone=None, num_classes=COCO_CLASSES, **values)


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def published_state(detector: str) -> dict[str, Tensor]:
    """Names and shapes of a published COCO file, which was trained with frozen batch norm: that counts no batches."""
    state = reference(detector).state_dict()
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("detector", BUILDERS)
def test_published_values_give_the_names_and_shapes_of_the_published_files(detector: str) -> None:
    model = build_detector(cell(detector, "r50", FROZEN), COCO_CLASSES)
    assert shapes(model.state_dict()) == shapes(published_state(detector))


@pytest.mark.parametrize("detector", BUILDERS)
def test_detections_equal_those_of_torchvisions_builder_with_the_same_weights(detector: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    low_scores = {"score_thresh": 0.0} if detector == "retinanet_fpn" else {"box_score_thresh": 0.0}
    limit = {"detections_per_img" if detector == "retinanet_fpn" else "box_detections_per_img": 20}
    expected_model = reference(detector, min_size=96, max_size=128, **low_scores, **limit).eval()
    checkpoint.save_weights(expected_model, tmp_path / "model.safetensors")
    changes = {
        "input": {"min_size": 96, "max_size": 128},
        "test": {"score_threshold": 0.0, "detections_per_image": 20},
    }
    model = build_detector(cell(detector, "r50", changes), COCO_CLASSES, load_backbone=False).eval()
    checkpoint.load_detector(model, tmp_path / "model.safetensors")
    image = torch.rand(3, 90, 110)
    with torch.inference_mode():
        expected, found = expected_model([image])[0], model([image])[0]
    assert len(expected["boxes"]) > 0
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        # Sums are taken in another order than torchvision's: boxes are off by up to a thousandth of a pixel, and each
        # mask, which steps from 0 to 1 within a few pixels, is drawn that much aside.
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-3 if name in ("boxes", "masks") else 1e-4)


@pytest.mark.parametrize(
    ("detector", "backbone"), [*((name, "r18") for name in DETECTORS), ("faster-rcnn_fpn", "r101")]
)
def test_every_detector_learns_and_infers_on_a_shrunken_head(detector: str, backbone: str) -> None:
    torch.manual_seed(0)
    model = build_detector(cell(detector, backbone, SMALL), 4)
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    loss = sum(model(batch_of([block(8, 8, 32, 36)], images)).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    with torch.inference_mode():
        detections = model(images[:1])[0]
    assert detections["boxes"].shape == (len(detections["scores"]), 4)


def test_values_shrink_the_head_but_never_the_backbone() -> None:
    small = build_detector(cell("faster-rcnn_fpn", "r50", SMALL), 4).backbone.body.state_dict()
    published = build_detector(cell("faster-rcnn_fpn", "r50"), 4).backbone.body.state_dict()
    assert shapes(small) == shapes(published)


def test_c4_runs_conv5_on_every_region() -> None:
    model = build_detector(cell("faster-rcnn_c4", "r50", {"model": {"box_roi_size": 14}}), COCO_CLASSES)
    assert model.backbone.out_channels == 1024
    assert "layer4" not in model.backbone
    assert model.roi_heads.box_head(torch.rand(2, 1024, 14, 14)).shape == (2, 2048)
    assert model.rpn.anchor_generator.num_anchors_per_location() == [15]


@pytest.mark.parametrize("count", range(6))
def test_frozen_stages_stop_their_gradient_only(count: int) -> None:
    changes = {"model": {"batch_norm": "frozen", "frozen_stages": count}}
    model = build_detector(cell("faster-rcnn_fpn", "r18", changes), 4)
    learning = {
        stage: all(parameter.requires_grad for parameter in model.backbone.body[stage].parameters()) for stage in STAGES
    }
    assert [learning[stage] for stage in STAGES] == [False] * count + [True] * (5 - count)


def test_batch_norm_is_frozen_or_live_as_the_cell_says() -> None:
    def count(model: nn.Module, kind: type[nn.Module]) -> int:
        return sum(isinstance(module, kind) for module in model.modules())

    frozen = build_detector(cell("retinanet_fpn", "r18", FROZEN), 4)
    live = build_detector(cell("retinanet_fpn", "r18"), 4)
    assert (count(frozen, FrozenBatchNorm2d), count(frozen, nn.BatchNorm2d)) == (20, 0)
    assert (count(live, FrozenBatchNorm2d), count(live, nn.BatchNorm2d)) == (0, 20)


def test_residual_branches_start_at_zero_only_where_they_can_leave_it() -> None:
    def gain(*changes: dict[str, Any]) -> float:
        model = build_detector(cell("retinanet_fpn", "r50", *changes), 4)
        return float(model.backbone.body.layer1[0].bn3.weight.detach().sum())

    assert gain() == 0
    assert gain(FROZEN) > 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"detector": "yolo"}, "retinanet_fpn"), ({"backbone": "r34"}, "r50")],
)
def test_an_unknown_detector_or_backbone_names_the_known_ones(changes: dict[str, str], named: str) -> None:
    with pytest.raises(worker.WorkerError, match=named):
        build_detector({**cell("retinanet_fpn"), **changes}, 4)


def test_a_pyramid_takes_one_anchor_size_a_level() -> None:
    with pytest.raises(worker.WorkerError, match="has 2 sizes; a feature pyramid takes 5"):
        build_detector(cell("retinanet_fpn", "r18", {"model": {"anchor_sizes": [32, 64]}}), 4)
