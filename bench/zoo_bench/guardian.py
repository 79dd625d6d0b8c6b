"""Ends a job whose zoo-bench was killed: run beside it as a process of its own, it waits for that one's end.

    python guardian.py GROUP RUN

Its standard input is a pipe that zoo-bench holds. A byte means that the job has ended well; an end without one that
nobody is left to stop it. Standard library only, and nothing of zoo-bench: it starts in hundredths of a second.

A job's processes are those of the group that its worker leads, and those that left the group: they have inherited a
variable of their environment that names the run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RUN_VARIABLE = "ZOO_BENCH_RUN"  # the folder of the run
PATIENCE_S = 5.0
POLL_S = 0.05


class Guardian:
    """Watches over a job, by the process group that it leads and by the folder of its run, until it is dismissed."""

    def __init__(self, group: int, run: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(group), run],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # what stops zoo-bench's group must not stop this
        )

    def dismiss(self) -> None:
        """Tell it that the job has ended."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # it was killed, or is: nothing is left to guard
            self._process.communicate(b".", timeout=PATIENCE_S)


def guard(group: int, run: str) -> None:
    """Wait for the other side of standard input; end the job where it went without a word."""
    if sys.stdin.buffer.read(1):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + PATIENCE_S
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has gone
            os.killpg(group, number)
            while time.monotonic() < deadline:
                os.killpg(group, 0)
                time.sleep(POLL_S)
    end_marked(run)


def end_marked(run: str) -> None:
    """Kill every process of a run, also one in a session of its own. Where there is no /proc, none is found."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := _marked(run)) and time.monotonic() < deadline:
        for pid in left:  # again and again, since one may just have started another
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _marked(run: str) -> list[int]:
    mark, found = os.fsencode(f"{RUN_VARIABLE}={run}"), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(each, signal.SIG_IGN)
    guard(int(sys.argv[1]), sys.argv[2])
