"""What a run left behind -> its record: what was measured and noticed, and where everything lies."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_bench import __version__
from zoo_bench.cell import digest, recipe_values
from zoo_bench.datasets.coco import is_number
from zoo_bench.destination import Destination
from zoo_bench.evaluate import METRICS, CocoScores, MetricSet, score
from zoo_bench.events import Event
from zoo_bench.executors.local import Outcome
from zoo_bench.given_back import SetAside
from zoo_bench.ground_truth import EvaluationError, evaluated_ids
from zoo_bench.job import Job
from zoo_bench.measure import measure
from zoo_bench.measurements import Measurements, Memory
from zoo_bench.memory import peaks
from zoo_bench.model_file import describe_model
from zoo_bench.noise import Noise, describe
from zoo_bench.outcome import judge, phases_done
from zoo_bench.plan import PlannedCell
from zoo_bench.privacy import public
from zoo_bench.recipe import Phase
from zoo_bench.record import Checkpoint, Record, Status
from zoo_bench.revision import Revision
from zoo_bench.store import Store
from zoo_bench.text import each_text, printable
from zoo_bench.workspace import Workspace

DEFINITIONS = {
    "memory": "peak over training: NVML per process; on the CPU proportional set size of the process tree",
    "s_per_iter": "mean wall time of steady-state iterations, data loading included",
    "fps": "1 / (mean forward_s + mean postprocess_s), batch 1, one device",
    "box_ap": "COCO AP@[.50:.95]",
    "mask_ap": "COCO AP@[.50:.95]",
    "energy": "NVML energy counter, or integrated power, over the steady-state iterations, all GPUs of the job",
}


@dataclass(frozen=True)
class Setting:
    """What all cells of a run share. `aside`: GPUs that must not be used for now."""

    workspace: Workspace
    store: Store
    profile: str
    machine: Mapping[str, Any]
    scorer: str
    given_model: Path | None
    revision: Revision | None
    destination: Destination | None
    aside: SetAside = field(default_factory=SetAside)


@dataclass(frozen=True)
class _Told:
    """What a run's events, telemetry and files tell of it; the defaults, where nothing could be made of them."""

    status: Status
    reason: str
    checkpoint: Checkpoint | None
    phases_done: tuple[Phase, ...] = ()
    measurements: Measurements = field(default_factory=Measurements)
    noise: tuple[Noise, ...] = ()
    unwatched: tuple[str, ...] = ()
    scorer: str | None = None
    software: Mapping[str, str] = field(default_factory=dict)


def make_record(planned: PlannedCell, job: Job, outcome: Outcome, setting: Setting) -> Record:
    """Measure, score and judge a run that has ended; its model is given its final name.

    Whatever fails in that, there is a record: then a failed one, with the reason.
    """
    try:
        record = _record(planned, job, outcome, setting, _told(planned, job, outcome, setting))
        record.model_dump_json()  # what cannot be written is to be known here, and not when it is stored
        return record
    except Exception as error:  # noqa: BLE001 - hours of training must leave a record, whatever it is that fails here
        reason = printable(f"zoo-bench could not tell what was measured: {type(error).__name__}: {error}")
        told = _Told("interrupted" if outcome.interrupted else "failed", reason, planned.checkpoint)
        return _record(planned, job, outcome, setting, told)


def _told(planned: PlannedCell, job: Job, outcome: Outcome, setting: Setting) -> _Told:
    events = outcome.events
    scores, problem = _scores(events, job, setting.scorer)
    measured, findings = measure(events, outcome.telemetry, planned.cell, scores)
    status, reason = _ending(planned, outcome, problem, findings.noise, measured.memory, job.paths.stacks)
    done = [phase for phase in phases_done(events) if phase in planned.phases]
    if scores is None and "evaluate" in done:
        done.remove("evaluate")
    return _Told(
        status=status,
        reason=reason,
        phases_done=tuple(done),
        measurements=measured,
        noise=findings.noise,
        unwatched=findings.unwatched,
        scorer=scores.scorer if scores else None,
        software=_software(events),
        checkpoint=_keep_model(events, job, setting.workspace.root) if "train" in done else planned.checkpoint,
    )


def record_without_job(planned: PlannedCell, run_id: str, setting: Setting) -> Record:
    """Return the record of a run that needs no worker, and has just begun: its log is that of the training whose model
    it is about.
    """
    told = _Told("succeeded", "", planned.checkpoint)
    files = {"log": planned.training_log or ""}
    return _written(
        planned, setting, told, run_id=run_id, files=files, command=(), started_unix_s=time.time(), took_s=0.0
    )


def record_of_lost(
    planned: PlannedCell,
    run_id: str,
    setting: Setting,
    *,
    status: Status,
    reason: str,
    log: Path,
    started_unix_s: float | None = None,
    duration_s: float = 0.0,
) -> Record:
    """Return the record of a run that nothing is known of but how it ended: nothing was measured.

    `started_unix_s`: None where it has not begun.
    """
    return _written(
        planned,
        setting,
        _Told(status, printable(reason), None),
        run_id=run_id,
        files={"log": os.path.relpath(log, setting.workspace.root)},
        command=(),
        started_unix_s=time.time() if started_unix_s is None else started_unix_s,
        took_s=duration_s,
    )


