"""The region proposal network, trained on its sampled anchors alone.

Its loss looks at 256 of an image's anchors (268,000 at full size). So the head runs over all positions without a
gradient, for the proposals, and once more, with one, at the positions of the sample: the same numbers, without the
backward pass of the network's most expensive convolution over whole levels, and without what that would keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, embedding, linear, relu, smooth_l1_loss
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from models.torchvision.precision import at_least_single

BETA = 1 / 9  # Ren et al. 2015 as Detectron and torchvision have it
STEPS = (-1, 0, 1)  # a 3 x 3 neighbourhood


class Proposals(RegionProposalNetwork):
    """torchvision's. Sampling takes the same random numbers in the same order."""

    def forward(self, images: ImageList, features: dict[str, Tensor], targets: Any = None) -> Any:
        """Proposals [N, 4] of each image, and in training the losses under torchvision's names."""
        if not self.training:
            return super().forward(images, features, targets)
        levels = list(features.values())
        anchors = self.anchor_generator(images, levels)
        with torch.no_grad():
            proposals = self._proposals(images, levels, anchors)
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        return proposals, self._losses(levels, torch.cat(anchors), torch.cat(labels), torch.cat(matched), labels)

    def _proposals(self, images: ImageList, levels: list[Tensor], anchors: list[Tensor]) -> list[Tensor]:
        objectness, offsets = self.head(levels)
        counts = [level[0].numel() for level in objectness]
        flat, moved = concat_box_prediction_layers(objectness, offsets)
        boxes = self.box_coder.decode(moved, anchors).view(len(anchors), -1, 4)
        kept: list[Tensor] = self.filter_proposals(boxes, flat, images.image_sizes, counts)[0]
        return kept

    def _losses(
        self, levels: Sequence[Tensor], anchors: Tensor, labels: Tensor, matched: Tensor, by_image: list[Tensor]
    ) -> dict[str, Tensor]:
        positive, negative = (torch.where(torch.cat(chosen))[0] for chosen in self.fg_bg_sampler(by_image))
        sampled = torch.cat([positive, negative])
        logits, offsets = at_anchors(self.head, levels, sampled)
        wanted = self.box_coder.encode_single(matched[positive], anchors[positive])
        far = smooth_l1_loss(offsets[: len(positive)], wanted, beta=BETA, reduction="sum")
        return {
            "loss_objectness": binary_cross_entropy_with_logits(logits, labels[sampled]),
            "loss_rpn_box_reg": far / len(sampled),
        }


def at_anchors(head: RPNHead, levels: Sequence[Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    """The head's logits [S] and offsets [S, 4] of some anchors [S] alone, in single precision.

    Anchors are counted over the images, in each over the levels, their rows, their columns, and the anchors of a place.
    """
    per_place = head.cls_logits.out_channels
    places, choice = anchors // per_place, anchors % per_place
    hidden = _patches(levels, places)
    for block in head.conv:
        convolution = block[0]
        # [out, in, 3, 3] as patches lie: neighbours first, channels last.
        hidden = relu(linear(hidden, convolution.weight.permute(0, 2, 3, 1).flatten(1), convolution.bias))
    logits, offsets = (
        at_least_single(linear(hidden, layer.weight.flatten(1), layer.bias))
        for layer in (head.cls_logits, head.bbox_pred)
    )
    rows = torch.arange(len(anchors), device=anchors.device)
    return logits[rows, choice], offsets.view(len(anchors), per_place, 4)[rows, choice]


def _patches(levels: Sequence[Tensor], places: Tensor) -> Tensor:
    """The 3 x 3 neighbourhoods [S, 9 C] of places, with zeros beyond the edges."""
    device, channels, images = places.device, levels[0].shape[1], len(levels[0])
    table = [level.permute(0, 2, 3, 1).reshape(-1, channels) for level in levels]
    rows = torch.cat([*table, table[0].new_zeros(1, channels)])
    sizes = torch.tensor([level.shape[-2:] for level in levels], device=device)
    areas = sizes.prod(dim=1)
    ends = areas.cumsum(0)
    image, place = places // ends[-1], places % ends[-1]
    level = torch.searchsorted(ends, place, right=True)
    height, width, area = sizes[level, 0], sizes[level, 1], areas[level]
    start = ends[level] - area
    y, x = (place - start) // width, (place - start) % width
    steps = torch.tensor(STEPS, device=device)
    ys, xs = (y[:, None] + steps)[:, :, None], (x[:, None] + steps)[:, None, :]
    inside = (ys >= 0) & (ys < height[:, None, None]) & (xs >= 0) & (xs < width[:, None, None])
    # The table has all images of a level together.
    base = (start * images + image * area)[:, None, None]
    numbers = torch.where(inside, base + ys * width[:, None, None] + xs, len(rows) - 1)
    return embedding(numbers.flatten(1), rows).flatten(1)
