"""A cell that was trained with several seeds: how far its AP is apart, and which training stands for all. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from zoo_bench.columns import Column
from zoo_bench.runs import Summary

LEAST_SEEDS = 2


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of a sample) over so many seeds."""

    mean: float
    deviation: float
    seeds: int


def trainings(runs: Sequence[Summary]) -> list[Summary]:
    """Return, for every seed of some runs (oldest first), the newest that evaluated a model which that seed trained."""
    made = {(run.seed, run.weights) for run in runs if "train" in run.phases_done}
    own = [run for run in runs if "box_ap" in run.figures and (run.seed, run.weights) in made]
    return list({run.seed: run for run in own if run.status != "quarantined"}.values())


def spread(runs: Sequence[Summary], column: Column) -> Spread | None:
    """Return how far the figures of several seeds are apart; None where there are no two."""
    values = [run.figures[column] for run in trainings(runs) if column in run.figures]
    if len(values) < LEAST_SEEDS:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values), len(values))


def typical(runs: Sequence[Summary]) -> Summary | None:
    """Return the training whose box AP is nearest to the mean over the seeds; None where there are no two."""
    over_seeds = spread(runs, "box_ap")
    if over_seeds is None:
        return None
    return min(trainings(runs), key=lambda run: (abs(run.figures["box_ap"] - over_seeds.mean), run.seed))
