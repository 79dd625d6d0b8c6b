"""What is wrong with a detections file, entry by entry: for a file that cannot be read as columns, or is not fit to be
scored. Evaluators take much that is wrong without a word (hotcoco an unknown image, pycocotools a score of NaN).
"""

from __future__ import annotations

from typing import Any

from zoo_bench.datasets.coco import is_finite, is_number, json_type
from zoo_bench.datasets.compressed import compressed_rle_areas
from zoo_bench.datasets.findings import Findings, Problem
from zoo_bench.ground_truth import GroundTruth


def detection_problems(entries: list[Any], truth: GroundTruth) -> tuple[Problem, ...]:
    """Everything for which the entries of a COCO results list cannot be scored."""
    findings = Findings()
    for position, entry in enumerate(entries):
        _check_entry(entry, f"entry {position}", truth, findings)
    if not findings.problems():  # sizes must be right before runs can be
        _check_runs(entries, findings)
    return findings.problems()


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


def _check_runs(entries: list[Any], findings: Findings) -> None:
    masks = [(position, entry["segmentation"]) for position, entry in enumerate(entries) if "segmentation" in entry]
    pixels = [rle["size"][0] * rle["size"][1] for _, rle in masks]
    _, faults = compressed_rle_areas([rle["counts"] for _, rle in masks], pixels)
    for place, fault in faults.items():
        findings.error("malformed segmentation", f"entry {masks[place][0]}: {fault}")
