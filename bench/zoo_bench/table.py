"""Cells and runs -> rows: which run each column of a row comes from. Pure functions; units are not touched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from zoo_bench.cell import Cell, digest, recipe_values
from zoo_bench.columns import COLUMNS, OF_ONE_MODEL, SCORES, Column
from zoo_bench.figures import DEFAULT_MEMORY, MemoryDefinition
from zoo_bench.recipe import differences
from zoo_bench.record import Published, Record
from zoo_bench.repeats import Spread, spread, typical
from zoo_bench.runs import Runs, Summary
from zoo_bench.scaling import base_batch_of, without_scaling


@dataclass(frozen=True)
class Row:
    """One cell and, by column, the run that the figure is taken from.

    `attempt` is the newest run that counts for the row; without any, the newest of those that were quarantined.
    `timed_untrained`: inference was timed, but only with a model whose training had not finished. `published`: where
    readers find the model that the row speaks of, and its log. `spreads`: of AP, where several seeds were trained.
    """

    cell: Cell
    sources: dict[Column, Record]
    attempt: Record | None
    recipe_changes: tuple[str, ...]
    timed_untrained: bool
    published: Published | None = None
    spreads: Mapping[Column, Spread] = field(default_factory=dict)

    @property
    def records(self) -> tuple[Record, ...]:
        """The distinct runs behind this row, in the order of the columns."""
        return tuple({record.run_id: record for record in self.sources.values()}.values())


def build_row(
    cell: Cell,
    profile: str,
    runs: Runs,
    columns: Sequence[Column] = COLUMNS,
    memory: MemoryDefinition = DEFAULT_MEMORY,
) -> Row:
    """Choose, for every one of `columns`, the newest run of the cell that has the figure; a noisy one only for want of
    a clean one. Peak memory grows with the training, so of clean runs the one that trained longest shows it, and a run
    that does not know the memory asked for gives way to one that does.

    Only runs that share one resolved recipe stand in a row: that of the matrix, whatever profile they were run with.
    When there is none, the newest run of the same profile decides, and `recipe_changes` says how the matrix has moved
    on since; runs of another profile then never count, or a quick trial could stand in the published document. fps, AP
    and Download are of one model; one that was given with --checkpoint gives way to one that the cell trained itself,
    and of several seeds it is the one whose box AP is nearest to their mean.
    Quarantined runs never count. `runs` may be those of more cells than this one.
    """
    mine = runs.of(cell.id)
    group, changes = _of_one_recipe(cell, profile, mine.only(r for r in mine.summaries if r.status != "quarantined"))
    if not group:
        spoilt, _ = _of_one_recipe(cell, profile, mine)
        return Row(cell, {}, runs.read(spoilt[-1]) if spoilt else None, (), False)
    model = _model_of_row(group)
    sources: dict[Column, Record] = {}
    for column in columns:
        fitting = [r for r in group if column in r.columns and (column not in OF_ONE_MODEL or r.weights == model)]
        if fitting:
            sources[column] = runs.read(max(fitting, key=_memory_rank(memory) if column == "memory" else rank))
    untrained = "fps" not in sources and any(run.inferred for run in group)
    published = [run.published for run in group if run.published and run.weights == model]
    attempt = runs.read(group[-1])
    spreads = {column: spread(group, column) for column in SCORES}
    known = {column: found for column, found in spreads.items() if found is not None}
    return Row(cell, sources, attempt, tuple(changes), untrained, published[-1] if published else None, known)


def _of_one_recipe(cell: Cell, profile: str, runs: Runs) -> tuple[list[Summary], list[str]]:
    """Return the runs that share the matrix's recipe; else those of the profile that share the recipe of its newest
    run, and how the matrix has moved on from that.
    """
    wanted = recipe_values(cell.resolved())
    sha256 = digest(wanted)
    group = [run for run in runs.summaries if run.recipe_sha256 == sha256]
    left = [run for run in runs.summaries if run.profile == profile]
    if group or not left:
        return group, []
    group = [run for run in left if run.recipe_sha256 == left[-1].recipe_sha256]
    old = recipe_values(runs.read(left[-1]).cell)
    # Where a training is shown, a remark of its own tells of another batch than the recipe's.
    trained = any("s_per_iter" in run.columns for run in group)
    told = ("gpus", "images_per_gpu") if trained and base_batch_of(old) is not None else ()
    return group, differences(*without_scaling(old, wanted, told))


def rank(run: Summary) -> tuple[bool, str]:
    """Clean runs are better than noisy ones, then newer ones than older ones."""
    return not run.noisy, run.run_id


def _memory_rank(memory: MemoryDefinition) -> Callable[[Summary], tuple[bool, bool, int, str]]:
    """Return the rank of runs for the memory column: a long training's peak is never that of a short one's."""
    return lambda run: (memory not in run.memory_unknown, not run.noisy, run.iterations, run.run_id)


def _model_of_row(group: Sequence[Summary]) -> str | None:
    """Return the digest of the weights that fps, AP and Download of a row speak of: the newest evaluated ones.

    Of several seeds, the typical one. Without any that were evaluated, the newest trained ones; the cell's own before
    given ones, and those that a clean run used before those that only noisy ones did.
    """
    chosen = typical(group)
    if chosen is not None:
        return chosen.weights
    fitting = [(run, run.checkpoint) for run in group if run.checkpoint and run.checkpoint.usable]
    best = max(fitting, key=lambda one: (not one[1].given, "box_ap" in one[0].columns, *rank(one[0])), default=None)
    return None if best is None else best[0].weights
