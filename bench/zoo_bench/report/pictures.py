"""Images of the evaluation set with what is on them and what was found, drawn side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import mask
from PIL import Image, ImageDraw, ImageFont

from zoo_bench.detections import Detections, read_detections
from zoo_bench.ground_truth import GroundTruth, read_ground_truth
from zoo_bench.report.charts import PALETTE

SHOWN_SCORE = 0.5
SAME_OBJECT = 0.5  # IoU
SIDE = 480  # pixels
QUALITY = 82
# What an odd image or annotation leads to: it is left out.
ODD = (KeyError, TypeError, ValueError, OverflowError, OSError, Image.DecompressionBombError)
MOST_IMAGES = 500  # looked at for the best and the worst
OPACITY = 90


@dataclass(frozen=True)
class Drawn:
    """An image with its objects on the left, and what was found on the right. `f1`: of boxes, at a score of 0.5."""

    file: str
    caption: str
    picture: Image.Image
    f1: float


def best_and_worst(
    annotations: Path, detections: Path, images: Path, image_ids: Sequence[int] | None, count: int = 2
) -> list[Drawn]:
    """Draw the images on which a model was right most and least, of the first `MOST_IMAGES` with objects on them.

    An image's measure is F1: a box that was found counts when it has the class and half the area (IoU) of one that is
    there and was not found yet. Files that are not there are left out.
    """
    truth = read_ground_truth(annotations)
    found = read_detections(detections, truth)
    objects: dict[int, list[Mapping[str, Any]]] = {}
    for entry in truth.content["annotations"]:
        if not entry["iscrowd"] and entry["category_id"] in truth.categories:
            objects.setdefault(entry["image_id"], []).append(entry)
    wanted = set(truth.sizes if image_ids is None else image_ids)
    entries = [one for one in truth.content["images"] if one["id"] in wanted and objects.get(one["id"])][:MOST_IMAGES]
    scored = []
    for entry in entries:
        mine = found.on([entry["id"]])
        mine = mine.at(np.flatnonzero(mine.scores >= SHOWN_SCORE))
        with contextlib.suppress(*ODD):
            scored.append((_f1(objects[entry["id"]], mine), entry, mine))
    scored.sort(key=lambda one: (-one[0], one[1]["id"]))
    chosen = scored if len(scored) <= 2 * count else [*scored[:count], *scored[-count:]]
    drawn = []
    for f1, entry, mine in chosen:
        with contextlib.suppress(*ODD):
            drawn.append(_drawn(images / entry["file_name"], truth, objects[entry["id"]], mine, f1))
    return drawn


def _f1(objects: Sequence[Mapping[str, Any]], found: Detections) -> float:
    left = list(objects)
    right = 0
    for place in np.argsort(-found.scores, kind="stable"):
        same = [one for one in left if one["category_id"] == found.category_ids[place]]
        best = max(same, key=lambda one: _iou(one["bbox"], found.boxes[place]), default=None)
        if best is not None and _iou(best["bbox"], found.boxes[place]) >= SAME_OBJECT:
            left.remove(best)
            right += 1
    return 2 * right / (len(objects) + len(found))


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return float(width * height / (a[2] * a[3] + b[2] * b[3] - width * height))


def _drawn(path: Path, truth: GroundTruth, objects: Sequence[Mapping[str, Any]], found: Detections, f1: float) -> Drawn:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = SIDE / max(image.size)
    sides = [image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))) for _ in "ab"]
    boxes = [(one["bbox"], one["category_id"], "") for one in objects]
    guesses = [
        (box, int(category), f" {score:.2f}")
        for box, category, score in zip(found.boxes, found.category_ids, found.scores, strict=True)
    ]
    masks = [_mask(one.get("segmentation"), image.size) for one in objects]
    guessed = [_mask(counts, image.size) for counts in found.counts]
    for side, drawn, areas in ((sides[0], boxes, masks), (sides[1], guesses, guessed)):
        _paint(side, drawn, areas, scale, truth.categories)
    whole = Image.new("RGB", (sides[0].width * 2 + 6, sides[0].height), "white")
    whole.paste(sides[0], (0, 0))
    whole.paste(sides[1], (sides[0].width + 6, 0))
    caption = (
        f"{path.name}: {len(objects)} objects, {len(found)} found with a score of {SHOWN_SCORE} or more, F1 {f1:.2f}"
    )
    return Drawn(path.name, caption, whole, f1)


def _mask(segmentation: Any, size: tuple[int, int]) -> Image.Image | None:
    """Return the pixels of a COCO segmentation or of compressed run lengths; None where there are none."""
    width, height = size
    if isinstance(segmentation, list) and segmentation:
        lengths: Any = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation, str):
        lengths = {"size": [height, width], "counts": segmentation}
    else:
        return None
    return Image.fromarray(mask.decode(lengths) * np.uint8(OPACITY))


def _paint(
    side: Image.Image,
    boxes: Sequence[tuple[Any, int, str]],
    masks: Sequence[Image.Image | None],
    scale: float,
    names: Mapping[int, str],
) -> None:
    draw, font = ImageDraw.Draw(side), ImageFont.load_default(12)
    for (_, category, _), area in zip(boxes, masks, strict=True):
        if area is not None:
            side.paste(_colour(category), (0, 0, *side.size), area.resize(side.size))
    for box, category, score in boxes:
        if not np.isfinite(box).all():
            continue
        x, y, width, height = (float(value) * scale for value in box)
        draw.rectangle((x, y, x + width, y + height), outline=_colour(category), width=2)
        text = f"{names[category]}{score}"
        left, top, right, bottom = draw.textbbox((x + 2, max(0.0, y - 14)), text, font=font)
        draw.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=_colour(category))
        draw.text((x + 2, max(0.0, y - 14)), text, fill="white", font=font)


def _colour(category: int) -> str:
    return PALETTE[category % len(PALETTE)]
