"""Cells: the rows of the tables, expanded from the matrix. Pure functions of values."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from zoo_bench.errors import ConfigError, nearest
from zoo_bench.matrix import Axes, Matrix, Override, Profile
from zoo_bench.recipe import CellValues, merge
from zoo_bench.selector import matches

# What of a cell says how much is measured and how closely it is watched, not what. The seed decides neither: runs with
# several are one recipe.
NOT_RECIPE = ("phases", "measure", "seed", "trust")


@dataclass(frozen=True)
class CellName:
    """The coordinates of a cell, and the id made of them. Enough for a selector."""

    backend: str
    detector: str
    family: str
    neck: str
    backbone: str
    schedule: str
    dataset: str
    dataset_label: str

    @property
    def id(self) -> str:
        """Readable and stable, in the field's file-name style: ``torchvision/mask-rcnn_r50_fpn_1x_coco``."""
        return f"{self.backend}/{self.family}_{self.backbone}_{self.neck}_{self.schedule}_{self.dataset_label}"


class Cell(CellValues):
    """One row of one table with every value resolved. Frozen."""

    id: str = Field(max_length=220)  # a folder's name and, with a digest, a file's
    backend: str
    detector: str
    family: str
    neck: str
    masks: bool
    backbone: str
    schedule: str

    def resolved(self) -> dict[str, Any]:
        """Return the cell as plain JSON values, as job.json and records hold it."""
        return self.model_dump(mode="json")


def short_name(cell_id: str) -> str:
    """Return a cell's id without its backend: cells of two backends that have it in common are of one model."""
    return cell_id.partition("/")[2]


def backend_of(cell_id: str) -> str:
    """Return the backend that a cell's id begins with."""
    return cell_id.partition("/")[0]


def recipe_values(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved cell that two runs must share before their columns may stand in one row."""
    recipe = {key: value for key, value in resolved.items() if key not in NOT_RECIPE}
    return {**recipe, "evaluate_images": resolved["measure"]["evaluate_images"]}


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def expand(matrix: Matrix, profile_name: str | None = None) -> tuple[Cell, ...]:
    """Expand the matrix under a profile into its cells, in the order of the document.

    Raises:
        ConfigError: the profile is unknown, or a cell's values are incomplete or do not fit.
    """
    _, profile = matrix.profile(profile_name)
    axes = matrix.axes.model_copy(update=profile.axes.model_dump(exclude_none=True))
    found: dict[str, Cell] = {}
    for coordinates in _coordinates(matrix, axes):
        cell = _resolve(matrix, profile, *coordinates)
        if cell.id in found:
            raise ConfigError(f"two cells have the id {cell.id}", "give the detectors another family or neck")
        if not any(matches(selector, cell) for selector in matrix.exclude):
            found[cell.id] = cell
    return tuple(found.values())


def _coordinates(matrix: Matrix, axes: Axes) -> Iterator[tuple[str, str, str, str]]:
    product = itertools.product(axes.backend, axes.detector, axes.backbone, axes.schedule)
    extra = ((cell.backend, cell.detector, cell.backbone, cell.schedule) for cell in matrix.include)
    return iter(dict.fromkeys(itertools.chain(product, extra)))


def _resolve(matrix: Matrix, profile: Profile, backend: str, detector: str, backbone: str, schedule: str) -> Cell:
    declared = matrix.detectors[detector]
    values = merge(matrix.defaults, declared.set)
    values = merge(values, {"recipe": {"lr_schedule": matrix.schedules[schedule].set}})

    def name() -> CellName:
        dataset = str(profile.set.get("dataset", values.get("dataset", "")))
        if dataset not in matrix.datasets:
            raise ConfigError(f"dataset '{dataset}' is not declared", nearest(dataset, matrix.datasets))
        label = matrix.datasets[dataset].label
        return CellName(backend, detector, declared.family, declared.neck, backbone, schedule, dataset, label)

    coordinates = name()
    for override in (*matrix.overrides, Override(select="*", set=profile.set), *profile.overrides):
        if matches(override.select, coordinates):
            values = merge(values, override.set)
    if values.get("dataset") != coordinates.dataset:
        raise ConfigError(
            f"{coordinates.id}: an override changes its dataset to '{values.get('dataset')}'",
            "the dataset is part of a cell's id: set it in defaults or in a profile's set, for all cells",
        )
    return Cell.model_validate(
        {
            **values,
            "id": coordinates.id,
            "backend": backend,
            "detector": detector,
            "family": declared.family,
            "neck": declared.neck,
            "masks": declared.masks,
            "backbone": backbone,
            "schedule": schedule,
        }
    )
