"""Starts a job's ranks with torchrun's launcher, and says which of them failed first and why.

The launcher chooses a free port, ends all ranks as soon as one has failed, and passes signals on. A rank that fails
leaves `rank-N.error.json` in the run's folder; one that is killed cannot, and its exit code and log tell.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from models import worker
from models.torchvision.nodes import Meeting, count_nodes, other_nodes
from models.torchvision.short_logs import ShortLogs

MODULE = "models.torchvision.rank"
LOG_END_BYTES = 2000


@dataclass(frozen=True)
class Failure:
    """How a rank failed. ``follows``: only because another was gone, or did not come."""

    rank: int
    phase: str
    kind: str
    message: str
    unix_s: float
    follows: bool


def error_file(output: Path, rank: int) -> Path:
    """Where a rank says why it failed."""
    return output / f"rank-{rank}.error.json"


def log_file(output: Path, rank: int) -> Path:
    """What a rank and its libraries print; rank 0 prints into the job's own log."""
    return output / (f"rank-{rank}.log" if rank else "worker.log")


def run_ranks(job: dict[str, Any], count: int, events: worker.EventWriter) -> None:
    """Run the job on ``count`` ranks to its end. Raises WorkerError with the failure that came first."""
    output = Path(job["paths"]["output"])
    logs = [log_file(output, number) for number in range(1, count)]
    try:
        with ShortLogs(logs), other_nodes(job, count) as meeting:
            start_ranks(job, count, meeting)
    except SignalException as stop:
        raise worker.Stopped(int(stop.sigval)) from None
    except ChildFailedError as error:
        codes = {number: failure.exitcode for number, failure in error.failures.items()}
        failure = first_failure(output, count, codes)
        events.phase = failure.phase
        raise worker.WorkerError(f"rank {failure.rank}: {failure.message}", failure.kind) from None


def start_ranks(job: dict[str, Any], count: int, meeting: Meeting) -> None:
    """Run this node's share of the ranks to their end; raises the launcher's own errors."""
    output, nodes = Path(job["paths"]["output"]), count_nodes(job)
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=count // nodes,
        run_id=job["run_id"],
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(output)),  # its default is a new folder under /tmp, which it leaves
        **meeting.options(job["cell"]["runtime"]["collective_timeout_s"]),
    )
    elastic_launch(config, sys.executable)("-m", MODULE, "--job", str(output / "job.json"))


def first_failure(output: Path, count: int, codes: dict[int, int]) -> Failure:
    """The failure that the others follow from; ``codes`` are the exit codes of ranks that did not end well."""
    told = [failure for number in range(count) for failure in _told(output, number)]
    silent = [_killed(output, number, code) for number, code in codes.items() if number not in {f.rank for f in told}]
    # The launcher ends the rest with SIGTERM.
    causes = [failure for failure in silent if codes[failure.rank] != -signal.SIGTERM]
    own = [failure for failure in told if not failure.follows]
    return min([*own, *causes] or told or silent, key=lambda failure: failure.unix_s)


def _told(output: Path, rank: int) -> list[Failure]:
    try:
        return [Failure(**json.loads(error_file(output, rank).read_text(encoding="utf-8")))]
    except (OSError, ValueError, TypeError):  # it left none, or was killed while it wrote it
        return []


def _killed(output: Path, rank: int, code: int) -> Failure:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    log = log_file(output, rank)
    words = _last_line(log)
    said = f"; {log.name} ends with: {words}" if words else ""
    return Failure(rank, "?", "exception", f"{how} without saying why{said}", float("inf"), follows=False)


def _last_line(log: Path) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LOG_END_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
