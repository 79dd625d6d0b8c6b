"""Runs a job on this machine: starts it, samples it, passes its events on, and never leaves a process behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from zoo_bench.events import NO_PROGRESS, Event, EventReader, ProtocolError
from zoo_bench.guardian import Guardian
from zoo_bench.interrupts import FROM_TERMINAL, Presses, stopper
from zoo_bench.job import Job, launch, stop
from zoo_bench.kernel import oom_kills
from zoo_bench.recipe import Trust
from zoo_bench.sampler import Sampler
from zoo_bench.stacks import dump_stacks
from zoo_bench.telemetry import Telemetry
from zoo_bench.text import printable
from zoo_bench.worker_log import WorkerLog

POLL_S = 0.1
LOG_END_BYTES = 1000


@dataclass(frozen=True)
class Outcome:
    """What is left of a job: its events and telemetry, how its process ended, and what the harness saw of it.

    `last_words` is the last line of its log that is not empty. `overdue`: the harness ended it, for it took too long.
    `oom_kills` are processes that the kernel killed meanwhile, on all of the machine, for want of memory. `stopper`:
    who has stopped it, where it was interrupted.
    """

    events: tuple[Event, ...]
    telemetry: Telemetry
    exit_code: int
    interrupted: bool
    malformed_events: int
    protocol_problem: str | None
    started_unix_s: float
    duration_s: float
    last_words: str
    overdue: Overdue | None
    oom_kills: int
    stopper: str = FROM_TERMINAL


@dataclass(frozen=True)
class Overdue:
    """Why a run was ended: it made no progress, or reached its time limit. `stacks`: where its processes stood then."""

    status: Literal["hung", "timed_out"]
    reason: str
    stacks: bool


def run_job(job: Job, on_event: Callable[[Event], None], presses: Presses) -> Outcome:
    """Run `job` to its end. When `presses` counts one, the worker is stopped in stages and the outcome says so.

    So it is when it makes no progress, or takes longer, than its cell allows; where its processes stand is kept first.

    Raises:
        StoreError: the job could not be started.
    """
    started_unix_s, started = time.time(), time.monotonic()
    before, killed_before = presses.count, oom_kills()
    stream = _Stream(EventReader(job.paths.events), on_event)
    trust = job.cell.trust
    overdue: Overdue | None = None
    with Sampler(
        job.gpus,
        job.paths.samples,
        sample_period_s=trust.sample_period_s,
        process_period_s=trust.process_period_s,
    ) as sampler:
        process = launch(job)
        assert process.stdout is not None  # launch asks for a pipe
        log = WorkerLog(process.stdout, job.paths.log)
        log.start()
        guardian: Guardian | None = None
        try:
            guardian = Guardian(process.pid, str(job.paths.output))
            sampler.watch(process.pid)
            while process.poll() is None and presses.count == before and stream.problem is None and overdue is None:
                stream.drain()
                overdue = _overdue(stream, trust, started)
                time.sleep(POLL_S)
            if overdue is not None:
                words = _last_line(job.paths.log)  # before somebody's stack is in it
                told = f"{overdue.reason}; its log then ended with: {words}" if words else overdue.reason
                overdue = replace(overdue, reason=told, stacks=dump_stacks(process.pid, job.paths.stacks))
        finally:
            stop(process, job.paths.output, presses)  # whatever went wrong here, the worker must not stay
            if guardian is not None:
                guardian.dismiss()
            log.finish()
    stream.drain()
    return Outcome(
        events=tuple(stream.events),
        telemetry=sampler.telemetry(),
        exit_code=process.returncode,
        interrupted=presses.count > before,
        malformed_events=stream.reader.malformed,
        protocol_problem=stream.problem,
        started_unix_s=started_unix_s,
        duration_s=time.monotonic() - started,
        last_words=log.problem or _last_line(job.paths.log),
        overdue=overdue,
        oom_kills=oom_kills() - killed_before,
        stopper=stopper(),
    )


def _overdue(stream: _Stream, trust: Trust, started: float) -> Overdue | None:
    now = time.monotonic()
    if trust.hang_timeout_s is not None and now - stream.progressed >= trust.hang_timeout_s:
        return Overdue("hung", f"no progress for {trust.hang_timeout_s:g} s, {stream.position}", stacks=False)
    if trust.time_limit_s is not None and now - started >= trust.time_limit_s:
        return Overdue("timed_out", f"it took longer than {trust.time_limit_s:g} s, {stream.position}", stacks=False)
    return None


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LOG_END_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


class _Stream:
    """The events so far, passed on as they come; `problem` says why no more can be understood.

    `progressed` is when the last one came that was more than a sign of life, by this process's monotonic clock.
    """

    def __init__(self, reader: EventReader, on_event: Callable[[Event], None]) -> None:
        self.reader = reader
        self.events: list[Event] = []
        self.problem: str | None = None
        self.progressed = time.monotonic()
        self._last: Event | None = None
        self._on_event = on_event

    def drain(self) -> None:
        """Take in all that is there."""
        before = -1
        while self.problem is None and self.reader.offset > before:
            before = self.reader.offset
            self._read()

    def _read(self) -> None:
        try:
            new = self.reader.read()
        except ProtocolError as error:
            self.problem = str(error)
            return
        self.events += new
        for event in new:
            if event.name not in NO_PROGRESS:
                self.progressed, self._last = time.monotonic(), event
            self._on_event(event)

    @property
    def position(self) -> str:
        """Where the job is, in words: after which of its events."""
        if self._last is None:
            return "before its first event"
        steps = (self._last.fields.get(field) for field in ("iteration", "index"))
        number = next((step for step in steps if step is not None), "")
        return f"after {self._last.name} {number}".rstrip()
