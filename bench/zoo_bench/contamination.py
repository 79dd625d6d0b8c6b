"""What else happened while a run was timed: its telemetry judged by rules. Pure functions.

The rules, each looked at only where something was timed. Clocks and bits are left alone for the first `WARMUP_S` of it,
or a quarter where it is short, while they ramp up; which iterations count as warm-up decides nothing here, since a drop
at the start may pass for one.

- **slowdown**: a thermal or hardware slowdown bit for `SLOW_SHARE` of the samples or more. The software power cap is
  normal at full load, and never a fault.
- **clock drop**: the SM clock more than `DROP` under the run's own plateau for `SLOW_SHARE` of the samples or more,
  where neither the power cap nor idleness explains it, then or just before or after.
- **CPU load**: others kept more than `LEAST_CORES` cores and `CORES_SHARE` of the machine busy, for seconds on end
  (a running median over `BINS` times `BIN_S`), and for `LOAD_SHARE` of the time or more.
- **foreign processes**: `zoo_bench.foreign`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from zoo_bench.events import Event, timed_images
from zoo_bench.foreign import judge_processes
from zoo_bench.noise import Noise
from zoo_bench.telemetry import ClocksEvent, Floats, GpuSeries, HostSeries, Span, Telemetry
from zoo_bench.unwatched import unwatched

Mask = NDArray[np.bool_]

SLOWDOWN = (
    ClocksEvent.HW_SLOWDOWN
    | ClocksEvent.SW_THERMAL_SLOWDOWN
    | ClocksEvent.HW_THERMAL_SLOWDOWN
    | ClocksEvent.HW_POWER_BRAKE_SLOWDOWN
)
EXPLAINED = ClocksEvent.SW_POWER_CAP | ClocksEvent.GPU_IDLE
WARMUP_S, WARMUP_SHARE = 15.0, 0.25
SLOW_SHARE = 0.02
LEAST_SAMPLES = 20
"""A window with fewer samples says nothing about shares."""

DROP = 0.07
PLATEAU_QUANTILE = 0.9
LAG_S = 0.5
"""How much later than a reason's bit the clocks may follow, or the other way round."""

BUSY = 0.3
SMOOTHING = 5

LEAST_CORES, CORES_SHARE = 0.45, 0.05
BIN_S, BINS = 0.5, 7
LOAD_SHARE = 0.01


@dataclass(frozen=True)
class Findings:
    """The noise, what of it could not be looked for, and the PIDs that are the job's own behind hidden ones."""

    noise: tuple[Noise, ...]
    unwatched: tuple[str, ...]
    hidden_own: frozenset[int]


def judge_telemetry(events: Sequence[Event], telemetry: Telemetry, gpus: int) -> Findings:
    """Apply the rules to one job, which has so many GPUs."""
    timed = timed_spans(events)
    started_s = float(telemetry.host.time_s[0]) if len(telemetry.host.time_s) else 0.0
    windows = [_settled(span) for span in timed]
    foreign, hidden_own = judge_processes(events, telemetry, timed)
    found = [
        *foreign,
        *(one for gpu in telemetry.gpus for span in windows for one in _slowdown(gpu, span)),
        *(one for gpu in telemetry.gpus for span in windows for one in _clock_drop(gpu, span)),
        *(one for span in timed for one in _cpu_load(telemetry.host, span)),
    ]
    noise = tuple(_since(one, started_s) for one in found)
    return Findings(noise, unwatched(telemetry, timed, gpus, hidden_own), hidden_own)


def timed_spans(events: Sequence[Event]) -> list[Span]:
    """Return when training and inference were going on, from their first timed thing to their last; monotonic."""
    steps = [event for event in events if event.name == "step"]
    images = timed_images(events)
    spans = []
    if steps:
        spans.append((steps[0].time_s - steps[0].number("iteration_time_s"), steps[-1].time_s))
    if images:
        spans.append((images[0].time_s, images[-1].time_s))
    return spans


def _since(one: Noise, started_s: float) -> Noise:
    return one.model_copy(update={"from_s": one.from_s - started_s, "to_s": one.to_s - started_s})


def _settled(span: Span) -> Span:
    return span[0] + min(WARMUP_S, WARMUP_SHARE * (span[1] - span[0])), span[1]


