"""Ends a job whose zoo-bench was killed: run beside it as a process of its own, it waits for that one's end.

    python guardian.py GROUP

Its standard input is a pipe that zoo-bench holds. A byte means that the job has ended well; an end without one that
nobody is left to stop it. Standard library only, and nothing of zoo-bench: it starts in hundredths of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

PATIENCE_S = 5.0
POLL_S = 0.05


class Guardian:
    """Watches over a job, by the process group that it leads, until it is dismissed."""

    def __init__(self, group: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # what stops zoo-bench's group must not stop this
        )

    def dismiss(self) -> None:
        """Tell it that the job has ended."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # it was killed, or is: nothing is left to guard
            self._process.communicate(b".", timeout=PATIENCE_S)


def guard(group: int) -> None:
    """Wait for the other side of standard input; end the group where it went without a word."""
    if sys.stdin.buffer.read(1):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + PATIENCE_S
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has gone
            os.killpg(group, number)
            while time.monotonic() < deadline:
                os.killpg(group, 0)
                time.sleep(POLL_S)


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(each, signal.SIG_IGN)
    guard(int(sys.argv[1]))
