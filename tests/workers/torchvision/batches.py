"""Batches of the same few rectangles on every image, for our detectors and for torchvision's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.torchvision.batch import Batch, Outlines, Target

Block = tuple[float, float, float, float]


def block(left: float, top: float, width: float, height: float) -> Block:
    """A rectangle as its corners."""
    return left, top, left + width, top + height


def outlines_of(blocks: Sequence[Block]) -> Outlines:
    """One polygon of four corners an object."""
    corners = [[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in blocks]
    count = len(blocks)
    return Outlines(
        points=torch.tensor(corners, dtype=torch.float32).view(-1, 2),
        polygon_ends=torch.arange(4, 4 * count + 1, 4),
        object_ends=torch.arange(1, count + 1),
        bitmaps=torch.zeros((0, 1, 1), dtype=torch.uint8),
        planes=torch.full((count,), -1),
    )


def batch_of(blocks: Sequence[Block], images: Sequence[Tensor], label: int = 3) -> Batch:
    """Images of one size, fractions [3, H, W], each with all the blocks."""
    boxes, labels = torch.tensor(blocks), torch.full((len(blocks),), label)
    target = Target(boxes, labels, outlines_of(blocks))
    pixels = torch.stack([(image * 255).round().to(torch.uint8) for image in images])
    return Batch(pixels, tuple(tuple(image.shape[-2:]) for image in images), (target,) * len(images))


def for_torchvision(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The same as torchvision's detectors take it: fractions, and masks of the whole image."""
    targets = []
    for target in batch.targets:
        masks = torch.zeros((len(target.boxes), *batch.images.shape[-2:]), dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, target.boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        targets.append({"boxes": target.boxes, "labels": target.labels, "masks": masks})
    return [image.float() / 255 for image in batch.images], targets
