"""Whether one COCO segmentation is well formed: polygons, or run lengths as a list or a compressed string."""

from __future__ import annotations

from typing import Any

from zoo_bench.datasets.coco import MOST_SIDE, is_finite


def segmentation_fault(segmentation: Any, size: tuple[int, int] | None) -> str | None:
    """What is wrong with a segmentation, or None; `size` is the image's width and height where they are
    known.
    """
    if isinstance(segmentation, dict):
        return _rle_fault(segmentation, size)
    if not isinstance(segmentation, list):
        return "neither a list of polygons nor run lengths"
    for polygon in segmentation:
        fault = _polygon_fault(polygon, size)
        if fault is not None:
            return fault
    return None


def _polygon_fault(polygon: Any, size: tuple[int, int] | None) -> str | None:
    if not isinstance(polygon, list):
        return "a polygon is not a list of numbers"
    try:
        # One sum finds a value that is no number, as well as NaN and infinity, faster than a look at each.
        total = sum(polygon)
    except TypeError:
        return "a polygon holds something that is not a number"
    except OverflowError:  # a whole number that no float is as large as
        return "a polygon holds a number that is not finite"
    if not is_finite(total):
        return "a polygon holds a number that is not finite"
    if len(polygon) % 2:
        return f"a polygon of {len(polygon)} numbers: x and y must come in pairs"
    if len(polygon) < 6:
        return f"a polygon of {len(polygon)} numbers: three points make 6"
    if size is not None and not (-max(size) <= min(polygon) and max(polygon) <= 2 * max(size)):
        return "a polygon with a corner far outside of the image"  # to draw it would take all memory there is
    return None


def _rle_fault(rle: dict[str, Any], size: tuple[int, int] | None) -> str | None:
    shape, counts = rle.get("size"), rle.get("counts")
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_side, shape)):
        return "run lengths without a size [height, width]"
    height, width = shape
    if size is not None and (width, height) != size:
        return f"run lengths for {width} x {height} in an image of {size[0]} x {size[1]}"
    if isinstance(counts, str):
        from zoo_bench.datasets.compressed import compressed_rle_areas  # and with it numpy, only where it is needed

        _, faults = compressed_rle_areas([counts], [height * width])
        return faults.get(0)
    pixels = height * width
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count <= pixels for count in counts):
        return "run lengths that are not counts"
    if sum(counts) != pixels:
        return f"run lengths that add up to {sum(counts)}, not to {width} x {height} = {pixels}"
    return None


def _is_side(side: Any) -> bool:
    return type(side) is int and 0 < side <= MOST_SIDE
