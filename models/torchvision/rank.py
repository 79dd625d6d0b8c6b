"""``python -m models.torchvision.rank --job JOB``: one of a job's several ranks, started by launch.py."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist

from models import worker
from models.torchvision.launch import Failure, error_file, log_file

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(argv: list[str] | None = None) -> int:
    """Run the job's phases as the rank that the environment says; returns the exit code."""
    job = worker.read_job(argv)
    number, output = int(os.environ["RANK"]), Path(job["paths"]["output"])
    _end_with_launcher()
    # Python's own handler would wait for an exchange that another rank may never answer.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if number:
        _print_into(log_file(output, number))
    # What NCCL decides and meets, in a file a rank; its own default is to say nothing.
    os.environ.setdefault("NCCL_DEBUG", "INFO")
    os.environ.setdefault("NCCL_DEBUG_FILE", str(output / f"nccl-rank-{number}.log"))
    events = worker.EventWriter(job["paths"]["events"] if number == 0 else os.devnull)
    try:
        with worker.Heartbeat(events):
            _run(job, number, events)
        return 0
    except Exception as error:  # noqa: BLE001 - whatever it is, the launcher must hear of it
        failure = _failure(error, number, events.phase)
        error_file(output, number).write_text(json.dumps(asdict(failure)), encoding="utf-8")
        traceback.print_exc()
        sys.stderr.flush()
        # Not through the interpreter's end: that would wait for exchanges which nobody answers any more.
        os._exit(1)


def _run(job: dict[str, Any], number: int, events: worker.EventWriter) -> None:
    from models.torchvision import train  # late: what it imports prints into this rank's log

    train.run_rank(job, number, int(os.environ["WORLD_SIZE"]), events)


def _end_with_launcher() -> None:
    """Have the kernel end this process when its launcher does; the heartbeat, which knows every system, is slower."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _print_into(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)


def _failure(error: Exception, number: int, phase: str) -> Failure:
    # gloo's errors are plain RuntimeErrors that name its sources.
    follows = isinstance(error, dist.DistError) or "gloo/transport" in str(error)
    message = str(error) or type(error).__name__
    if follows:
        message = f"another rank was gone or did not come: {message}"
    return Failure(number, phase, worker.error_kind(error), message, time.time(), follows)


if __name__ == "__main__":
    sys.exit(main())
