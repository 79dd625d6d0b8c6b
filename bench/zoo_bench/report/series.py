"""What a run's own files tell over time: its iterations, its GPUs, its host, thinned to what a screen can show.

Times are seconds since the job's first event. A long series is thinned to the extremes of each of its stretches, so
that a spike of one iteration stays visible.
"""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tsdownsample import MinMaxDownsampler

from zoo_bench.events import Event, EventReader, ProtocolError
from zoo_bench.steady import steady_state
from zoo_bench.telemetry import Floats, floats

MOST_POINTS = 1000
GPU_COLUMNS = ("time_s", "used_bytes", "power_w", "sm_clock_hz", "temperature_c")


@dataclass(frozen=True)
class Training:
    """The iterations of a run, by number. `steady`: those that were timed."""

    iterations: Floats
    loss: Floats
    lr: Floats
    data_s: Floats
    time_s: Floats
    steady: frozenset[int]


@dataclass(frozen=True)
class Gpu:
    """One GPU over time. NaN stands for what could not be had."""

    index: int
    time_s: Floats
    used_bytes: Floats
    power_w: Floats
    sm_clock_hz: Floats
    temperature_c: Floats


@dataclass(frozen=True)
class RunSeries:
    """All of it; parts are None, or empty, where a run's files do not have them. `phases`: name, from, to."""

    training: Training | None
    gpus: tuple[Gpu, ...]
    host_time_s: Floats
    host_bytes: Floats
    phases: tuple[tuple[str, float, float], ...]


def read_series(events: Path, samples: Path, least_warmup: int) -> RunSeries | None:
    """Read a run's events and samples; None where it has no events that can be read."""
    told = _events(events)
    if not told:
        return None
    zero_s = told[0].time_s
    try:
        gpus, host_time_s, host_bytes = _sampled(samples, zero_s)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):  # of another form
        gpus, host_time_s, host_bytes = (), floats([]), floats([])
    return RunSeries(_training(told, least_warmup), gpus, host_time_s, host_bytes, _phases(told))


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return x and y at `MOST_POINTS` places at most: of each stretch where y is least and where it is greatest."""
    known = ~np.isnan(y)
    x, y = np.ascontiguousarray(x[known]), np.ascontiguousarray(y[known])
    if len(x) <= MOST_POINTS:
        return x, y
    places = MinMaxDownsampler().downsample(x, y, n_out=MOST_POINTS)  # type: ignore[no-untyped-call]
    return x[places], y[places]


def _events(path: Path) -> list[Event]:
    reader, found = EventReader(path), []
    try:
        while more := reader.read():
            found += more
    except ProtocolError:  # of another zoo-bench
        return []
    return found


def _training(events: Sequence[Event], least_warmup: int) -> Training | None:
    steps = [event for event in events if event.name == "step"]
    if not steps:
        return None

    def column(name: str) -> Floats:
        return floats([step.number(name) for step in steps])

    return Training(
        column("iteration"),
        column("loss"),
        column("lr"),
        column("data_time_s"),
        column("iteration_time_s"),
        frozenset(steady_state(events, least_warmup).iterations),
    )


def _phases(events: Sequence[Event]) -> tuple[tuple[str, float, float], ...]:
    """Say when the job trained, timed inference and evaluated, by the first and the last event of each."""
    kinds = {"step": "train", "infer_step": "infer", "eval_start": "evaluate", "eval_step": "evaluate"}
    kinds |= {"eval_stop": "evaluate"}
    found: dict[str, tuple[float, float]] = {}
    zero_s = events[0].time_s
    for event in events:
        if event.name in kinds:
            first, _ = found.get(kinds[event.name], (event.time_s - zero_s, 0.0))
            found[kinds[event.name]] = (first, event.time_s - zero_s)
    return tuple((name, start, stop) for name, (start, stop) in found.items())


def _sampled(path: Path, zero_s: float) -> tuple[tuple[Gpu, ...], Floats, Floats]:
    """Read a file of samples, some of which are of days: numbers alone are kept. A damaged line is left out."""
    indices: list[int] = []
    places: list[int] = []
    gpus: list[list[array[float]]] = []
    host = (array("d"), array("d"))
    for line in _lines(path):
        if "gpu_columns" in line:
            places = [line["gpu_columns"].index(name) for name in GPU_COLUMNS]
            indices = [int(gpu["index"]) for gpu in line["gpus"]]
            gpus = [[array("d") for _ in GPU_COLUMNS] for _ in indices]
        elif "gpus" in line:
            for columns, row in zip(gpus, line["gpus"], strict=True):
                for column, place in zip(columns, places, strict=True):
                    column.append(_number(row[place]))
        elif "host" in line:
            host[0].append(_number(line["host"][0]))
            host[1].append(_number(line["host"][1]))
    series = []
    for index, columns in zip(indices, gpus, strict=True):
        time_s, used_bytes, power_w, sm_clock_hz, temperature_c = map(np.frombuffer, columns)
        series.append(Gpu(index, time_s - zero_s, used_bytes, power_w, sm_clock_hz, temperature_c))
    return tuple(series), np.frombuffer(host[0]) - zero_s, np.frombuffer(host[1])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    try:
        with path.open("rb") as stream:
            for text in stream:
                with contextlib.suppress(msgspec.DecodeError, RecursionError):
                    yield decoder.decode(text)
    except OSError:
        return


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
