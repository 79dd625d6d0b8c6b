"""Write one split of `shapes`: its JPEG files and its COCO annotation file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo_bench.datasets import masks
from zoo_bench.datasets.shapes_draw import CATEGORIES, Drawing, DrawnObject, draw
from zoo_bench.datasets.shapes_random import Stream, derive

if TYPE_CHECKING:
    from zoo_bench.datasets.shapes import ShapesSettings

# Fixed here and never left to a default: with full chroma and the standard tables every libjpeg-turbo gives
# these bytes.
_JPEG_OPTIONS: dict[str, Any] = {"quality": 92, "subsampling": 0, "optimize": False, "progressive": False}

_HEAD: dict[str, Any] = {
    "info": {
        "description": "shapes: synthetic images for testing object detectors",
        "url": "",
        "version": "1",
        "year": 2026,
        "contributor": "zoo-bench",
        "date_created": "2026-01-01",
    },
    "licenses": [{"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
    "categories": [
        {"id": number, "name": name, "supercategory": "shape"} for number, name in enumerate(CATEGORIES, start=1)
    ],
}


def write_split(folder: Path, split: str, settings: ShapesSettings, images: int, first_id: int) -> Iterator[int]:
    """Write the images and then the annotations of `split` under `folder`; yields each image id once it is
    written.
    """
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(first_id, first_id + images):
        drawing = _drawing(image_id, settings)
        name = f"{image_id:012d}.jpg"
        (folder / split / name).write_bytes(encode_jpeg(drawing.pixels))
        height, width, _ = drawing.pixels.shape
        records.append({"id": image_id, "file_name": name, "width": width, "height": height, "license": 1})
        for thing in drawing.objects:
            annotations.append(_annotation(thing, image_id, first_id + len(annotations)))
        yield image_id
    content = {**_HEAD, "images": records, "annotations": annotations}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True) + "\n"
    (folder / "annotations" / f"instances_{split}.json").write_bytes(text.encode("ascii"))


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """RGB pixels ``(height, width, 3)`` as a baseline JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", **_JPEG_OPTIONS)
    return buffer.getvalue()


def _drawing(image_id: int, settings: ShapesSettings) -> Drawing:
    # The ids of the splits differ, so no key is used twice and no image is in both.
    stream = Stream(derive(settings.seed, image_id))
    width = stream.between(settings.min_side, settings.max_side)
    height = stream.between(settings.min_side, settings.max_side)
    crowd = stream.chance(settings.crowd_permille, 1000)
    return draw(stream.key(), width, height, settings.max_objects, crowd)


def _annotation(thing: DrawnObject, image_id: int, annotation_id: int) -> dict[str, Any]:
    polygon = None if thing.crowd else masks.simple_polygon(thing.visible)
    segmentation: Any = [polygon]
    if polygon is None:
        segmentation = {"counts": masks.run_lengths(thing.visible), "size": list(thing.visible.shape)}
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": CATEGORIES.index(thing.category) + 1,
        "segmentation": segmentation,
        "area": int(np.count_nonzero(thing.visible)),
        "bbox": list(masks.bounding_box(thing.visible)),
        "iscrowd": int(thing.crowd),
    }
