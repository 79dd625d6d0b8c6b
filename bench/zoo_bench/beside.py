"""Our figures beside published ones, with what differs in how the two came about. Pure functions.

What a source counts in another way is counted once more from our records in its way, where they hold what that takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo_bench.cell import Cell
from zoo_bench.columns import Column
from zoo_bench.document import DocumentOptions
from zoo_bench.figures import (
    COUNT_TEXT,
    DEFAULT_MEMORY,
    NOTHING,
    OVER_GPUS_TEXT,
    Figure,
    MemoryDefinition,
    figure,
    memory_figure,
)
from zoo_bench.layout import lay_out
from zoo_bench.matrix import Matrix
from zoo_bench.provenance import gpu_lines, gpus_used
from zoo_bench.published import COMPARED, PUBLISHED_PRECISION, PublishedRow, Throughput, ThroughputRow, Zoo
from zoo_bench.record import Record
from zoo_bench.runs import Runs
from zoo_bench.scaling import images_an_iteration
from zoo_bench.table import Row, build_row
from zoo_bench.units import as_printed, per_second, written

OURS = "ours"
OURS_SO = "  ours, counted so"
SPEED_AND_MEMORY: tuple[Column, ...] = ("memory", "s_per_iter", "fps")
TRAINING: tuple[Column, ...] = ("memory", "s_per_iter", "box_ap", "mask_ap")
OUR_FPS = ("forward", "postprocess")


@dataclass(frozen=True)
class Entry:
    """A figure as it is printed, and what differs from ours in how it came about."""

    text: str
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of a table: of which cell, whose figures, and these by column."""

    cell: str
    whose: str
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class Comparison:
    """One detector's table; `heads` are the keys of the entries, in order."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]


def put_beside(matrix: Matrix, profile: str | None, runs: Runs, zoos: Sequence[Zoo]) -> Iterator[Comparison]:
    """Make the table of every detector that at least one source has a row for."""
    for title, masks, rows in _by_detector(matrix, profile, runs):
        columns = tuple(column for column in COMPARED if column != "mask_ap" or masks)
        lines = [line for name, row in rows.items() for line in _lines(name, row, columns, zoos)]
        if lines:
            yield Comparison(title, columns, tuple(lines))


def _by_detector(matrix: Matrix, profile: str | None, runs: Runs) -> Iterator[tuple[str, bool, dict[str, Row]]]:
    """Give every detector's title, whether it has masks, and its rows by name; of several backends they say whose."""
    chosen, _ = matrix.profile(profile)
    layout = lay_out(matrix, DocumentOptions(profile, tables="together"))
    for part in layout.parts:
        for detector, cells in part.tables.items():
            rows = {_name(matrix, cell, mixed=layout.mixed): build_row(cell, chosen, runs) for cell in cells}
            yield matrix.detectors[detector].title, matrix.detectors[detector].masks, rows


def _name(matrix: Matrix, cell: Cell, *, mixed: bool) -> str:
    words = [matrix.backbones[cell.backbone].title, cell.schedule]
    words += [] if cell.precision == "fp32" else [cell.precision]
    words += [cell.backend] if mixed else []
    return " ".join(words)


def _lines(name: str, row: Row, columns: Sequence[Column], zoos: Sequence[Zoo]) -> list[Line]:
    cell = row.cell
    lines: list[Line] = []
    for zoo in zoos:
        published = zoo.row(cell.detector, cell.backbone, cell.schedule)
        if published is not None and cell.precision == PUBLISHED_PRECISION:
            lines.append(Line(name, zoo.title, _theirs(row, columns, zoo, published)))
            so = _counted_so(row, zoo)
            lines += [Line(name, OURS_SO, so)] if so else []
    ours: dict[str, Entry] = {column: Entry(written(column, _ours(row, column).value)) for column in columns}
    return [Line(name, OURS, ours), *lines] if lines else []


def _ours(row: Row, column: Column) -> Figure:
    record = row.sources.get(column)
    return figure(column, record) if record is not None else NOTHING


def _theirs(row: Row, columns: Sequence[Column], zoo: Zoo, published: PublishedRow) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for column in columns:
        printed = published.printed(column)
        if printed is not None:
            entries[column] = Entry(as_printed(column, printed), tuple(_differences(row, column, zoo, published)))
    return entries


