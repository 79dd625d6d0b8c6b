"""Which noise could not be looked for: a run that nobody watched is not a clean one. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zoo_bench.telemetry import Floats, GpuSeries, Span, Telemetry

LEAST_SHARE = 0.9
SHORT_S, GAP_S = 5.0, 2.0


def unwatched(telemetry: Telemetry, timed: Sequence[Span], gpus: int, hidden_own: frozenset[int]) -> tuple[str, ...]:
    """Name what could not be looked for on the job's `gpus` and its host; `hidden_own` as in `Memory`."""
    if not timed:
        return ()
    texts: list[str] = []
    if len(telemetry.gpus) < gpus:
        texts.append(f"anything on {gpus - len(telemetry.gpus)} of {gpus} GPUs: NVML showed none")
    for gpu in telemetry.gpus:
        texts += [f"{what} on GPU {gpu.index}: {why}" for what, why in _of_gpu(gpu, telemetry, timed, hidden_own)]
    host = telemetry.host
    if not _covered(host.time_s, host.outside_cpu_s, timed):
        texts.append("CPU load: what the processors did is not known")
    return tuple(texts)


def _of_gpu(
    gpu: GpuSeries, telemetry: Telemetry, timed: Sequence[Span], hidden_own: frozenset[int]
) -> Iterator[tuple[str, str]]:
    if gpu.mig:
        yield "foreign processes", "MIG is on"
    elif not any(
        one.gpu == gpu.index and (one.found("job").any() or one.pid in hidden_own) for one in telemetry.processes
    ):
        yield "foreign processes", "NVML does not show the job's own"
    if not _covered(gpu.time_s, np.where(gpu.clocks_events < 0, np.nan, gpu.clocks_events), timed):
        yield "slowdowns", "NVML does not tell the reasons of the clocks"
    if not _covered(gpu.time_s, gpu.sm_clock_hz, timed):
        yield "clock drops", "NVML does not tell the clocks"


def _covered(time_s: Floats, values: Floats, timed: Sequence[Span]) -> bool:
    """Tell whether values were had over nearly all of every span; a span of less than `SHORT_S` says nothing."""
    known_s = time_s[np.isfinite(values)]
    return all(
        to_s - from_s < SHORT_S or _share_covered(known_s, from_s, to_s) >= LEAST_SHARE for from_s, to_s in timed
    )


def _share_covered(known_s: Floats, from_s: float, to_s: float) -> float:
    """Return the share of a span that lies between readings which follow one another as they should."""
    usual_s = float(np.median(np.diff(known_s))) if len(known_s) > 1 else 0.0
    inside = np.concatenate(([from_s], known_s[(known_s >= from_s) & (known_s <= to_s)], [to_s]))
    steps_s = np.diff(inside)
    return float(steps_s[steps_s <= max(GAP_S, 3 * usual_s)].sum() / (to_s - from_s))
