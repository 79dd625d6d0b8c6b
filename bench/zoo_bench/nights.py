"""A cell's runs -> its nights: what is compared with what. Pure functions.

Which runs may be compared at all is declared once, in `COMPARABLE`: where one of these differs, figures say nothing of
each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo_bench.regression import Night
from zoo_bench.rules import RATES, Metric, comparable
from zoo_bench.runs import Summary

COMPARABLE: Mapping[str, Callable[[Summary], object]] = {
    "machine": lambda run: run.machine,
    "dataset": lambda run: run.inputs.dataset_sha256,
    # Schedule, precision, batch, GPUs and every other value but those that say how much was measured.
    "recipe": lambda run: run.recipe_sha256,
    "definitions": lambda run: run.definitions_sha256,
}
# How many images are evaluated is no part of the recipe.
OF_AP: Mapping[str, Callable[[Summary], object]] = {"evaluated images": lambda run: run.evaluated_images}
# Runs of one state of the sources that began within so long are of one night: the nightly one and its reruns.
NIGHT_S = 12 * 3600.0
NORMAL_QUANTILE = 1.96


@dataclass(frozen=True)
class NightRuns:
    """The runs of one night, oldest first."""

    runs: tuple[Summary, ...]

    def of(self, metric: Metric) -> Night:
        """Return the night as the rule judges it."""
        values = tuple(comparable(metric, run.figures[metric]) for run in self.runs)
        # Of what is compared by its logarithm a share is a difference.
        errors = [run.half_widths.get(metric, 0.0) / NORMAL_QUANTILE for run in self.runs if metric in RATES]
        return Night(values, min(errors, default=0.0))


def unlike(a: Summary, b: Summary, metric: Metric) -> list[str]:
    """Name what is not the same, and would have to be; empty where two runs' figures can be compared."""
    wanted = COMPARABLE if metric in RATES else {**COMPARABLE, **OF_AP}
    return [name for name, value in wanted.items() if value(a) != value(b)]


def newest_alike(runs: Sequence[Summary], metric: Metric) -> list[Summary]:
    """Return those of some runs, oldest first, that can be compared with the newest of them."""
    return [run for run in runs if not unlike(run, runs[-1], metric)]


def counts(run: Summary, metric: Metric) -> bool:
    """Tell whether a run's figure can be judged: there is one, and nothing has spoiled it."""
    return metric in run.figures and run.status != "quarantined" and (run.figures[metric] > 0 or metric not in RATES)


def by_night(runs: Iterable[Summary], *, each_alone: bool = False) -> tuple[NightRuns, ...]:
    """Put runs (oldest first) of one night together. `each_alone`: trainings of several seeds are no reruns."""
    found: list[list[Summary]] = []
    for run in runs:
        if found and not each_alone and _of_one_night(found[-1][0], run):
            found[-1].append(run)
        else:
            found.append([run])
    return tuple(NightRuns(tuple(night)) for night in found)


def newest(runs: Sequence[Summary], metric: Metric) -> Summary | None:
    """Return the newest run that was to give a figure for the metric."""
    phase = PHASE_OF[metric]
    return next((run for run in reversed(runs) if phase in run.phases), None)


PHASE_OF: Mapping[Metric, str] = {
    "memory": "train",
    "s_per_iter": "train",
    "fps": "infer",
    "box_ap": "evaluate",
    "mask_ap": "evaluate",
}


def _of_one_night(first: Summary, run: Summary) -> bool:
    same_state = (first.commit, first.inputs, first.fingerprint) == (run.commit, run.inputs, run.fingerprint)
    return same_state and 0 <= run.started_unix_s - first.started_unix_s <= NIGHT_S
