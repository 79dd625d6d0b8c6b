"""What is known of an imported run -> its cell: the matrix's values, and what the files tell laid over them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from zoo_bench.cell import Cell, CellName
from zoo_bench.errors import ConfigError
from zoo_bench.matrix import Matrix
from zoo_bench.recipe import merge

# What adapters describe a run by that is no key of a cell.
NO_KEYS = ("software", "gpu", "epochs", "name")
AXES = ("detector", "backbone", "schedule", "precision", "dataset")


@dataclass(frozen=True)
class ImportedCell:
    """A cell, and which of its keys are known of the run: all others are the matrix's."""

    cell: Cell
    known: tuple[str, ...]


def imported_cell(
    matrix: Matrix, backend: str, facts: Mapping[str, Any], iterations: int | None, where: str
) -> ImportedCell:
    """Make the cell of a run. `facts`: as adapters describe it, `name` the cell's id without its backend, if given.

    Raises:
        ConfigError: detector, backbone or schedule is not known, or a value does not fit; `where` is the run's file.
    """
    named = {"schedule": "unknown", "precision": "fp32", "dataset": matrix.defaults.get("dataset", ""), **facts}
    for axis in ("detector", "backbone"):
        if not named.get(axis):
            raise ConfigError(f"{where}: it does not tell its {axis}", f"say it: --{axis} NAME")
    at = {axis: str(named[axis]) for axis in AXES}
    declared = matrix.detectors.get(at["detector"])
    family, _, neck = at["detector"].rpartition("_")
    kind = {
        "family": declared.family if declared else family or neck,
        "neck": declared.neck if declared else neck if family else "",
        "masks": declared.masks if declared else bool(facts.get("masks")),
    }
    values = merge(matrix.defaults, declared.set if declared else {})
    if at["schedule"] in matrix.schedules:
        values = merge(values, {"recipe": {"lr_schedule": matrix.schedules[at["schedule"]].set}})
    values = merge(values, {"dataset": at["dataset"], "recipe": {"lr_schedule": {"milestones": []}}})
    if iterations:
        values = merge(values, {"recipe": {"lr_schedule": {"iterations": iterations}}})
    told = {key: value for key, value in facts.items() if key not in (*NO_KEYS, *AXES, "masks")}
    for key, value in told.items():
        values = merge(values, _nested(key, value))
    batch = max(1, int(values.get("gpus", 0))) * int(values.get("images_per_gpu", 1))
    values = merge(values, {"recipe": {"base_batch_size": batch}})
    values["recipe"]["lr_schedule"].setdefault("iterations", 1)
    name = facts.get("name") or _name(matrix, backend, at, kind)
    known = [*(axis for axis in AXES if axis in facts), *told]
    known += ["recipe.lr_schedule.iterations"] if iterations else []
    axes = {axis: at[axis] for axis in AXES if axis != "dataset"}
    try:
        cell = Cell.model_validate({**values, **axes, **kind, "backend": backend, "id": f"{backend}/{name}"})
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise ConfigError(f"{where}: {key}: {detail['msg']}", "say it right with an option") from None
    return ImportedCell(cell, tuple(dict.fromkeys(known)))


def _name(matrix: Matrix, backend: str, at: Mapping[str, str], kind: Mapping[str, Any]) -> str:
    dataset = matrix.datasets.get(at["dataset"])
    named = CellName(
        backend=backend,
        detector=at["detector"],
        family=str(kind["family"]),
        neck=str(kind["neck"]),
        backbone=at["backbone"],
        schedule=at["schedule"],
        precision=at["precision"],  # type: ignore[arg-type]  # checked with the rest of the cell
        dataset=at["dataset"],
        dataset_label=dataset.label if dataset else at["dataset"],
    )
    return named.id.partition("/")[2].replace("__", "_")


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Turn ``recipe.optimizer.lr`` and its value into nested mappings."""
    head, _, rest = key.partition(".")
    return {head: _nested(rest, value) if rest else value}
