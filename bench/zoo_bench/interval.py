"""How well the mean of a run is known: a 95 % interval from a block bootstrap.

Iterations are autocorrelated (loader queues, clocks, image sizes that come in runs), so the textbook interval of a mean
is too narrow for them. What is done instead, for n values:

1. Block length: twice the automatic one of Politis & White (2004, circular blocks, flat-top lag window, corrected by
   Patton, Politis & White 2009). Theirs is best for the variance; longer blocks cover better (Sun, Phillips & Jin
   2008). At least n / 30, since more than 30 blocks hardly narrow the interval (Schmeiser 1982), and slow wander that
   no single autocorrelation shows would be missed; at most n / 8.
2. Bootstrap: 10,000 times, n / length blocks are drawn from the run, closed to a circle, and averaged; the 2.5 % and
   97.5 % quantiles of how far these means are from the run's are taken.
3. Finite-sample corrections, one factor on both: what blocks lose because they are centred on the run's own mean,
   n / (n - length), and because they cut off correlations that reach beyond them, both in variance; and Student's
   quantile in place of the normal one, with 3/4 of a degree of freedom a block (their length came from the same data).

The random numbers have a fixed seed: equal values give an equal interval. From 400 values on, 94 to 96.5 % of the
intervals cover the truth for correlations of up to 0.9 from one value to the next (benchmarks/timing_truth.py). Fewer
do with fewer values (about 90 % with 50 values at 0.6), where correlation lasts for more than a twentieth of the run,
or where rare long pauses make up much of the mean and only a few of them were seen.
"""

from __future__ import annotations

import math

import numpy as np

from zoo_bench.measurements import Interval
from zoo_bench.telemetry import Floats

LEAST_VALUES = 40
"""Fewer values than this have no interval: eight blocks of five are the least that the method can work with."""

MOST_BLOCKS, LEAST_BLOCKS = 30, 8
LENGTHENING = 2.0
INSIGNIFICANT_LAGS = 5
FREEDOM = 0.75
RESAMPLES = 10_000
NORMAL_QUANTILE = 1.959963984540054


def bootstrap_interval(values: Floats) -> Interval | None:
    """Return the 95 % interval of the mean of finite values in order of time; None for fewer than `LEAST_VALUES`, and
    where none can be computed.
    """
    count = len(values)
    if count < LEAST_VALUES:
        return None
    mean = float(np.mean(values))
    if np.ptp(values) == 0:
        return Interval(low=mean, high=mean)
    if np.var(values) == 0:  # so small that their squares are nothing
        return None
    length, lost = _block_length(values)
    averages = _block_averages(values - mean, length)
    blocks = round(count / length)
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, blocks))
    deviations = averages[drawn].mean(axis=1) * math.sqrt(blocks * length / count)
    low, high = np.quantile(deviations, (0.025, 0.975))
    factor = (
        math.sqrt(_variance_factor(averages, length, lost))
        * _student_quantile(FREEDOM * (blocks - 1))
        / NORMAL_QUANTILE
    )
    bounds = mean + factor * float(low), mean + factor * float(high)
    return Interval(low=bounds[0], high=bounds[1]) if all(map(math.isfinite, bounds)) else None


def long_run_variance(values: Floats) -> float:
    """Return n times the variance of the mean of n autocorrelated values, as the interval takes it; 0 for too few."""
    if len(values) < LEAST_VALUES or np.ptp(values) == 0:
        return 0.0
    length, lost = _block_length(values)
    averages = _block_averages(values - np.mean(values), length)
    return length * float(np.mean(averages**2)) * _variance_factor(averages, length, lost)


def _variance_factor(averages: Floats, length: int, lost: float) -> float:
    """Return by what the variance from blocks is too small; `lost` / length is what correlations beyond them add."""
    variance = length * float(np.mean(averages**2))
    reach = 1.0 + max(lost, 0.0) / length / variance if variance > 0 else 1.0
    return reach * len(averages) / (len(averages) - length)


def _block_averages(centred: Floats, length: int) -> Floats:
    """Average every run of `length` neighbours on the circle, one from each start."""
    total = np.concatenate(([0.0], np.cumsum(np.concatenate((centred, centred[: length - 1])))))
    return (total[length:] - total[:-length]) / length


def _block_length(values: Floats) -> tuple[int, float]:
    """Return the block length and sum(|lag| autocovariance), which tells how much variance such blocks lose."""
    count = len(values)
    covariance = _autocovariances(values)
    lags = np.arange(len(covariance))
    reach = _last_correlated_lag(covariance / covariance[0], count)
    window = np.clip(2.0 * (1.0 - lags / (2.0 * reach)), 0.0, 1.0)
    lost = 2.0 * float(np.sum(window * lags * covariance))
    spectrum = 2.0 * float(np.sum(window * covariance)) - float(covariance[0])
    longest = min(3.0 * math.sqrt(count), count / 3.0)
    best = (1.5 * (lost / spectrum) ** 2 * count) ** (1 / 3) if spectrum > 0 else longest
    length = round(LENGTHENING * min(best, longest))
    return min(max(length, math.ceil(count / MOST_BLOCKS)), count // LEAST_BLOCKS), lost


def _autocovariances(values: Floats) -> Floats:
    """Return the autocovariances from lag 0 to a little over sqrt(n), by FFT."""
    count = len(values)
    transform = np.fft.rfft(values - np.mean(values), 2 * count)
    lags = math.ceil(math.sqrt(count)) + INSIGNIFICANT_LAGS + 1
    return np.asarray(np.fft.irfft(np.abs(transform) ** 2, 2 * count)[:lags] / count)


def _last_correlated_lag(correlation: Floats, count: int) -> int:
    """Return the lag (1 or more) after which five in a row are insignificant: Politis & White's rule."""
    small = np.abs(correlation[1:]) < 2.0 * math.sqrt(math.log10(count) / count)
    starts = range(len(small) - INSIGNIFICANT_LAGS + 1)
    quiet = (lag for lag in starts if small[lag : lag + INSIGNIFICANT_LAGS].all())
    return max(next(quiet, starts.stop), 1)


def _student_quantile(degrees: float) -> float:
    """Return Student's 97.5 % quantile for 5 or more degrees of freedom, by the expansion about the normal one."""
    z = NORMAL_QUANTILE
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))
