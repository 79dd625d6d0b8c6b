"""Simulated trainings: what a worker writes about iterations of which the true steady state is known.

`iterations(seed)` draws the jitter that iterations have: skewed (lognormal, or gamma above a floor) and autocorrelated
(AR(1), correlation phi ** lag), around an exact mean. Options add what is no steady state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo_bench.telemetry import Floats, floats

from .signals import autocorrelated, loguniform

WorkerEvent = dict[str, Any]
WRITE_S = 0.0003  # from the end of an iteration to the line about it
UNIX_S = 1.7e9


@dataclass(frozen=True)
class Pause:
    """What a worker does after the iteration `after`; the next one pays for it. `event` announces its end."""

    after: int
    length_s: float
    event: str


@dataclass(frozen=True, eq=False)
class Course:
    """Iterations as they went. `excess_s` is the part of `times_s` that is no steady state: warm-up and pauses."""

    times_s: Floats
    data_s: Floats
    excess_s: Floats
    pauses: tuple[Pause, ...] = ()


@dataclass(frozen=True, eq=False)
class SimulatedRun:
    """Events as a worker writes them, and the truth about them.

    In the steady state an iteration takes `mean_s` on average (of the distribution, not of this draw) and waits for
    data a `data_share` of it. `phi` is the correlation of one iteration with the next.
    """

    seed: int
    events: tuple[WorkerEvent, ...]
    course: Course
    mean_s: float
    data_share: float
    phi: float


def iterations(
    seed: int,
    *,
    count: int | None = None,
    mean_s: float | None = None,
    warmup: bool = False,
    checkpoints: bool = False,
    evaluations: bool = False,
    late: bool = False,
) -> SimulatedRun:
    """Draw a training run.

    `count` and `mean_s` are drawn where not given: 400 to 4,000 iterations of 0.02 to 2 seconds. `warmup` adds a
    decaying transient and compile spikes in the first tens of iterations; `checkpoints` and `evaluations` add pauses,
    announced by their events and paid for by the following iteration; with `late`, steps are written some iterations
    after they ended, and have `end_s`.
    """
    rng = np.random.default_rng([seed, 1])
    phi = float(rng.uniform(0.0, 0.8))
    count = count or int(rng.integers(400, 4001))
    mean_s = mean_s or loguniform(rng, 0.02, 2.0)
    data_share = float(rng.uniform(0.0, 0.3))
    steady = mean_s * jitter(rng, count, phi)
    data = steady * shares(rng, count, data_share)
    excess = mean_s * warmup_excess(rng, count) if warmup else np.zeros(count)
    pauses: list[Pause] = []
    if checkpoints:
        pauses += drawn_pauses(rng, count, "checkpoint_saved", mean_s * loguniform(rng, 1.0, 20.0))
    if evaluations:
        pauses += drawn_pauses(rng, count, "eval_stop", mean_s * loguniform(rng, 5.0, 60.0))
    for pause in pauses:
        excess[pause.after] += pause.length_s
    course = Course(steady + excess, data, excess, tuple(pauses))
    starts_s = float(rng.uniform(1e3, 1e6))
    events = worker_events(rng, course, starts_s, int(rng.integers(2, 20)) if late else 0)
    return SimulatedRun(seed, events, course, mean_s, data_share, phi)


def jitter(rng: np.random.Generator, count: int, phi: float) -> Floats:
    """Draw autocorrelated factors of mean 1: lognormal, or gamma above a floor, as often."""
    if rng.random() < 0.5:
        sigma = loguniform(rng, 0.01, 0.3)
        return np.exp(sigma * autocorrelated(rng, count, phi) - sigma**2 / 2)
    # A sum of squared normal values is gamma; its correlation is the square of theirs.
    halves, weight = int(rng.integers(2, 17)), loguniform(rng, 0.02, 0.4)
    gamma = np.mean(autocorrelated(rng, (count, halves), np.sqrt(phi)) ** 2, axis=1)
    return floats(1 - weight + weight * gamma)


def shares(rng: np.random.Generator, count: int, mean: float) -> Floats:
    """Draw independent fractions of this mean."""
    return rng.beta(20 * mean + 1e-9, 20 * (1 - mean), count)


def warmup_excess(rng: np.random.Generator, count: int) -> Floats:
    """Draw what the first iterations take over the mean, in means: a decay, and spikes where something is compiled."""
    excess = rng.uniform(0.2, 3.0) * np.exp(-np.arange(count) / rng.uniform(2.0, 8.0))
    spikes = [0, *rng.integers(1, 30, int(rng.integers(0, 5)))]
    for spike in spikes:
        excess[spike] += loguniform(rng, 3.0, 60.0)
    return excess


def drawn_pauses(rng: np.random.Generator, count: int, event: str, length_s: float) -> list[Pause]:
    """Draw pauses at a fixed interval of iterations, of about the same length."""
    every = max(20, int(count * loguniform(rng, 0.02, 0.3)))
    return [Pause(after, length_s * rng.uniform(0.7, 1.3), event) for after in range(every, count, every)]


def worker_events(
    rng: np.random.Generator,
    course: Course,
    starts_s: float,
    late: int,
    extra: Iterable[WorkerEvent] = (),
) -> tuple[WorkerEvent, ...]:
    """Return the events of a run whose first iteration starts at `starts_s`, in the order of their writing.

    Steps are written `late` iterations after their end. `extra`: events of the caller's, as `event` makes them.
    """
    ends = starts_s + np.cumsum(course.times_s)
    stops = float(ends[-1]) + 0.4
    opening = [
        event(starts_s - 2.0, "init_start"),
        event(starts_s - 0.4, "init_stop", environment={"python": "3.12.3"}, parameters=44396134, images={}),
        event(starts_s - 0.3, "run_start", phases=["train"]),
        event(starts_s - 0.2, "epoch_start", epoch=1),
    ]
    closing = [
        event(stops - 0.3, "epoch_stop", epoch=1),
        _saved(stops - 0.1, len(ends), final=True),
        event(stops, "run_stop", status="success"),
    ]
    during = [*_steps(rng, course, ends, late), *_announcements(course, ends), *extra]
    return (*opening, *sorted(during, key=lambda line: float(line["time_s"])), *closing)


def event(time_s: float, name: str, **values: Any) -> WorkerEvent:
    """Return one event of the protocol in models/worker.py."""
    return {"event": name, "time_s": time_s, "unix_s": UNIX_S + time_s, "protocol": 1, **values}


def write_events(path: Path, events: Sequence[WorkerEvent]) -> Path:
    """Write the events as a worker does, one JSON object a line; returns the path."""
    path.write_text("".join(json.dumps(line) + "\n" for line in events), encoding="utf-8")
    return path


def _steps(rng: np.random.Generator, course: Course, ends: Floats, late: int) -> Iterable[WorkerEvent]:
    count = len(ends)
    losses = (0.4 + 2.0 * np.exp(-np.arange(count) / count)) * rng.lognormal(0.0, 0.05, count)
    for index, end_s in enumerate(ends):
        written = float(ends[min(index + late, count - 1)]) + WRITE_S
        values = {"iteration": index + 1, "iterations": count, "loss": float(losses[index]), "lr": 0.02}
        times = {"iteration_time_s": float(course.times_s[index]), "data_time_s": float(course.data_s[index])}
        ended = {"end_s": float(end_s)} if late else {}
        yield event(written, "step", **values, **times, batch_size=16, **ended)


def _announcements(course: Course, ends: Floats) -> Iterable[WorkerEvent]:
    waits: dict[int, float] = {}
    for pause in course.pauses:
        # Two pauses after one iteration follow each other.
        from_s = float(ends[pause.after - 1]) + waits.get(pause.after, 0.0)
        waits[pause.after] = waits.get(pause.after, 0.0) + pause.length_s
        stop_s = from_s + 0.98 * pause.length_s
        if pause.event == "eval_stop":
            yield event(from_s + 0.05 * pause.length_s, "eval_start", images=50)
            for index in range(1, 51):
                yield event(from_s + (0.05 + 0.018 * index) * pause.length_s, "eval_step", index=index, images=50)
            yield event(stop_s, "eval_stop", detections="detections.json", count=5000)
        else:
            yield _saved(stop_s, pause.after, final=False)


def _saved(time_s: float, iteration: int, final: bool) -> WorkerEvent:
    name = "model.safetensors" if final else f"checkpoint-{iteration}.safetensors"
    values = {"path": name, "iteration": iteration, "final": final, "trained": final, "bytes": 177 * 2**20}
    return event(time_s, "checkpoint_saved", **values)
