"""Where the level of a metric changed, found looking back over its whole history. Pure functions.

ruptures cuts the history so that the squares of what is left around each part's mean, and a price for every cut, are
least together (PELT, Killick et al. 2012). Nights far out are first moved to the edge of what chance makes, or one of
them would be cut out; a cut costs what autocorrelated noise of this spread could gain by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np
import ruptures

LEAST_NIGHTS = 5
"""A part of the history has so many nights or more."""
MAD_TO_SIGMA = 1.4826
CLIP = 4.0  # spreads
NEIGHBOURS = 7
# Times the variance and the log of the length: 3 for independent values (Yao 1988), and twice that for an
# autocorrelation of 0.3, which makes means of some nights vary 1.9 times as much.
PRICE = 6.0


def cuts(values: Sequence[float], least: float) -> list[int]:
    """Return the places at which a new level begins, in order; levels differ by `least` or more."""
    if len(values) < 2 * LEAST_NIGHTS:
        return []
    smooth = _rolling_median(values)
    spread = MAD_TO_SIGMA * median(abs(value - level) for value, level in zip(values, smooth, strict=True))
    if spread == 0:
        spread = least / CLIP
    clipped = np.clip(values, smooth - CLIP * spread, smooth + CLIP * spread)
    price = PRICE * spread**2 * np.log(len(values))
    found = ruptures.KernelCPD(kernel="linear", min_size=LEAST_NIGHTS).fit(clipped).predict(pen=price)
    return _large(values, [int(place) for place in found[:-1]], least)


def _large(values: Sequence[float], places: list[int], least: float) -> list[int]:
    """Leave out the smallest steps, one by one, until all are large enough."""
    while places:
        ends = [0, *places, len(values)]
        levels = [median(values[begin:end]) for begin, end in pairwise(ends)]
        steps = [abs(after - before) for before, after in pairwise(levels)]
        smallest = min(range(len(steps)), key=steps.__getitem__)
        if steps[smallest] >= least:
            break
        del places[smallest]
    return places


def _rolling_median(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    half = NEIGHBOURS // 2
    windows = (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    return np.array([median(window) for window in windows])
