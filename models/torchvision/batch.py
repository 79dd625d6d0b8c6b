"""What an iteration trains on: images as bytes, resized and padded by the loader, and the objects in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outlines:
    """The segmentations of one image's N objects, in pixels of the resized image.

    An object is the union of its polygons. ``points`` [P, 2] are the x, y of all corners, float32; ``polygon_ends``
    [K] says where in ``points`` each polygon ends, ``object_ends`` [N] where in ``polygon_ends`` each object ends,
    both int64. An object that came as run lengths has no polygons, but a plane in ``bitmaps`` [M, h, w], uint8, of
    the resized image without its padding; ``planes`` [N] is its number there, or -1.
    """

    points: Tensor
    polygon_ends: Tensor
    object_ends: Tensor
    bitmaps: Tensor
    planes: Tensor


@dataclass(frozen=True)
class Target:
    """The N objects of one image: boxes [N, 4] as x1, y1, x2, y2 in pixels of the resized image, float32, and classes
    [N], int64. ``outlines`` is None where the detector has no masks; they stay on the host.
    """

    boxes: Tensor
    labels: Tensor
    outlines: Outlines | None


@dataclass(frozen=True)
class Batch:
    """uint8 [B, 3, H, W], RGB, zeros beyond each image's own (height, width) in ``sizes``; H, W multiples of 32."""

    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    targets: tuple[Target, ...]

    def to(self, device: torch.device) -> Batch:
        """The same on a device; copies from pinned memory are not waited for."""
        targets = tuple(
            Target(
                target.boxes.to(device, non_blocking=True),
                target.labels.to(device, non_blocking=True),
                target.outlines,
            )
            for target in self.targets
        )
        return Batch(self.images.to(device, non_blocking=True), self.sizes, targets)
