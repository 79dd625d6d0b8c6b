"""A cell's job, on its node: it starts zoo-bench there, and has itself queued again when it is told to make room.

Slurm gives notice in two ways. The signal that submitit asks for (USR2) comes some time before the time limit, or when
the cluster wants the node for something else. SIGTERM comes when the job is cancelled, requeued or preempted, some
seconds before everything is killed. Either way zoo-bench is ended in good order, so that there is a record; and where
Slurm would not queue the job again by itself, it is asked to. What was trained goes on from its last checkpoint, as
after any interruption.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission, UncompletedJobError

from zoo_bench import allocation
from zoo_bench.executors.slurm.notes import Ended, Started, ended_file, keep, started_file
from zoo_bench.executors.slurm.queue import SlurmError, end_of
from zoo_bench.machine import describe_machine

NOTICE = signal.SIGUSR2
POLL_S = 0.2
SINCE = "--since"


@dataclass(frozen=True)
class CellJob:
    """What submitit runs on the node: the `index`-th job of the batch in `folder`.

    `words`: the call of zoo-bench for the cell. `since`: a call with --force that does not count as done what was done
    before that moment, in Unix seconds. `machine`: what machine.yaml calls the nodes. `nodes`: how many it has.
    """

    words: tuple[str, ...]
    workspace: str
    folder: str
    index: int
    since: float | None
    machine: str | None
    nodes: int = 1

    def __call__(self) -> int:
        """Run the cell; return the exit code of its zoo-bench."""
        folder, began = Path(self.folder), time.time()
        again = started_file(folder, self.index).exists()
        node = os.environ.get("SLURMD_NODENAME", "")
        machine = describe_machine(self.machine).model_dump(mode="json")
        keep(
            started_file(folder, self.index),
            Started(job_id=_job_id(), node=node, unix_s=began, machine=machine),
        )
        words = self.words
        if self.since is not None and again:  # a training that was begun must not begin anew
            words += (SINCE, repr(self.since))
        with _noted() as seen:
            job = allocation.environment(f"{_job_id()} on {node}", self.nodes)
            code = _run(words, self.workspace, job, seen)
            handler = seen.handlers[NOTICE]
        if NOTICE in seen.signals or (signal.SIGTERM in seen.signals and _still_running()):
            return self._queue_again(handler, began, code)
        keep(ended_file(folder, self.index), Ended(began_unix_s=began, exit_code=code))
        return code

    def _queue_again(self, handler: Any, began: float, code: int) -> int:
        """Have submitit queue the job again and end this process; where it does not, note why."""
        try:
            handler(NOTICE, None)
        except (UncompletedJobError, subprocess.SubprocessError, OSError) as error:
            keep(
                ended_file(Path(self.folder), self.index),
                Ended(began_unix_s=began, exit_code=code, problem=str(error)),
            )
        return code

    def checkpoint(self) -> DelayedSubmission:
        """Say what to run once the job is queued again: the same, whose files tell where it goes on."""
        return DelayedSubmission(self)


class _Seen:
    """The signals that came, and what would have handled each."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.handlers: dict[int, Any] = {}


@contextmanager
def _noted() -> Iterator[_Seen]:
    """Note Slurm's signals, in place of what submitit does about them at once."""
    seen = _Seen()

    def note(number: int, _frame: object) -> None:
        seen.signals.append(number)

    for number in (NOTICE, signal.SIGTERM):
        seen.handlers[number] = signal.signal(number, note)
    try:
        yield seen
    finally:
        for heard, handler in seen.handlers.items():
            signal.signal(heard, handler)


def _run(words: tuple[str, ...], workspace: str, job: Mapping[str, str], seen: _Seen) -> int:
    """Run zoo-bench to its end, which a signal brings on: then it is interrupted, once, and waited for.

    `job`: the variables that tell it where it is.
    """
    process = subprocess.Popen(
        words,
        cwd=workspace,
        env={**os.environ, **job},
        stdin=subprocess.DEVNULL,
        preexec_fn=_unheard,
    )
    told = False
    while process.poll() is None:
        if seen.signals and not told:
            told = True
            process.send_signal(signal.SIGINT)
        time.sleep(POLL_S)
    return process.returncode


def _unheard() -> None:
    """Let what is started ignore the signal that is meant for this process: Slurm may send it to all of the job's."""
    signal.signal(NOTICE, signal.SIG_IGN)
    # Whoever submits may have been told to ignore this one (nohup), which would be inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _still_running() -> bool:
    """Tell whether Slurm means to let this job go on: then it was given notice, and is not being ended."""
    try:
        return end_of(_job_id()).state == "RUNNING"
    except SlurmError:
        return False


def _job_id() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
