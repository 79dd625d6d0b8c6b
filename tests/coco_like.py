"""A ground truth of COCO's size and shape, and detections on it: made in seconds, and the same each time.

Widths and proportions of objects are drawn as they are in val2014 (log-normal), so that many are small. A mask that is
found is the mask of an object, moved: in run lengths down the columns that changes the first run and the last alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

Entry = dict[str, Any]

SIZES = ((480, 640), (640, 480))  # height, width
CATEGORIES = 80
OBJECTS_PER_IMAGE = 7.2
CROWD_SHARE = 0.01
#: Of the detections on an image, at most so many are near an object, and so many near the same one.
MOST_NEAR, MOST_NEAR_ONE = 60, 4


@dataclass(frozen=True)
class Thing:
    """An object: its annotation, and its mask taken apart, so that it can be moved.

    ``first`` and ``last`` are the numbers that a move changes, ``between`` is what stands between them.
    """

    annotation: Entry
    size: tuple[int, int]
    first: int
    between: str
    last: int


def make_things(images: int, seed: int = 0) -> list[list[Thing]]:
    """The objects of so many images; the image ids are 1, 2 and so on."""
    random = np.random.default_rng(seed)
    things: list[list[Thing]] = []
    made = 0
    for image_id in range(1, images + 1):
        size = SIZES[int(random.random() < 0.3)]
        count = int(random.geometric(1 / OBJECTS_PER_IMAGE))
        things.append([_thing(made + number, image_id, size, random) for number in range(1, count + 1)])
        made += count
    return things


def write_truth(things: list[list[Thing]], path: Path) -> Path:
    """Write the annotation file."""
    images = [
        {"id": number, "file_name": f"{number:012}.jpg", "height": of_image[0].size[0], "width": of_image[0].size[1]}
        for number, of_image in enumerate(things, start=1)
    ]
    categories = [{"id": number, "name": f"category {number}"} for number in range(1, CATEGORIES + 1)]
    annotations = [thing.annotation for of_image in things for thing in of_image]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def detections(things: list[list[Thing]], per_image: int, masks: bool, seed: int = 1) -> Iterator[list[Entry]]:
    """What a detector might find, image by image: objects, some of them several times, and what is not there."""
    random = np.random.default_rng(seed)
    pools = {size: [thing for of in things for thing in of if thing.size == size] for size in SIZES}
    for image_id, of_image in enumerate(things, start=1):
        near = min(MOST_NEAR, MOST_NEAR_ONE * len(of_image), per_image)
        pool = pools[of_image[0].size]
        others = [pool[index] for index in random.integers(len(pool), size=per_image - near)]
        chosen = [of_image[index % len(of_image)] for index in range(near)] + others
        spread = np.where(np.arange(per_image) < near, 0.04 * (1 + np.arange(per_image) // len(of_image)), 2.0)
        yield _found(image_id, chosen, spread, masks, random)


def _found(image_id: int, chosen: list[Thing], spread: Any, masks: bool, random: np.random.Generator) -> list[Entry]:
    count = len(chosen)
    boxes = np.array([thing.annotation["bbox"] for thing in chosen])
    heights, widths = np.array([thing.size for thing in chosen]).T
    moves = (random.normal(size=(count, 2)) * spread[:, None] * boxes[:, 2:]).round()
    # At least a pixel stays free on each side, so that a mask never begins or ends with its object.
    moves = np.clip(
        moves, 1 - np.floor(boxes[:, :2]), np.stack([widths, heights], 1) - 2 - np.ceil(boxes[:, :2] + boxes[:, 2:])
    )
    boxes[:, :2] += moves
    boxes[:, 2:] *= np.exp(random.normal(scale=0.05, size=(count, 2)))
    scores = np.clip(np.exp(-3 * spread) * random.beta(5, 1.5, count) + random.exponential(0.05, count), 0.001, 0.999)
    categories = [thing.annotation["category_id"] for thing in chosen]
    wrong = random.random(count) < 0.1
    # Workers compute in single precision, and write all of its digits.
    rows = zip(
        chosen,
        moves.astype(int).tolist(),
        boxes.astype(np.float32).tolist(),
        scores.astype(np.float32).tolist(),
        categories,
        wrong.tolist(),
        strict=True,
    )
    found = []
    for thing, move, box, score, category, is_wrong in rows:
        entry = {
            "image_id": image_id,
            "category_id": 1 + category % CATEGORIES if is_wrong else category,
            "bbox": box,
            "score": score,
        }
        if masks:
            entry["segmentation"] = {"size": list(thing.size), "counts": _moved(thing, *move)}
        found.append(entry)
    return found


def _moved(thing: Thing, right: int, down: int) -> str:
    pixels = right * thing.size[0] + down
    return _number(thing.first + pixels) + thing.between + _number(thing.last - pixels)


def _thing(number: int, image_id: int, size: tuple[int, int], random: np.random.Generator) -> Thing:
    height, width = size
    across = float(np.clip(np.exp(random.normal(3.89, 1.15)), 4, width - 4))
    down = float(np.clip(across * np.exp(random.normal(0.16, 0.77)), 4, height - 4))
    left, top = random.uniform(2, width - 1 - across), random.uniform(2, height - 1 - down)
    corners = int(np.clip(across / 4, 6, 40))
    angles = (np.arange(corners) + random.uniform(0, 0.8, corners)) * (2 * np.pi / corners)
    radius = random.uniform(0.7, 1.0, corners)
    points = np.stack(
        [left + across * (1 + radius * np.cos(angles)) / 2, top + down * (1 + radius * np.sin(angles)) / 2], 1
    )
    polygon = points.round(2).ravel().tolist()
    encoded = rle.frPyObjects([polygon], height, width)[0]
    is_crowd = random.random() < CROWD_SHARE
    counts = encoded["counts"].decode("ascii")
    annotation = {
        "segmentation": {"size": list(size), "counts": counts} if is_crowd else [polygon],
        "area": float(rle.area(encoded)),
        "iscrowd": int(is_crowd),
        "image_id": image_id,
        "bbox": [*points.min(axis=0).round(2).tolist(), *np.ptp(points, axis=0).round(2).tolist()],
        "category_id": 1 + int(random.zipf(1.6)) % CATEGORIES,
        "id": number,
    }
    return Thing(annotation, size, *_parts(counts))


def _parts(counts: str) -> tuple[int, str, int]:
    ends = [place for place, letter in enumerate(counts) if not (ord(letter) - 48) & 32]
    return _value(counts[: ends[0] + 1]), counts[ends[0] + 1 : ends[-2] + 1], _value(counts[ends[-2] + 1 :])


def _value(letters: str) -> int:
    """A number of a compressed string: five bits a letter, least first, signed."""
    value = sum(((ord(letter) - 48) & 31) << 5 * place for place, letter in enumerate(letters))
    return value - (1 << 5 * len(letters)) if (ord(letters[-1]) - 48) & 16 else value


@cache
def _number(value: int) -> str:
    letters = ""
    while True:
        bits, value = value & 31, value >> 5
        is_last = value == (-1 if bits & 16 else 0)
        letters += chr(48 + bits + (0 if is_last else 32))
        if is_last:
            return letters
