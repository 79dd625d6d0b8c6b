"""From the JSON of a COCO annotation file to its index. numpy, pycocotools and Python 3.6 syntax, as in coco.py."""

import json
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from pycocotools import mask as rle

from models.index import Index

FEWEST_NUMBERS = 6  # of a polygon: three corners


class Shape(NamedTuple):
    """An object's segmentation: polygons as flat x, y, float32, or compressed run lengths of an image of ``size``.

    ``problem`` says what is wrong with it.
    """

    polygons: Tuple[np.ndarray, ...] = ()
    runs: bytes = b""
    size: Optional[List[int]] = None
    problem: str = ""


NO_SHAPE = Shape(problem="has no segmentation")
BAD_SHAPE = Shape(problem="has a segmentation that is neither polygons nor run lengths")


def pack(annotations: Path) -> Index:
    """Read an annotation file. Crowd regions and boxes without an area are left out.

    Raises OSError, or, for what is no COCO annotation file, ValueError, KeyError, TypeError or AttributeError.
    """
    # Segmentations become arrays as they are parsed: as lists of numbers they would take a gigabyte for COCO's train.
    content = json.loads(annotations.read_text(encoding="utf-8"), object_hook=_with_shape)
    images = content["images"]
    number_of = {image["id"]: number for number, image in enumerate(images)}
    if len(number_of) < len(images):
        raise ValueError("two of its images have the same id")
    objects = [item for item in content.get("annotations", []) if not item.get("iscrowd", 0)]
    objects = [item for item in objects if item["image_id"] in number_of]
    objects.sort(key=lambda item: number_of[item["image_id"]])
    numbers = _whole(number_of[item["image_id"]] for item in objects)
    sizes = _whole(chain.from_iterable((image["width"], image["height"]) for image in images)).reshape(-1, 2)
    if (sizes < 1).any():
        raise ValueError("one of its images has no area")
    boxes = _corners(objects, sizes[numbers])
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    objects = [objects[number] for number in kept]
    labels = _whole(item["category_id"] for item in objects)
    names = [image["file_name"].encode("utf-8") for image in images]
    return Index(
        image_ids=_whole(image["id"] for image in images),
        sizes=sizes,
        names=_bytes(names),
        name_ends=_ends(names),
        object_ends=np.cumsum(np.bincount(numbers[kept], minlength=len(images))).astype(np.int64),
        boxes=boxes[kept],
        labels=labels,
        category_ids=_categories(content["categories"], labels),
        **_shapes(objects, sizes[numbers[kept]]),
    )


def _categories(declared: List[Dict[str, Any]], labels: np.ndarray) -> np.ndarray:
    found = sorted(category["id"] for category in declared)
    used = np.unique(labels).tolist()
    if not found or not set(used).issubset(found):
        raise ValueError(f"its objects are of categories {used}, it declares {found}")
    return _whole(found)


def _corners(objects: List[Dict[str, Any]], sizes: np.ndarray) -> np.ndarray:
    corners = np.array([item["bbox"] for item in objects], dtype=np.float32).reshape(len(objects), 4)
    corners[:, 2:] += corners[:, :2]
    return corners.clip(0, np.tile(sizes, 2).astype(np.float32))


def _shapes(objects: List[Dict[str, Any]], sizes: np.ndarray) -> Dict[str, np.ndarray]:
    shapes = [item.get("segmentation", NO_SHAPE) for item in objects]
    polygons = [polygon for shape in shapes for polygon in shape.polygons]
    runs = [shape.runs for shape in shapes]
    points = np.concatenate([*polygons, np.zeros(0, np.float32)]).reshape(-1, 2)
    ends = _ends(polygons) // 2
    problem = _first_problem(objects, shapes, sizes) or _far_out(objects, shapes, points, ends, sizes)
    return {
        "part_ends": np.cumsum(_whole(len(shape.polygons) for shape in shapes)),
        "polygon_ends": ends,
        "points": points,
        "run_ends": _ends(runs),
        "runs": _bytes(runs),
        "mask_problem": _bytes([problem.encode("utf-8")]),
    }


def _first_problem(objects: List[Dict[str, Any]], shapes: List[Shape], sizes: np.ndarray) -> str:
    for item, shape, (width, height) in zip(objects, shapes, sizes.tolist()):
        if shape.problem:
            return f"object {item.get('id')} {shape.problem}"
        if shape.runs and shape.size != [height, width]:
            found = f"object {item.get('id')} has run lengths of an image of height and width {shape.size}"
            return f"{found}, its own is {width} x {height}"
    return ""


def _far_out(
    objects: List[Dict[str, Any]], shapes: List[Shape], points: np.ndarray, ends: np.ndarray, sizes: np.ndarray
) -> str:
    """Says which object has a corner so far outside of its image that drawing it would take all memory there is."""
    if not ends.size:
        return ""
    starts = np.append(0, ends[:-1])
    owners = np.repeat(np.arange(len(shapes)), [len(shape.polygons) for shape in shapes])
    near = sizes[owners].astype(np.float64)
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    wrong = np.flatnonzero(~((low >= -near) & (high <= 2 * near)).all(axis=1))  # so is what is no number
    if not wrong.size:
        return ""
    return f"object {objects[owners[wrong[0]]].get('id')} has a corner far outside of its image"


def _with_shape(item: Dict[str, Any]) -> Dict[str, Any]:
    if "segmentation" in item:
        item["segmentation"] = NO_SHAPE if item.get("iscrowd", 0) else _shape(item["segmentation"])
    return item


def _shape(segmentation: Any) -> Shape:
    try:
        if not segmentation:
            return NO_SHAPE
        if isinstance(segmentation, dict):
            return _run_lengths(segmentation["counts"], segmentation["size"])
        polygons = tuple(np.array(polygon, dtype=np.float32) for polygon in segmentation)
    except (ValueError, KeyError, TypeError):
        return BAD_SHAPE
    if any(polygon.ndim != 1 or len(polygon) % 2 for polygon in polygons):
        return BAD_SHAPE
    polygons = tuple(polygon for polygon in polygons if len(polygon) >= FEWEST_NUMBERS)
    return Shape(polygons=polygons) if polygons else NO_SHAPE


def _run_lengths(counts: Any, size: List[int]) -> Shape:
    if isinstance(counts, list):
        counts = rle.frPyObjects({"counts": counts, "size": size}, *size)["counts"]
    runs = counts if isinstance(counts, bytes) else counts.encode("ascii")
    return Shape(runs=runs, size=size) if runs else BAD_SHAPE


def _whole(numbers: Iterable[int]) -> np.ndarray:
    return np.array(list(numbers), dtype=np.int64)


def _ends(parts: Sequence[Any]) -> np.ndarray:
    return np.cumsum(_whole(len(part) for part in parts))


def _bytes(parts: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(parts), dtype=np.uint8)
