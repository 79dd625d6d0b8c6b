"""Imported runs -> records, stored beside those of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo_bench import __version__
from zoo_bench.adapters import definitions
from zoo_bench.cell import digest, recipe_values
from zoo_bench.evaluate import METRICS, CocoScores, MetricSet
from zoo_bench.imports.cells import ImportedCell
from zoo_bench.imports.finished import FinishedRun
from zoo_bench.imports.sources import Source
from zoo_bench.measurements import Measurements, Reported
from zoo_bench.recipe import WORKER_PHASES
from zoo_bench.record import Inputs, Origin, OriginFile, Record
from zoo_bench.text import printable

THEIR_EVALUATOR = "the trainer's own"


@dataclass(frozen=True)
class Import:
    """What is to become a record: a cell, and what was found of its run."""

    cell: ImportedCell
    origin: Origin
    finished: FinishedRun
    fps: float | None = None
    definitions: Mapping[str, str] | None = None


def origin_files(sources: Sequence[Source]) -> tuple[OriginFile, ...]:
    """Describe the files that a run was read from, as they are on disk."""
    return tuple(
        OriginFile(
            name=printable(source.path.name),
            sha256=hashlib.sha256(source.content).hexdigest(),
            bytes=len(source.content),
        )
        for source in sources
    )


def make_record(found: Import, *, run_id: str, profile: str, written_unix_s: float, log: str) -> Record:
    """Return the record of an imported run.

    `written_unix_s`: when its files were written, for one that tells no time. `log`: the file, for people to find.
    """
    run, cell = found.finished, found.cell.cell
    resolved = cell.resolved()
    gpu = str(run.facts.get("gpu") or "")
    reported = Reported(memory=run.memory, fps=found.fps)
    began = run.began_unix_s if run.began_unix_s is not None else max(0.0, written_unix_s - run.duration_s)
    told = found.definitions if found.definitions is not None else definitions(found.origin.adapter)
    measured = Measurements(
        train=run.timing(cell.measure.warmup_iterations, cell.batch_size),
        scores=_scores(run.scores),
        reported=reported if reported != Reported() else None,
    )
    files = [file.sha256 for file in found.origin.files]
    return Record(
        run_id=run_id,
        cell_id=cell.id,
        profile=profile,
        cell=resolved,
        recipe_sha256=digest(recipe_values(resolved)),
        fingerprint=digest([files, resolved, measured.model_dump(mode="json")]),
        inputs=Inputs(sources_sha256="", lock_sha256=None, dataset_sha256=""),
        status=run.status,
        reason=run.reason,
        phases=WORKER_PHASES,
        phases_done=run.phases_done,
        started_unix_s=began,
        duration_s=run.duration_s,
        measurements=measured,
        definitions={**told, **_ap_definitions(run)},
        machine={"gpus": [{"index": index, "name": gpu} for index in range(cell.gpus)] if gpu else []},
        software={str(name): str(version) for name, version in dict(run.facts.get("software") or {}).items()},
        checkpoint=None,
        origin=found.origin,
        files={"log": log},
        command=("zoo-bench", "import", found.origin.adapter, log),
        zoo_bench=__version__,
    )


def _ap_definitions(run: FinishedRun) -> dict[str, str]:
    return {f"{kind}_ap": "COCO AP@[.50:.95], as the trainer's own evaluator says" for kind in run.scores}


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> CocoScores | None:
    if not scores:
        return None
    sets = {
        kind: MetricSet(**{metric: values.get(metric) for metric in METRICS}, per_class={})
        for kind, values in scores.items()
    }
    return CocoScores(sets.get("box"), sets.get("mask"), images=0, detections=0, scorer=THEIR_EVALUATOR)
