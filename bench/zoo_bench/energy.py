"""The energy that a job's GPUs took, from NVML's energy counters or else from its power readings. Pure functions.

The counters move in steps, of up to 100 ms, and are read between them. Only readings at which a counter has moved are
used, and the energy in between is interpolated, so an end of a span is wrong by no more than a sampling period.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo_bench.measurements import Energy, EnergySource
from zoo_bench.telemetry import Floats, GpuSeries, Telemetry

# How long no reading may be had before the energy of that time counts as unknown.
GAP_S = 2.0
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Spent:
    """Joules that one GPU has taken since some beginning, at `time_s`; they only grow."""

    time_s: Floats
    joules: Floats
    source: EnergySource
    gap_s: float

    @property
    def total_j(self) -> float:
        """Over all readings."""
        return float(self.joules[-1] - self.joules[0])

    def between(self, from_s: float, to_s: float) -> float:
        """Return the joules of a span; NaN where it is not covered by the readings."""
        if from_s < self.time_s[0] - self.gap_s or to_s > self.time_s[-1] + self.gap_s:
            return math.nan
        start_j, end_j = np.interp((from_s, to_s), self.time_s, self.joules)
        return float(end_j - start_j)


def energy(telemetry: Telemetry, spans: Sequence[tuple[float, float]], iterations: int) -> Energy | None:
    """Return the energy of the job, and of the `iterations` that ran during `spans` (monotonic seconds).

    None where the energy of one of the GPUs is not known: a sum over the others would pass for the whole.
    """
    spent = [one for gpu in telemetry.gpus if (one := _by_counter(gpu) or _by_power(gpu)) is not None]
    if not spent or len(spent) < len(telemetry.gpus):
        return None
    steady_j = math.fsum(one.between(*span) for one in spent for span in spans)
    known = iterations > 0 and bool(spans) and math.isfinite(steady_j)
    return Energy(
        joules_per_iteration=steady_j / iterations if known else None,
        kwh=math.fsum(one.total_j for one in spent) / JOULES_PER_KWH,
        source="power" if any(one.source == "power" for one in spent) else "counter",
        gpus=len(spent),
    )


def _by_counter(gpu: GpuSeries) -> Spent | None:
    """None where there is no counter, where it was set back, or where it stands still, as no GPU that is on does."""
    known, gap_s = np.isfinite(gpu.energy_j), _gap_s(gpu)
    times_s, joules = gpu.time_s[known], gpu.energy_j[known]
    steps = np.diff(joules)
    if not _covers(gpu, times_s, gap_s) or (steps < 0).any() or not (steps > 0).any():
        return None
    moved = np.concatenate(([True], steps > 0))
    moved[-1] = True  # the last reading ends the job, though the counter may be about to move
    return Spent(times_s[moved], joules[moved], "counter", gap_s)


def _by_power(gpu: GpuSeries) -> Spent | None:
    """None where there are no readings of the power, or none for a while."""
    known, gap_s = np.isfinite(gpu.power_w), _gap_s(gpu)
    times_s, watts = gpu.time_s[known], gpu.power_w[known]
    if not _covers(gpu, times_s, gap_s) or (np.diff(times_s) > gap_s).any():
        return None
    joules = np.cumsum(np.diff(times_s) * (watts[1:] + watts[:-1]) / 2)
    return Spent(times_s, np.concatenate(([0.0], joules)), "power", gap_s)


def _covers(gpu: GpuSeries, times_s: Floats, gap_s: float) -> bool:
    """Whether readings at `times_s` are there from the first sample to the last."""
    return len(times_s) > 1 and times_s[0] - gpu.time_s[0] <= gap_s and gpu.time_s[-1] - times_s[-1] <= gap_s


def _gap_s(gpu: GpuSeries) -> float:
    return max(GAP_S, 5 * float(np.median(np.diff(gpu.time_s)))) if len(gpu.time_s) > 1 else GAP_S
