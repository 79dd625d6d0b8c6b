"""Which iterations count: the steady-state rule.

It cuts three things, each decided from the events alone, and nothing else:

1. **Asked for.** The first `least_warmup` iterations of the run.
2. **Announced.** Every iteration during which a checkpoint was written or an evaluation ran. `checkpoint_saved` after
   iteration n is paid for by iteration n + 1; an evaluation, from `eval_start` to `eval_stop`, by the iterations whose
   time overlaps with it, which are those that end next. How long the iteration took does not matter.
3. **Transient.** What the run still does to settle down, looked for in the first half of what 1 and 2 left, if that is
   80 iterations or more. The second half is the reference: its median m, p10 and p90. An iteration above
   m + 5 (p90 - m) is called slow here.
   a. Slow iterations that crowd at the front (compilation, tuning for new shapes). Had all N slow ones come at any
      time, the first s of n iterations would hold e = N s / n of them. With j > e there, the evidence against that is
      j ln(j / e) + (N - j) ln((N - j) / (N - e)), Kulldorff's (1997) scan statistic. The front with the most
      evidence is cut if that is 5 or more.
   b. A level that has not settled (caches, clocks). MSER (White 1997) on what a. left, in batches of 5, or of 1 % where
      that is more, with each value clipped to m - 5 (m - p10) and m + 5 (p90 - m), so that a lone pause cannot decide:
      the front without which the rest has the smallest standard error. It is cut if its mean differs from the rest's
      by more than 4 standard errors, which allow for autocorrelation: MSER alone often cuts clean runs.

So a slow iteration that nobody announced stays wherever it is, being part of the truth, unless it is one of a crowd at
the front that the rest of the run does not show. A lone one is such a crowd in the first 0.7 % of the run only. Of
clean runs of 400 iterations or more, about one in a hundred loses anything to 3; of 100 iterations, one in fifteen if
they are strongly correlated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo_bench.events import Event, averaged_over, ended_s
from zoo_bench.interval import LEAST_VALUES, long_run_variance
from zoo_bench.telemetry import Floats, floats

TIMING_EVENTS = frozenset(["step", "checkpoint_saved", "eval_start", "eval_stop"])
"""The events that the rule looks at."""

LEAST_FOR_TRANSIENT = 2 * LEAST_VALUES
SLOW_SPREADS = 5.0
LEAST_EVIDENCE = 5.0
LEAST_BATCH, MOST_BATCHES = 5, 100
LEAST_STANDARD_ERRORS = 4.0


@dataclass(frozen=True)
class SteadyState:
    """The iterations that count, by number, with their time, the part spent waiting for data, and when they ended.

    `warmup_cut` iterations were cut by 1 and 3 of the rule, `pauses_cut` later ones by 2. Each may stand for several,
    `averaged_over` so many up to the one that it is named after: its times are then their means.
    """

    iterations: tuple[int, ...]
    averaged_over: tuple[int, ...]
    times_s: Floats
    data_s: Floats
    ends_s: Floats
    warmup_cut: int
    pauses_cut: int

    @property
    def spans(self) -> list[tuple[float, float]]:
        """When the run was steady, from and to (monotonic seconds): unbroken stretches of iterations."""
        found: list[tuple[float, float]] = []
        rows = zip(self.iterations, self.averaged_over, self.times_s, self.ends_s, strict=True)
        for place, (number, averaged, time_s, end_s) in enumerate(rows):
            follows = place > 0 and number - averaged == self.iterations[place - 1]
            begin_s = found.pop()[0] if follows else float(end_s - time_s * averaged)
            found.append((begin_s, float(end_s)))
        return found


def steady_state(events: Iterable[Event], least_warmup: int) -> SteadyState:
    """Apply the rule to the events of one training."""
    events = list(events)
    steps = [event for event in events if event.name == "step"]
    announced = _announced(events, steps)
    first = _first_after(steps, least_warmup)
    candidates = [place for place in range(first, len(steps)) if place not in announced]
    transient = transient_length(floats([steps[place].number("iteration_time_s") for place in candidates]))
    kept = [steps[place] for place in candidates[transient:]]
    warmup = candidates[transient - 1] + 1 if transient else first
    return SteadyState(
        iterations=tuple(int(step.number("iteration")) for step in kept),
        averaged_over=tuple(averaged_over(step) for step in kept),
        times_s=floats([step.number("iteration_time_s") for step in kept]),
        data_s=floats([step.number("data_time_s") for step in kept]),
        ends_s=floats([ended_s(step) for step in kept]),
        warmup_cut=warmup,
        pauses_cut=len(steps) - warmup - len(kept),
    )


def _first_after(steps: Sequence[Event], iterations: int) -> int:
    """Return the place of the first step that follows so many iterations."""
    past = 0
    for place, step in enumerate(steps):
        if past >= iterations:
            return place
        past += averaged_over(step)
    return len(steps)


def _announced(events: Sequence[Event], steps: Sequence[Event]) -> set[int]:
    """Return the places in `steps` of the iterations that paid for a checkpoint or an evaluation."""
    after_checkpoint = {int(event.number("iteration")) + 1 for event in events if event.name == "checkpoint_saved"}
    found = {place for place, step in enumerate(steps) if step.number("iteration") in after_checkpoint}
    ends_s = floats([ended_s(step) for step in steps])
    for start_s, stop_s in _evaluations(events):
        first = int(np.searchsorted(ends_s, start_s, side="right"))
        last = int(np.searchsorted(ends_s, stop_s, side="left"))
        found.update(range(first, min(last + 1, len(steps))))
    return found


def _evaluations(events: Iterable[Event]) -> list[tuple[float, float]]:
    """Return when evaluations ran; one without an end lasted no longer than the iteration it began in."""
    found: list[tuple[float, float]] = []
    marks = [event for event in events if event.name in ("eval_start", "eval_stop")]
    for mark, following in itertools.zip_longest(marks, marks[1:]):
        if mark.name == "eval_start":
            stopped = following is not None and following.name == "eval_stop"
            found.append((mark.time_s, following.time_s if stopped else mark.time_s))
    return found


def transient_length(times_s: Floats) -> int:
    """Return how many values at the front belong to the transient: 3 of the rule."""
    if len(times_s) < LEAST_FOR_TRANSIENT or not np.isfinite(times_s).all():
        return 0
    half = len(times_s) // 2
    p10, median, p90 = np.quantile(times_s[half:], (0.1, 0.5, 0.9))
    slow_s = float(median + SLOW_SPREADS * (p90 - median))
    crowd = _crowd_length(times_s > slow_s, half)
    clipped = np.clip(times_s, float(median - SLOW_SPREADS * (median - p10)), slow_s)
    return crowd + _unsettled_length(clipped[crowd:] - median, half - crowd)


def _crowd_length(slow: NDArray[np.bool_], half: int) -> int:
    """Return the length of the front in which slow iterations crowd; 0 where they do not."""
    ends = np.flatnonzero(slow[:half]) + 1
    if not len(ends):
        return 0
    found, share = np.arange(1.0, len(ends) + 1.0), ends / len(slow)
    every = float(np.count_nonzero(slow))
    evidence = _surprise(found, every * share) + _surprise(every - found, every * (1.0 - share))
    evidence[found < every * share] = 0.0
    most = int(np.argmax(evidence))
    return int(ends[most]) if evidence[most] >= LEAST_EVIDENCE else 0


def _surprise(found: Floats, expected: Floats) -> Floats:
    return np.asarray(found * np.log(np.maximum(found, 1.0) / expected))


def _unsettled_length(centred: Floats, most: int) -> int:
    """Return the length of the front, `most` at most, whose level differs from the rest's: MSER-5, then a test."""
    size = max(LEAST_BATCH, math.ceil(len(centred) / MOST_BATCHES))
    batches = centred[: len(centred) // size * size].reshape(-1, size).mean(axis=1)
    left = np.arange(len(batches), 0, -1)
    sums, squares = (np.cumsum(part[::-1])[::-1] for part in (batches, batches**2))
    errors = (squares - sums**2 / left) / left.astype(np.float64) ** 2
    cut = int(np.argmin(errors[: most // size + 1])) * size
    if cut == 0:
        return 0
    front, rest = centred[:cut], centred[cut:]
    standard_error = math.sqrt(long_run_variance(rest) * (1 / len(front) + 1 / len(rest)))
    return cut if abs(front.mean() - rest.mean()) > LEAST_STANDARD_ERRORS * standard_error else 0
