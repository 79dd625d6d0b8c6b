"""Which processes are the job's: those of the worker's tree, those of its session, and those that once were."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass

import psutil

from zoo_bench.telemetry import Owner


@dataclass(frozen=True)
class Member:
    """A living process of the job. `parent` is the PID of the process that started it, as first seen."""

    process: psutil.Process
    parent: int


class JobProcesses:
    """The processes of one job, found again and again. Make it before the worker is launched, then `follow` it.

    The worker leads a session of its own, so that a process is known by it even when its parent is gone. Processes
    that were there before are never looked at: on a machine with thousands, that would cost more than all the rest.
    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._seen = set(psutil.pids())
        self._members: dict[int, Member] = {}
        self._ever: set[int] = set()
        self._session = -1
        self._lock = threading.Lock()

    def follow(self, worker: int) -> None:
        """Take `worker`, a PID that leads a session, for the root of the job."""
        with self._lock:
            self._session = worker
            self._seen.discard(worker)
        self.refresh()

    def refresh(self) -> dict[int, Member]:
        """Look for new processes and ended ones; return the living, zombies among them, by PID."""
        with self._lock:
            pids = set(psutil.pids())
            self._members = {pid: member for pid, member in self._members.items() if pid in pids}
            self._adopt(pids - self._seen)
            self._seen = pids
            return dict(self._members)

    def owner(self, pid: int) -> Owner:
        """Say whose a PID is that NVML named. Call `refresh` after NVML's list and before this."""
        with self._lock:
            if pid in self._members:
                return "job"
            session = _session(pid)
            if session is None:
                return "job" if pid in self._ever else "unknown"
            return "job" if session == self._session else "foreign"

    def _adopt(self, new: set[int]) -> None:
        parents = {pid: _parent(pid) for pid in new}
        grown = True
        while grown:  # a new process may be the child of another new one
            before = len(self._members)
            for pid, parent in parents.items():
                if pid not in self._members and (parent in self._members or _session(pid) == self._session):
                    self._add(pid, parent)
            grown = len(self._members) > before

    def _add(self, pid: int, parent: int) -> None:
        with contextlib.suppress(psutil.Error):  # it has ended in the meantime
            self._members[pid] = Member(psutil.Process(pid), parent)
            self._ever.add(pid)


def _parent(pid: int) -> int:
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return -1


def _session(pid: int) -> int | None:
    """Return the session of a process or of a thread, None where this machine's process table does not have it."""
    if pid <= 0:
        return None
    try:
        return os.getsid(pid)
    except PermissionError:
        return -1
    except OSError:
        return None
