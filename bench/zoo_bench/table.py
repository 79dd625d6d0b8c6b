"""Cells and records -> rows: which run each column of a row comes from. Pure functions; units are not touched here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from zoo_bench.cell import Cell, digest, recipe_values
from zoo_bench.recipe import differences
from zoo_bench.record import Record

Column = Literal["memory", "s_per_iter", "energy", "fps", "box_ap", "mask_ap", "download"]
OF_ONE_MODEL: tuple[Column, ...] = ("fps", "box_ap", "mask_ap", "download")
COLUMNS: tuple[Column, ...] = ("memory", "s_per_iter", "fps", "box_ap", "mask_ap", "download")
WITH_ENERGY: tuple[Column, ...] = ("memory", "s_per_iter", "energy", "fps", "box_ap", "mask_ap", "download")


@dataclass(frozen=True)
class Row:
    """One cell and, by column, the run that the figure is taken from. `attempt` is the newest run of the cell.

    `timed_untrained`: inference was timed, but only with a model whose training had not finished.
    """

    cell: Cell
    sources: dict[Column, Record]
    attempt: Record | None
    recipe_changes: tuple[str, ...]
    timed_untrained: bool

    @property
    def records(self) -> tuple[Record, ...]:
        """The distinct runs behind this row, in the order of the columns."""
        return tuple({record.run_id: record for record in self.sources.values()}.values())


def build_row(cell: Cell, profile: str, records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> Row:
    """Choose, for every one of `columns`, the newest run of the cell that has the figure.

    Only runs that share one resolved recipe stand in a row: that of the matrix, whatever profile they were run with.
    When there is none, the newest run of the same profile decides, and `recipe_changes` says how the matrix has moved
    on since; runs of another profile then never count, or a quick trial could stand in the published document. fps, AP
    and Download are of one model; one that was given with --checkpoint gives way to one that the cell trained itself.
    Quarantined runs never count.
    """
    mine = [record for record in records if record.cell_id == cell.id and record.status != "quarantined"]
    wanted = recipe_values(cell.resolved())
    group = [record for record in mine if record.recipe_sha256 == digest(wanted)]
    changes: list[str] = []
    if not group:
        left = [record for record in mine if record.profile == profile]
        group = [record for record in left if record.recipe_sha256 == left[-1].recipe_sha256]
        changes = differences(recipe_values(left[-1].cell), wanted) if left else []
    if not group:
        return Row(cell, {}, None, (), False)
    newest = sorted(group, key=lambda record: record.run_id, reverse=True)
    model = _model_of_row(newest)
    sources: dict[Column, Record] = {}
    for column in columns:
        fitting = (r for r in newest if HAS[column](r) and (column not in OF_ONE_MODEL or _weights(r) == model))
        found = next(fitting, None)
        if found is not None:
            sources[column] = found
    untrained = "fps" not in sources and any(record.measurements.infer for record in group)
    return Row(cell, sources, group[-1], tuple(changes), untrained)


def _model_of_row(newest: Sequence[Record]) -> str | None:
    """Return the digest of the weights that fps, AP and Download of a row speak of: the newest evaluated ones.

    Without any that were evaluated, the newest trained ones; the cell's own before given ones.
    """
    ranked = sorted(
        (record for record in newest if _trained(record)),
        key=lambda record: (not _given(record), HAS["box_ap"](record), record.run_id),
        reverse=True,
    )
    return next((_weights(record) for record in ranked), None)


def _weights(record: Record) -> str | None:
    return record.checkpoint.sha256 if record.checkpoint else None


def _given(record: Record) -> bool:
    return record.checkpoint is not None and record.checkpoint.given


def _trained(record: Record) -> bool:
    return record.checkpoint is not None and (record.checkpoint.trained or record.checkpoint.given)


def _memory_is_of_training(record: Record) -> bool:
    return record.measurements.memory is not None and "train" in record.phases_done


# An untrained model floods postprocessing, so its fps would mean nothing.
HAS: dict[Column, Callable[[Record], bool]] = {
    "memory": _memory_is_of_training,
    "s_per_iter": lambda record: record.measurements.train is not None and "train" in record.phases_done,
    "energy": lambda record: (
        record.measurements.energy is not None
        and record.measurements.energy.joules_per_iteration is not None
        and "train" in record.phases_done
    ),
    "fps": lambda record: record.measurements.infer is not None and "infer" in record.phases_done and _trained(record),
    "box_ap": lambda record: (
        record.measurements.scores is not None and record.measurements.scores.box is not None and _trained(record)
    ),
    "mask_ap": lambda record: (
        record.measurements.scores is not None and record.measurements.scores.mask is not None and _trained(record)
    ),
    "download": _trained,
}
