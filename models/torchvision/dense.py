"""RetinaNet's losses: the focal loss of all anchors in one pass, and the boxes of those with an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss, softplus
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.ops import box_iou

from models.torchvision.batch import Target
from models.torchvision.precision import at_least_single

ALPHA, GAMMA = 0.25, 2.0


class DenseHead(RetinaNetHead):
    """torchvision's, whose outputs are in single precision whatever the convolutions computed in."""

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Class logits [B, A, K] and offsets [B, A, 4] of all anchors."""
        return {name: at_least_single(value) for name, value in super().forward(features).items()}


class _NoObject(torch.autograd.Function):
    """The focal loss of logits that are all of the background, summed; it keeps one value a logit, not ten."""

    @staticmethod
    def forward(context: Any, logits: Tensor) -> Tensor:
        share = logits.sigmoid()
        # -log(1 - p) = softplus(x)
        cost = softplus(logits)
        context.save_for_backward(share, cost)
        return (1 - ALPHA) * (cost * share).mul_(share).sum()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        share, cost = context.saved_tensors
        # d/dx of p^2 softplus(x) = p^2 (2 (1 - p) softplus(x) + p)
        slope = (1 - share).mul_(cost).mul_(2).add_(share).mul_(share).mul_(share)
        return slope.mul_(gradient * (1 - ALPHA))


def _with_object(logits: Tensor) -> Tensor:
    """What the focal loss of a logit whose object is there differs from one of the background."""
    share = logits.sigmoid()
    present = ALPHA * (1 - share) ** GAMMA * softplus(-logits)
    return (present - (1 - ALPHA) * share**GAMMA * softplus(logits)).sum()


def focal_loss(logits: Tensor, matched: Tensor, labels: Tensor) -> Tensor:
    """The focal loss of one image (Lin et al. 2017, arXiv:1708.02002), over its number of anchors with an object.

    logits [A, K]; matched [A]: the anchor's object, or torchvision's BELOW_LOW_THRESHOLD or, for those that do not
    count, BETWEEN_THRESHOLDS; labels of the objects [N].
    """
    objects = torch.where(matched >= 0)[0]
    ignored = torch.where(matched == Matcher.BETWEEN_THRESHOLDS)[0]
    there = logits[objects, labels[matched[objects]]]
    total = _NoObject.apply(logits) - _NoObject.apply(logits[ignored]) + _with_object(there)
    return total / max(1, len(objects))


def dense_losses(
    model: RetinaNet, outputs: dict[str, Tensor], anchors: Sequence[Tensor], targets: Sequence[Target], beta: float
) -> dict[str, Tensor]:
    """Means over the images, under torchvision's names. ``beta`` of the boxes' smooth L1; 0 is torchvision's L1."""
    classes, boxes = [], []
    for logits, offsets, own, target in zip(
        outputs["cls_logits"], outputs["bbox_regression"], anchors, targets, strict=True
    ):
        matched = model.proposal_matcher(box_iou(target.boxes, own))
        objects = torch.where(matched >= 0)[0]
        classes.append(focal_loss(logits, matched, target.labels))
        wanted = model.head.regression_head.box_coder.encode_single(target.boxes[matched[objects]], own[objects])
        far = smooth_l1_loss(offsets[objects], wanted, beta=beta, reduction="sum")
        boxes.append(far / max(1, len(objects)))
    count = len(targets)
    return {"classification": sum(classes, classes[0] * 0) / count, "bbox_regression": sum(boxes, boxes[0] * 0) / count}
