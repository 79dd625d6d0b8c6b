"""Memory and CPU time of the job's processes, and the CPU time that their processors spend on anything else.

The system counts CPU time in clock ticks, of 10 ms as a rule, for each process and for each processor, and not both
at the same instant. So a difference over an interval is good to about a tick for each process and each core; over
seconds that is little, over a tenth of one it is not.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from zoo_bench.problems import Problems
from zoo_bench.processes import JobProcesses, Member

# Reading proportional set sizes walks the page tables of the processes, so it may take this share of the time only.
MEMORY_SHARE = 0.01
# A resident size so much above all that went before is worth reading the proportional one at once.
GROWTH = 1.02
# How much less than its processes the processors may seem to have done, in seconds a core, before that is forgotten.
DEBT_S = 0.05
TICKS_S = 0.03


class HostReading(NamedTuple):
    """The host's side at one moment; the names and NaN are those of `telemetry.HostSeries`."""

    tree_bytes: float
    tree_cpu_s: float
    outside_cpu_s: float


@dataclass(frozen=True)
class ProcessTimes:
    """CPU seconds of one process, and of its ended and waited-for children. `parent` is the PID that started it."""

    own_s: float
    children_s: float
    parent: int

    @property
    def total_s(self) -> float:
        """What its parent is credited with once it has waited for this process."""
        return self.own_s + self.children_s


class HostMeter:
    """Reads the host's side of one job."""

    def __init__(self, processes: JobProcesses, problems: Problems, clock: Callable[[], float]) -> None:
        self._processes = processes
        self._clock = clock
        self._tree_cpu = TreeCpu()
        self._processors = Processors()
        self._outside_cpu = OutsideCpu(self._processors.count)
        self._memory = TreeMemory()
        if math.isnan(self._processors.worked_s()):
            problems.add("machine CPU", "this system does not tell what its processors do as a whole")

    @property
    def cores(self) -> int:
        """How many processors the job may use."""
        return self._processors.count

    def read(self) -> HostReading | None:
        """Return the figures of this moment; None when no process of the job is left."""
        members = self._processes.refresh()
        if not members:
            return None
        # The processors before the processes: what they do in between then is a debt, and not someone else's work.
        worked_s, harness_s = self._processors.worked_s(), time.process_time()
        tree_s = self._tree_cpu.add({pid: times for pid, one in members.items() if (times := _times(one)) is not None})
        outside_s = math.nan if math.isnan(worked_s) else self._outside_cpu.add(worked_s, tree_s + harness_s)
        return HostReading(self._memory.read(members, self._clock), tree_s, outside_s)


class TreeCpu:
    """CPU seconds of a tree whose processes come and go, cumulative; it never falls.

    A process that has ended lives on in its parent's `children_s`, if the parent waited for it. What no ancestor was
    credited with, as when the parent ended first, is kept here.
    """

    def __init__(self) -> None:
        self._last: Mapping[int, ProcessTimes] = {}
        self._kept_s = 0.0
        self._total_s = 0.0

    def add(self, now: Mapping[int, ProcessTimes]) -> float:
        """Take the times of every living process of the tree; return the sum since the first."""
        missing: dict[int, float] = {}
        for pid, ended in self._last.items():
            if pid not in now:
                heir = self._heir(ended.parent, now)
                missing[heir] = missing.get(heir, 0.0) + ended.total_s
        for heir, ended_s in missing.items():
            credited_s = now[heir].children_s - self._last[heir].children_s if heir in now else 0.0
            if ended_s - credited_s > TICKS_S:
                self._kept_s += ended_s - credited_s
        self._last = now
        self._total_s = max(self._total_s, self._kept_s + math.fsum(one.total_s for one in now.values()))
        return self._total_s

    def _heir(self, pid: int, now: Mapping[int, ProcessTimes]) -> int:
        """Return the nearest ancestor that lives and lived at the last reading; -1 for none."""
        while pid in self._last and pid not in now:
            pid = self._last[pid].parent
        return pid if pid in self._last else -1


