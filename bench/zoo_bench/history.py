"""A cell's runs -> the nights of a metric that can be compared, and where its level changed. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from zoo_bench.cell import Cell
from zoo_bench.columns import OF_ONE_MODEL
from zoo_bench.matrix import Check
from zoo_bench.nights import NightRuns, by_night, counts, newest_alike
from zoo_bench.rules import RATES, Metric, figure_of, rule_of
from zoo_bench.runs import Summary

FEWEST_NIGHTS = 2  # to be drawn
MARGIN = 0.1


def nights_of(cell: Cell, runs: Sequence[Summary], profile: str, metric: Metric) -> tuple[NightRuns, ...]:
    """Return the nights of a cell's runs (oldest first) that can be compared with the newest one, oldest first."""
    fitting = [run for run in runs if run.profile == profile and counts(run, metric, cell)]
    if metric in OF_ONE_MODEL and fitting:
        fitting = _of_one_kind(fitting)
    return by_night(newest_alike(fitting, metric), each_alone=metric not in RATES)


def _of_one_kind(runs: Sequence[Summary]) -> list[Summary]:
    """Return the runs that say the same as the newest: of the models that they trained, or of one that was given."""
    newest = runs[-1]
    if "train" in newest.phases_done or newest.weights is None:
        return [run for run in runs if "train" in run.phases_done]
    return [run for run in runs if run.weights == newest.weights]


def value_of(night: NightRuns, metric: Metric) -> float:
    """Return the figure that stands for a night."""
    return figure_of(metric, night.of(metric).value)


def levels(nights: Sequence[NightRuns], metric: Metric, check: Check) -> list[int]:
    """Return where each level begins, the first at 0, and the number of nights."""
    from zoo_bench.changepoints import cuts  # late: ruptures brings scipy

    values = [night.of(metric).value for night in nights]
    same_model = metric not in RATES and not any("train" in run.phases_done for night in nights for run in night.runs)
    least = rule_of(metric, check, same_model=same_model).least
    return [0, *cuts(values, least), len(values)]


def span(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return where an axis begins and ends: with a share of the range around it, and of the largest value at least."""
    margin = max((max(values) - min(values)) * MARGIN, max(values) * least) or 1.0
    return min(values) - margin, max(values) + margin
