"""Runs a job on this machine: starts it, samples it, passes its events on, and never leaves a process behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from zoo_bench.events import Event, EventReader, ProtocolError
from zoo_bench.gpu import Sample, Sampler
from zoo_bench.job import Job, launch, stop

POLL_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """What is left of a job: its events and samples, how its process ended, and what the harness saw of it."""

    events: tuple[Event, ...]
    samples: tuple[Sample, ...]
    exit_code: int
    interrupted: bool
    malformed_events: int
    protocol_problem: str | None
    nvml_problem: str | None
    started_unix_s: float
    duration_s: float


def run_job(job: Job, on_event: Callable[[Event], None]) -> Outcome:
    """Run `job` to its end. Ctrl-C stops the worker in stages and is reported in the outcome, not raised."""
    started_unix_s, started = time.time(), time.monotonic()
    reader = EventReader(job.paths.events)
    events: list[Event] = []
    interrupted = False
    problem: str | None = None

    def drain() -> None:
        for event in reader.read():
            events.append(event)
            on_event(event)

    process = launch(job)
    with Sampler(process.pid, job.gpus, job.paths.samples) as sampler:
        try:
            while process.poll() is None:
                drain()
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            interrupted = True
        except ProtocolError as error:
            problem = str(error)
        finally:
            stop(process)
    if problem is None:
        try:
            drain()
        except ProtocolError as error:
            problem = str(error)
    return Outcome(
        events=tuple(events),
        samples=tuple(sampler.samples),
        exit_code=process.returncode,
        interrupted=interrupted,
        malformed_events=reader.malformed,
        protocol_problem=problem,
        nvml_problem=sampler.nvml_problem,
        started_unix_s=started_unix_s,
        duration_s=time.monotonic() - started,
    )
