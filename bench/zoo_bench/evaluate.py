"""COCO scores of a detections file: by hotcoco, with pycocotools as the reference and one result type for
both.

The 12 numbers are those of https://cocodataset.org/#detection-eval; box AP and mask AP are AP@[.50:.95].
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo_bench.datasets.findings import FIRST_CASES
from zoo_bench.errors import nearest
from zoo_bench.ground_truth import EvaluationError, GroundTruth, read_ground_truth
from zoo_bench.recipe import Fraction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zoo_bench.detections import Detections

    # (iou thresholds, recall thresholds, categories, area ranges, detection limits)
    Precision = NDArray[np.float64]

__all__ = ["METRICS", "SCORERS", "CocoScores", "EvaluationError", "MetricSet", "score"]

IouType = Literal["bbox", "segm"]
Scored = tuple[Sequence[float], "Precision", Sequence[int]]


@dataclass(frozen=True)
class MetricSet:
    """The 12 COCO numbers and AP by category name, as fractions; None where there is nothing to find."""

    ap: Fraction | None
    ap50: Fraction | None
    ap75: Fraction | None
    ap_small: Fraction | None
    ap_medium: Fraction | None
    ap_large: Fraction | None
    ar1: Fraction | None
    ar10: Fraction | None
    ar100: Fraction | None
    ar_small: Fraction | None
    ar_medium: Fraction | None
    ar_large: Fraction | None
    per_class: Mapping[str, Fraction | None]


@dataclass(frozen=True)
class CocoScores:
    """`box` is None for a file of masks alone, `mask` when masks were not asked for."""

    box: MetricSet | None
    mask: MetricSet | None
    images: int
    detections: int
    scorer: str


#: The 12 numbers, in COCO's order.
METRICS = tuple(field.name for field in fields(MetricSet) if field.name != "per_class")


def score(
    annotations: Path,
    detections: Path,
    *,
    masks: bool,
    scorer: str = "hotcoco",
    image_ids: Sequence[int] | None = None,
) -> CocoScores:
    """Score the COCO results in `detections` against `annotations`.

    Boxes are scored from ``bbox`` alone and masks from ``segmentation`` alone: given an entry with both,
    evaluators take the size of its box as the size of its mask, or the other way round. `image_ids` limits
    both files to some images; None takes all. A file without detections scores 0. Raises EvaluationError for
    files that cannot be scored.
    """
    from zoo_bench.detections import read_detections  # and with it numpy, only where it is needed

    if scorer not in SCORERS:
        raise EvaluationError(f"there is no scorer '{scorer}'", hint=nearest(scorer, SCORERS))
    truth = read_ground_truth(annotations)
    found = read_detections(detections, truth)
    chosen = _chosen_images(truth, image_ids, annotations)
    if len(chosen) < len(truth.sizes):
        found = found.of_images(chosen)
    with_boxes, with_masks = found.with_boxes(), found.with_masks()
    if masks and len(found) and not len(with_masks):
        raise EvaluationError(
            f"{detections}: masks are to be scored, and no detection has a segmentation",
            hint="Score boxes alone, or have the worker write masks too.",
        )
    content = _limited(truth, chosen)
    return CocoScores(
        box=_metrics(scorer, truth, content, with_boxes, "bbox") if len(with_boxes) or not len(found) else None,
        mask=_metrics(scorer, truth, content, with_masks, "segm") if masks else None,
        images=len(chosen),
        detections=len(found),
        scorer=scorer,
    )


def _chosen_images(truth: GroundTruth, image_ids: Sequence[int] | None, path: Path) -> frozenset[int]:
    chosen = frozenset(truth.sizes if image_ids is None else image_ids)
    unknown = sorted(chosen - truth.sizes.keys())
    if unknown:
        first = ", ".join(map(str, unknown[:FIRST_CASES]))
        raise EvaluationError(
            f"{path}: {len(unknown)} of the images to score are not in it: {first}", hint="Check the dataset."
        )
    if not chosen:
        raise EvaluationError(f"{path}: there is no image to score", hint="Choose at least one image.")
    return chosen


def _limited(truth: GroundTruth, chosen: frozenset[int]) -> dict[str, Any]:
    return {
        "images": [entry for entry in truth.content["images"] if entry["id"] in chosen],
        "annotations": [entry for entry in truth.content["annotations"] if entry["image_id"] in chosen],
        "categories": truth.content["categories"],
    }


def _metrics(
    scorer: str, truth: GroundTruth, content: dict[str, Any], found: Detections, iou_type: IouType
) -> MetricSet:
    # Both libraries report what they do on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        stats, precision, category_ids = SCORERS[scorer](content, found, iou_type)
    numbers: dict[str, Any] = {name: _known(float(value)) for name, value in zip(METRICS, stats, strict=True)}
    per_class = {
        truth.categories[category]: _mean_known(precision[:, :, index, 0, -1])
        for index, category in enumerate(category_ids)
    }
    return MetricSet(**numbers, per_class=per_class)


def _known(value: float) -> float | None:
    """COCO writes -1 where there was nothing to find."""
    return None if value < 0 else value


def _mean_known(precision: Precision) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _score_hotcoco(content: dict[str, Any], found: Detections, iou_type: IouType) -> Scored:
    import hotcoco
    import numpy as np

    truth = hotcoco.COCO(content)
    table = np.column_stack([found.image_ids, found.boxes, found.scores, found.category_ids])
    if iou_type == "bbox":
        results = truth.load_res(table)
    else:
        table[:, 1:5] = 0
        results = truth.load_res(table, segmentation=_segmentations(content, found))
        # Else small, medium and large would go by the box.
        results.update_anns(ids=np.arange(1, len(found) + 1), area=found.areas)
    evaluation = hotcoco.COCOeval(truth, results, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    arrays = evaluation.eval
    assert arrays is not None
    return list(evaluation.stats), arrays["precision"], evaluation.params.cat_ids


def _score_pycocotools(content: dict[str, Any], found: Detections, iou_type: IouType) -> Scored:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It writes into annotations as it scores; only the copies may change.
    truth = _indexed(COCO(), {**content, "annotations": [dict(entry) for entry in content["annotations"]]})
    # loadRes looks at the first entry and fails where there is none.
    entries = _entries(content, found, iou_type)
    results = truth.loadRes(entries) if entries else _indexed(COCO(), {**content, "annotations": []})
    evaluation = COCOeval(truth, results, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return list(evaluation.stats), evaluation.eval["precision"], evaluation.params.catIds


def _segmentations(content: dict[str, Any], found: Detections) -> list[dict[str, Any]]:
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    image_ids = found.image_ids.tolist()
    return [
        {"size": sizes[image_id], "counts": text} for image_id, text in zip(image_ids, found.counts, strict=True)
    ]


def _entries(content: dict[str, Any], found: Detections, iou_type: IouType) -> list[dict[str, Any]]:
    columns = [column.tolist() for column in (found.image_ids, found.category_ids, found.scores)]
    shape, values = ("bbox", found.boxes.tolist()) if iou_type == "bbox" else ("segmentation", _segmentations(content, found))
    keys = ("image_id", "category_id", "score", shape)
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, values, strict=True)]


def _indexed(coco: Any, content: dict[str, Any]) -> Any:
    coco.dataset = content
    coco.createIndex()
    return coco


SCORERS: Mapping[str, Callable[[dict[str, Any], Detections, IouType], Scored]] = {
    "hotcoco": _score_hotcoco,
    "pycocotools": _score_pycocotools,
}
