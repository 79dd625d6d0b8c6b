"""Noise and lag, as drawn series: what the generators of simulated runs are made of."""

from __future__ import annotations

import numpy as np

from zoo_bench.telemetry import Floats

PERIOD_S = 0.1


def loguniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from [low, high], every factor as likely as any other."""
    return float(low * (high / low) ** rng.random())


def lagged(values: Floats, phi: float) -> Floats:
    """Return y with y[i] = phi * y[i - 1] + (1 - phi) * values[i] along the first axis, and y[0] = values[0]."""
    return _recursed(np.concatenate([values[:1], (1 - phi) * values[1:]]), phi)


def autocorrelated(rng: np.random.Generator, shape: int | tuple[int, ...], phi: float) -> Floats:
    """Draw a stationary AR(1) series of standard normal values along the first axis: correlation phi ** lag."""
    noise = rng.standard_normal(shape)
    noise[1:] *= np.sqrt(1 - phi**2)
    return _recursed(noise, phi)


def jittered_grid(rng: np.random.Generator, to_s: float, period_s: float = PERIOD_S) -> Floats:
    """Draw times from about 0 to after `to_s`, a period apart, each off by up to a third of it."""
    regular = np.arange(0.0, to_s + 2 * period_s, period_s)
    return regular + rng.uniform(0, period_s / 3, len(regular))


def within(time_s: Floats, from_s: float, to_s: float) -> Floats:
    """Return 1 where from_s <= time < to_s, else 0."""
    return ((time_s >= from_s) & (time_s < to_s)).astype(np.float64)


def ramp(time_s: Floats, from_s: float, to_s: float) -> Floats:
    """Return 0 until from_s, 1 after to_s, and a line between."""
    return np.clip((time_s - from_s) / max(to_s - from_s, 1e-9), 0.0, 1.0)


def _recursed(inputs: Floats, phi: float) -> Floats:
    """Return y with y[i] = phi * y[i - 1] + inputs[i], in log(n) sweeps over the whole array."""
    result = inputs.copy()
    reach = 1
    while reach < len(result) and phi**reach > 1e-15:
        result[reach:] += phi**reach * result[:-reach].copy()
        reach *= 2
    return result
