"""Masks in the forms COCO writes them: uncompressed run lengths, and one simple polygon.

Definitions: pycocotools `common/maskApi.c`. Runs go down the columns (x outer, y inner) and start with
background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Vertex = tuple[int, int]


def run_lengths(mask: Mask) -> list[int]:
    """The ``counts`` of COCO's uncompressed RLE for a ``(height, width)`` mask."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    counts: list[int] = np.diff(edges).tolist()
    return [0, *counts] if flat[0] else counts


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """COCO's ``x, y, width, height`` of a mask with at least one pixel."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def simple_polygon(mask: Mask) -> list[int] | None:
    """``[x1, y1, x2, y2, ...]`` along pixel borders, or None where the mask is not one simple polygon.

    Not simple: several parts, a hole, or two pixels that meet in a corner only. The polygon, put back into
    pixels by COCO's own rule, gives exactly this mask.
    """
    following = _border(mask)
    if following is None:
        return None
    start = next(iter(following))
    path = [start]
    while (vertex := following[path[-1]]) != start:
        path.append(vertex)
    if len(path) != len(following):
        return None
    return [number for vertex in _corners(path) for number in vertex]


def _border(mask: Mask) -> dict[Vertex, Vertex] | None:
    """Every unit of border between mask and background, as start -> end, with the mask on its right hand.

    None when two of them start in the same vertex.
    """
    padded = np.pad(mask, 1)
    core = padded[1:-1, 1:-1]
    sides = (
        (core & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (core & ~padded[1:-1, 2:], (1, 0), (1, 1)),
        (core & ~padded[2:, 1:-1], (1, 1), (0, 1)),
        (core & ~padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    following: dict[Vertex, Vertex] = {}
    total = 0
    for side, start, end in sides:
        rows, columns = np.nonzero(side)
        total += len(rows)
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            following[x + start[0], y + start[1]] = (x + end[0], y + end[1])
    return following if len(following) == total else None


def _corners(path: list[Vertex]) -> list[Vertex]:
    """The vertices of a closed path of unit steps at which it turns."""
    corners = []
    for index, (x, y) in enumerate(path):
        before, after = path[index - 1], path[(index + 1) % len(path)]
        if (x - before[0], y - before[1]) != (after[0] - x, after[1] - y):
            corners.append((x, y))
    return corners