def _differences(row: Row, column: Column, zoo: Zoo, published: PublishedRow) -> Iterator[str]:
    """Say how a source's figure came about in another way than ours, or than ours will."""
    record = row.sources.get(column)
    ours = record.cell if record is not None else row.cell.resolved()
    yield from _methods(column, zoo, published, ours)
    batch = published.batch_size or zoo.batch_size
    if column in TRAINING and batch != images_an_iteration(ours):
        yield f"theirs with batch {batch}, ours with {images_an_iteration(ours)}"
    if zoo.dataset != ours["dataset"]:
        yield f"theirs on {zoo.dataset}, ours on {ours['dataset']}"
    size = {key: ours["recipe"]["input"][key] for key in ("min_size", "max_size")}
    if size != zoo.input.model_dump():
        theirs = f"{zoo.input.min_size} x {zoo.input.max_size}"
        yield f"theirs at {theirs} pixels, ours at {size['min_size']} x {size['max_size']}"
    if column in SPEED_AND_MEMORY and record is not None and not _same_hardware(zoo, record, column):
        yield f"theirs on {zoo.hardware.text}, ours on {_on(record)}"


def _methods(column: Column, zoo: Zoo, published: PublishedRow, ours: Mapping[str, Any]) -> Iterator[str]:
    if column == "memory":
        counted = f"{COUNT_TEXT[DEFAULT_MEMORY.count]}, {OVER_GPUS_TEXT[DEFAULT_MEMORY.over_gpus]}"
        counted = "the host's memory" if ours["gpus"] == 0 else counted
        yield f"theirs is {COUNT_TEXT[zoo.memory.count]}, {OVER_GPUS_TEXT[zoo.memory.over_gpus]}; ours {counted}"
    methods = {"memory": zoo.memory, "s_per_iter": zoo.s_per_iter, "fps": zoo.fps}
    yield from filter(None, [methods.get(column, zoo.ap).differs])
    if column in ("box_ap", "mask_ap") and published.note:
        yield published.note


def _counted_so(row: Row, zoo: Zoo) -> dict[str, Entry]:
    """Count our memory and speed as a source does, where that is another way and our records hold what it takes."""
    entries: dict[str, Entry] = {}
    memory = row.sources.get("memory")
    if memory is not None and memory.cell["gpus"] > 0 and zoo.memory.count != "nvidia-smi":
        found = memory_figure(memory, MemoryDefinition(zoo.memory.count, zoo.memory.over_gpus))
        if found.value is not None:
            entries["memory"] = Entry(written("memory", found.value))
    fps = row.sources.get("fps")
    if fps is not None and zoo.fps.parts != OUR_FPS and fps.measurements.infer is not None:
        timing = fps.measurements.infer.model_dump()
        entries["fps"] = Entry(written("fps", 1 / sum(timing[f"{part}_s"] for part in zoo.fps.parts)))
    return entries


def _same_hardware(zoo: Zoo, record: Record, column: Column) -> bool:
    """Inference runs on one GPU, whatever their number."""
    used = gpus_used(record)
    alike = bool(used) and all(map(zoo.hardware.is_kind_of, used))
    return alike and (column == "fps" or len(used) == zoo.hardware.gpus)


def _on(record: Record) -> str:
    return ", ".join(gpu_lines(record)) if record.cell["gpus"] else f"the CPU ({record.machine.get('cpu')})"


def throughput_beside(
    matrix: Matrix, profile: str | None, runs: Runs, sources: Sequence[Throughput]
) -> Iterator[Comparison]:
    """Make the tables of training throughput, images a second and GPU, of the detectors that a source speaks of."""
    for title, _, rows in _by_detector(matrix, profile, runs):
        lines = [line for name, row in rows.items() for line in _throughput_lines(name, row, sources)]
        if lines:
            yield Comparison(f"{title}: training throughput", ("images/s per GPU", "on"), tuple(lines))


def _throughput_lines(name: str, row: Row, sources: Sequence[Throughput]) -> list[Line]:
    cell, record = row.cell, row.sources.get("s_per_iter")
    theirs = [
        Line(name, f"{source.title}: {published.by}", _throughput_entries(source, published, cell, record))
        for source in sources
        for published in source.rows
        if (published.detector, published.backbone) == (cell.detector, cell.backbone)
    ]
    ours: dict[str, Entry] = {}
    if record is not None and record.measurements.train is not None:
        speed = images_an_iteration(record.cell) / record.measurements.train.mean_s / max(int(record.cell["gpus"]), 1)
        ours = {"images/s per GPU": Entry(per_second(speed)), "on": Entry(f"{_on(record)}, {record.cell['precision']}")}
    return [Line(name, OURS, ours), *theirs] if theirs else []


def _throughput_entries(
    source: Throughput, published: ThroughputRow, cell: Cell, record: Record | None
) -> dict[str, Entry]:
    ours = record.cell if record is not None else cell.resolved()
    differs = [source.differs]
    if ours["dataset"] != "coco_2017":
        differs.append(f"theirs on coco_2017, ours on {ours['dataset']}")
    return {
        "images/s per GPU": Entry(per_second(published.images_per_s / published.gpus), tuple(differs)),
        "on": Entry(", ".join(filter(None, [f"{published.gpus} x {published.gpu}", published.precision]))),
    }
