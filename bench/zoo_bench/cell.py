"""Cells: the rows of the tables, expanded from the matrix. Pure functions of values."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from zoo_bench.errors import ConfigError, nearest
from zoo_bench.matrix import Axes, Matrix, Override, Profile
from zoo_bench.recipe import LONGEST_ID, CellValues, Precision, merge
from zoo_bench.scaling import scaled
from zoo_bench.selector import matches

# What of a cell says how much is measured and how closely it is watched, not what. The seed decides neither: runs with
# several are one recipe.
NOT_RECIPE = ("phases", "measure", "seed", "trust", "retry")
# Of one profile; a matrix of a few lines could have more than fit into memory.
MOST_CELLS = 10_000


@dataclass(frozen=True)
class CellName:
    """The coordinates of a cell, and the id made of them. Enough for a selector."""

    backend: str
    detector: str
    family: str
    neck: str
    backbone: str
    schedule: str
    precision: Precision
    dataset: str
    dataset_label: str

    @property
    def id(self) -> str:
        """Readable and stable, in the field's file-name style: ``torchvision/mask-rcnn_r50_fpn_1x_coco``.

        Single precision is not named, as in published tables: ``torchvision/mask-rcnn_r50_fpn_bf16_1x_coco``.
        """
        precision = () if self.precision == "fp32" else (self.precision,)
        parts = (self.family, self.backbone, self.neck, *precision, self.schedule, self.dataset_label)
        return f"{self.backend}/{'_'.join(parts)}"


class Cell(CellValues):
    """One row of one table with every value resolved. Frozen."""

    id: str = Field(max_length=LONGEST_ID)
    backend: str
    detector: str
    family: str
    neck: str
    masks: bool
    backbone: str
    schedule: str
    precision: Precision

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


class Coordinates(NamedTuple):
    """A place on the axes."""

    backend: str
    detector: str
    backbone: str
    schedule: str
    precision: Precision


def expand(matrix: Matrix, profile_name: str | None = None, gpus: int | None = None) -> tuple[Cell, ...]:
    """Expand the matrix under a profile into its cells, in the order of the document.

    `gpus` is laid over every cell, last of all. The recipe of a cell is that for its batch: see `scaling.scaled`.

    Raises:
        ConfigError: the profile is unknown, or a cell's values are incomplete or do not fit.
    """
    _, profile = matrix.profile(profile_name)
    axes = matrix.axes.model_copy(update=profile.axes.model_dump(exclude_none=True))
    found: dict[str, Cell] = {}
    for coordinates in _coordinates(matrix, axes):
        cell = _resolve(matrix, profile, coordinates)
        if cell.id in found:
            raise ConfigError(f"two cells have the id {cell.id}", "give the detectors another family or neck")
        if not any(matches(selector, cell) for selector in matrix.exclude):
            found[cell.id] = _at_its_batch(cell if gpus is None else cell.model_copy(update={"gpus": gpus}))
    return tuple(found.values())


def at_half_its_batch(cell: Cell, matrix_id: str) -> Cell | None:
    """Return the cell with half the images a GPU; None where there is but one, or its name would be too long.

    It is another cell than the matrix's. Its id says so as mmdetection's names do, for 8 GPUs with an image each:
    ``torchvision/retinanet_r50_fpn_1x_coco_8xb1``. Learning rate and schedule are scaled as ever, from the batch that
    they are scaled to by now.
    """
    images = cell.images_per_gpu // 2
    cell_id = f"{matrix_id}_{max(cell.gpus, 1)}xb{images}"
    if images == 0 or len(cell_id) > LONGEST_ID:
        return None
    base = cell.recipe.base_batch_size
    recipe = cell.recipe if base is None else cell.recipe.model_copy(update={"base_batch_size": cell.batch_size})
    smaller = {"images_per_gpu": images, "id": cell_id}
    other = _at_its_batch(cell.model_copy(update={**smaller, "recipe": recipe}))
    return other.model_copy(update={"recipe": other.recipe.model_copy(update={"base_batch_size": base})})


def _coordinates(matrix: Matrix, axes: Axes) -> Iterator[Coordinates]:
    every = (axes.backend, axes.detector, axes.backbone, axes.schedule, axes.precision)
    count = math.prod(map(len, every)) + len(matrix.include)
    if count > MOST_CELLS:
        raise ConfigError(f"the axes make {count} cells, and {MOST_CELLS} is the most", "leave something out")
    product = itertools.product(*every)
    extra = ((one.backend, one.detector, one.backbone, one.schedule, one.precision) for one in matrix.include)
    return itertools.starmap(Coordinates, dict.fromkeys(itertools.chain(product, extra)))


def _resolve(matrix: Matrix, profile: Profile, at: Coordinates) -> Cell:
    declared = matrix.detectors[at.detector]
    values = merge(matrix.defaults, declared.set)
    values = merge(values, {"recipe": {"lr_schedule": matrix.schedules[at.schedule].set}})

    def name() -> CellName:
        dataset = str(profile.set.get("dataset", values.get("dataset", "")))
        if dataset not in matrix.datasets:
            raise ConfigError(f"dataset '{dataset}' is not declared", nearest(dataset, matrix.datasets))
        label = matrix.datasets[dataset].label
        return CellName(
            **at._asdict(), family=declared.family, neck=declared.neck, dataset=dataset, dataset_label=label
        )

    coordinates = name()
    for override in (*matrix.overrides, Override(select="*", set=profile.set), *profile.overrides):
        if matches(override.select, coordinates):
            values = merge(values, override.set)
    if values.get("dataset") != coordinates.dataset:
        raise ConfigError(
            f"{coordinates.id}: an override changes its dataset to '{values.get('dataset')}'",
            "the dataset is part of a cell's id: set it in defaults or in a profile's set, for all cells",
        )
    kind = {"family": declared.family, "neck": declared.neck, "masks": declared.masks}
    return Cell.model_validate({**values, **at._asdict(), **kind, "id": coordinates.id})


def _at_its_batch(cell: Cell) -> Cell:
    try:
        return cell.model_copy(update={"recipe": scaled(cell.recipe, cell.batch_size)})
    except ValidationError as error:
        what = "; ".join(f"{detail['loc'][0]}: {detail['msg']}" for detail in error.errors())
        raise ConfigError(
            f"{cell.id}: scaled from {cell.recipe.base_batch_size} images an iteration to {cell.batch_size}, its "
            f"recipe does not fit: {what}",
            "recipe.base_batch_size: null keeps the recipe as it is at any batch",
        ) from None
