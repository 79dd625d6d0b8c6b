"""What a run's own files tell over time: its iterations, its GPUs, its host, thinned to what a screen can show.

Times are seconds since the job's first event. A long series is thinned with MinMaxLTTB (Donckt et al. 2023), which
keeps the extremes of every stretch: a spike of one iteration stays visible.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tsdownsample import MinMaxLTTBDownsampler

from zoo_bench.events import Event, EventReader, ProtocolError, ended_s
from zoo_bench.steady import steady_state
from zoo_bench.telemetry import Floats, floats

MOST_POINTS = 1000


@dataclass(frozen=True)
class Training:
    """The iterations of a run, by number. `ends_s`: when each ended; `steady`: which of them were timed."""

    iterations: Floats
    loss: Floats
    lr: Floats
    data_s: Floats
    time_s: Floats
    ends_s: Floats
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
    except (KeyError, IndexError, TypeError, ValueError):  # a file of another form shows nothing
        gpus, host_time_s, host_bytes = (), floats([]), floats([])
    return RunSeries(_training(told, least_warmup, zero_s), gpus, host_time_s, host_bytes, _phases(told))


def thinned(x: Floats, *columns: Floats) -> tuple[Floats, ...]:
    """Return x and columns at no more than `MOST_POINTS` places, chosen by the first column; without gaps in it."""
    known = ~np.isnan(columns[0])
    x, columns = x[known], tuple(column[known] for column in columns)
    if len(x) > MOST_POINTS:
        keeping_peaks = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call]
        places = keeping_peaks.downsample(np.ascontiguousarray(x), np.ascontiguousarray(columns[0]), n_out=MOST_POINTS)
        x, columns = x[places], tuple(column[places] for column in columns)
    return x, *columns


def _events(path: Path) -> list[Event]:
    reader, found = EventReader(path), []
    try:
        while more := reader.read():
            found += more
    except ProtocolError:  # of another zoo-bench
        return []
    return found


def _training(events: Sequence[Event], least_warmup: int, zero_s: float) -> Training | None:
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
        floats([ended_s(step) - zero_s for step in steps]),
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
    header, rows, host = _samples(path)
    gpus = tuple(
        _gpu(one, header, [row[place] for row in rows], zero_s) for place, one in enumerate(header.get("gpus", ()))
    )
    return gpus, floats([_number(row[0]) - zero_s for row in host]), floats([_number(row[1]) for row in host])


def _samples(path: Path) -> tuple[Mapping[str, Any], list[list[Any]], list[list[Any]]]:
    """Return the header of a file of samples, its rows of GPUs, and those of the host; a damaged line is left out."""
    header: Mapping[str, Any] = {}
    gpus, host = [], []
    for line in _lines(path):
        if "gpu_columns" in line:
            header = line
        elif "gpus" in line:
            gpus.append(line["gpus"])
        elif "host" in line:
            host.append(line["host"])
    return header, gpus, host


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    continue
                if isinstance(line, dict):
                    yield line
    except OSError:
        return


def _gpu(one: Mapping[str, Any], header: Mapping[str, Any], rows: Sequence[Sequence[Any]], zero_s: float) -> Gpu:
    columns: Sequence[str] = header["gpu_columns"]

    def column(name: str) -> Floats:
        return floats([_number(row[columns.index(name)]) for row in rows])

    return Gpu(
        int(one["index"]),
        column("time_s") - zero_s,
        column("used_bytes"),
        column("power_w"),
        column("sm_clock_hz"),
        column("temperature_c"),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
