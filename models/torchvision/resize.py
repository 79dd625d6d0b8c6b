"""Training images and their objects in the size that a detector takes, as bytes and outlines.

The sizes and the places are those of torchvision's GeneralizedRCNNTransform, and so are the pixels but for being
rounded to whole numbers. It does not smooth what it shrinks, nor does this. torchvision also makes every mask of an
object as large as the image; here polygons stay polygons, for whoever draws them to draw no more than a region of
interest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from models.coco import Sample, Segmentations, decoded

Size = tuple[int, int]


@dataclass(frozen=True)
class Objects:
    """What `models.torchvision.batch.Target` holds, as arrays: a loading process hands those over in one message, and
    every tensor by a file descriptor of its own. ``outlines`` are the fields of Outlines, in its order.
    """

    boxes: np.ndarray
    labels: np.ndarray
    outlines: tuple[Any, ...] | None


def output_size(size: Size, min_size: int, max_size: int) -> Size:
    """(height, width) with the shorter side at ``min_size``, or less so that the longer is ``max_size`` at most."""
    scale = min(min_size / min(size), max_size / max(size))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def resize_image(image: Tensor, size: Size, flip: bool) -> Tensor:
    """uint8 [3, H, W] to uint8 [3, h, w], mirrored left to right first if it is to be; pixel by pixel in memory."""
    # Bytes whose channels lie side by side take torch's fast way, more than twice as fast as the other.
    whole = image.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    if flip:
        whole = whole.flip(-1)
    if whole.shape[2:] != size:
        whole = interpolate(whole, size, mode="bilinear", align_corners=False)
    return whole[0]


def resize_objects(sample: Sample, size: Size, flip: bool) -> Objects:
    """The objects of an image that becomes (height, width) ``size``; without outlines where the sample has none."""
    # In single precision, as torchvision computes them.
    ratios = np.float32([size[1], size[0]]) / np.float32([sample.width, sample.height])
    boxes = _mirrored(sample.boxes, sample.width)[:, [2, 1, 0, 3]] if flip else sample.boxes
    outlines = None if sample.segmentations is None else _outlines(sample, sample.segmentations, ratios, size, flip)
    return Objects(boxes * np.tile(ratios, 2), sample.labels.copy(), outlines)


def _outlines(sample: Sample, shapes: Segmentations, ratios: np.ndarray, size: Size, flip: bool) -> tuple[Any, ...]:
    points = _mirrored(shapes.points, sample.width) if flip else shapes.points
    drawn = [number for number, runs in enumerate(shapes.runs) if runs]
    planes = np.full(len(shapes.runs), -1)
    planes[drawn] = np.arange(len(drawn))
    bitmaps = np.zeros((0, *size), dtype=np.uint8)
    if drawn:
        whole = np.stack([decoded(shapes.runs[number], (sample.height, sample.width)) for number in drawn])
        bitmaps = _resize_bitmaps(torch.from_numpy(whole), size, flip)
    return points * ratios, shapes.polygon_ends, shapes.object_ends, bitmaps, planes


def _mirrored(corners: np.ndarray, width: int) -> np.ndarray:
    """x, y, x, y and so on in the last axis, with every x as seen in a mirror."""
    mirrored = corners.copy()
    mirrored[:, ::2] = width - mirrored[:, ::2]
    return mirrored


def _resize_bitmaps(bitmaps: Tensor, size: Size, flip: bool) -> Tensor:
    return interpolate((bitmaps.flip(-1) if flip else bitmaps)[None], size, mode="nearest")[0]
