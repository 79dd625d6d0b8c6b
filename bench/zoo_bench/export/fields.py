"""The rows of a document as flat values for machines: not rounded, the unit in the name, where each comes from.

Bytes, seconds, joules, images a second, fractions of one. None is what the document leaves blank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from zoo_bench.cell import Cell
from zoo_bench.columns import SCORES, WITH_ENERGY, Column
from zoo_bench.provenance import machine_line, versions
from zoo_bench.remarks import remarks
from zoo_bench.render import Content, are_on_host, definition_of, downloads, row_figure, source_of
from zoo_bench.table import Row
from zoo_bench.text import printable

Kind = Literal["text", "texts", "whole", "number"]
Value: TypeAlias = str | tuple[str, ...] | int | float | None


@dataclass(frozen=True)
class Field:
    """A column: its name, what kind of value it holds, and what that means. `texts`: any number of them."""

    name: str
    kind: Kind
    about: str


@dataclass(frozen=True)
class FigureNames:
    """What the columns of a figure are called: its value's, and what begins the names of the others."""

    value: str
    prefix: str
    kind: Kind
    about: str
    interval: bool = False


NAMES: dict[Column, FigureNames] = {
    "memory": FigureNames("memory_bytes", "memory", "whole", "peak memory in training, bytes"),
    "s_per_iter": FigureNames("train_s_per_iter", "train", "number", "seconds an iteration of training", interval=True),
    "energy": FigureNames("energy_j_per_iter", "energy", "number", "joules an iteration of training, all GPUs"),
    "fps": FigureNames("inference_fps", "inference", "number", "images a second", interval=True),
    "box_ap": FigureNames("box_ap", "box_ap", "number", "COCO AP of boxes, a fraction of one"),
    "mask_ap": FigureNames("mask_ap", "mask_ap", "number", "COCO AP of masks, a fraction of one"),
}


def _of_figure(names: FigureNames) -> Iterator[Field]:
    yield Field(names.value, names.kind, names.about)
    if names.interval:
        yield Field(f"{names.value}_low", "number", f"lower end of the 95 % interval of {names.value}")
        yield Field(f"{names.value}_high", "number", f"upper end of the 95 % interval of {names.value}")
    yield Field(f"{names.prefix}_run_id", "text", f"the run that {names.value} is of")
    yield Field(f"{names.prefix}_definition", "text", f"what {names.value} means")
    yield Field(f"{names.prefix}_remark", "text", f"why {names.value} is missing, or departs from what was asked for")


def _of_seeds(column: Column) -> Iterator[Field]:
    yield Field(f"{column}_seeds", "whole", f"how many seeds were trained, where several were: {column} is of one")
    yield Field(f"{column}_mean", "number", f"mean of {column} over the seeds")
    yield Field(f"{column}_deviation", "number", f"standard deviation of {column} over the seeds, of a sample")


FIELDS: tuple[Field, ...] = (
    Field("cell_id", "text", "the cell, by the matrix"),
    *(Field(name, "text", f"{name} of the cell") for name in ("backend", "detector", "backbone", "schedule")),
    Field("precision", "text", "fp32, tf32 or bf16"),
    Field("dataset", "text", "what was trained and evaluated on"),
    Field("gpus", "whole", "GPUs of the cell; 0: the CPU"),
    Field("images_per_gpu", "whole", "images an iteration and GPU"),
    Field("status", "text", "how the newest run ended that counts; empty: never run"),
    *(field for names in NAMES.values() for field in _of_figure(names)),
    *(field for column in SCORES for field in _of_seeds(column)),
    Field("model", "text", "address of the model, or its path in the workspace"),
    Field("model_sha256", "text", "SHA-256 of the model"),
    Field("log", "text", "address of the training's log, or its path in the workspace"),
    Field("machine", "texts", "what the runs ran on"),
    Field("software", "texts", "what they ran with"),
    Field("remarks", "texts", "what must be known beside the figures"),
)


def flat(content: Content) -> list[dict[str, Value]]:
    """Return every row of a document, in its order, with a value for each of `FIELDS`."""
    return [
        _row(content, cell, on_host=are_on_host(cells))
        for part in content.layout.parts
        for cells in part.tables.values()
        for cell in cells
    ]


def _row(content: Content, cell: Cell, *, on_host: bool) -> dict[str, Value]:
    row, found = content.rows[cell.id], dict[str, Value]()
    for name in ("backend", "detector", "backbone", "schedule", "precision", "dataset", "gpus", "images_per_gpu"):
        found[name] = getattr(cell, name)
    found["cell_id"] = cell.id
    found["status"] = row.attempt.status if row.attempt else None
    for column in WITH_ENERGY:
        if column != "download":
            found |= _figure(content, row, column, on_host=on_host)
    found |= _seeds(row)
    found |= _files(content, row)
    found["machine"] = tuple(dict.fromkeys(map(machine_line, row.records)))
    told = (f"{name} {version}" for record in row.records for name, version in versions(record).items())
    found["software"] = tuple(dict.fromkeys(told))
    found["remarks"] = tuple(remarks(row, content.ground))
    return {field.name: _clean(found.get(field.name)) for field in FIELDS}


def _figure(content: Content, row: Row, column: Column, *, on_host: bool) -> dict[str, Value]:
    names, record, memory = NAMES[column], source_of(row, column), content.options.memory
    if record is None:
        return {}
    figure = row_figure(column, record, memory, on_host=on_host)
    if figure.value is None:
        return {f"{names.prefix}_remark": figure.remark or None}
    found: dict[str, Value] = {
        names.value: int(figure.value) if names.kind == "whole" else float(figure.value),
        f"{names.prefix}_run_id": record.run_id,
        f"{names.prefix}_definition": definition_of(column, record, memory, on_host=on_host),
        f"{names.prefix}_remark": figure.remark or None,
    }
    if figure.interval is not None:
        found |= {f"{names.value}_low": figure.interval.low, f"{names.value}_high": figure.interval.high}
    return found


def _seeds(row: Row) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for column, spread in row.spreads.items():
        found[f"{column}_seeds"] = spread.seeds
        found |= {f"{column}_mean": spread.mean, f"{column}_deviation": spread.deviation}
    return found


def _files(content: Content, row: Row) -> dict[str, Value]:
    files, record = downloads(row, content.available), row.sources.get("download")
    found: dict[str, Value] = {**files}
    if row.published is not None:
        found["model_sha256"] = row.published.model.sha256
    elif "model" in files and record is not None and record.checkpoint is not None:
        found["model_sha256"] = record.checkpoint.sha256
    return found


def _clean(value: Value) -> Value:
    if isinstance(value, str):
        return printable(value)
    return tuple(map(printable, value)) if isinstance(value, tuple) else value


def heading(content: Content) -> dict[str, str]:
    """Return what a whole export is of."""
    name, profile = content.matrix.profile(content.options.profile)
    return {"title": printable(content.matrix.document.title), "profile": name, "note": printable(profile.note)}
