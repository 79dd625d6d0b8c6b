"""Submitting cells through submitit: arrays of jobs that ask for the same, and why Slurm does not take one."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_bench.errors import StoreError
from zoo_bench.executors.slurm.node import CellJob
from zoo_bench.executors.slurm.notes import BATCH, Batch, Notes, Slot, keep
from zoo_bench.executors.slurm.section import Slurm
from zoo_bench.interrupts import deferred
from zoo_bench.plan import PlannedCell
from zoo_bench.session import Asked, Session
from zoo_bench.text import one_line

# What sbatch says when the same submission may be taken later: a full queue, a closed one, a daemon that is away.
LATER = re.compile(
    r"queue full|temporarily unable|temporarily unavailable|MaxSubmitJob|SubmitJobsPerUser|MaxJobCount|"
    r"inactive or drain|timed out|unable to contact|connection refused|connect failure",
    re.IGNORECASE,
)


class RejectedError(Exception):
    """Slurm does not take a submission. `later`: it may take the same one another time."""

    def __init__(self, reason: str, *, later: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.later = later


@dataclass(frozen=True)
class Submitter:
    """Submits cells of one session."""

    session: Session
    section: Slurm
    notes: Notes

    def submit(self, cells: Sequence[PlannedCell]) -> list[Slot]:
        """Submit cells that ask for the same number of GPUs as one array; return their jobs' places.

        Raises:
            RejectedError: Slurm takes none of them.
            StoreError: the workspace cannot be written.
        """
        try:
            folder, batch = self.notes.begin(self.session.profile, tuple(cell.cell.id for cell in cells))
            try:
                with deferred():  # Ctrl-C must not end sbatch between its taking a job and its saying so
                    number = self._submitted(cells, folder, batch)
            except RejectedError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            batch = batch.model_copy(update={"job_id": number})
            keep(folder / BATCH, batch)
        except OSError as error:
            where = f"{self.notes.folder}: cannot be written: {error.strerror or error}"
            raise StoreError(where, "free some space or mend the permissions, and run again") from None
        return [Slot(folder, batch, index) for index in range(len(cells))]

    def _submitted(self, cells: Sequence[PlannedCell], folder: Path, batch: Batch) -> str:
        """Hand the array to submitit, and return its number in Slurm."""
        import submitit  # heavy, and not for those who run on one machine
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=self.section.max_timeouts)
        executor.update_parameters(**parameters(self.section, batch, cells[0].cell.gpus))
        try:
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # what sbatch says is told once, by us
                jobs = [executor.submit(self._job(cell, folder, batch, index)) for index, cell in enumerate(cells)]
        except (FailedJobError, FailedSubmissionError) as error:
            reason = _reason(str(error))
            raise RejectedError(reason, later=LATER.search(reason) is not None) from None
        return str(jobs[0].job_id).partition("_")[0]

    def _job(self, cell: PlannedCell, folder: Path, batch: Batch, index: int) -> CellJob:
        asked = self.session.asked
        return CellJob(
            words=words(self.session, cell.cell.id),
            workspace=str(self.session.workspace.root),
            folder=str(folder),
            index=index,
            since=batch.submitted_unix_s if asked.force else None,
            machine=self.session.machine.name,
            nodes=self.section.nodes,
        )


def words(session: Session, cell_id: str) -> tuple[str, ...]:
    """Return the call that runs one cell on its node as it would be run there by hand."""
    workspace, asked = session.workspace, session.asked
    call = [sys.executable, "-m", "zoo_bench", "run", "--executor", "local", "--no-trial"]
    call += ["--root", str(workspace.root), "--profile", session.profile, "--select", cell_id]
    if not workspace.bundled:
        call += ["--matrix", str(workspace.matrix_file)]
    return (*call, *_passed_on(asked))


def _passed_on(asked: Asked) -> list[str]:
    """Return the options that decide what is run of a cell."""
    named = {
        "--gpus": asked.gpus,
        "--phases": asked.phases,
        "--checkpoint": asked.checkpoint.absolute() if asked.checkpoint else None,
        "--seed": asked.seed,
        "--repeat": asked.repeat if asked.repeat > 1 else None,
    }
    found = [word for option, value in named.items() if value is not None for word in (option, str(value))]
    found += ["--force"] if asked.force else []
    return [*found, *(["--allow-noisy"] if asked.allow_noisy else [])]


def parameters(section: Slurm, batch: Batch, gpus: int) -> dict[str, Any]:
    """Return what a batch asks of Slurm, by submitit's names."""
    kind, each = f"{section.gpu_kind}:" if section.gpu_kind else "", gpus // section.nodes
    # The worker starts what runs on the other nodes. Newer versions of srun take over nothing of what sbatch was told
    # about processors.
    first = ["--nodes=1", "--ntasks=1"] if section.nodes > 1 else []
    step = [*first, *([f"--cpus-per-task={section.cpus}"] if section.cpus else [])]
    chosen = {
        "partition": section.partition,
        "account": section.account,
        "qos": section.qos,
        "constraint": section.constraint,
        "cpus_per_task": section.cpus,
        "nodes": section.nodes if section.nodes > 1 else None,
        "ntasks_per_node": 1 if section.nodes > 1 else None,
        "gpus_per_node": f"{kind}{each}" if each else None,
        "setup": list(section.setup) or None,
        "srun_args": step or None,
    }
    return {
        **{name: value for name, value in chosen.items() if value is not None},
        "job_name": batch.name,
        "time": section.time_min,
        "signal_delay_s": section.grace_s,
        "array_parallelism": section.max_running or len(batch.cells),
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **section.extra},
    }


def _reason(said: str) -> str:
    """Return what sbatch said, of all that submitit says about it."""
    found = re.findall(r"sbatch: (?:error: )?(.+)", said)
    lines = [line for line in found if "Batch job submission failed" in line] or found or said.strip().splitlines()[-1:]
    lines = lines or ["sbatch failed without a word"]
    return one_line("; ".join(dict.fromkeys(line.removeprefix("Batch job submission failed: ") for line in lines)))
