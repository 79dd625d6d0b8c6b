"""Runs a plan: cell by cell, each to a record that is written the moment the cell ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from zoo_bench.destination import Progress, StoppedError
from zoo_bench.events import Event
from zoo_bench.executors.local import run_job
from zoo_bench.interrupts import Presses, held_back
from zoo_bench.job import DatasetPaths, Job, JobPaths
from zoo_bench.plan import PlannedCell
from zoo_bench.publishing import publication
from zoo_bench.record import Checkpoint, Record
from zoo_bench.recorder import Setting, make_record
from zoo_bench.store import new_run_id
from zoo_bench.timing import PrecisionWatch


@dataclass(frozen=True)
class Bench:
    """What a cell is run with: how to start its backend's worker, its data, and this machine."""

    command: tuple[str, ...]
    folder: Path
    dataset: DatasetPaths
    gpus: tuple[int, ...]


class Watcher(Protocol):
    """What is told about a running plan; see `zoo_bench.display`."""

    def cell_started(self, planned: PlannedCell, log: Path) -> None:
        """A cell's job is about to be launched."""

    def event(self, event: Event) -> None:
        """The worker wrote an event."""

    def uploading(self, name: str, done: int, size: int) -> None:
        """So many bytes of a file are published."""

    def cell_ended(self, record: Record, *, again: bool) -> None:
        """A cell's record is in the store; `again`: it is quarantined, and the cell is tried once more."""


def run_cells(
    planned: Sequence[PlannedCell],
    bench_of: Callable[[PlannedCell], Bench],
    setting: Setting,
    watcher: Watcher,
) -> tuple[list[Record], bool]:
    """Run every cell that is not fresh, one at a time; return their records, and whether Ctrl-C ended it.

    A cell whose run is quarantined is tried again at once, as often as its `trust.retries` says; only its last record
    is returned. Ctrl-C stops the running cell, whose record is still written, and the rest are not begun.
    """
    records: list[Record] = []
    with held_back() as presses:
        for cell in planned:
            if cell.fresh:
                continue
            records.append(_attempts(cell, bench_of, setting, watcher, presses))
            if presses.count:
                break
        return records, presses.count > 0


def _attempts(
    planned: PlannedCell,
    bench_of: Callable[[PlannedCell], Bench],
    setting: Setting,
    watcher: Watcher,
    presses: Presses,
) -> Record:
    left = planned.cell.trust.retries
    while True:
        record = run_cell(planned, bench_of, setting, watcher, presses)
        again = record.status == "quarantined" and left > 0 and not presses.count
        watcher.cell_ended(record, again=again)
        if not again:
            return record
        left -= 1


def run_cell(
    planned: PlannedCell,
    bench_of: Callable[[PlannedCell], Bench],
    setting: Setting,
    watcher: Watcher,
    presses: Presses,
) -> Record:
    """Run one cell to its record, and store that. Then, where it is to be, publish it, and store the record of that.

    Two runs, so that nothing which happens in an upload can cost a measurement. Returned is the first that failed, and
    else the one that measured.

    Raises:
        StoreError: the job could not be started, or its record not be written.
    """
    measured = None
    if planned.worker_phases:
        measured = measure_cell(replace(planned, phases=planned.worker_phases), bench_of, setting, watcher, presses)
        if measured.status != "succeeded" or "publish" not in planned.phases:
            return measured
        if "train" in measured.phases_done:
            planned = replace(planned, checkpoint=measured.checkpoint, training_log=measured.files["log"])
    else:
        watcher.cell_started(planned, setting.workspace.root / (planned.training_log or ""))
    run_id = new_run_id()
    folder = setting.store.run_folder(run_id)
    upload = replace(planned, phases=("publish",))
    record = publication(upload, run_id, setting, folder, _until_pressed(watcher, presses))
    setting.store.add(record)
    return measured if measured and record.status == "succeeded" else record


def measure_cell(
    planned: PlannedCell,
    bench_of: Callable[[PlannedCell], Bench],
    setting: Setting,
    watcher: Watcher,
    presses: Presses,
) -> Record:
    """Run what a worker does for one cell, and store the record.

    Raises:
        StoreError: the job could not be started, or its record not be written.
    """
    folder = setting.store.run_folder(new_run_id())
    checkpoints = setting.store.checkpoint_folder(planned.cell.id, planned.fingerprint)
    if planned.anew:
        shutil.rmtree(checkpoints, ignore_errors=True)
    record = attempt(planned, bench_of(planned), setting, watcher, presses, folder, checkpoints)
    setting.store.add(record)
    if "train" in record.phases_done:  # and its model is kept: nothing is left to resume
        shutil.rmtree(checkpoints, ignore_errors=True)
    return record


def attempt(
    planned: PlannedCell,
    bench: Bench,
    setting: Setting,
    watcher: Watcher,
    presses: Presses,
    folder: Path,
    checkpoints: Path | None = None,
    *,
    trial: bool = False,
) -> Record:
    """Run a cell in `folder`, whose name is the run's id, and return its record, which is not stored yet.

    Raises:
        StoreError: the job could not be started.
    """
    paths = JobPaths(folder, setting.workspace.index)
    job = Job(
        run_id=folder.name,
        cell=planned.cell,
        phases=planned.phases,
        dataset=bench.dataset,
        gpus=bench.gpus,
        checkpoint=_checkpoint_path(planned.checkpoint, setting),
        paths=paths,
        checkpoints=checkpoints or folder / "checkpoints",
        command=bench.command,
        folder=bench.folder,
        trial=trial,
    )
    watcher.cell_started(planned, paths.log)
    return make_record(planned, job, run_job(job, _listener(planned, paths, watcher), presses), setting)


def _listener(planned: PlannedCell, paths: JobPaths, watcher: Watcher) -> Callable[[Event], None]:
    """Return what is told every event: the display, and whoever decides that training has gone on for long enough."""
    measured = planned.cell.measure
    half_width = measured.train_half_width
    precision = PrecisionWatch(measured.warmup_iterations, half_width) if half_width else None

    def listen(event: Event) -> None:
        watcher.event(event)
        if precision is not None and precision.see(event):
            paths.enough.touch()

    return listen


def _until_pressed(watcher: Watcher, presses: Presses) -> Progress:
    """Return what is told how far an upload is, and breaks it off once somebody asks to stop."""

    def told(name: str, done: int, size: int) -> None:
        if presses.count:
            raise StoppedError
        watcher.uploading(name, done, size)

    return told


def _checkpoint_path(checkpoint: Checkpoint | None, setting: Setting) -> Path | None:
    if checkpoint is None:
        return None
    return setting.given_model if checkpoint.given else setting.workspace.root / checkpoint.file
