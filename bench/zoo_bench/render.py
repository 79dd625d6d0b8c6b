"""Matrix and records -> what a document shows -> the Markdown document. export/ writes the same in other formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo_bench import plots
from zoo_bench.cell import Cell
from zoo_bench.columns import COLUMNS, WITH_ENERGY, Column
from zoo_bench.document import DEFAULT_OPTIONS, DocumentOptions, comment
from zoo_bench.errors import ConfigError
from zoo_bench.figures import (
    COUNT_TEXT,
    DEFAULT_MEMORY,
    NOTHING,
    OVER_GPUS_TEXT,
    Figure,
    MemoryDefinition,
    figure,
)
from zoo_bench.layout import Layout, Part, lay_out
from zoo_bench.markdown import MARKDOWN, Footnotes, Markup, escape
from zoo_bench.matrix import Matrix
from zoo_bench.preamble import hardware, settings, software
from zoo_bench.provenance import CurrentInputs
from zoo_bench.record import Record
from zoo_bench.remarks import Ground, remarks
from zoo_bench.runs import Runs
from zoo_bench.sandbox import Sandbox
from zoo_bench.table import Row, build_row
from zoo_bench.units import BACKEND_HEAD, COLUMN_HEADS, HOST_MEMORY_HEAD, NAME_HEADS, PRECISION_HEAD, written

TEMPLATE = "model_zoo.md.j2"
HOST_MEMORY_TEXT = (
    "No GPU: peak memory (proportional set size) of the job's process tree during training; GB = 2^30 bytes."
)
DEFINITIONS: dict[Column, str] = {
    "s_per_iter": "Mean wall time of an iteration in the steady state, data loading included.",
    "energy": "Energy of the job's GPUs in training, per iteration.",
    "fps": "Images per second at batch 1 on one device, forward and postprocessing.",
}


@dataclass(frozen=True)
class Section:
    """One detector's heading, and its table as Markdown or whatever else was asked for."""

    title: str
    table: str


@dataclass(frozen=True)
class RenderedPart:
    """Tables that stand together. `backend`: whose they are, where each backend has its own; else empty."""

    backend: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Content:
    """What a document shows, whatever its format: `rows`, by cell id, laid out, and what they are seen against.

    `available` tells whether a file that a record names (relative to the workspace) is there to be linked;
    `template_folders` are searched in order for the Markdown document's template and its parts.
    """

    matrix: Matrix
    options: DocumentOptions
    layout: Layout
    rows: Mapping[str, Row]
    ground: Ground
    available: Callable[[str], bool]
    template_folders: Sequence[Path]

    @property
    def used(self) -> dict[str, list[Record]]:
        """The runs behind the rows, by backend."""
        return _used(self.layout, self.rows)


def gather(
    matrix: Matrix,
    runs: Runs,
    template_folders: Sequence[Path],
    options: DocumentOptions = DEFAULT_OPTIONS,
    *,
    available: Callable[[str], bool] = lambda _: False,
    current: Mapping[str, CurrentInputs] | None = None,
    select: str | None = None,
) -> Content:
    """Choose what a document shows of a profile's cells.

    Args:
        runs: the whole store.
        current: by backend, what its worker would be run from now; rows made from something else are marked as stale.
        select: only the rows of these cells.

    Raises:
        ConfigError: the profile is unknown or lacks the backends, or no cell is selected.
    """
    name, _ = matrix.profile(options.profile)
    layout = lay_out(matrix, options, runs).narrowed(select)
    columns = WITH_ENERGY if options.energy else COLUMNS
    rows = {cell.id: build_row(cell, name, runs, columns, options.memory) for cell in layout.cells}
    ground = Ground(
        next((record for row in rows.values() for record in row.records if record.origin is None), None),
        {backend: mine[0] for backend, mine in _used(layout, rows).items() if mine},
        runs.newest_drivers(),
        current or {},
        options.stale_marks,
    )
    return Content(matrix, options, layout, rows, ground, available, template_folders)


def _used(layout: Layout, rows: Mapping[str, Row]) -> dict[str, list[Record]]:
    return {
        backend: [record for row in rows.values() if row.cell.backend == backend for record in row.records]
        for backend in layout.backends
    }


