"""What a mask head is to learn: each region's object, rasterised inside the region alone.

From polygons, cut and scaled to the region, as Detectron does; torchvision's own training makes a mask of the whole
image for every object first, and then pools it.
"""

from __future__ import annotations

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torchvision.ops import roi_align

from models.torchvision.batch import Outlines

LEAST_NUMBERS = 6  # three corners
LEAST_SIDE = 0.1  # pixels; a thinner region is taken for one of this side


def mask_targets(outlines: Outlines, regions: Tensor, objects: Tensor, size: int) -> Tensor:
    """Masks [R, size, size], 0 or 1, of the ``objects`` [R] inside ``regions`` [R, 4]; float32, on the host."""
    corners, numbers = regions.detach().cpu(), objects.tolist()
    found = torch.zeros(len(corners), size, size)
    points, ends = outlines.points.numpy(), outlines.polygon_ends.tolist()
    firsts = [0, *outlines.object_ends.tolist()]
    for place, (number, corner) in enumerate(zip(numbers, corners.numpy().astype(np.float64), strict=True)):
        plane = int(outlines.planes[number])
        if plane >= 0:
            found[place] = _from_plane(outlines.bitmaps[plane], corners[place], size)
            continue
        scale = size / np.maximum(corner[2:] - corner[:2], LEAST_SIDE)
        polygons = [
            ((points[ends[index - 1] if index else 0 : ends[index]] - corner[:2]) * scale).reshape(-1).tolist()
            for index in range(firsts[number], firsts[number + 1])
        ]
        found[place] = _from_polygons(polygons, size)
    return found


def _from_polygons(polygons: list[list[float]], size: int) -> Tensor:
    # pycocotools takes two corners for a box.
    areas = [polygon for polygon in polygons if len(polygon) >= LEAST_NUMBERS]
    if not areas:
        return torch.zeros(size, size)
    return torch.from_numpy(rle.decode(rle.merge(rle.frPyObjects(areas, size, size))))


def _from_plane(plane: Tensor, corner: Tensor, size: int) -> Tensor:
    region = torch.cat([torch.zeros(1), corner])[None]
    return (roi_align(plane[None, None].float(), region, size)[0, 0] >= 0.5).float()
