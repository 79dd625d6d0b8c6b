"""Runs a job on this machine: starts it, samples it, passes its events on, and never leaves a process behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zoo_bench.events import Event, EventReader, ProtocolError
from zoo_bench.interrupts import Presses
from zoo_bench.job import Job, launch, stop
from zoo_bench.sampler import Sampler
from zoo_bench.telemetry import Telemetry
from zoo_bench.text import printable

POLL_S = 0.1
LOG_END_BYTES = 1000


@dataclass(frozen=True)
class Outcome:
    """What is left of a job: its events and telemetry, how its process ended, and what the harness saw of it.

    `last_words` is the last line of its log that is not empty.
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


def run_job(job: Job, on_event: Callable[[Event], None], presses: Presses) -> Outcome:
    """Run `job` to its end. When `presses` counts one, the worker is stopped in stages and the outcome says so.

    Raises:
        StoreError: the job could not be started.
    """
    started_unix_s, started = time.time(), time.monotonic()
    before = presses.count
    stream = _Stream(EventReader(job.paths.events), on_event)
    trust = job.cell.trust
    with Sampler(
        job.gpus,
        job.paths.samples,
        sample_period_s=trust.sample_period_s,
        process_period_s=trust.process_period_s,
    ) as sampler:
        process = launch(job)
        try:
            sampler.watch(process.pid)
            while process.poll() is None and presses.count == before and stream.problem is None:
                stream.drain()
                time.sleep(POLL_S)
        finally:
            stop(process, presses)  # whatever went wrong here, the worker must not stay
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
        last_words=_last_line(job.paths.log),
    )


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LOG_END_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


class _Stream:
    """The events so far, passed on as they come; `problem` says why no more can be understood."""

    def __init__(self, reader: EventReader, on_event: Callable[[Event], None]) -> None:
        self.reader = reader
        self.events: list[Event] = []
        self.problem: str | None = None
        self._on_event = on_event

    def drain(self) -> None:
        if self.problem is not None:
            return
        try:
            new = self.reader.read()
        except ProtocolError as error:
            self.problem = str(error)
            return
        self.events += new
        for event in new:
            self._on_event(event)