def render(
    matrix: Matrix,
    runs: Runs,
    template_folders: Sequence[Path],
    options: DocumentOptions = DEFAULT_OPTIONS,
    *,
    available: Callable[[str], bool] = lambda _: False,
    current: Mapping[str, CurrentInputs] | None = None,
) -> str:
    """Return the Markdown document for a profile's cells; the arguments are those of `gather`.

    Raises:
        ConfigError: the profile is unknown or lacks the backends, or a template is missing or wrong.
    """
    return whole(gather(matrix, runs, template_folders, options, available=available, current=current))


def whole(content: Content) -> str:
    """Return a Markdown document with the line that says how it was made. Raises ConfigError as `markdown` does."""
    return markdown(content) + comment(content.options, content.matrix)


def markdown(content: Content) -> str:
    """Fill the template with what a document shows. Raises ConfigError: a template is missing or wrong."""
    matrix, options, used = content.matrix, content.options, content.used
    document = Tables(content, MARKDOWN, Footnotes())
    values = {
        "title": matrix.document.title,
        "note": matrix.profile(options.profile)[1].note,
        "hardware": hardware(matrix, used),
        "software": software(matrix, used),
        "settings": settings(content.layout),
        "parts": [document.part(part) for part in content.layout.parts],
        "footnotes": document.notes.lines(),
        "pictures": plots.markdown(list(content.rows.values()), options.plots) if options.plots else [],
    }
    return _fill(content.template_folders, values)


def _fill(template_folders: Sequence[Path], values: Mapping[str, object]) -> str:
    environment = Sandbox(template_folders, md=escape)
    try:
        return environment.get_template(TEMPLATE).render(values)
    except Exception as error:  # noqa: BLE001 - a template can raise anything, and its author must hear where
        line = getattr(error, "lineno", None)
        where = f"{getattr(error, 'name', None) or TEMPLATE}{f':{line}' if line else ''}"
        raise ConfigError(
            f"templates/{where}: {getattr(error, 'message', None) or f'{type(error).__name__}: {error}'}",
            "docs/rendering.md lists what a template can use",
        ) from None


@dataclass(frozen=True)
class Tables:
    """Makes the tables of one document in some format, and collects their footnotes."""

    content: Content
    markup: Markup
    notes: Footnotes

    def part(self, part: Part) -> RenderedPart:
        """Fill the tables of a part."""
        return RenderedPart(part.backend, tuple(self.section(*one) for one in part.tables.items()))

    def section(self, detector: str, cells: Sequence[Cell]) -> Section:
        """Return one detector's table."""
        masks = any(cell.masks for cell in cells)
        columns = [
            column
            for column in COLUMN_HEADS
            if (column != "mask_ap" or masks) and (column != "energy" or self.content.options.energy)
        ]
        rows, on_host = [self.content.rows[cell.id] for cell in cells], are_on_host(cells)
        filled = {column for row in rows for column in row.sources}
        heads = [self._head(column, on_host, column in filled) for column in columns]
        lines = [self._line(row, columns, on_host) for row in rows]
        names = [*NAME_HEADS]
        names += [PRECISION_HEAD] if self.content.layout.with_precision else []
        names += [BACKEND_HEAD] if self.content.layout.mixed else []
        return Section(self.content.matrix.detector_title(detector), self.markup.table([*names, *heads], lines))

    def _head(self, column: Column, on_host: bool, filled: bool) -> str:
        text = HOST_MEMORY_HEAD if on_host and column == "memory" else COLUMN_HEADS[column]
        definition = definition_text(column, self.content.options.memory, on_host=on_host)
        return text + (self.notes.mark(self.markup.escape(definition)) if filled and definition else "")

    def _line(self, row: Row, columns: Sequence[Column], on_host: bool) -> list[str]:
        figures: list[str] = []
        said: list[str] = []
        for column in columns:
            figure = row_figure(column, source_of(row, column), self.content.options.memory, on_host=on_host)
            text = self._links(row) if column == "download" else self._written(row, column, figure.value)
            figures.append(text)
            if figure.remark:
                said.append(f"{'' if text else 'No '}{COLUMN_HEADS[column]}: {figure.remark}.")
        # Nothing of a quarantined run stands in the table: only the footnote tells of it.
        if row.attempt is not None and row.attempt.status not in ("succeeded", "quarantined") and not row.sources:
            figures[0] = self.markup.escape(row.attempt.status)
        first = next((index for index, figure in enumerate(figures) if figure), 0)
        notes = (*remarks(row, self.content.ground), *said)
        figures[first] += "".join(self.notes.mark(self.markup.escape(text)) for text in notes)
        names = [self.content.matrix.backbone_title(row.cell.backbone), row.cell.schedule]
        names += [row.cell.precision] if self.content.layout.with_precision else []
        names += [row.cell.backend] if self.content.layout.mixed else []
        return [*map(self.markup.escape, names), *figures]

    def _written(self, row: Row, column: Column, value: float | None) -> str:
        """Return a figure's text; of several seeds, where that is asked for, their mean and spread."""
        over_seeds = row.spreads.get(column)
        if over_seeds is None or not self.content.options.spread:
            return written(column, value)
        told = f"Mean and standard deviation over {over_seeds.seeds} seeds; the model is the one nearest to the mean."
        figures = f"{written(column, over_seeds.mean)} ± {written(column, over_seeds.deviation)}"
        return self.markup.escape(figures) + self.notes.mark(self.markup.escape(told))

    def _links(self, row: Row) -> str:
        files = downloads(row, self.content.available)
        return f" {self.markup.escape('|')} ".join(self.markup.link(name, file) for name, file in files.items())


