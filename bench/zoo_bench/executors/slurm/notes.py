"""What the controller and its jobs leave for one another: small JSON files in a folder of the workspace.

    .zoo-bench/slurm/BATCH/batch.json        which cells were submitted together, written before they are
    .zoo-bench/slurm/BATCH/N.started.json    the N-th job has begun, once more perhaps
    .zoo-bench/slurm/BATCH/N.ended.json      its zoo-bench has ended
    .zoo-bench/slurm/BATCH/N.settled         the controller has seen to it that there is a record

The rest of BATCH is submitit's: scripts, what is to be run, and the jobs' logs. A batch's name is its jobs' name in the
queue, so that a job is found whose id nobody has noted.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from zoo_bench.bounded import MIB, read_bytes
from zoo_bench.executors.slurm.queue import JOB_PREFIX, QueuedJob
from zoo_bench.recipe import Strict
from zoo_bench.whole import write_whole
from zoo_bench.workspace import Workspace

BATCH = "batch.json"
WAITING = "waiting.json"
Note = TypeVar("Note", bound=Strict)


class Batch(Strict):
    """Cells that were submitted together, as one array. `job_id`: its number in Slurm, once that is known."""

    name: str
    profile: str
    cells: tuple[str, ...]
    submitted_unix_s: float
    job_id: str | None = None


class Started(Strict):
    """A job has begun on a node. `job_id`: as Slurm shows it; `machine`: the node, as records describe machines."""

    job_id: str
    node: str
    unix_s: float
    machine: dict[str, Any]


class Ended(Strict):
    """The zoo-bench of a job that began at `began_unix_s` has ended. `problem`: why the job is not queued again."""

    began_unix_s: float
    exit_code: int
    problem: str = ""


class Waiting(Strict):
    """Cells that could not be submitted yet, and why."""

    profile: str
    cells: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Slot:
    """The place of one job: the `index`-th of a batch, in its folder."""

    folder: Path
    batch: Batch
    index: int

    @property
    def cell_id(self) -> str:
        """The cell that it runs."""
        return self.batch.cells[self.index]

    @property
    def job_id(self) -> str:
        """The job as Slurm shows it; empty where its number is not known."""
        if self.batch.job_id is None:
            return ""
        return f"{self.batch.job_id}_{self.index}" if len(self.batch.cells) > 1 else self.batch.job_id

    @property
    def log(self) -> Path:
        """What the job prints, whenever it runs."""
        return self.folder / f"{self.job_id}_0_log.out"

    @property
    def started(self) -> Started | None:
        """When and where it began last; None where it has not."""
        return _read(started_file(self.folder, self.index), Started)

    @property
    def ended(self) -> Ended | None:
        """How its zoo-bench ended, of the start that was the last; None where that has not, or was killed."""
        ended, started = _read(ended_file(self.folder, self.index), Ended), self.started
        return ended if ended and started and ended.began_unix_s == started.unix_s else None

    def settle(self) -> None:
        """Note that nothing is left to be done about it; with the last one of a batch, forget the batch."""
        self._settled(self.index).touch()
        if all(self._settled(index).exists() for index in range(len(self.batch.cells))):
            with contextlib.suppress(FileNotFoundError):
                (self.folder / BATCH).rename(self.folder / f"{BATCH}.settled")

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done about it."""
        return self._settled(self.index).exists()

    def _settled(self, index: int) -> Path:
        return self.folder / f"{index}.settled"


def started_file(folder: Path, index: int) -> Path:
    """Where a job says that it has begun."""
    return folder / f"{index}.started.json"


def ended_file(folder: Path, index: int) -> Path:
    """Where a job says that its zoo-bench has ended."""
    return folder / f"{index}.ended.json"


@dataclass(frozen=True)
class Notes:
    """All notes of a workspace."""

    folder: Path
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, workspace: Workspace) -> Notes:
        """Those of a workspace."""
        return cls(workspace.state / "slurm")

    @property
    def lock(self) -> Path:
        """What the controller holds: two would submit everything twice."""
        return self.folder / "controller.lock"

    def begin(self, profile: str, cells: tuple[str, ...]) -> tuple[Path, Batch]:
        """Note a batch that is about to be submitted. Raises OSError."""
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        batch = Batch(
            name=f"{JOB_PREFIX}{moment}-{secrets.token_hex(3)}",
            profile=profile,
            cells=cells,
            submitted_unix_s=time.time(),
        )
        folder = self.folder / batch.name
        keep(folder / BATCH, batch)
        return folder, batch

    def open_slots(self, profile: str, jobs: Mapping[str, QueuedJob]) -> Iterator[Slot]:
        """Yield the jobs of a profile about which something is left to be done, oldest first.

        `jobs`: the queue, where a number that was not noted is looked up. A batch that was never submitted is passed
        over.
        """
        for path in sorted(self.folder.glob(f"*/{BATCH}")):
            batch = _read(path, Batch)
            if batch is None or batch.profile != profile:
                continue
            if batch.job_id is None:
                number = _number(path.parent, batch.name, jobs)
                if number is None:
                    continue
                batch = batch.model_copy(update={"job_id": number})
            slots = (Slot(path.parent, batch, index) for index in range(len(batch.cells)))
            yield from (slot for slot in slots if not slot.settled)

    def any_open(self, profile: str) -> bool:
        """Tell whether something of a profile may be in the queue."""
        batches = (_read(path, Batch) for path in self.folder.glob(f"*/{BATCH}"))
        return any(batch.profile == profile for batch in batches if batch)

    def wait(self, profile: str, cells: tuple[str, ...], reason: str) -> None:
        """Note which cells could not be submitted yet; none: all could."""
        path = self.folder / WAITING
        if cells:
            keep(path, Waiting(profile=profile, cells=cells, reason=reason))
        else:
            path.unlink(missing_ok=True)

    def waiting(self, profile: str) -> Waiting | None:
        """Return what `wait` noted last of a profile."""
        found = _read(self.folder / WAITING, Waiting)
        return found if found and found.profile == profile else None


def keep(path: Path, note: Strict) -> None:
    """Write a note, wholly or not at all. Raises OSError."""
    write_whole(path, note.model_dump_json(indent=2) + "\n")


def _number(folder: Path, name: str, jobs: Mapping[str, QueuedJob]) -> str | None:
    """Find the number of a batch that its controller did not live to note: in the queue, or by submitit's script."""
    queued = next((job.id for job in jobs.values() if job.name == name), None)
    script = next(folder.glob("[0-9]*_submission.sh"), None)
    found = queued or (script.name if script else None)
    return found.partition("_")[0] if found else None


def _read(path: Path, kind: type[Note]) -> Note | None:
    """Read a note; None where there is none, or it cannot be understood."""
    try:
        return kind.model_validate(json.loads(read_bytes(path, MIB)))
    except (OSError, ValueError, ValidationError):
        return None
