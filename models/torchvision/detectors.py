"""The zoo's four detectors, built from torchvision's own modules.

With the published values the FPN detectors have the names and shapes of torchvision's builders, so its COCO files
load into them. A cell's values shrink what stands on the backbone, never the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import ResNet
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from models import worker
from models.torchvision.backbones import BUILDERS, build_resnet
from models.torchvision.batch import Batch
from models.torchvision.c4 import C4Backbone, C4Head
from models.torchvision.dense import DenseHead, dense_losses
from models.torchvision.heads import MaskPredictor, ProposalHead, RegionHeads, RegionPredictor
from models.torchvision.pixels import DEVIATION, MEAN, normalised
from models.torchvision.proposals import Proposals
from models.torchvision.roi_align import RoIAlign

Sizes = tuple[int, int]

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
    # oneDNN and cuDNN are fastest where a position's channels lie together.
    return DETECTORS[name](body, cell["recipe"], num_classes).to(memory_format=torch.channels_last)


class TwoStage(GeneralizedRCNN):
    """Faster or Mask R-CNN. Given a `Batch` it returns losses; given images, as torchvision's models do, detections."""

    def __init__(self, backbone: nn.Module, proposals: Proposals, heads: RegionHeads, sizes: Sizes) -> None:
        super().__init__(backbone, proposals, heads, GeneralizedRCNNTransform(*sizes, MEAN, DEVIATION))

    def forward(self, images: Any, targets: Any = None) -> Any:
        """Losses by name, or detections of each image."""
        return self._losses(images) if isinstance(images, Batch) else super().forward(images, targets)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        images = normalised(batch)
        features = self.backbone(images.tensors)
        boxes = [{"boxes": target.boxes, "labels": target.labels} for target in batch.targets]
        proposals, found = self.rpn(images, features, boxes)
        return {**self.roi_heads.losses(features, proposals, images.image_sizes, batch.targets), **found}


class Dense(RetinaNet):
    """RetinaNet. Given a `Batch` it returns losses; given images, as torchvision's models do, detections."""

    box_loss_beta: float

    def forward(self, images: Any, targets: Any = None) -> Any:
        """Losses by name, or detections of each image."""
        return self._losses(images) if isinstance(images, Batch) else super().forward(images, targets)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        images = normalised(batch)
        levels = list(self.backbone(images.tensors).values())
        anchors = self.anchor_generator(images, levels)
        return dense_losses(self, self.head(levels), anchors, batch.targets, self.box_loss_beta)


def build_c4(body: ResNet, recipe: dict[str, Any], num_classes: int) -> TwoStage:
    """Faster R-CNN on conv4 (Ren et al. 2015, arXiv:1506.01497; He et al. 2015, arXiv:1512.03385).

    One level, all anchor sizes on it, conv5 as the head of each 14 x 14 region.

    Proposals, sampling and losses as in Detectron's e2e_faster_rcnn_R-50-C4_1x.yaml; two samples a bin, as in
    mmdetection 1.
    """
    model, head = recipe["model"], C4Head(body)
    backbone = C4Backbone(body)
    anchors = _anchors([tuple(model["anchor_sizes"])])
    heads = _heads(
        recipe, RoIAlign(["0"], model["box_roi_size"]), head, RegionPredictor(head.out_channels, num_classes)
    )
    return TwoStage(backbone, _proposals(recipe, anchors, backbone.out_channels), heads, _sizes(recipe))


def build_fpn(body: ResNet, recipe: dict[str, Any], num_classes: int) -> TwoStage:
    """Faster R-CNN with a feature pyramid (Lin et al. 2016, arXiv:1612.03144).

    As Detectron's e2e_faster_rcnn_R-50-FPN_1x.yaml: RoIAlign 7 x 7, two samples a bin, not aligned; a head of two
    layers; smooth L1 of beta 1/9 for proposals, and of ``box_loss_beta`` behind them.
    """
    return _two_stage_pyramid(body, recipe, num_classes, {})


def build_mask(body: ResNet, recipe: dict[str, Any], num_classes: int) -> TwoStage:
    """Mask R-CNN with a feature pyramid (He et al. 2017, arXiv:1703.06870).

    As Detectron's e2e_mask_rcnn_R-50-FPN_1x.yaml: 14 x 14 regions, four convolutions, masks of 28 x 28, one a class.
    """
    model = recipe["model"]
    channels = model["mask_head_channels"]
    masks = {
        "mask_roi_pool": RoIAlign(ROI_LEVELS, model["mask_roi_size"]),
        "mask_head": MaskRCNNHeads(model["fpn_channels"], (channels,) * 4, dilation=1),
        "mask_predictor": MaskPredictor(channels, channels, num_classes),
    }
    return _two_stage_pyramid(body, recipe, num_classes, masks)


