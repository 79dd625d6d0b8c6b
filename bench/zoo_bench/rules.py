"""How each metric is judged from night to night, and in which unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from zoo_bench.columns import Column
from zoo_bench.matrix import Check
from zoo_bench.regression import REFERENCE, WINDOWS, Rule

Metric: TypeAlias = Literal["memory", "s_per_iter", "fps", "box_ap", "mask_ap"]
"""The columns that are checked."""

METRICS: tuple[Metric, ...] = get_args(Metric)
RATES: frozenset[Column] = frozenset(["memory", "s_per_iter", "fps"])
LARGER_IS_BETTER: frozenset[Column] = frozenset(["fps", "box_ap", "mask_ap"])

# Spreads before a few nights have shown them. Memory is of whole allocations; GPUs and hosts are less regular.
EXPECTED = {"memory": 0.002, "s_per_iter": 0.006, "fps": 0.006}
AP_EXPECTED = 0.0020
# APs of seeds are close to normal: fewer spreads are needed than for nights. Runs are days apart, and three must do.
AP_WITHIN = 1.96
AP_WEIGHT, AP_STUDENT = 1.0, 3.0
AP_WINDOWS = {1: 4.2, 2: 2.6, 3: 1.5}
CREEP = 4.0  # times the smallest change that is accused
# Of so many cells, judged every night, the windows give less than one false alarm a month; of newly trained AP, judged
# every week. Of more cells each may be accused less often. Nights are a distance away with a probability that falls as
# its fourth power, as Student's t with 4 degrees of freedom has it; AP's falls faster.
CELLS, AP_CELLS = 8, 40
TAIL = 4


def rule_of(metric: Metric, check: Check, *, same_model: bool, cells: int = 1) -> Rule:
    """Return the rule for a metric of one of so many `cells`.

    `same_model`: its AP is that of the accepted model, evaluated again.
    """
    if metric in RATES:
        least = getattr(check.least_change, metric)
        windows = _widened(WINDOWS, cells / CELLS)
        return Rule(math.log1p(least), EXPECTED[metric], windows, creep=math.log1p(CREEP * least))
    if same_model:
        # There is no chance in it: how far nights are apart does not matter, and what was accepted stays the measure.
        return Rule(check.same_model_ap, 0.0, {1: 0.0}, suspicion=math.inf, chance=False)
    windows = _widened(AP_WINDOWS, cells / AP_CELLS)
    least = getattr(check.least_change, metric)
    return Rule(least, AP_EXPECTED, windows, weight=AP_WEIGHT, within=AP_WITHIN, student=AP_STUDENT, together=REFERENCE)


def _widened(windows: Mapping[int, float], times: float) -> Mapping[int, float]:
    """Return limits that are passed so many times less often by chance; never narrower ones."""
    wider = max(1.0, times) ** (1 / TAIL)
    return {nights: limit * wider for nights, limit in windows.items()}


def widest(metric: Metric, check: Check) -> float:
    """Return half the widest 95 % interval, as a share, that a run of memory, s/iter or fps may have to be judged."""
    return float(CREEP * getattr(check.least_change, metric))


def comparable(metric: Metric, value: float) -> float:
    """Return a figure such that larger is worse, and equal differences are equally bad."""
    turned = math.log(value) if metric in RATES else value
    return -turned if metric in LARGER_IS_BETTER else turned


def figure_of(metric: Metric, compared: float) -> float:
    """Undo `comparable`."""
    turned = -compared if metric in LARGER_IS_BETTER else compared
    return math.exp(turned) if metric in RATES else turned


def change_of(metric: Metric, before: float, after: float) -> float:
    """Return how a figure has changed: as a share of what it was; of AP as a difference."""
    return after / before - 1 if metric in RATES else after - before
