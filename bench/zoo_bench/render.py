"""Matrix and records -> the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo_bench import plots
from zoo_bench.columns import COLUMNS, WITH_ENERGY, Column
from zoo_bench.document import DEFAULT_OPTIONS, DocumentOptions, comment
from zoo_bench.errors import ConfigError
from zoo_bench.figures import COUNT_TEXT, NOTHING, OVER_GPUS_TEXT, Figure, MemoryDefinition, figure
from zoo_bench.layout import Layout, Part, lay_out
from zoo_bench.markdown import Footnotes, escape, link, table
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
    """One detector's heading and its table, as Markdown."""

    title: str
    table: str


@dataclass(frozen=True)
class RenderedPart:
    """Tables that stand together. `backend`: whose they are, where each backend has its own; else empty."""

    backend: str
    sections: tuple[Section, ...]


def render(
    matrix: Matrix,
    runs: Runs,
    template_folders: Sequence[Path],
    options: DocumentOptions = DEFAULT_OPTIONS,
    *,
    available: Callable[[str], bool] = lambda _: False,
    current: Mapping[str, CurrentInputs] | None = None,
) -> str:
    """Return the Markdown document for a profile's cells.

    Args:
        runs: the whole store.
        template_folders: searched in order for the template and its parts.
        available: tells whether a file that a record names (relative to the workspace) is there to be linked.
        current: by backend, what its worker would be run from now; rows made from something else are marked as stale.

    Raises:
        ConfigError: the profile is unknown or lacks the backends, or a template is missing or wrong.
    """
    name, profile = matrix.profile(options.profile)
    layout = lay_out(matrix, options, runs)
    columns = WITH_ENERGY if options.energy else COLUMNS
    rows = {cell.id: build_row(cell, name, runs, columns, options.memory) for cell in layout.cells}
    used = {
        backend: [record for row in rows.values() if row.cell.backend == backend for record in row.records]
        for backend in layout.backends
    }
    ground = Ground(
        next((record for row in rows.values() for record in row.records if record.origin is None), None),
        {backend: mine[0] for backend, mine in used.items() if mine},
        runs.newest_drivers(),
        current or {},
        options.stale_marks,
    )
    document = _Document(matrix, options, available, ground, layout, rows, Footnotes())
    values = {
        "title": matrix.document.title,
        "note": profile.note,
        "hardware": hardware(matrix, used),
        "software": software(matrix, used),
        "settings": settings(layout),
        "parts": [document.part(part) for part in layout.parts],
        "footnotes": document.notes.lines(),
        "pictures": plots.markdown(list(rows.values()), options.plots) if options.plots else [],
    }
    return _fill(template_folders, values) + comment(options, matrix)


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
class _Document:
    """Makes the tables of one document, and collects their footnotes. `rows` are by cell id."""

    matrix: Matrix
    options: DocumentOptions
    available: Callable[[str], bool]
    ground: Ground
    layout: Layout
    rows: Mapping[str, Row]
    notes: Footnotes

    def part(self, part: Part) -> RenderedPart:
        """Fill the tables of a part."""
        sections = (
            self._section(detector, [self.rows[cell.id] for cell in cells]) for detector, cells in part.tables.items()
        )
        return RenderedPart(part.backend, tuple(sections))

    def _section(self, detector: str, rows: Sequence[Row]) -> Section:
        """Return one detector's table."""
        masks = any(row.cell.masks for row in rows)
        columns = [
            column
            for column in COLUMN_HEADS
            if (column != "mask_ap" or masks) and (column != "energy" or self.options.energy)
        ]
        on_host = all(row.cell.gpus == 0 for row in rows)
        filled = {column for row in rows for column in row.sources}
        heads = [self._head(column, on_host, column in filled) for column in columns]
        lines = [self._line(row, columns, on_host) for row in rows]
        names = [*NAME_HEADS]
        names += [PRECISION_HEAD] if self.layout.with_precision else []
        names += [BACKEND_HEAD] if self.layout.mixed else []
        return Section(self.matrix.detector_title(detector), table([*names, *heads], lines))

    def _head(self, column: Column, on_host: bool, filled: bool) -> str:
        text = HOST_MEMORY_HEAD if on_host and column == "memory" else COLUMN_HEADS[column]
        definition = definition_text(column, self.options.memory, on_host=on_host)
        return text + (self.notes.mark(definition) if filled and definition else "")

    def _line(self, row: Row, columns: Sequence[Column], on_host: bool) -> list[str]:
        figures: list[str] = []
        said: list[str] = []
        for column in columns:
            # A training whose energy is not known says why.
            record = row.sources.get(column) or (row.sources.get("s_per_iter") if column == "energy" else None)
            figure = row_figure(column, record, self.options.memory, on_host=on_host)
            text = self._links(row) if column == "download" else self._written(row, column, figure.value)
            figures.append(text)
            if figure.remark:
                said.append(f"{'' if text else 'No '}{COLUMN_HEADS[column]}: {figure.remark}.")
        # Nothing of a quarantined run stands in the table: only the footnote tells of it.
        if row.attempt is not None and row.attempt.status not in ("succeeded", "quarantined") and not row.sources:
            figures[0] = escape(row.attempt.status)
        first = next((index for index, figure in enumerate(figures) if figure), 0)
        figures[first] += "".join(self.notes.mark(escape(text)) for text in (*remarks(row, self.ground), *said))
        names = [self.matrix.backbone_title(row.cell.backbone), row.cell.schedule]
        names += [row.cell.precision] if self.layout.with_precision else []
        names += [row.cell.backend] if self.layout.mixed else []
        return [*map(escape, names), *figures]

    def _written(self, row: Row, column: Column, value: float | None) -> str:
        """Return a figure's text; of several seeds, where that is asked for, their mean and spread."""
        over_seeds = row.spreads.get(column)
        if over_seeds is None or not self.options.spread:
            return written(column, value)
        told = f"Mean and standard deviation over {over_seeds.seeds} seeds; the model is the one nearest to the mean."
        return f"{written(column, over_seeds.mean)} ± {written(column, over_seeds.deviation)}{self.notes.mark(told)}"

    def _links(self, row: Row) -> str:
        record = row.sources.get("download")
        if row.published is not None:
            return _linked([("model", row.published.model.url), ("log", row.published.log.url)])
        if record is None:
            return ""
        if record.origin is not None:
            published = [("model", record.origin.weights), ("log", record.origin.log)]
            return _linked([(name, url) for name, url in published if url])
        checkpoint = record.checkpoint
        model = checkpoint.file if checkpoint and not checkpoint.given else ""
        files = [("model", model), ("log", record.files.get("log", ""))]
        return _linked([(name, file) for name, file in files if file and self.available(file)])


def _linked(files: Sequence[tuple[str, str]]) -> str:
    return " \\| ".join(link(name, file) for name, file in files)


def definition_text(column: Column, memory: MemoryDefinition, *, on_host: bool) -> str:
    """Say what the figures of a column are; empty for those that need no saying."""
    if column != "memory":
        return DEFINITIONS.get(column, "")
    if on_host:
        return HOST_MEMORY_TEXT
    counted = f"{COUNT_TEXT[memory.count]}, {OVER_GPUS_TEXT[memory.over_gpus]}"
    return f"Peak memory of the job during training: {counted}; GB = 2^30 bytes."


def row_figure(column: Column, record: Record | None, memory: MemoryDefinition, *, on_host: bool) -> Figure:
    """Return what a row shows of a run. A GPU's memory never stands in a column of host memory, nor the other way."""
    if record is None:
        return NOTHING
    if column == "memory" and on_host != (record.cell["gpus"] == 0):
        return Figure(None, remark=f"measured {'on GPUs' if on_host else 'on the CPU'}")
    return figure(column, record, memory)
