"""A cell's runs -> the nights of a metric that can be compared, and where its level changed. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from zoo_bench.cell import Cell
from zoo_bench.matrix import Check
from zoo_bench.nights import NightRuns, by_night, counts, newest_alike
from zoo_bench.rules import RATES, Metric, figure_of, rule_of
from zoo_bench.runs import Summary

FEWEST_NIGHTS = 2  # to be drawn
MARGIN = 0.1


def nights_of(cell: Cell, runs: Sequence[Summary], profile: str, metric: Metric) -> tuple[NightRuns, ...]:
    """Return the nights of a cell's runs (oldest first) that can be compared with the newest one, oldest first."""
    fitting = [run for run in runs if run.profile == profile and counts(run, metric, cell)]
    if metric not in RATES:  # of one model AP does not change, and seeds are no nights
        fitting = [run for run in fitting if "train" in run.phases_done]
    if (
        metric == "fps" and fitting and fitting[-1].weights and "train" not in fitting[-1].phases_done
    ):  # another model is not as fast
        fitting = [run for run in fitting if run.weights == fitting[-1].weights]
    alike = newest_alike(fitting, metric) if fitting else []
    return by_night(alike, each_alone=metric not in RATES)


def value_of(night: NightRuns, metric: Metric) -> float:
    """Return the figure that stands for a night."""
    return figure_of(metric, night.of(metric).value)


def levels(nights: Sequence[NightRuns], metric: Metric, check: Check) -> list[int]:
    """Return where each level begins, the first at 0, and the number of nights."""
    from zoo_bench.changepoints import cuts  # late: ruptures brings scipy

    values = [night.of(metric).value for night in nights]
    least = rule_of(metric, check, same_model=False).least
    return [0, *cuts(values, least), len(values)]


def span(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return where an axis begins and ends: with a share of the range around it, and of the largest value at least."""
    margin = max((max(values) - min(values)) * MARGIN, max(values) * least) or 1.0
    return min(values) - margin, max(values) + margin
