"""COCO files in and out, for every worker: images with their objects, masks, and the results list.

numpy, pillow and pycocotools, and Python 3.6 syntax, as in worker.py: the frameworks' own types come later.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from models import worker
from models.detections import Detection


class Sample(NamedTuple):
    """One image with its objects: boxes [N, 4] as x1, y1, x2, y2 in pixels, category ids [N], COCO segmentations."""

    image_id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    segmentations: Tuple[Any, ...]


class Split(NamedTuple):
    """One annotation file: its samples in file order, and its category ids in rising order."""

    samples: Tuple[Sample, ...]
    category_ids: Tuple[int, ...]


def read_splits(job: Dict[str, Any]) -> Dict[str, Split]:
    """The annotation files that a job's phases need: train to learn from, val to measure and evaluate on.

    Raises WorkerError of kind "data" as `read_split` does, and for one without images.
    """
    phases, masks = job["phases"], job["cell"]["masks"]
    needed = {"train": "train" in phases, "val": "infer" in phases or "evaluate" in phases}
    splits = {}
    for name in (name for name, is_needed in needed.items() if is_needed):
        folder = job["dataset"][name]
        # Only what is trained on needs masks: the harness scores the rest.
        splits[name] = read_split(Path(folder["images"]), Path(folder["annotations"]), masks and name == "train")
        if not splits[name].samples:
            raise worker.WorkerError(f"{folder['annotations']} has no images", kind="data")
    return splits


def read_split(images: Path, annotations: Path, masks: bool) -> Split:
    """Read a COCO annotation file. Crowd regions and boxes without an area are left out.

    Raises WorkerError of kind "data" for a file that cannot be read, or, where ``masks`` asks for them, an object
    without a segmentation.
    """
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        objects: Dict[int, List[Dict[str, Any]]] = defaultdict(list)
        for item in content.get("annotations", []):
            if not item.get("iscrowd", 0):
                objects[item["image_id"]].append(item)
        samples = tuple(_sample(images, image, objects[image["id"]], masks) for image in content["images"])
        category_ids = tuple(sorted(category["id"] for category in content["categories"]))
        used = {int(label) for sample in samples for label in sample.labels}
        if not category_ids or not used.issubset(category_ids):
            raise ValueError(f"its objects are of categories {sorted(used)}, it declares {list(category_ids)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise worker.WorkerError(f"cannot read the annotations {annotations}: {error!r}", kind="data") from error
    return Split(samples, category_ids)


def with_objects(samples: Sequence[Sample]) -> Tuple[Sample, ...]:
    """The samples a detector can learn from: those with at least one box. Raises WorkerError, "data", for none."""
    found = tuple(sample for sample in samples if len(sample.boxes))
    if not found:
        raise worker.WorkerError("no training image has an object", kind="data")
    return found


def _sample(folder: Path, image: Dict[str, Any], objects: List[Dict[str, Any]], masks: bool) -> Sample:
    width, height = image["width"], image["height"]
    corners = np.array([item["bbox"] for item in objects], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    corners = corners.clip(0, np.array([width, height, width, height], dtype=np.float32))
    kept = np.flatnonzero((corners[:, 2:] > corners[:, :2]).all(axis=1))
    if masks:
        for index in kept:
            if not objects[index].get("segmentation"):
                raise worker.WorkerError(f"object {objects[index].get('id')} has no segmentation", kind="data")
    return Sample(
        image_id=image["id"],
        path=folder / image["file_name"],
        width=width,
        height=height,
        boxes=corners[kept],
        labels=np.array([objects[index]["category_id"] for index in kept], dtype=np.int64),
        segmentations=tuple(objects[index]["segmentation"] for index in kept) if masks else (),
    )


def load_pixels(sample: Sample) -> np.ndarray:
    """The image as uint8 [height, width, 3], RGB. Raises WorkerError of kind "data" where the file is not it."""
    try:
        with Image.open(sample.path) as image:
            pixels = np.array(image.convert("RGB"))
    except OSError as error:
        raise worker.WorkerError(f"cannot read the image {sample.path}: {error}", kind="data") from error
    if pixels.shape[:2] != (sample.height, sample.width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise worker.WorkerError(
            f"{sample.path} is {found}, its annotation says {sample.width} x {sample.height}", kind="data"
        )
    return pixels


def load_masks(sample: Sample) -> np.ndarray:
    """The objects' masks as uint8 [N, height, width], from polygons or run lengths, compressed or not."""
    masks = np.zeros((len(sample.segmentations), sample.height, sample.width), dtype=np.uint8)
    for index, segmentation in enumerate(sample.segmentations):
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
            masks[index] = rle.decode(segmentation)
            continue
        encoded = rle.frPyObjects(segmentation, sample.height, sample.width)
        masks[index] = rle.decode(rle.merge(encoded) if isinstance(encoded, list) else encoded)
    return masks


def encode(
    image_id: int,
    corners: np.ndarray,
    category_ids: Sequence[int],
    scores: Sequence[float],
    masks: Optional[np.ndarray] = None,
) -> List[Detection]:
    """COCO results of one image: boxes as x, y, width, height, masks as compressed run lengths.

    ``corners`` [N, 4] are x1, y1, x2, y2 in the original image, ``masks`` is boolean [N, height, width].
    """
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    results = [
        {"image_id": image_id, "category_id": int(category_id), "bbox": box, "score": float(score)}
        for box, category_id, score in zip(boxes.tolist(), category_ids, scores)
    ]
    if masks is not None and results:
        planes = np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))
        for result, encoded in zip(results, rle.encode(planes)):
            encoded["counts"] = str(encoded["counts"], "ascii")
            result["segmentation"] = encoded
    return results
