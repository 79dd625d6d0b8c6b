"""Events -> how long an iteration takes, how long an image takes, and when a run has been timed well enough.

Which iterations count is said in steady.py, what the interval is in interval.py. Pure functions, but for
`PrecisionWatch`, which remembers the events that it was shown.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from zoo_bench.bounded import LEAST_S
from zoo_bench.events import Event, averaged_over, timed_images
from zoo_bench.interval import bootstrap_interval
from zoo_bench.measurements import EndedBy, InferTiming, TrainTiming
from zoo_bench.steady import LEAST_FOR_TRANSIENT, TIMING_EVENTS, SteadyState, steady_state
from zoo_bench.telemetry import Floats, floats

INFER_PARTS = ("load_s", "preprocess_s", "forward_s", "postprocess_s", "encode_s")


def train_timing(
    events: Sequence[Event], steady: SteadyState, *, schedule: int, half_width: float | None
) -> TrainTiming | None:
    """Summarise the steady state of these events; None when no iteration is left to measure, or a time is no time.

    `schedule` is the iterations of the whole schedule, `half_width` the precision at which the run might end.
    """
    steps = [event for event in events if event.name == "step"]
    times_s = steady.times_s
    if not len(times_s) or not (np.isfinite(times_s) & (times_s >= LEAST_S)).all():
        return None
    p10_s, median_s, p90_s = (float(value) for value in np.quantile(times_s, (0.1, 0.5, 0.9)))
    return TrainTiming(
        iterations_run=int(steps[-1].number("iteration")),
        averaged_over=round(sum(steady.averaged_over) / len(times_s)),
        resumed_at=max(0, int(steps[0].number("iteration")) - averaged_over(steps[0])),
        iterations_measured=len(times_s),
        iterations_cut=steady.warmup_cut,
        pauses_cut=steady.pauses_cut,
        batch_size=int(steps[-1].number("batch_size")),
        mean_s=float(np.mean(times_s)),
        interval=bootstrap_interval(times_s),
        median_s=median_s,
        p10_s=p10_s,
        p90_s=p90_s,
        data_share=float(np.sum(steady.data_s) / np.sum(times_s)) if np.isfinite(steady.data_s).all() else None,
        final_loss=None if math.isnan(steps[-1].number("loss")) else steps[-1].number("loss"),
        ended_by=_ended_by(steps[-1], schedule, half_width),
    )


def _ended_by(last: Event, schedule: int, half_width: float | None) -> EndedBy:
    """Say why training ended, if nothing went wrong: the harness alone ends it before the planned iterations."""
    if half_width is not None and last.number("iteration") < last.number("iterations"):
        return "precision"
    return "cap" if last.number("iterations") < schedule else "schedule"


def infer_timing(events: Iterable[Event]) -> InferTiming | None:
    """Average the parts of an image's time without the warm-up images; None when no image was timed."""
    steps = timed_images(events)
    if not steps:
        return None
    parts = {part: statistics.fmean(step.number(part) for step in steps) for part in INFER_PARTS}
    if not all(math.isfinite(value) for value in parts.values()) or parts["forward_s"] < LEAST_S:
        return None
    shown_s = floats([step.number("forward_s") + step.number("postprocess_s") for step in steps])
    detections = statistics.fmean(step.number("detections") for step in steps)
    return InferTiming(
        images=len(steps), detections_per_image=detections, interval=bootstrap_interval(shown_s), **parts
    )


def is_precise(steady_times_s: Floats, half_width: float) -> bool:
    """Tell whether the mean's 95 % interval is narrower, to each side, than `half_width` of the mean."""
    interval, mean_s = bootstrap_interval(steady_times_s), float(np.mean(steady_times_s))
    return interval is not None and mean_s > 0 and interval.half_width(mean_s) < half_width


class PrecisionWatch:
    """Tells a running training when it has been timed well enough, from its events as they come in.

    It looks when 80 iterations have been measured, so that a transient is looked for at every look, and then each time
    there are 20 % more. Training may end when two looks in a row find the interval narrow enough.

    Each look is one more chance to stop on an interval that is narrow by luck, so the intervals of runs that were
    stopped cover the truth less often than others: by one point, or by three where most of the warm-up is left to the
    rule (benchmarks/timing_truth.py). The mean itself is within the half-width asked for in more than 95 % of them.
    """

    FIRST_LOOK = LEAST_FOR_TRANSIENT
    GROWTH = 0.2
    LOOKS = 2

    def __init__(self, least_warmup: int, half_width: float) -> None:
        self._least_warmup = least_warmup
        self._half_width = half_width
        self._events: list[Event] = []
        self._steps = 0
        self._next_look = least_warmup + self.FIRST_LOOK
        self._precise_looks = 0

    def see(self, event: Event) -> bool:
        """Take in one event; True once: training may end now."""
        if self._precise_looks == self.LOOKS or event.name not in TIMING_EVENTS:
            return False
        self._events.append(event)
        self._steps += event.name == "step"
        return event.name == "step" and self._steps >= self._next_look and self._look()

    def _look(self) -> bool:
        times_s = steady_state(self._events, self._least_warmup).times_s
        enough = len(times_s) >= self.FIRST_LOOK
        more = math.ceil(len(times_s) * self.GROWTH) if enough else self.FIRST_LOOK - len(times_s)
        self._next_look = self._steps + more
        precise = enough and is_precise(times_s, self._half_width)
        self._precise_looks = self._precise_looks + 1 if precise else 0
        return self._precise_looks == self.LOOKS
