"""What a reader must know about a row beside its figures, as plain text. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zoo_bench.noise import describe
from zoo_bench.provenance import CurrentInputs, MachineKey, departures, staleness
from zoo_bench.record import Record
from zoo_bench.scaling import base_batch_of, images_an_iteration
from zoo_bench.table import Row
from zoo_bench.units import COLUMN_HEADS, percent


@dataclass(frozen=True)
class Ground:
    """What all rows are seen against.

    `first`: the run that stands first in the Environment section, for hardware, which all rows are to share;
    `first_of`: the first of each backend, for software, of which each has its own. `drivers`: the newest one of every
    machine. `current`: what each backend would be run from now; empty where staleness is not to be marked.
    """

    first: Record | None = None
    first_of: Mapping[str, Record] = field(default_factory=dict)
    drivers: Mapping[MachineKey, str] = field(default_factory=dict)
    current: Mapping[str, CurrentInputs] = field(default_factory=dict)
    stale_marks: bool = True


def remarks(row: Row, ground: Ground) -> list[str]:
    """Say what is particular about a row: mixed runs, failures, values that moved on, given models, other machines."""
    found = [
        *_origins(row),
        *_imported(row),
        *_failure(row),
        *_moved_on(row),
        *_scaled(row),
        *_given(row),
        *(["No fps: the model that was timed had not finished its training."] if row.timed_untrained else []),
        *_noisy(row),
        *_unwatched(row),
        *_imprecise(row),
        *_resumed(row),
        *(_stale(row, ground) if ground.stale_marks else []),
        *_elsewhere(row, ground),
    ]
    return list(dict.fromkeys(found))


def _origins(row: Row) -> Iterator[str]:
    if len(row.records) > 1:
        origins: dict[str, list[str]] = {record.run_id: [] for record in row.records}
        for column, record in row.sources.items():
            origins[record.run_id].append(COLUMN_HEADS[column])
        runs = "; ".join(f"{', '.join(heads)} from {run_id}" for run_id, heads in origins.items())
        yield f"From several runs of one recipe: {runs}."


def _imported(row: Row) -> Iterator[str]:
    """Tell of runs that zoo-bench did not measure, from which files they are, and how those were read."""
    for record in row.records:
        if record.origin is not None:
            files = ", ".join(f"{file.name} (SHA-256 {file.sha256[:8]})" for file in record.origin.files)
            said = "; ".join([f"from {files}", *record.origin.remarks])
            yield f"Imported, not measured by zoo-bench: {_whose(record, row)}{said}."


def _failure(row: Row) -> Iterator[str]:
    attempt = row.attempt
    if attempt is not None and attempt.status != "succeeded":
        log = attempt.files.get("log", "")
        yield f"Run {attempt.run_id}: {attempt.status.replace('_', ' ')}: {attempt.reason} (log: {log})"


def _moved_on(row: Row) -> Iterator[str]:
    if row.recipe_changes:
        yield f"Measured with other values than the matrix has now: {'; '.join(row.recipe_changes)}"


def _scaled(row: Row) -> Iterator[str]:
    """Tell of a training with another batch than the recipe was written for."""
    record = row.sources.get("s_per_iter")
    base = base_batch_of(record.cell) if record is not None else None
    if record is not None and base is not None:
        gpus, recipe = int(record.cell["gpus"]), record.cell["recipe"]
        devices = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "On the CPU"
        yield (
            f"{devices}: {images_an_iteration(record.cell)} images an iteration, learning rate "
            f"{recipe['optimizer']['lr']:.6g}, {recipe['lr_schedule']['iterations']} iterations; the recipe has {base} "
            "images."
        )


def _given(row: Row) -> Iterator[str]:
    for record in row.records:
        if record.checkpoint and record.checkpoint.given:
            yield f"A given model: {Path(record.checkpoint.file).name}, SHA-256 {record.checkpoint.sha256[:8]}"
            return


def _noisy(row: Row) -> Iterator[str]:
    for record in row.records:
        if record.noise:
            yield f"Noisy: {_whose(record, row)}{describe(record.noise)}."


def _unwatched(row: Row) -> Iterator[str]:
    for record in row.records:
        if record.unwatched:
            yield f"Not watched for: {_whose(record, row)}{'; '.join(record.unwatched)}."


def _imprecise(row: Row) -> Iterator[str]:
    """Tell of a training that was to be timed until its interval was narrow, and was not long enough for that."""
    record = row.sources.get("s_per_iter")
    train = record.measurements.train if record is not None else None
    if record is None or train is None or train.half_width is None or train.ended_by != "cap":
        return
    wanted = record.cell["measure"].get("train_half_width")
    if wanted is not None and train.half_width > wanted:
        known = f"s/iter known to ±{percent(train.half_width)} only"
        yield f"{_whose(record, row)}{known}: ended at its cap of {train.iterations_run} iterations."


def _resumed(row: Row) -> Iterator[str]:
    """Tell of a training whose first part was another run, which was interrupted: its figures are of the rest."""
    record = row.sources.get("s_per_iter") or row.sources.get("memory")
    train = record.measurements.train if record is not None else None
    if record is not None and train is not None and train.resumed_at:
        rest = f"iterations {train.resumed_at + 1} to {train.iterations_run}"
        yield f"{_whose(record, row)}Resumed after an interruption: figures of the training are of {rest}."


def _stale(row: Row, ground: Ground) -> Iterator[str]:
    for record in row.records:
        changes = staleness(record, ground.current.get(row.cell.backend), ground.drivers)
        if changes:
            yield f"Stale: {_whose(record, row)}changed since the measurement: {', '.join(changes)}."


def _elsewhere(row: Row, ground: Ground) -> Iterator[str]:
    for record in row.records:
        if ground.first is not None and record.origin is None:  # the Environment section tells what is known of others
            found = departures(record, ground.first, ground.first_of.get(row.cell.backend, ground.first))
            if found:
                yield f"Other surroundings: {_whose(record, row)}{'; '.join(found)}."


def _whose(record: Record, row: Row) -> str:
    """Name the run where a row has several."""
    return f"run {record.run_id}: " if len(row.records) > 1 else ""
