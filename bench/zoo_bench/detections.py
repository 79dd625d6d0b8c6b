"""Reading and checking a detections file: a list in COCO's results format.

Format: https://cocodataset.org/#format-results; a segmentation is run lengths, ``{"size": [h, w], "counts":
"..."}``. Evaluators take much that is wrong without a word (hotcoco an unknown image, pycocotools a score of
NaN), so all of it is checked before they see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_bench.datasets.coco import is_finite, is_number, json_type, read_json, structure_fault
from zoo_bench.datasets.findings import Findings, to_text
from zoo_bench.errors import DatasetError, ZooBenchError


class EvaluationError(ZooBenchError):
    """Annotations and detections cannot be scored."""


@dataclass(frozen=True)
class GroundTruth:
    """An annotation file: image sizes ``{id: (height, width)}``, category names by id, and the content as it
    is.
    """

    sizes: dict[int, tuple[int, int]]
    categories: dict[int, str]
    content: dict[str, Any]


def read_ground_truth(path: Path) -> GroundTruth:
    """Raises EvaluationError when `path` is not an annotation file."""
    content = _read(path)
    fault = structure_fault(content)
    if fault is not None:
        raise EvaluationError(f"{path}: {fault}", hint="Check the dataset.")
    try:
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        for entry in content["annotations"]:
            _ = entry["image_id"], entry["category_id"], entry["bbox"], entry["area"], entry["iscrowd"]
    except (KeyError, TypeError) as error:
        raise EvaluationError(
            f"{path}: an entry is malformed or lacks a key: {error}", hint="Check the dataset."
        ) from error
    return GroundTruth(sizes, categories, content)


def read_detections(path: Path, truth: GroundTruth) -> list[dict[str, Any]]:
    """The entries of a detections file, all of them fit to be scored. Raises EvaluationError otherwise."""
    content = _read(path)
    if not isinstance(content, list):
        raise EvaluationError(
            f"{path}: the top level is {json_type(content)}, not a list of detections",
            hint="The worker must write COCO's results format.",
        )
    findings = Findings()
    for position, entry in enumerate(content):
        _check_entry(entry, f"entry {position}", truth, findings)
    _check_masks(content, findings)
    problems = findings.problems()
    if problems:
        raise EvaluationError(
            f"{path}: detections that cannot be scored, of {len(content)}:\n{to_text(problems)}",
            hint="No score is given for such a file: mend what writes it, and evaluate again.",
        )
    return content


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except DatasetError as error:
        raise EvaluationError(error.message, error.hint) from error


def _check_entry(entry: Any, where: str, truth: GroundTruth, findings: Findings) -> None:
    if not isinstance(entry, dict):
        findings.error("malformed entry", f"{where} is {json_type(entry)}, not an object")
        return
    image, category, score = entry.get("image_id"), entry.get("category_id"), entry.get("score")
    if type(image) is not int or image not in truth.sizes:
        findings.error("unknown image id", f"{where}: image_id {image!r}")
    if type(category) is not int or category not in truth.categories:
        findings.error("unknown category id", f"{where}: category_id {category!r}")
    if not is_number(score) or not is_finite(score):
        findings.error("score that is not a finite number", f"{where}: score {score!r}")
    if "bbox" not in entry and "segmentation" not in entry:
        findings.error("malformed entry", f"{where} has neither bbox nor segmentation")
    if "bbox" in entry:
        _check_box(entry["bbox"], where, findings)
    if "segmentation" in entry:
        size = truth.sizes.get(image) if type(image) is int else None
        _check_mask(entry["segmentation"], size, where, findings)


def _check_box(box: Any, where: str, findings: Findings) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        findings.error("malformed box", f"{where}: bbox is not [x, y, width, height]")
    elif not all(map(is_finite, box)):
        findings.error("box with a number that is not finite", f"{where}: bbox {box}")
    elif box[2] < 0 or box[3] < 0:
        findings.error("box with a negative side", f"{where}: bbox {box}")


def _check_mask(rle: Any, size: tuple[int, int] | None, where: str, findings: Findings) -> None:
    """Everything about a mask but its runs."""
    if not isinstance(rle, dict) or not isinstance(rle.get("counts"), str) or not isinstance(rle.get("size"), list):
        findings.error("malformed segmentation", f"{where}: not run lengths with a size and a string of counts")
    elif size is not None and tuple(rle["size"]) != size:
        case = f"{where}: size {rle['size']}, the image is {list(size)} (height, width)"
        findings.error("segmentation of another size than its image", case)


def _check_masks(entries: list[Any], findings: Findings) -> None:
    """The runs of all masks, unless there are errors already: sizes must be right first."""
    if findings.problems():
        return
    from zoo_bench.datasets.masks import compressed_rle_faults  # and with it numpy, only where it is needed

    masks = [(position, entry["segmentation"]) for position, entry in enumerate(entries) if "segmentation" in entry]
    pixels = [rle["size"][0] * rle["size"][1] for _, rle in masks]
    faults = compressed_rle_faults([rle["counts"] for _, rle in masks], pixels)
    for (position, _), fault in zip(masks, faults, strict=True):
        if fault is not None:
            findings.error("malformed segmentation", f"entry {position}: {fault}")
