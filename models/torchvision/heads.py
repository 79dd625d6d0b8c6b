"""The second stage of Faster and Mask R-CNN: regions sampled, pooled, classified and moved; their masks.

torchvision's RoIHeads do the sampling and, at inference, everything. Different are the losses' inputs: masks come as
outlines, and the beta of the boxes' smooth L1 from the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RPNHead

from models.torchvision.batch import Target
from models.torchvision.mask_targets import mask_targets
from models.torchvision.precision import at_least_single


class ProposalHead(RPNHead):
    """torchvision's, whose outputs are in single precision whatever the convolutions computed in."""

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and offsets of each level."""
        objectness, offsets = super().forward(features)
        return [at_least_single(level) for level in objectness], [at_least_single(level) for level in offsets]


class RegionPredictor(FastRCNNPredictor):
    """torchvision's, in single precision."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [R, K] and offsets [R, 4 K]."""
        logits, offsets = super().forward(features)
        return at_least_single(logits), at_least_single(offsets)


class MaskPredictor(MaskRCNNPredictor):
    """torchvision's, in single precision."""

    def forward(self, features: Tensor) -> Tensor:
        """Mask logits [R, K, 2 S, 2 S]."""
        return at_least_single(super().forward(features))


class RegionHeads(RoIHeads):
    """torchvision's RoIHeads, trained on `Target`. Set ``box_loss_beta`` before training."""

    box_loss_beta: float

    def check_targets(self, targets: list[dict[str, Tensor]] | None) -> None:
        """Nothing: torchvision looks for masks here, and ours come as outlines."""

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Losses of the sampled regions, under torchvision's names."""
        boxes = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
        proposals, matched, labels, offsets = self.select_training_samples(proposals, boxes)
        pooled = self.box_roi_pool(features, proposals, sizes)
        logits, predicted = self.box_predictor(self.box_head(pooled))
        found = region_losses(logits, predicted, torch.cat(labels), torch.cat(offsets), self.box_loss_beta)
        if self.has_mask():
            found["loss_mask"] = self._mask_loss(features, proposals, sizes, targets, matched, labels)
        return found

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        proposals: Sequence[Tensor],
        sizes: list[tuple[int, int]],
        targets: Sequence[Target],
        matched: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> Tensor:
        positive = [torch.where(of_image > 0)[0] for of_image in labels]
        regions = [of_image[kept] for of_image, kept in zip(proposals, positive, strict=True)]
        objects = [of_image[kept] for of_image, kept in zip(matched, positive, strict=True)]
        classes = torch.cat([of_image[kept] for of_image, kept in zip(labels, positive, strict=True)])
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, regions, sizes)))
        wanted = torch.cat(
            [
                mask_targets(target.outlines, own, numbers, logits.shape[-1])
                for target, own, numbers in zip(targets, regions, objects, strict=True)
                if target.outlines is not None
            ]
        )
        return mask_loss(logits, classes, wanted.to(logits.device, non_blocking=True))


def region_losses(logits: Tensor, predicted: Tensor, labels: Tensor, offsets: Tensor, beta: float) -> dict[str, Tensor]:
    """Cross entropy of all regions, and smooth L1 of the offsets of those with an object, over the number of all.

    logits [R, K], predicted [R, 4 K], labels [R] (0: background), offsets [R, 4]. ``beta`` is where smooth L1 turns
    from a square to a line (Girshick 2015, arXiv:1504.08083, has 1; torchvision 1/9; 0 is L1).
    """
    positive = torch.where(labels > 0)[0]
    own = predicted.view(len(labels), -1, 4)[positive, labels[positive]]
    far = smooth_l1_loss(own, offsets[positive], beta=beta, reduction="sum")
    return {"loss_classifier": cross_entropy(logits, labels), "loss_box_reg": far / labels.numel()}


def mask_loss(logits: Tensor, classes: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross entropy of each region's mask of its own class; logits [R, K, S, S], wanted [R, S, S]."""
    if not len(classes):
        return logits.sum() * 0  # the mask head takes part in every step, or the ranks' gradients would not meet
    own = logits[torch.arange(len(classes), device=logits.device), classes]
    return binary_cross_entropy_with_logits(own, wanted)