def build_retinanet(body: ResNet, recipe: dict[str, Any], num_classes: int) -> Dense:
    """RetinaNet (Lin et al. 2017, arXiv:1708.02002) on levels 3 to 7, three anchor scales an octave on each.

    As Detectron's retinanet_R-50-FPN_1x.yaml: IoU 0.5 and 0.4, focal loss 2 and 0.25, 1,000 candidates a level; but P6
    comes from P5, and each image's loss is over its own objects, as in torchvision, whose files then load.
    ``head_norm`` "none" is the paper's; "group" puts a GroupNorm of 32 groups behind every convolution of the head, as
    torchvision's second version does.
    """
    channels, anchors = recipe["model"]["fpn_channels"], _retinanet_anchors(recipe)
    norm = partial(nn.GroupNorm, GROUPS) if recipe["model"]["head_norm"] == "group" else None
    test, (min_size, max_size) = recipe["test"], _sizes(recipe)
    model = Dense(
        _pyramid(body, recipe, LastLevelP6P7(channels, channels), first_level=2),
        num_classes,
        min_size=min_size,
        max_size=max_size,
        anchor_generator=anchors,
        head=DenseHead(channels, anchors.num_anchors_per_location()[0], num_classes, norm_layer=norm),
        score_thresh=test["score_threshold"],
        nms_thresh=test["nms_threshold"],
        detections_per_img=test["detections_per_image"],
    )
    model.box_loss_beta = recipe["model"]["box_loss_beta"]
    return model


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


def _two_stage_pyramid(body: ResNet, recipe: dict[str, Any], num_classes: int, masks: dict[str, nn.Module]) -> TwoStage:
    model = recipe["model"]
    size, channels = model["box_roi_size"], model["box_head_channels"]
    backbone = _pyramid(body, recipe, LastLevelMaxPool())
    proposals = _proposals(recipe, _anchors([(side,) for side in _level_sizes(recipe)]), model["fpn_channels"])
    head = TwoMLPHead(model["fpn_channels"] * size**2, channels)
    heads = _heads(recipe, RoIAlign(ROI_LEVELS, size), head, RegionPredictor(channels, num_classes), **masks)
    return TwoStage(backbone, proposals, heads, _sizes(recipe))


def _proposals(recipe: dict[str, Any], anchors: AnchorGenerator, channels: int) -> Proposals:
    """The region proposal network of Ren et al. 2015: IoU 0.7 and 0.3, half of the sample objects, NMS at 0.7."""
    model = recipe["model"]
    return Proposals(
        anchors,
        ProposalHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=model["rpn_batch_per_image"],
        positive_fraction=0.5,
        pre_nms_top_n={"training": model["rpn_pre_nms"]["train"], "testing": model["rpn_pre_nms"]["test"]},
        post_nms_top_n={"training": model["rpn_post_nms"]["train"], "testing": model["rpn_post_nms"]["test"]},
        nms_thresh=0.7,
    )


def _heads(
    recipe: dict[str, Any], pool: RoIAlign, head: nn.Module, predictor: RegionPredictor, **masks: nn.Module
) -> RegionHeads:
    """Regions as in Fast R-CNN (Girshick 2015, arXiv:1504.08083): an object from IoU 0.5, a quarter of the sample."""
    test = recipe["test"]
    heads = RegionHeads(
        pool,
        head,
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=recipe["model"]["roi_batch_per_image"],
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
        score_thresh=test["score_threshold"],
        nms_thresh=test["nms_threshold"],
        detections_per_img=test["detections_per_image"],
        **masks,
    )
    heads.box_loss_beta = recipe["model"]["box_loss_beta"]
    return heads


def _sizes(recipe: dict[str, Any]) -> Sizes:
    return recipe["input"]["min_size"], recipe["input"]["max_size"]


def _level_sizes(recipe: dict[str, Any]) -> Sequence[float]:
    sizes: Sequence[float] = recipe["model"]["anchor_sizes"]
    if len(sizes) != PYRAMID_LEVELS:
        raise worker.WorkerError(
            f"anchor_sizes {list(sizes)} has {len(sizes)} sizes; a feature pyramid takes {PYRAMID_LEVELS}, one a level"
        )
    return sizes


def _anchors(sizes: Sequence[tuple[float, ...]]) -> AnchorGenerator:
    return AnchorGenerator(tuple(sizes), (ASPECT_RATIOS,) * len(sizes))
