"""A job that has left the queue: did its zoo-bench leave a record, and if not, what is to be said in one?"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from zoo_bench.errors import EXIT_CELL_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_QUARANTINED
from zoo_bench.executors.slurm.notes import Ended, Slot, Started
from zoo_bench.executors.slurm.queue import End
from zoo_bench.plan import PlannedCell
from zoo_bench.record import Record, Status
from zoo_bench.recorder import Setting, record_of_lost
from zoo_bench.runs import Summary
from zoo_bench.text import one_line

STATUS: Final[dict[str, Status]] = {
    "TIMEOUT": "timed_out",
    "DEADLINE": "timed_out",
    "OUT_OF_MEMORY": "out_of_memory",
    "CANCELLED": "interrupted",
    "PREEMPTED": "interrupted",
}
# With these zoo-bench says that every cell it ran has a record.
RECORDED = (EXIT_OK, EXIT_CELL_FAILED, EXIT_QUARANTINED, EXIT_INTERRUPTED)
OUT_OF_TIME = "timed-out"  # submitit's word
LOG = "slurm.log"
LOG_LINES = 3
LOG_END_BYTES = 4000


@dataclass(frozen=True)
class Lost:
    """How a run ended of which its own zoo-bench could not tell."""

    status: Status
    reason: str


def lost(slot: Slot, runs: Sequence[Summary], end: End) -> Lost | None:
    """Say how a job ended that has gone; None where the store says it.

    Args:
        runs: those of its cell, oldest first.
    """
    started, ended = slot.started, slot.ended
    since = [run for run in runs if started and run.started_unix_s >= started.unix_s]
    if ended is not None and ended.problem:
        if OUT_OF_TIME in ended.problem:
            often = "it reached its time limit more often than slurm.max_timeouts allows"
            return Lost("timed_out", f"{_job(slot, started, end)}: {often}")
        return Lost("interrupted", f"{_job(slot, started, end)}: it could not be queued again: {ended.problem}")
    if _accounted(since, ended):
        return None
    words = _last_words(slot.log)
    told = f"; its log ends with: {words}" if words else ""
    if ended is not None:
        code = ended.exit_code
        return Lost("failed", f"{_job(slot, started, end)}: zoo-bench ended with exit code {code}{told}")
    how = end.state or "gone from Slurm's memory"
    # Of a job that never began Slurm goes on to tell what it waited for.
    reason = f"it waited: {end.reason}" if end.reason and not started else end.reason
    details = [f"exit code {end.exit_code}" if end.exit_code not in ("", "0:0") else "", reason]
    why = ", ".join(filter(None, details))
    when = "" if started else " before it had begun"
    return Lost(
        STATUS.get(end.state, "failed"),
        f"{_job(slot, started, end)} ended{when}: {how}{f' ({why})' if why else ''}{told}",
    )


def _accounted(since: Sequence[Summary], ended: Ended | None) -> bool:
    """Tell whether the runs since a job began say how it ended.

    One that was killed between two tries of its cell has left a record of the first, which says nothing of the second.
    One that a signal ended as it was going has left the record that it was to leave.
    """
    if ended is not None and ended.exit_code >= 0:  # also where there was nothing left to do
        return ended.exit_code in RECORDED and (bool(since) or ended.exit_code == EXIT_OK)
    return bool(since) and since[-1].status in ("succeeded", "interrupted")


def _job(slot: Slot, started: Started | None, end: End) -> str:
    node = (started.node if started else "") or end.nodes
    return f"Slurm job {slot.job_id}{f' on {node}' if node else ''}"


def lost_record(slot: Slot, found: Lost, planned: PlannedCell, setting: Setting) -> Record:
    """Return the record of a lost run, to be stored. Its log is a copy of what the job printed."""
    started = slot.started
    run_id = setting.store.new_run_id()
    log = setting.store.run_folder(run_id) / LOG
    began = started.unix_s if started else time.time()
    last_sign = _copied(slot.log, log)
    return record_of_lost(
        planned,
        run_id,
        replace(setting, machine=started.machine) if started else setting,
        status=found.status,
        reason=found.reason,
        log=log,
        started_unix_s=began,
        duration_s=max(0.0, last_sign - began) if started and last_sign else 0.0,
    )


def _copied(source: Path, target: Path) -> float | None:
    """Copy a job's log, an empty one where it has none; return when it was written to last, in Unix seconds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
        return source.stat().st_mtime
    except OSError:
        target.touch()
        return None


def _last_words(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LOG_END_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip() and not line.startswith("submitit ")]
    return one_line(" / ".join(said[-LOG_LINES:]))