def _record(planned: PlannedCell, job: Job, outcome: Outcome, setting: Setting, told: _Told) -> Record:
    files = {"log": job.paths.log, "events": job.paths.events, "samples": job.paths.samples}
    for name, path in (("detections", job.paths.detections), ("stacks", job.paths.stacks)):
        if path.exists():
            files[name] = path
    root = setting.workspace.root
    return _written(
        planned,
        setting,
        told,
        run_id=job.run_id,
        files={name: os.path.relpath(path, root) for name, path in files.items()},
        command=tuple(public(word, root) for word in job.command),
        started_unix_s=outcome.started_unix_s,
        took_s=outcome.duration_s,
    )


def _written(
    planned: PlannedCell,
    setting: Setting,
    told: _Told,
    *,
    run_id: str,
    files: dict[str, str],
    command: tuple[str, ...],
    started_unix_s: float,
    took_s: float,
) -> Record:
    root, resolved = setting.workspace.root, planned.cell.resolved()
    return Record(
        run_id=run_id,
        cell_id=planned.cell.id,
        profile=setting.profile,
        cell=each_text(resolved, lambda text: public(text, root)),  # a path may name its user
        recipe_sha256=digest(recipe_values(resolved)),
        fingerprint=planned.fingerprint,
        inputs=planned.inputs,
        status=told.status,
        reason=public(told.reason, root),
        phases=planned.phases,
        phases_done=told.phases_done,
        started_unix_s=started_unix_s,
        duration_s=took_s,
        measurements=told.measurements,
        noise=told.noise,
        unwatched=told.unwatched,
        definitions={**DEFINITIONS, "scorer": told.scorer or setting.scorer},
        machine=dict(setting.machine),
        software=dict(told.software),
        revision=setting.revision,
        checkpoint=told.checkpoint,
        files=files,
        command=command,
        zoo_bench=__version__,
    )


def _ending(
    planned: PlannedCell,
    outcome: Outcome,
    problem: str,
    noise: Sequence[Noise],
    measured: Memory | None,
    stacks: Path,
) -> tuple[Status, str]:
    status, reason = judge(outcome, planned.phases)
    if status == "out_of_memory":
        return status, f"{reason} ({peaks(measured)})"
    if outcome.overdue and outcome.overdue.stacks:
        return status, f"{reason}; its processes then stood as in {stacks}"
    if status != "succeeded":
        return status, reason
    if problem:
        return "failed", f"evaluate: {problem}"
    if noise and planned.cell.trust.on_noise == "quarantine":
        return "quarantined", describe(noise)
    return status, reason


def _scores(events: Sequence[Event], job: Job, scorer: str) -> tuple[CocoScores | None, str]:
    """Score the detections file of a finished evaluation, or take what a worker that scores itself reports."""
    reported = next((event for event in reversed(events) if event.name == "eval_result"), None)
    if reported is None and not any(event.name == "eval_stop" for event in events):
        return None, ""
    annotations, limit = job.dataset.val.annotations, job.cell.measure.evaluate_images
    try:
        if reported is not None:
            return _reported(reported), ""
        # The harness says which images count, so that a worker cannot leave out the hard ones.
        images = evaluated_ids(annotations, limit)
        return score(annotations, job.paths.detections, masks=job.cell.masks, scorer=scorer, image_ids=images), ""
    except EvaluationError as error:
        return None, error.message
    except Exception as error:  # noqa: BLE001 - whatever a scorer trips over, a finished training must be recorded
        return None, f"{scorer}: {type(error).__name__}: {error}"


def _reported(event: Event) -> CocoScores:
    sets = {name: _reported_set(name, event.fields[name]) for name in ("box", "mask") if event.fields.get(name)}
    if not sets:
        raise EvaluationError("eval_result has neither box nor mask")
    return CocoScores(sets.get("box"), sets.get("mask"), images=0, detections=0, scorer="the worker itself")


def _reported_set(name: str, values: object) -> MetricSet:
    numbers = {metric: values.get(metric) for metric in METRICS} if isinstance(values, dict) else {name: values}
    for metric, value in numbers.items():
        if value is not None and not (is_number(value) and 0 <= value <= 1):
            raise EvaluationError(f"eval_result: {name}: {metric} is {value!r}, and no fraction from 0 to 1")
    return MetricSet(**numbers, per_class={})


def _software(events: Sequence[Event]) -> dict[str, str]:
    started = next((event for event in events if event.name == "init_stop"), None)
    versions = started.fields.get("environment") if started else None
    if not isinstance(versions, dict):
        return {}
    return {str(name): str(version) for name, version in versions.items() if version is not None}


def _keep_model(events: Sequence[Event], job: Job, root: Path) -> Checkpoint | None:
    """Put the first 8 digits of the content hash into the model's file name, and describe it; None without one."""
    saved = next(event for event in reversed(events) if event.name == "checkpoint_saved" and event.fields.get("final"))
    path = Path(str(saved.fields.get("path") or job.paths.model))
    # A trainer that is not ours may have left another kind of file; a worker never gives a file from elsewhere.
    if path.parent != job.paths.output or not path.is_file():
        return None
    return describe_model(path, root, trained=bool(saved.fields.get("trained")), cell_id=job.cell.id)
