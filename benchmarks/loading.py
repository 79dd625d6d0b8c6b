"""Loading of training images by the torchvision backend, beside CocoDetection and v2 transforms; its annotation index.

Images a second of one process on one core, with everything that comes before the step: on our side decoding, resizing
to the published 800 x 1333, mirroring, putting into batches; on the plain side the same and masks of whole images, with
RandomShortestSize, and, for information, without resizing. The sides take turns in one process.

The index is made of an annotation file as large as that of COCO train2017: 118,287 images with 860,001 objects.

Needs ZOO_BENCH_TINY_COCO. Exits with 1 when a limit is missed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).with_name("torchvision")))
from worker_side import measured, published, worker_python

SCRIPT = "loaders.py"
LEAST_RATIO = 1.5
MOST_OWN_BYTES = 64 * 2**20
IMAGES, OBJECTS = 118_287, 860_001


def loading(python: str, data: Path, folder: Path) -> bool:
    """Print images a second; whether the limit holds."""
    rows, held = [], True
    for detector in ("mask-rcnn_fpn", "faster-rcnn_fpn"):
        changes = {"gpus": 0, "images_per_gpu": 2, "runtime": {"data_workers": 0}}
        cell = folder / f"{detector}.json"
        cell.write_text(json.dumps(published(detector, data, changes)))
        found = measured(python, SCRIPT, str(cell), "images")
        ratio = found["ours"] / found["resized"]
        held = held and ratio >= LEAST_RATIO
        spread = f"{min(found['ratios']):.2f} to {max(found['ratios']):.2f}"
        what = "boxes and masks" if "mask" in detector else "boxes"
        rows.append(
            [
                what,
                *(f"{found[side]:.0f}" for side in ("plain", "resized", "ours")),
                f"{ratio:.2f} ({spread})",
                LEAST_RATIO,
            ]
        )
    heads = ["images/s of a core", "plain, not resized", "plain", "ours", "ratio (by round)", "at least"]
    print(tabulate(rows, headers=heads, tablefmt="pipe", disable_numparse=True))
    return held


def indexing(python: str, folder: Path) -> bool:
    """Print what the index of a large annotation file costs; whether a process keeps little to itself."""
    annotations = folder / "large.json"
    annotations.write_text(json.dumps(large()))
    found = {what: measured(python, SCRIPT, str(annotations), what) for what in ("objects", "index")}
    rows = [
        [what, f"{row['made_s']:.1f}", f"{row['opened_s']:.2f}", f"{row['own_bytes'] / 2**20:.0f}"]
        for what, row in found.items()
    ]
    print(f"\n{IMAGES} images, {OBJECTS} objects, {annotations.stat().st_size / 2**20:.0f} MiB of JSON")
    heads = ["annotations as", "first s", "again s", "MiB a forked process has to itself"]
    print(tabulate(rows, headers=heads, tablefmt="pipe", disable_numparse=True))
    return bool(found["index"]["own_bytes"] <= MOST_OWN_BYTES)


def large() -> dict[str, object]:
    """An annotation file as large as COCO train's; the objects are random polygons of 24 corners."""
    draw = random.Random(0)
    images = [
        {"id": number, "file_name": f"{number:012}.jpg", "width": 640, "height": 480} for number in range(1, IMAGES + 1)
    ]
    annotations = []
    for number in range(OBJECTS):
        left, top, width, height = (
            draw.randint(0, 300),
            draw.randint(0, 200),
            draw.randint(5, 300),
            draw.randint(5, 200),
        )
        corners = [round(draw.random() * (width if place % 2 == 0 else height), 2) for place in range(48)]
        points = [corner + (left if place % 2 == 0 else top) for place, corner in enumerate(corners)]
        annotations.append(
            {
                "id": number,
                "image_id": draw.randint(1, IMAGES),
                "category_id": draw.randint(1, 80),
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [points],
            }
        )
    categories = [{"id": number, "name": str(number)} for number in range(1, 81)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main() -> int:
    """Measure, print tables, judge."""
    named = os.environ.get("ZOO_BENCH_TINY_COCO")
    if not named:
        print("ZOO_BENCH_TINY_COCO is not set; it names a folder with train2017/ and annotations/")
        return 0
    python = worker_python()
    with tempfile.TemporaryDirectory() as folder:
        held = [loading(python, Path(named).absolute(), Path(folder)), indexing(python, Path(folder))]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
