"""Runs a plan: cell by cell, each to a record that is written the moment the cell ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zoo_bench import __version__
from zoo_bench.cell import digest, recipe_values
from zoo_bench.datasets.coco import file_sha256
from zoo_bench.detections import EvaluationError, read_ground_truth
from zoo_bench.evaluate import METRICS, CocoScores, MetricSet, score
from zoo_bench.events import Event
from zoo_bench.executors.local import Outcome, run_job
from zoo_bench.interrupts import Presses, held_back
from zoo_bench.job import DatasetPaths, Job, JobPaths
from zoo_bench.measure import infer_timing, memory, train_timing
from zoo_bench.outcome import judge, phases_done
from zoo_bench.plan import PlannedCell
from zoo_bench.record import Checkpoint, Measurements, Record, Status
from zoo_bench.store import Store, new_run_id
from zoo_bench.workspace import Workspace

DEFINITIONS = {
    "memory": "peak over training: NVML per process; on the CPU proportional set size of the process tree",
    "s_per_iter": "mean wall time of steady-state iterations, data loading included",
    "fps": "1 / (mean forward_s + mean postprocess_s), batch 1, one device",
    "box_ap": "COCO AP@[.50:.95]",
    "mask_ap": "COCO AP@[.50:.95]",
}


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

    def cell_ended(self, record: Record) -> None:
        """A cell's record is in the store."""


@dataclass(frozen=True)
class Setting:
    """What all cells of a run share."""

    workspace: Workspace
    store: Store
    profile: str
    machine: Mapping[str, Any]
    scorer: str
    given_model: Path | None


def run_cells(
    planned: Sequence[PlannedCell],
    bench_of: Callable[[PlannedCell], Bench],
    setting: Setting,
    watcher: Watcher,
) -> tuple[list[Record], bool]:
    """Run every cell that is not fresh, one at a time; return their records, and whether Ctrl-C ended it.

    Ctrl-C stops the running cell, whose record is still written, and the rest are not begun.
    """
    records: list[Record] = []
    with held_back() as presses:
        for cell in planned:
            if cell.fresh:
                continue
            records.append(run_cell(cell, bench_of(cell), setting, watcher, presses))
            if presses.count:
                break
        return records, presses.count > 0


def run_cell(planned: PlannedCell, bench: Bench, setting: Setting, watcher: Watcher, presses: Presses) -> Record:
    """Run one cell to its record, and store that.

    Raises:
        StoreError: the job could not be started, or its record not be written.
    """
    run_id = new_run_id()
    paths = JobPaths(setting.store.run_folder(run_id))
    job = Job(
        run_id=run_id,
        cell=planned.cell,
        phases=planned.phases,
        dataset=bench.dataset,
        gpus=bench.gpus,
        checkpoint=_checkpoint_path(planned.checkpoint, setting),
        paths=paths,
        command=bench.command,
        folder=bench.folder,
    )
    watcher.cell_started(planned, paths.log)
    outcome = run_job(job, watcher.event, presses)
    status, reason = judge(outcome, planned.phases)
    scores, problem = _scores(outcome.events, job, setting.scorer)
    if problem and status == "succeeded":
        status, reason = "failed", f"evaluate: {problem}"
    record = _record(planned, job, outcome, (status, reason), scores, setting)
    setting.store.add(record)
    watcher.cell_ended(record)
    return record


def _checkpoint_path(checkpoint: Checkpoint | None, setting: Setting) -> Path | None:
    if checkpoint is None:
        return None
    return setting.given_model if checkpoint.given else setting.workspace.root / checkpoint.file


def _scores(events: Sequence[Event], job: Job, scorer: str) -> tuple[CocoScores | None, str]:
    """Score the detections file of a finished evaluation, or take what a worker that scores itself reports."""
    reported = next((event for event in events if event.name == "eval_result"), None)
    if reported is not None:
        return _reported(reported), ""
    ended = next((event for event in events if event.name == "eval_stop"), None)
    if ended is None:
        return None, ""
    annotations, limit = job.dataset.val.annotations, job.cell.measure.evaluate_images
    try:
        # The harness says which images count, so that a worker cannot leave out the hard ones.
        images = None if limit is None else list(read_ground_truth(annotations).sizes)[:limit]
        return score(annotations, job.paths.detections, masks=job.cell.masks, scorer=scorer, image_ids=images), ""
    except EvaluationError as error:
        return None, error.message
    except Exception as error:  # noqa: BLE001 - whatever a scorer trips over, a finished training must be recorded
        return None, f"{scorer}: {type(error).__name__}: {error}"