class OutsideCpu:
    """CPU seconds of the processors that are not explained, cumulative from the first reading on; it never falls.

    The two sides are counted apart and differ by some ticks either way. A reading in which they seem to have
    done too little is therefore a debt of the next ones, up to a limit: the counts may also drift apart for good, and
    hours of that must not hide a later load.
    """

    def __init__(self, cores: int) -> None:
        self._limit_s = DEBT_S * cores
        self._last: float | None = None
        self._debt_s = 0.0
        self._total_s = 0.0

    def add(self, worked_s: float, explained_s: float) -> float:
        """Take the processors' CPU seconds and those of the job and the harness; return the rest."""
        unexplained_s = worked_s - explained_s
        if self._last is not None:
            more_s = unexplained_s - self._last - self._debt_s
            self._total_s += max(0.0, more_s)
            self._debt_s = min(self._limit_s, max(0.0, -more_s))
        self._last = unexplained_s
        return self._total_s


class TreeMemory:
    """Proportional set size of a tree: pages that several processes share count once."""

    def __init__(self) -> None:
        self._highest_resident = 0
        self._due_s = -math.inf

    def read(self, members: Mapping[int, Member], clock: Callable[[], float]) -> float:
        """Return the bytes, or NaN where this is not the time to look: not due, and no new high of resident memory."""
        resident = sum(_resident_bytes(member.process) for member in members.values())
        started_s = clock()
        if started_s < self._due_s and resident <= self._highest_resident * GROWTH:
            return math.nan
        self._highest_resident = max(self._highest_resident, resident)
        proportional = sum(_proportional_bytes(member.process) for member in members.values())
        self._due_s = started_s + (clock() - started_s) / MEMORY_SHARE
        return float(proportional) if proportional else math.nan


class Processors:
    """The processors that the job may use: those of this process, which the worker inherits.

    Slurm and Kubernetes give a job some of a node's processors. What a neighbour does on its own spoils nothing, and a
    stranger on ours must not vanish in the size of the machine. Where the system does not tell which are ours, or does
    not number them alike everywhere, it is the whole machine.
    """

    def __init__(self) -> None:
        listed = _listed()
        self._places = places(_allowed(), listed)
        self._listed = len(listed)
        self.count = len(self._places) if self._places else psutil.cpu_count() or 1

    def worked_s(self) -> float:
        """Return the seconds that they together have worked since the machine was started; NaN if it is not told."""
        if self._places is None:
            return _worked_s(psutil.cpu_times()) or math.nan
        each = psutil.cpu_times(percpu=True)
        if len(each) != self._listed:  # one was switched off or on since: its place in the list is no longer known
            return math.nan
        return math.fsum(_worked_s(each[place]) for place in self._places) or math.nan


def places(allowed: Collection[int] | None, listed: Sequence[int]) -> tuple[int, ...] | None:
    """Return where in the list of processors the allowed ones stand; None for all of them, or where that is not known.

    An id is a place in the list only while every processor is switched on, and in some containers the list is numbered
    anew from 0.
    """
    if not allowed or not set(allowed) < set(listed):
        return None
    return tuple(listed.index(one) for one in sorted(allowed))


def _allowed() -> Collection[int] | None:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _listed() -> list[int]:
    """Return the ids of the processors in the order in which the system, and so psutil, lists their times."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return []
    names = [line.split(maxsplit=1)[0] for line in lines if line.startswith("cpu")]
    return [int(name[3:]) for name in names if name[3:].isdigit()]


def _worked_s(times: Any) -> float:
    """Stolen time counts, waiting for a disk does not; a guest's time is part of `user`."""
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return math.fsum(getattr(times, name, 0.0) for name in names)


def _times(member: Member) -> ProcessTimes | None:
    try:
        times = member.process.cpu_times()
    except psutil.Error:  # it has ended in the meantime
        return None
    return ProcessTimes(times.user + times.system, times.children_user + times.children_system, member.parent)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _proportional_bytes(process: psutil.Process) -> int:
    """Where the system has no proportional size, or does not let us look, the resident one."""
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.rss)
    except psutil.AccessDenied:
        return _resident_bytes(process)
    except psutil.Error:  # gone in the meantime
        return 0
