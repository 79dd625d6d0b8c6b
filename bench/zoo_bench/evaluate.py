"""COCO scores of a detections file: by hotcoco, with pycocotools as the reference and one result type for
both.

The 12 numbers are those of https://cocodataset.org/#detection-eval; box AP and mask AP are AP@[.50:.95].
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_bench.datasets.findings import FIRST_CASES
from zoo_bench.errors import nearest
from zoo_bench.ground_truth import EvaluationError, GroundTruth, read_ground_truth
from zoo_bench.recipe import Fraction
from zoo_bench.scorers import SCORERS, IouType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zoo_bench.detections import Detections

__all__ = ["METRICS", "SCORERS", "CocoScores", "EvaluationError", "MetricSet", "score"]


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
    if scorer not in SCORERS:
        raise EvaluationError(f"there is no scorer '{scorer}'", hint=nearest(scorer, SCORERS))
    with _without_collections():
        return _score(annotations, detections, masks, scorer, image_ids)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from looking for garbage in cycles: there is none here, and with each million of objects that come
    it would look through those of the ground truth again, for as long as the scoring takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _score(
    annotations: Path, detections: Path, masks: bool, scorer: str, image_ids: Sequence[int] | None
) -> CocoScores:
    from zoo_bench.detections import read_detections  # and with it numpy, only where it is needed

    truth = read_ground_truth(annotations)
    found = read_detections(detections, truth)
    chosen = _chosen_images(truth, image_ids, annotations)
    if len(chosen) < len(truth.sizes):
        found = found.on(chosen)
    with_box, with_mask = found.with_box(), found.with_mask()
    if masks and len(found) and not len(with_mask):
        raise EvaluationError(
            f"{detections}: masks are to be scored, and no detection has a segmentation",
            hint="Score boxes alone, or have the worker write masks too.",
        )
    content = _limited(truth, chosen)
    return CocoScores(
        box=_metrics(scorer, truth, content, with_box, "bbox") if len(with_box) or not len(found) else None,
        mask=_metrics(scorer, truth, content, with_mask, "segm") if masks else None,
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
        "annotations": [
            entry
            for entry in truth.content["annotations"]
            if entry["image_id"] in chosen and entry["category_id"] in truth.categories
        ],
        "categories": truth.content["categories"],
    }


def curves(
    annotations: Path, detections: Path, *, masks: bool, image_ids: Sequence[int] | None = None
) -> dict[float, list[float | None]]:
    """Return precision at recall 0, 0.01, ... 1 by IoU threshold, the mean over categories; of boxes, or of masks.

    None where no category has anything to find. Raises EvaluationError as `score`.
    """
    from zoo_bench.detections import read_detections

    with _without_collections():
        truth = read_ground_truth(annotations)
        chosen = _chosen_images(truth, image_ids, annotations)
        found = read_detections(detections, truth).on(chosen)
        found = found.with_mask() if masks else found.with_box()
        with contextlib.redirect_stdout(io.StringIO()):
            _, precision, _ = SCORERS["hotcoco"](_limited(truth, chosen), found, "segm" if masks else "bbox")
    everything = precision[:, :, :, 0, -1]  # thresholds, recalls, categories
    return {
        threshold: [_mean_known(at) for at in everything[place]] for threshold, place in ((0.5, 0), (0.75, 5), (0.9, 8))
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


def _mean_known(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None