def _reported(event: Event) -> CocoScores:
    def metrics(name: str) -> MetricSet | None:
        values = event.fields.get(name)
        if not isinstance(values, dict):
            return None
        numbers = {metric: values.get(metric) for metric in METRICS}
        return MetricSet(**numbers, per_class={})

    return CocoScores(box=metrics("box"), mask=metrics("mask"), images=0, detections=0, scorer="the worker itself")


def _record(
    planned: PlannedCell,
    job: Job,
    outcome: Outcome,
    ending: tuple[Status, str],
    scores: CocoScores | None,
    setting: Setting,
) -> Record:
    cell, events = planned.cell, outcome.events
    status, reason = ending
    done = [phase for phase in phases_done(events) if phase in planned.phases]
    if scores is None and "evaluate" in done:
        done.remove("evaluate")
    root = setting.workspace.root
    files = {"log": job.paths.log, "events": job.paths.events, "samples": job.paths.samples}
    if job.paths.detections.exists():
        files["detections"] = job.paths.detections
    return Record(
        run_id=job.run_id,
        cell_id=cell.id,
        profile=setting.profile,
        cell=cell.resolved(),
        recipe_sha256=digest(recipe_values(cell.resolved())),
        fingerprint=planned.fingerprint,
        inputs=planned.inputs,
        status=status,
        reason=_without_folders(reason, root),
        phases=planned.phases,
        phases_done=tuple(done),
        started_unix_s=outcome.started_unix_s,
        duration_s=outcome.duration_s,
        measurements=Measurements(
            train=train_timing(events, cell.measure.warmup_iterations),
            infer=infer_timing(events),
            memory=memory(events, outcome.samples, outcome.sampler_problem),
            scores=scores,
        ),
        definitions={**DEFINITIONS, "scorer": scores.scorer if scores else setting.scorer},
        machine=dict(setting.machine),
        software=_software(events),
        checkpoint=_keep_model(events, job, root) if "train" in done else planned.checkpoint,
        files={name: os.path.relpath(path, root) for name, path in files.items()},
        command=tuple(_without_folders(word, root) for word in job.command),
        zoo_bench=__version__,
    )


def _without_folders(text: str, root: Path) -> str:
    """Make paths relative to the workspace, and to home outside of it: records are published."""
    return text.replace(f"{root}{os.sep}", "").replace(str(Path.home()), "~")


def _software(events: Sequence[Event]) -> dict[str, str]:
    started = next((event for event in events if event.name == "init_stop"), None)
    versions = started.fields.get("environment") if started else None
    if not isinstance(versions, dict):
        return {}
    return {str(name): str(version) for name, version in versions.items() if version is not None}


def _keep_model(events: Sequence[Event], job: Job, root: Path) -> Checkpoint | None:
    """Put the first 8 digits of the content hash into the model's file name, and describe it."""
    if not job.paths.model.is_file():
        return None
    saved = next(event for event in reversed(events) if event.name == "checkpoint_saved")
    return describe_model(job.paths.model, root, trained=bool(saved.fields.get("trained")), cell_id=job.cell.id)


def describe_model(path: Path, root: Path, *, trained: bool, cell_id: str | None = None) -> Checkpoint:
    """Hash a weights file. With `cell_id` it is one that zoo-bench made, and is renamed to ``<cell>-<hash>``."""
    sha256 = file_sha256(path)
    if cell_id is not None:
        path = path.rename(path.with_name(f"{cell_id.split('/', 1)[1]}-{sha256[:8]}{path.suffix}"))
    return Checkpoint(
        file=os.path.relpath(path, root) if path.is_relative_to(root) else path.name,
        sha256=sha256,
        bytes=path.stat().st_size,
        trained=trained,
        given=cell_id is None,
    )