def downloads(row: Row, available: Callable[[str], bool]) -> dict[str, str]:
    """Return where readers find the `model` and the `log` of a row: what was published, else files that are here."""
    record = row.sources.get("download")
    if row.published is not None:
        return {"model": row.published.model.url, "log": row.published.log.url}
    if record is None:
        return {}
    if record.origin is not None:
        published = {"model": record.origin.weights, "log": record.origin.log}
        return {name: url for name, url in published.items() if url}
    checkpoint = record.checkpoint
    model = checkpoint.file if checkpoint and not checkpoint.given else ""
    files = {"model": model, "log": record.files.get("log", "")}
    return {name: file for name, file in files.items() if file and available(file)}


def are_on_host(cells: Sequence[Cell]) -> bool:
    """Tell whether the memory of a table is that of hosts: no cell of it is for GPUs."""
    return all(cell.gpus == 0 for cell in cells)


def source_of(row: Row, column: Column) -> Record | None:
    """Return the run that a row's figure is of; of an energy that is not known the training that could say why."""
    return row.sources.get(column) or (row.sources.get("s_per_iter") if column == "energy" else None)


def definition_text(column: Column, memory: MemoryDefinition, *, on_host: bool) -> str:
    """Say what the figures of a column are; empty for those that need no saying."""
    if column != "memory":
        return DEFINITIONS.get(column, "")
    if on_host:
        return HOST_MEMORY_TEXT
    counted = f"{COUNT_TEXT[memory.count]}, {OVER_GPUS_TEXT[memory.over_gpus]}"
    return f"Peak memory of the job during training: {counted}; GB = 2^30 bytes."


def definition_of(column: Column, record: Record, memory: MemoryDefinition, *, on_host: bool) -> str:
    """Return the definition that a run's figure was made under; of another memory than the usual, which that is."""
    asked = definition_text(column, memory, on_host=on_host)
    if column == "memory" and memory != DEFAULT_MEMORY and not on_host:
        return asked
    return record.definitions.get(column) or asked


def row_figure(column: Column, record: Record | None, memory: MemoryDefinition, *, on_host: bool) -> Figure:
    """Return what a row shows of a run. A GPU's memory never stands in a column of host memory, nor the other way."""
    if record is None:
        return NOTHING
    if column == "memory" and on_host != (record.cell["gpus"] == 0):
        return Figure(None, remark=f"measured {'on GPUs' if on_host else 'on the CPU'}")
    return figure(column, record, memory)
