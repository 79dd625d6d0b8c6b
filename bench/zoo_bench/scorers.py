"""The evaluators that compute COCO scores: hotcoco, and pycocotools as the reference.

Each gets the content of an annotation file, and detections that all have the shape that is to be scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zoo_bench.detections import Detections

    Floats = NDArray[np.float64]

IouType = Literal["bbox", "segm"]
Entry = dict[str, Any]
# The 12 numbers; precision by IoU threshold, recall threshold, category, area range, detection limit; category ids.
Scored = tuple[Sequence[float], "Floats", Sequence[int]]

_IMAGES_AT_A_TIME = 200


def _score_hotcoco(content: Entry, found: Detections, iou_type: IouType) -> Scored:
    """Some images at a time: the masks of all, as objects of Python's and of hotcoco's, fill half a gigabyte."""
    import hotcoco

    matching = hotcoco.StreamingEval(content["categories"], iou_type)
    for images, objects, part in _batches(content, found):
        masks = _segmentations(images, part) if iou_type == "segm" else None
        matching.update(images, objects, _table(part, iou_type), segmentation=masks)
    evaluation = matching.finalize()
    evaluation.accumulate()
    evaluation.summarize()
    arrays = evaluation.eval
    assert arrays is not None
    return list(evaluation.stats), arrays["precision"], evaluation.params.cat_ids


def _batches(content: Entry, found: Detections) -> Iterator[tuple[list[Entry], list[Entry], Detections]]:
    """Images in the order of their ids, what is on them, and what was found on them."""
    images = {entry["id"]: entry for entry in content["images"]}
    objects = defaultdict(list)
    for entry in content["annotations"]:
        objects[entry["image_id"]].append(entry)
    ids = sorted(images)
    batches = [ids[start : start + _IMAGES_AT_A_TIME] for start in range(0, len(ids), _IMAGES_AT_A_TIME)]
    for batch, part in zip(batches, found.split(batches), strict=True):
        yield [images[number] for number in batch], [entry for number in batch for entry in objects[number]], part


def _table(found: Detections, iou_type: IouType) -> Floats:
    """Rows of image id, x, y, width, height, score, category id."""
    import numpy as np

    boxes = found.boxes
    if iou_type == "segm":
        # hotcoco tells small, medium and large masks by the area of these boxes, and uses them for nothing else.
        boxes = np.stack([np.zeros(len(found)), np.zeros(len(found)), found.areas, np.ones(len(found))], axis=1)
    return np.column_stack([found.image_ids, boxes, found.scores, found.category_ids])


def _segmentations(images: Sequence[Entry], found: Detections) -> list[Any]:
    sizes = {entry["id"]: [entry["height"], entry["width"]] for entry in images}
    masks = zip(found.image_ids.tolist(), found.counts, strict=True)
    return [{"size": sizes[image_id], "counts": counts} for image_id, counts in masks]


def _score_pycocotools(content: Entry, found: Detections, iou_type: IouType) -> Scored:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It writes into annotations as it scores; only the copies may change.
    truth = _indexed(COCO(), {**content, "annotations": [dict(entry) for entry in content["annotations"]]})
    entries = _entries(content, found, iou_type)
    # loadRes looks at the first entry and fails where there is none.
    results = truth.loadRes(entries) if entries else _indexed(COCO(), {**content, "annotations": []})
    evaluation = COCOeval(truth, results, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return list(evaluation.stats), evaluation.eval["precision"], evaluation.params.catIds


def _entries(content: Entry, found: Detections, iou_type: IouType) -> list[Entry]:
    """Detections as they stand in a results file, with the one shape that is scored.

    Given both, evaluators take the size of the box as the size of the mask, or the other way round.
    """
    keys = ("image_id", "category_id", "score", "bbox" if iou_type == "bbox" else "segmentation")
    shapes = found.boxes.tolist() if iou_type == "bbox" else _segmentations(content["images"], found)
    rows = zip(found.image_ids.tolist(), found.category_ids.tolist(), found.scores.tolist(), shapes, strict=True)
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _indexed(coco: Any, content: Entry) -> Any:
    coco.dataset = content
    coco.createIndex()
    return coco


SCORERS: Mapping[str, Callable[[Entry, Detections, IouType], Scored]] = {
    "hotcoco": _score_hotcoco,
    "pycocotools": _score_pycocotools,
}
