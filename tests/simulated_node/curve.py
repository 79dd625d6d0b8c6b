"""A quantity over scenario time, and what it comes to: the truth that a simulated node's answers are held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from zoo_bench.telemetry import Floats, floats


@dataclass(frozen=True, eq=False)
class Curve:
    """Points joined by straight lines, or, with `steps`, values that hold until the next point. Flat at both ends.

    `time_s` never falls; of two points at one time the later counts from then on.
    """

    time_s: Floats
    values: Floats
    steps: bool = False

    @classmethod
    def constant(cls, value: float) -> Curve:
        """One value for all times."""
        return cls(floats([0.0]), floats([value]))

    @classmethod
    def linear(cls, *points: tuple[float, float]) -> Curve:
        """Points (time, value), joined by straight lines."""
        return cls(floats([time for time, _ in points]), floats([value for _, value in points]))

    @classmethod
    def stepped(cls, *points: tuple[float, float]) -> Curve:
        """Points (time, value), each holding until the next."""
        return cls(floats([time for time, _ in points]), floats([value for _, value in points]), steps=True)

    def at(self, time_s: ArrayLike) -> Floats:
        """Return the values at these times."""
        times = np.asarray(time_s, dtype=np.float64)
        after = np.searchsorted(self.time_s, times, side="right")
        last, following = np.maximum(after - 1, 0), np.minimum(after, len(self.values) - 1)
        if self.steps:
            return self.values[last]
        length = self.time_s[following] - self.time_s[last]
        share = np.divide(times - self.time_s[last], length, out=np.zeros_like(times), where=(length > 0) & (after > 0))
        return self.values[last] + (self.values[following] - self.values[last]) * share

    def integral(self, from_s: float, to_s: float) -> float:
        """Return the exact integral over a span."""
        inside = self.time_s[(self.time_s > from_s) & (self.time_s < to_s)]
        edges = np.concatenate([[from_s], np.unique(inside), [to_s]])
        # Between two points the curve is straight, so its middle stands for all of it, jumps at the points or not.
        return float(np.sum(self.at((edges[1:] + edges[:-1]) / 2) * np.diff(edges)))

    def peak(self, from_s: float, to_s: float) -> float:
        """Return the largest value that the curve has in a span."""
        inside = self.values[(self.time_s >= from_s) & (self.time_s <= to_s)]
        return float(max([*inside, *self.at([from_s, to_s])]))

    def text(self) -> str:
        """Return the curve in the grammar of scenario.h."""
        if len(self.values) == 1:
            return _number(self.values[0])
        points = " ".join(f"{_number(t)}:{_number(v)}" for t, v in zip(self.time_s, self.values, strict=True))
        return f"step {points}" if self.steps else points


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
