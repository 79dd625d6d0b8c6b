"""Runs a plan: cell by cell, each to a record that is written the moment the cell ends."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from zoo_bench import allocation
from zoo_bench.destination import Progress, StoppedError
from zoo_bench.events import Event
from zoo_bench.executors.local import run_job
from zoo_bench.interrupts import Presses, held_back
from zoo_bench.job import DatasetPaths, Job, JobPaths
from zoo_bench.locks import Leases, Taken, holder, take
from zoo_bench.machine import GpuDevice
from zoo_bench.plan import PlannedCell, after, with_smaller_batch
from zoo_bench.publishing import publication
from zoo_bench.record import Checkpoint, Record
from zoo_bench.recorder import Setting, make_record
from zoo_bench.timing import PrecisionWatch

POLL_S = 0.5


@dataclass(frozen=True)
class Bench:
    """What a cell is run with: how to start its backend's worker, its data, and GPUs.

    `gpus` (NVML's indices) are those of a job, chosen when it begins from the machine's `candidates`.
    """

    command: tuple[str, ...]
    folder: Path
    dataset: DatasetPaths
    candidates: tuple[GpuDevice, ...]
    gpus: tuple[int, ...] = ()


class Watcher(Protocol):
    """What is told about a running plan; see `zoo_bench.display`."""

    def cell_started(self, planned: PlannedCell, log: Path) -> None:
        """A cell's job is about to be launched."""

    def event(self, event: Event) -> None:
        """The worker wrote an event."""

    def uploading(self, name: str, done: int, size: int) -> None:
        """So many bytes of a file are published."""

    def cell_ended(self, record: Record, *, again: bool) -> None:
        """A cell's record is in the store; `again`: as it ended, the cell is tried once more."""

    def cell_done_elsewhere(self, planned: PlannedCell, reason: str) -> None:
        """Another runner has finished a cell of the plan."""

    def waiting(self, taken: Sequence[Taken]) -> None:
        """Others hold what is needed; told again and again while that is so."""

    def set_aside(self, reason: str) -> None:
        """A GPU is not used any more."""


@dataclass(frozen=True)
class Runner:
    """What runs a plan on this machine, beside others perhaps that share its store, its GPUs or both.

    `replan` says what is left of a cell now, whose plan is of a while ago.
    """

    bench_of: Callable[[PlannedCell], Bench]
    replan: Callable[[PlannedCell], PlannedCell]
    setting: Setting
    watcher: Watcher
    leases: Leases

    def run(self, planned: Sequence[PlannedCell]) -> tuple[list[Record], bool]:
        """Run every cell that is not fresh, one at a time; return their records, and whether Ctrl-C ended it.

        A cell that another runner has is left for later. One that ended in a way that its `retry` names is tried
        again; only its last record is returned. One that was out of memory may be followed by one with a smaller batch,
        where its `retry` says so. Ctrl-C stops the running cell, whose record is still written, and the
        rest are not begun.
        """
        records: list[Record] = []
        left = [cell for cell in planned if not cell.fresh]
        with held_back() as presses:
            while left and not presses.count:
                cell, lock = self._next(left)
                if lock is None:
                    self.watcher.waiting([Taken(one.cell.id, holder(self._lock(one))) for one in left])
                    time.sleep(POLL_S)
                    continue
                left.remove(cell)
                with lock:
                    now = self.replan(cell)
                    if cell.instead_of:
                        reason = now.reason if now.fresh else cell.reason
                        now = replace(now, instead_of=cell.instead_of, reason=reason)
                    if now.fresh:
                        self.watcher.cell_done_elsewhere(cell, now.reason)
                        continue
                    record = self._attempts(now, presses)
                if record is not None:
                    records.append(record)
                    smaller = with_smaller_batch(now, record)
                    left[:0] = [smaller] if smaller else []
            return records, presses.count > 0

    def _next(self, left: Sequence[PlannedCell]) -> tuple[PlannedCell, ExitStack | None]:
        for cell in left:
            lock = take(self._lock(cell), cell.cell.id)
            if lock is not None:
                return cell, lock
        return left[0], None

    def _lock(self, cell: PlannedCell) -> Path:
        return self.setting.store.cell_lock(cell.cell.id)

    def _attempts(self, planned: PlannedCell, presses: Presses) -> Record | None:
        """Run a cell until it ends as it should, or its tries are used up; None where Ctrl-C came before the first."""
        retry, tries, pause_s = planned.cell.retry, Counter[str](), planned.cell.retry.backoff_s
        record: Record | None = None
        while True:
            with self._gpus(planned, presses) as gpus:
                if gpus is None:
                    return record
                record = run_cell(planned, self._bench(planned, gpus), self.setting, self.watcher, presses)
                planned = after(planned, record)
                again = not planned.fresh and tries[record.status] < retry.limit(record.status) and not presses.count
                self.watcher.cell_ended(record, again=again)
            if not again:
                return record
            tries[record.status] += 1
            _pause(pause_s, presses)
            pause_s *= 2

    def _bench(self, planned: PlannedCell, gpus: tuple[int, ...]) -> Bench | None:
        return replace(self.bench_of(planned), gpus=gpus) if planned.worker_phases else None

    @contextmanager
    def _gpus(self, planned: PlannedCell, presses: Presses) -> Iterator[tuple[int, ...] | None]:
        """Hold the GPUs that a cell needs, once they are free; None where Ctrl-C came before that."""
        count = planned.cell.gpus // allocation.nodes() if planned.worker_phases else 0
        while not presses.count:
            self.setting.aside.look_again()
            found = self.leases.take(count, self.bench_of(planned).candidates if count else (), planned.cell.id)
            if not isinstance(found, list):
                with self.setting.aside.watched(found, self.watcher.set_aside, presses):
                    yield tuple(found)
                return
            self.watcher.waiting(found)
            time.sleep(POLL_S)
        yield None

    def once(self, planned: PlannedCell, folder: Path, presses: Presses, *, trial: bool) -> Record | None:
        """Run a cell in `folder`, once its GPUs are free; its record is not stored. None where Ctrl-C came before."""
        with self._gpus(planned, presses) as gpus:
            if gpus is None:
                return None
            bench = replace(self.bench_of(planned), gpus=gpus)
            return attempt(planned, bench, self.setting, self.watcher, presses, folder, trial=trial)


def _pause(seconds: float, presses: Presses) -> None:
    deadline = time.monotonic() + seconds
    while not presses.count and time.monotonic() < deadline:
        time.sleep(0.05)


def run_cell(
    planned: PlannedCell,
    bench: Bench | None,
    setting: Setting,
    watcher: Watcher,
    presses: Presses,
) -> Record:
    """Run one cell to its record, and store that; `bench` is None where no worker is needed.

    Then, where it is to be, publish it, and store the record of that. Two runs, so that nothing which happens in an
    upload can cost a measurement. Returned is the first that failed, and else the one that measured.

    Raises:
        StoreError: the job could not be started, or its record not be written.
    """
    measured = None
    if bench is not None:
        measured = measure_cell(replace(planned, phases=planned.worker_phases), bench, setting, watcher, presses)
        if measured.status != "succeeded" or "publish" not in planned.phases:
            return measured
        if "train" in measured.phases_done:
            planned = replace(planned, checkpoint=measured.checkpoint, training_log=measured.files["log"])
    else:
        watcher.cell_started(planned, setting.workspace.root / (planned.training_log or ""))
    run_id = setting.store.new_run_id()
    folder = setting.store.run_folder(run_id)
    upload = replace(planned, phases=("publish",))
    record = publication(upload, run_id, setting, folder, _until_pressed(watcher, presses))
    setting.store.add(record)
    return measured if measured and record.status == "succeeded" else record


def measure_cell(
    planned: PlannedCell,
    bench: Bench,
    setting: Setting,
    watcher: Watcher,
    presses: Presses,
) -> Record:
    """Run what a worker does for one cell, and store the record.

    Raises:
        StoreError: the job could not be started, or its record not be written.
    """
    folder = setting.store.run_folder(setting.store.new_run_id())
    checkpoints = setting.store.checkpoint_folder(planned.cell.id, planned.fingerprint)
    if planned.anew:
        shutil.rmtree(checkpoints, ignore_errors=True)
    record = attempt(planned, bench, setting, watcher, presses, folder, checkpoints)
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
    return make_record(planned, job, run_job(job, _listener(planned, paths, watcher, setting), presses), setting)


def _listener(planned: PlannedCell, paths: JobPaths, watcher: Watcher, setting: Setting) -> Callable[[Event], None]:
    """Return what is told every event: the display, and whoever decides that training has gone on for long enough."""
    measured = planned.cell.measure
    half_width = measured.train_half_width
    precision = PrecisionWatch(measured.warmup_iterations, half_width) if half_width else None

    def listen(event: Event) -> None:
        watcher.event(event)
        setting.aside.look_again()  # others may be waiting for a GPU that is free by now
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
