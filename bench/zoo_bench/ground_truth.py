"""The annotation file that detections are scored against.

Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_bench.datasets.coco import read_json, structure_fault
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
    content = read_content(path)
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


def evaluated_ids(annotations: Path, limit: int | None) -> list[int] | None:
    """Return which images an evaluation of the first `limit` of a file is of; None for all. Raises EvaluationError."""
    return None if limit is None else list(read_ground_truth(annotations).sizes)[:limit]


def read_content(path: Path) -> Any:
    """What a JSON file holds. Raises EvaluationError where it is none."""
    try:
        return read_json(path)
    except DatasetError as error:
        raise EvaluationError(error.message, error.hint) from error
