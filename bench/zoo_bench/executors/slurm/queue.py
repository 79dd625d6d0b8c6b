"""What Slurm says of jobs: its queue, and how one that has left it ended. Asked through its own commands.

squeue is asked first, which shows a job for some minutes after its end; sacct only afterwards, since many clusters keep
no accounts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zoo_bench.errors import ConfigError, ZooBenchError
from zoo_bench.text import one_line

PATIENCE_S = 60.0
FORMAT = "%F|%K|%A|%j|%T|%N|%r"
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
)  # fmt: skip
MOST_AT_ONCE = 500  # ids on a command line
JOB_PREFIX = "zoo-bench-"


class SlurmError(ZooBenchError):
    """Slurm does not answer, or refuses what it was asked."""


@dataclass(frozen=True)
class QueuedJob:
    """A job as Slurm shows it. `id`: ``12``, or of an array ``12_3``. `name`: of the batch it was submitted with."""

    id: str
    name: str
    state: str
    nodes: str
    reason: str

    @property
    def live(self) -> bool:
        """False once it has ended for good."""
        return self.state not in ENDED

    @property
    def told(self) -> str:
        """Say where it is: ``Slurm job 12_3: running on node7``, ``Slurm job 12_3: pending (Resources)``."""
        where = f" on {self.nodes}" if self.nodes else ""
        why = f" ({self.reason})" if self.reason not in ("", "None") else ""
        return f"Slurm job {self.id}: {self.state.lower().replace('_', ' ')}{where}{why}"


@dataclass(frozen=True)
class End:
    """How Slurm says that a job ended; `state` is empty where nobody knows any more. `nodes`: where it ran last."""

    state: str
    exit_code: str
    nodes: str
    reason: str


def require() -> None:
    """Raise ConfigError where Slurm's commands are not installed."""
    lacking = [name for name in ("sbatch", "squeue", "scancel", "scontrol", "srun") if shutil.which(name) is None]
    if lacking:
        raise ConfigError(
            f"--executor slurm: {', '.join(lacking)} is not on the PATH",
            "call it on a machine that submits to the cluster, or run here: --executor local",
        )


def queue() -> dict[str, QueuedJob]:
    """Return this user's jobs that zoo-bench has submitted, those that ended a while ago too, by their ids.

    Raises:
        SlurmError: the controller daemon does not answer.
    """
    text = _call(["squeue", "--me", "--noheader", "--array", "--states=all", f"--format={FORMAT}"])
    jobs = map(_parse, text.splitlines())
    return {job.id: job for job in jobs if job is not None and job.name.startswith(JOB_PREFIX)}


def _parse(line: str) -> QueuedJob | None:
    fields = line.split("|", 6)
    if len(fields) < 7:
        return None
    array, index, job, name, state, nodes, reason = fields
    found = f"{array}_{index}" if index.isdigit() else job
    return QueuedJob(found, name, state, nodes, one_line(reason))


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended are no fault. Raises SlurmError."""
    for first in range(0, len(job_ids), MOST_AT_ONCE):
        _call(["scancel", "--quiet", *job_ids[first : first + MOST_AT_ONCE]])


def most_in_an_array() -> int:
    """Return how many jobs the cluster takes in one array."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]), re.MULTILINE)
    return max(1, int(found.group(1)) - 1) if found else 1000


def end_of(job_id: str) -> End:
    """Return how a job ended, as far as Slurm still knows."""
    try:
        return _end_by_scontrol(_call(["scontrol", "--oneliner", "show", "job", job_id]))
    except SlurmError:
        return _end_by_accounts(job_id)


def _end_by_scontrol(text: str) -> End:
    words = dict(word.partition("=")[::2] for word in text.split() if "=" in word)
    return End(
        state=words.get("JobState", ""),
        exit_code=words.get("ExitCode", ""),
        nodes=_known(words.get("NodeList", "")),
        reason=_known(words.get("Reason", "")),
    )


def _end_by_accounts(job_id: str) -> End:
    fields = "State,ExitCode,NodeList"
    try:
        text = _call(["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job_id}", f"--format={fields}"])
    except SlurmError:
        text = ""
    lines = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
    if not lines:
        return End("", "", "", "")
    state, code, nodes = lines[-1]
    return End(state.split()[0] if state else "", code, _known(nodes), "")  # CANCELLED by 1000


def _known(value: str) -> str:
    return "" if value in ("(null)", "None", "None assigned", "Unknown") else value


def _call(words: Sequence[str]) -> str:
    """Call one of Slurm's commands, whatever the user's own settings for it are."""
    try:
        done = subprocess.run(
            words,
            env=dict(_neutral(os.environ.items())),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
            start_new_session=True,  # Ctrl-C is the caller's
        )
    except FileNotFoundError:
        raise SlurmError(f"{words[0]}: not on the PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{words[0]}: {error}") from None
    if done.returncode != 0:
        raise SlurmError(f"{words[0]}: {one_line(done.stderr.strip()) or f'exit code {done.returncode}'}")
    return done.stdout


def _neutral(variables: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((name, value) for name, value in variables if not name.startswith(("SQUEUE_", "SACCT_", "SCANCEL_")))
