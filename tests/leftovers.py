"""What a run may leave behind, and must not: processes of its workspace."""

from __future__ import annotations

import time
from pathlib import Path

import psutil


def of_workspace(root: Path) -> list[psutil.Process]:
    """The living processes that work in a workspace or on a job of it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            mine = str(root) in words or process.cwd() == str(root)
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def nothing_left(root: Path, within_s: float = 15.0) -> bool:
    """Whether the last of them has ended by then."""
    deadline = time.monotonic() + within_s
    while of_workspace(root) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not of_workspace(root)