def _within(time_s: Floats, span: Span) -> Mask:
    return np.asarray((time_s >= span[0]) & (time_s <= span[1]))


def _slowdown(gpu: GpuSeries, span: Span) -> list[Noise]:
    inside = _within(gpu.time_s, span) & (gpu.clocks_events >= 0)
    slowed = inside & ((gpu.clocks_events & int(SLOWDOWN)) != 0)
    if inside.sum() < LEAST_SAMPLES or slowed.sum() < SLOW_SHARE * inside.sum():
        return []
    bits = ClocksEvent(int(np.bitwise_or.reduce(gpu.clocks_events[slowed])) & int(SLOWDOWN))
    names = " and ".join(str(bit.name).lower().replace("_", " ") for bit in bits)
    return [_of_gpu("slowdown", gpu, slowed, f"{names} for {slowed.sum() / inside.sum():.0%} of the timed window")]


def _clock_drop(gpu: GpuSeries, span: Span) -> list[Noise]:
    inside = _within(gpu.time_s, span)
    explained = (gpu.clocks_events >= 0) & ((gpu.clocks_events & int(EXPLAINED | SLOWDOWN)) != 0)
    explained |= gpu.utilization < BUSY  # False where it is not known
    fit = inside & ~_near(explained, gpu.time_s) & np.isfinite(gpu.sm_clock_hz)
    places = np.flatnonzero(fit)
    if len(places) < LEAST_SAMPLES:
        return []
    clock_hz = _smooth(gpu.sm_clock_hz[places])
    plateau_hz = float(np.quantile(clock_hz, PLATEAU_QUANTILE))
    low = clock_hz < (1 - DROP) * plateau_hz
    if low.sum() < SLOW_SHARE * inside.sum():
        return []
    depth = 1 - float(np.median(clock_hz[low])) / plateau_hz
    dropped = np.zeros(len(gpu.time_s), dtype=bool)
    dropped[places[low]] = True
    share = low.sum() / inside.sum()
    detail = f"SM clock {depth:.0%} under its plateau of {plateau_hz / 1e6:.0f} MHz for {share:.0%} of the timed window"
    return [_of_gpu("clock_drop", gpu, dropped, detail)]


def _of_gpu(kind: str, gpu: GpuSeries, where: Mask, detail: str) -> Noise:
    times_s = gpu.time_s[where]
    return Noise.model_validate(
        {"kind": kind, "gpu": gpu.index, "from_s": times_s[0], "to_s": times_s[-1], "detail": detail}
    )


def _near(mask: Mask, time_s: Floats) -> Mask:
    """Return where `mask` is true within `LAG_S`."""
    marked = time_s[mask]
    after = np.searchsorted(marked, time_s - LAG_S)
    return np.asarray(after < np.searchsorted(marked, time_s + LAG_S))


def _smooth(values: Floats) -> Floats:
    """Return the running median, which single samples cannot move."""
    padded = np.pad(values, SMOOTHING // 2, mode="edge")
    return np.asarray(np.median(sliding_window_view(padded, SMOOTHING), axis=1))


def _cpu_load(host: HostSeries, span: Span) -> list[Noise]:
    known = np.isfinite(host.outside_cpu_s)
    edges = np.arange(span[0], span[1], BIN_S)
    if known.sum() < 2 or len(edges) <= BINS:
        return []
    worked_s = np.interp(edges, host.time_s[known], host.outside_cpu_s[known])
    # A running median: what is over in a second is the system's housekeeping.
    cores = np.median(sliding_window_view(np.diff(worked_s) / BIN_S, BINS), axis=1)
    loaded = np.flatnonzero(cores > max(LEAST_CORES, CORES_SHARE * host.cores))
    if len(loaded) == 0 or len(loaded) < LOAD_SHARE * len(cores):
        return []
    return [
        Noise(
            kind="cpu_load",
            gpu=None,
            from_s=float(edges[loaded[0]]),
            to_s=float(edges[loaded[-1] + BINS]),
            detail=f"other work kept up to {cores.max():.1f} of {host.cores} cores busy, "
            f"for {len(loaded) / len(cores):.0%} of the timed window",
        )
    ]
