"""The published models of a document, evaluated once more: does each still have the AP that is printed?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zoo_bench.cell import Cell
from zoo_bench.columns import SCORES, Column
from zoo_bench.document import DocumentOptions
from zoo_bench.figures import figure
from zoo_bench.layout import lay_out
from zoo_bench.matrix import SAME_MODEL_AP, Matrix
from zoo_bench.plan import PlannedCell, fingerprint
from zoo_bench.record import Checkpoint, PublishedFile, Record
from zoo_bench.runs import Runs
from zoo_bench.table import Row, build_row
from zoo_bench.units import COLUMN_HEADS, written


@dataclass(frozen=True)
class Again:
    """A row whose model is evaluated once more: how, its file, and the AP (fractions) that the store has."""

    planned: PlannedCell
    model: PublishedFile
    expected: Mapping[Column, float]


def rows_with_ap(matrix: Matrix, runs: Runs, options: DocumentOptions) -> list[Row]:
    """Return the rows of a document that print an AP."""
    name, _ = matrix.profile(options.profile)
    rows = (build_row(cell, name, runs) for cell in lay_out(matrix, options).cells)
    return [row for row in rows if any(column in row.sources for column in SCORES)]


def plan_again(row: Row, dataset_sha256: str, gpus: int | None) -> Again | str:
    """Return how a row's published model is evaluated again, on `gpus` where that is said; or why it cannot be."""
    source = next(row.sources[column] for column in SCORES if column in row.sources)
    if row.published is None:
        return "its model was not published"
    if row.recipe_changes:
        return f"it was measured with other values than the matrix has now: {'; '.join(row.recipe_changes)}"
    if source.inputs.dataset_sha256 != dataset_sha256:
        return f"dataset {source.dataset} is not what it was evaluated on, or not all of it is here"
    model = row.published.model
    given = Checkpoint(
        file=f"{model.sha256}.safetensors", sha256=model.sha256, bytes=model.bytes, trained=True, given=True
    )
    cell = _evaluated(row.cell, source, gpus)
    mark = fingerprint(cell, source.inputs, given)
    planned = PlannedCell(cell, source.inputs, mark, ("evaluate",), "its published model", given)
    figures = {column: figure(column, row.sources[column]).value for column in SCORES if column in row.sources}
    return Again(planned, model, {column: value for column, value in figures.items() if value is not None})


def differing(again: Again, record: Record) -> list[str]:
    """Say where an evaluation that has ended is not what the store has."""
    if record.status != "succeeded":
        return [f"{record.status.replace('_', ' ')}: {record.reason} (log: {record.files['log']})"]
    told = []
    for column, expected in again.expected.items():
        found = figure(column, record).value
        if found is None or abs(found - expected) > SAME_MODEL_AP:
            now, before = (written(column, value, more_digits=2) or "missing" for value in (found, expected))
            told.append(f"{COLUMN_HEADS[column]} is {now} now, and {before} in the store")
    return told


def _evaluated(cell: Cell, source: Record, gpus: int | None) -> Cell:
    """Return the cell as it is evaluated now: on as many images as it was, whatever else the machine does."""
    measure = cell.measure.model_copy(update={"evaluate_images": source.cell["measure"]["evaluate_images"]})
    trust = cell.trust.model_copy(update={"on_noise": "mark"})
    return cell.model_copy(update={"measure": measure, "trust": trust, "gpus": cell.gpus if gpus is None else gpus})
