"""Cells and records -> rows: which run each column of a row comes from. Pure functions; units are not touched here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from zoo_bench.cell import Cell, digest, recipe_values
from zoo_bench.figures import DEFAULT_MEMORY, MemoryDefinition, memory_figure
from zoo_bench.recipe import differences
from zoo_bench.record import Published, Record
from zoo_bench.scaling import base_batch_of, without_scaling

Column = Literal["memory", "s_per_iter", "energy", "fps", "box_ap", "mask_ap", "download"]
OF_ONE_MODEL: tuple[Column, ...] = ("fps", "box_ap", "mask_ap", "download")
COLUMNS: tuple[Column, ...] = ("memory", "s_per_iter", "fps", "box_ap", "mask_ap", "download")
WITH_ENERGY: tuple[Column, ...] = ("memory", "s_per_iter", "energy", "fps", "box_ap", "mask_ap", "download")


@dataclass(frozen=True)
class Row:
    """One cell and, by column, the run that the figure is taken from.

    `attempt` is the newest run that counts for the row; without any, the newest of those that were quarantined.
    `timed_untrained`: inference was timed, but only with a model whose training had not finished. `published`: where
    readers find the model that the row speaks of, and its log.
    """

    cell: Cell
    sources: dict[Column, Record]
    attempt: Record | None
    recipe_changes: tuple[str, ...]
    timed_untrained: bool
    published: Published | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        """The distinct runs behind this row, in the order of the columns."""
        return tuple({record.run_id: record for record in self.sources.values()}.values())


def build_row(
    cell: Cell,
    profile: str,
    records: Sequence[Record],
    columns: Sequence[Column] = COLUMNS,
    memory: MemoryDefinition = DEFAULT_MEMORY,
) -> Row:
    """Choose, for every one of `columns`, the newest run of the cell that has the figure; a noisy one only for want of
    a clean one. Peak memory grows with the training, so of clean runs the one that trained longest shows it, and a run
    that does not know the memory asked for gives way to one that does.

    Only runs that share one resolved recipe stand in a row: that of the matrix, whatever profile they were run with.
    When there is none, the newest run of the same profile decides, and `recipe_changes` says how the matrix has moved
    on since; runs of another profile then never count, or a quick trial could stand in the published document. fps, AP
    and Download are of one model; one that was given with --checkpoint gives way to one that the cell trained itself.
    Quarantined runs never count.
    """
    mine = [record for record in records if record.cell_id == cell.id]
    group, changes = _of_one_recipe(cell, profile, [record for record in mine if record.status != "quarantined"])
    if not group:
        spoilt, _ = _of_one_recipe(cell, profile, mine)
        return Row(cell, {}, spoilt[-1] if spoilt else None, (), False)
    model = _model_of_row(group)
    sources: dict[Column, Record] = {}
    for column in columns:
        fitting = [r for r in group if HAS[column](r) and (column not in OF_ONE_MODEL or _weights(r) == model)]
        if fitting:
            sources[column] = max(fitting, key=_memory_rank(memory) if column == "memory" else _rank)
    untrained = "fps" not in sources and any(record.measurements.infer for record in group)
    published = [record.published for record in group if record.published and _weights(record) == model]
    return Row(cell, sources, group[-1], tuple(changes), untrained, published[-1] if published else None)


def _of_one_recipe(cell: Cell, profile: str, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Return the runs that share the matrix's recipe; else those of the profile that share the recipe of its newest
    run, and how the matrix has moved on from that.
    """
    wanted = recipe_values(cell.resolved())
    sha256 = digest(wanted)
    group = [record for record in records if record.recipe_sha256 == sha256]
    left = [record for record in records if record.profile == profile]
    if group or not left:
        return group, []
    group = [record for record in left if record.recipe_sha256 == left[-1].recipe_sha256]
    old = recipe_values(left[-1].cell)
    # Where a training is shown, a remark of its own tells of another batch than the recipe's.
    trained = any(HAS["s_per_iter"](record) for record in group)
    told = ("gpus", "images_per_gpu") if trained and base_batch_of(old) is not None else ()
    return group, differences(*without_scaling(old, wanted, told))


def _rank(record: Record) -> tuple[bool, str]:
    """Clean runs are better than noisy ones, then newer ones than older ones."""
    return not record.noise, record.run_id


def _memory_rank(memory: MemoryDefinition) -> Callable[[Record], tuple[bool, bool, int, str]]:
    """Return the rank of runs for the memory column: a long training's peak is never that of a short one's."""

    def rank(record: Record) -> tuple[bool, bool, int, str]:
        train = record.measurements.train
        known = memory_figure(record, memory).value is not None
        return known, not record.noise, train.iterations_run if train else 0, record.run_id

    return rank


def _model_of_row(group: Sequence[Record]) -> str | None:
    """Return the digest of the weights that fps, AP and Download of a row speak of: the newest evaluated ones.

    Without any that were evaluated, the newest trained ones; the cell's own before given ones, and those that a clean
    run used before those that only noisy ones did.
    """
    fitting = [record for record in group if _trained(record)]
    best = max(fitting, key=lambda r: (not _given(r), HAS["box_ap"](r), *_rank(r)), default=None)
    return None if best is None else _weights(best)


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
    # A run that only published measured nothing: what it links is in `Row.published`.
    "download": lambda record: _trained(record) and record.measured,
}
