"""Which cells fill the document, and in which order: in one table a detector, or apart by backend. Pure functions.

They are the matrix's, and those that runs were imported for and that the matrix does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zoo_bench.cell import Cell, expand
from zoo_bench.document import DocumentOptions
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.matrix import Matrix
from zoo_bench.recipe import PRECISIONS
from zoo_bench.runs import Runs
from zoo_bench.selector import choose


@dataclass(frozen=True)
class Part:
    """Tables that stand together: a table a detector. `backend`: whose they are; empty where nothing need say so."""

    backend: str
    cells: tuple[Cell, ...]

    @property
    def tables(self) -> dict[str, tuple[Cell, ...]]:
        """The rows of every table, by detector."""
        detectors = dict.fromkeys(cell.detector for cell in self.cells)
        return {detector: tuple(cell for cell in self.cells if cell.detector == detector) for detector in detectors}


@dataclass(frozen=True)
class Layout:
    """The document's backends, in its order, and its parts: one for all, or one for each of them.

    `mixed`: a table has rows of several backends, so that each row must say whose it is. `imported`: ids of the cells
    that the matrix does not have.
    """

    backends: tuple[str, ...]
    parts: tuple[Part, ...]
    mixed: bool
    imported: frozenset[str] = frozenset()

    @property
    def with_precision(self) -> bool:
        """There are rows in other than single precision, so that each row must say its own."""
        return any(cell.precision != "fp32" for cell in self.cells)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, in the order of the rows."""
        return tuple(cell for part in self.parts for cell in part.cells)

    def narrowed(self, select: str | None) -> Layout:
        """Return it with the cells that `select` chooses alone; None: all of them.

        Raises:
            ConfigError: a pattern of `select` matches no cell.
        """
        if select is None:
            return self
        chosen = {cell.id for cell in choose(self.cells, select, None)}
        left = (Part(part.backend, tuple(cell for cell in part.cells if cell.id in chosen)) for part in self.parts)
        parts = tuple(part for part in left if part.cells)
        known = {cell.backend for part in parts for cell in part.cells}
        return Layout(tuple(name for name in self.backends if name in known), parts, self.mixed, self.imported)


def lay_out(matrix: Matrix, options: DocumentOptions, runs: Runs | None = None) -> Layout:
    """Choose and order the cells of a document. A backend that has none in the profile has no row and no part.

    `runs`: the store, where what was imported is to be shown too.

    Raises:
        ConfigError: the profile is unknown, or has no cell of a backend that was asked for, or of any at all.
    """
    declared = expand(matrix, options.profile)
    others = imported_cells(declared, runs, matrix.profile(options.profile)[0]) if runs else ()
    imported = frozenset(cell.id for cell in others)
    cells = (*declared, *others)
    backends = _backends(matrix, options, cells)
    mine = {name: tuple(cell for cell in cells if cell.backend == name) for name in backends}
    if len(backends) == 1:
        return Layout(backends, (Part("", mine[backends[0]]),), mixed=False, imported=imported)
    if (options.tables or matrix.document.tables) == "apart":
        parts = tuple(Part(name, own) for name, own in mine.items() if own)
        return Layout(backends, parts, mixed=False, imported=imported)
    chosen = [cell for own in mine.values() for cell in own]
    part = Part("", tuple(sorted(chosen, key=_place_in(matrix, options, backends, chosen))))
    return Layout(backends, (part,), mixed=True, imported=imported)


def imported_cells(declared: Iterable[Cell], runs: Runs, profile: str) -> tuple[Cell, ...]:
    """Return the cells that runs of a profile were imported for, and that are not among those declared.

    They are in the order in which they were imported first; of each, the newest run says what it is.
    """
    known = {cell.id for cell in declared}
    newest = {run.cell_id: run for run in runs.summaries if run.imported and run.profile == profile}
    return tuple(Cell.model_validate(runs.read(run).cell) for name, run in newest.items() if name not in known)


def _backends(matrix: Matrix, options: DocumentOptions, cells: Sequence[Cell]) -> tuple[str, ...]:
    profile, _ = matrix.profile(options.profile)
    known = {cell.backend for cell in cells}
    for name in options.backends or ():
        if name not in known:
            raise ConfigError(f"--backend {name}: profile {profile} has no cell of it", nearest(name, known))
    backends = options.backends or tuple(dict.fromkeys(matrix.document.backends))
    if not known.intersection(backends):
        raise ConfigError(
            f"profile {profile} has no cell of {', '.join(backends)}, which document.backends in the matrix names",
            f"zoo-bench render --backend {','.join(sorted(known))}",
        )
    return backends


def _place_in(
    matrix: Matrix, options: DocumentOptions, backends: Sequence[str], cells: Sequence[Cell]
) -> Callable[[Cell], tuple[int, ...]]:
    """Return the order in which the same model of two backends stands beneath one another: by the axes, then backend.

    What is on no axis, and has its cells from `include` or from imported runs, comes after what is on one.
    """
    _, profile = matrix.profile(options.profile)
    axes = matrix.axes.model_copy(update=profile.axes.model_dump(exclude_none=True))
    detectors = _ranks(axes.detector, matrix.detectors, (cell.detector for cell in cells))
    backbones = _ranks(axes.backbone, matrix.backbones, (cell.backbone for cell in cells))
    schedules = _ranks(axes.schedule, matrix.schedules, (cell.schedule for cell in cells))
    precisions = _ranks(axes.precision, PRECISIONS, ())

    def place(cell: Cell) -> tuple[int, ...]:
        ranks = (detectors[cell.detector], backbones[cell.backbone], schedules[cell.schedule])
        return *ranks, precisions[cell.precision], backends.index(cell.backend)

    return place


def _ranks(axis: Sequence[str], declared: Iterable[str], others: Iterable[str]) -> dict[str, int]:
    return {name: rank for rank, name in enumerate(dict.fromkeys([*axis, *declared, *others]))}
