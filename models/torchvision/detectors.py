"""The zoo's four detectors, built from torchvision's own modules.

With the published values the FPN detectors have the names and shapes of torchvision's builders, so its COCO files
load into them. A cell's values shrink what stands on the backbone, never the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.resnet import ResNet
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from models import worker
from models.torchvision.backbones import BUILDERS, build_resnet
from models.torchvision.c4 import C4Backbone, C4Head

ASPECT_RATIOS = (0.5, 1.0, 2.0)
ROI_LEVELS = ("0", "1", "2", "3")
PYRAMID_LEVELS = 5
GROUPS = 32


def build_detector(cell: dict[str, Any], num_classes: int, load_backbone: bool = True) -> nn.Module:
    """The detector a cell describes, with ``num_classes`` classes, the background being class 0.

    ``load_backbone`` false leaves the backbone's own weights out: a whole checkpoint will follow.
    """
    name, backbone = cell["detector"], cell["backbone"]
    for value, known, what in ((name, DETECTORS, "detector"), (backbone, BUILDERS, "backbone")):
        if value not in known:
            raise worker.WorkerError(f"unknown {what} {value!r}; this worker has {', '.join(known)}")
    body = build_resnet(backbone, cell["recipe"]["model"], load_backbone)
    return DETECTORS[name](body, cell["recipe"], num_classes)


def build_c4(body: ResNet, recipe: dict[str, Any], num_classes: int) -> FasterRCNN:
    """Faster R-CNN on conv4: one level, all anchor sizes on it, conv5 as the head of each region."""
    model = recipe["model"]
    head = C4Head(body)
    return FasterRCNN(
        C4Backbone(body),
        rpn_anchor_generator=_anchors([tuple(model["anchor_sizes"])]),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=model["box_roi_size"], sampling_ratio=2),
        box_head=head,
        box_predictor=FastRCNNPredictor(head.out_channels, num_classes),
        **_input_values(recipe),
        **_region_values(recipe),
    )


def build_fpn(body: ResNet, recipe: dict[str, Any], num_classes: int) -> FasterRCNN:
    """Faster R-CNN with a feature pyramid (Lin et al. 2016, arXiv:1612.03144)."""
    return FasterRCNN(_pyramid(body, recipe, LastLevelMaxPool()), **_pyramid_head_values(recipe, num_classes))


def build_mask(body: ResNet, recipe: dict[str, Any], num_classes: int) -> MaskRCNN:
    """Mask R-CNN with a feature pyramid (He et al. 2017, arXiv:1703.06870)."""
    model = recipe["model"]
    channels = model["mask_head_channels"]
    return MaskRCNN(
        _pyramid(body, recipe, LastLevelMaxPool()),
        mask_roi_pool=MultiScaleRoIAlign(ROI_LEVELS, output_size=model["mask_roi_size"], sampling_ratio=2),
        mask_head=MaskRCNNHeads(model["fpn_channels"], (channels,) * 4, dilation=1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes),
        **_pyramid_head_values(recipe, num_classes),
    )


def build_retinanet(body: ResNet, recipe: dict[str, Any], num_classes: int) -> RetinaNet:
    """RetinaNet (Lin et al. 2017, arXiv:1708.02002) on levels 3 to 7, three anchor scales an octave on each.

    ``head_norm`` "none" is the paper's; "group" puts a GroupNorm of 32 groups behind every convolution of the head, as
    torchvision's second version does.
    """
    channels, anchors = recipe["model"]["fpn_channels"], _retinanet_anchors(recipe)
    norm = partial(nn.GroupNorm, GROUPS) if recipe["model"]["head_norm"] == "group" else None
    test = recipe["test"]
    return RetinaNet(
        _pyramid(body, recipe, LastLevelP6P7(channels, channels), first_level=2),
        num_classes,
        anchor_generator=anchors,
        head=RetinaNetHead(channels, anchors.num_anchors_per_location()[0], num_classes, norm_layer=norm),
        score_thresh=test["score_threshold"],
        nms_thresh=test["nms_threshold"],
        detections_per_img=test["detections_per_image"],
        **_input_values(recipe),
    )


def _retinanet_anchors(recipe: dict[str, Any]) -> AnchorGenerator:
    return _anchors([tuple(int(size * 2 ** (step / 3)) for step in range(3)) for size in _level_sizes(recipe)])


DETECTORS: dict[str, Callable[[ResNet, dict[str, Any], int], nn.Module]] = {
    "faster-rcnn_c4": build_c4,
    "faster-rcnn_fpn": build_fpn,
    "mask-rcnn_fpn": build_mask,
    "retinanet_fpn": build_retinanet,
}


def _pyramid(body: ResNet, recipe: dict[str, Any], top: ExtraFPNBlock, first_level: int = 1) -> BackboneWithFPN:
    stages = range(first_level, 5)
    return BackboneWithFPN(
        body,
        return_layers={f"layer{stage}": str(level) for level, stage in enumerate(stages)},
        in_channels_list=[body.inplanes // 2 ** (4 - stage) for stage in stages],
        out_channels=recipe["model"]["fpn_channels"],
        extra_blocks=top,
    )


def _pyramid_head_values(recipe: dict[str, Any], num_classes: int) -> dict[str, Any]:
    model = recipe["model"]
    size, channels = model["box_roi_size"], model["box_head_channels"]
    return {
        "rpn_anchor_generator": _anchors([(size,) for size in _level_sizes(recipe)]),
        "box_roi_pool": MultiScaleRoIAlign(ROI_LEVELS, output_size=size, sampling_ratio=2),
        "box_head": TwoMLPHead(model["fpn_channels"] * size**2, channels),
        "box_predictor": FastRCNNPredictor(channels, num_classes),
        **_input_values(recipe),
        **_region_values(recipe),
    }


def _input_values(recipe: dict[str, Any]) -> dict[str, int]:
    return {"min_size": recipe["input"]["min_size"], "max_size": recipe["input"]["max_size"]}


def _region_values(recipe: dict[str, Any]) -> dict[str, Any]:
    model, test = recipe["model"], recipe["test"]
    return {
        "rpn_pre_nms_top_n_train": model["rpn_pre_nms"]["train"],
        "rpn_pre_nms_top_n_test": model["rpn_pre_nms"]["test"],
        "rpn_post_nms_top_n_train": model["rpn_post_nms"]["train"],
        "rpn_post_nms_top_n_test": model["rpn_post_nms"]["test"],
        "rpn_batch_size_per_image": model["rpn_batch_per_image"],
        "box_batch_size_per_image": model["roi_batch_per_image"],
        "box_score_thresh": test["score_threshold"],
        "box_nms_thresh": test["nms_threshold"],
        "box_detections_per_img": test["detections_per_image"],
    }


def _level_sizes(recipe: dict[str, Any]) -> Sequence[float]:
    sizes: Sequence[float] = recipe["model"]["anchor_sizes"]
    if len(sizes) != PYRAMID_LEVELS:
        raise worker.WorkerError(
            f"anchor_sizes {list(sizes)} has {len(sizes)} sizes; a feature pyramid takes {PYRAMID_LEVELS}, one a level"
        )
    return sizes


def _anchors(sizes: Sequence[tuple[float, ...]]) -> AnchorGenerator:
    return AnchorGenerator(tuple(sizes), (ASPECT_RATIOS,) * len(sizes))
