"""A cell's runs -> its nights: what is compared with what. Pure functions.

Which runs may be compared at all is declared once, in `COMPARABLE`: where one of these differs, figures say nothing of
each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo_bench.cell import Cell
from zoo_bench.interval import NORMAL_QUANTILE
from zoo_bench.matrix import Check
from zoo_bench.regression import Night
from zoo_bench.rules import RATES, Metric, comparable, widest
from zoo_bench.runs import Summary

COMPARABLE: Mapping[str, Callable[[Summary, Metric], object]] = {
    "machine": lambda run, _: run.machine,
    "dataset": lambda run, _: run.inputs.dataset_sha256,
    # Schedule, precision, batch, GPUs, images evaluated; all but those that say how much was timed.
    "recipe": lambda run, _: run.recipe_sha256,
    "definition": lambda run, metric: run.definitions.get(metric),
}
# Runs of one state of sources and software that began within so long are of one night: the nightly one and its reruns.
NIGHT_S = 6 * 3600.0
# Of a figure, as a share: a run that is no more exact than that tells nothing.
LARGEST_ERROR = 1.0
MEASURED_IN: Mapping[Metric, str] = {
    "memory": "train",
    "s_per_iter": "train",
    "fps": "infer",
    "box_ap": "evaluate",
    "mask_ap": "evaluate",
}


@dataclass(frozen=True)
class NightRuns:
    """The runs of one night, oldest first."""

    runs: tuple[Summary, ...]

    def of(self, metric: Metric) -> Night:
        """Return the night as the rule judges it."""
        values = tuple(comparable(metric, run.figures[metric]) for run in self.runs)
        # Of what is compared by its logarithm a share is a difference.
        errors = [run.half_widths.get(metric, 0.0) / NORMAL_QUANTILE for run in self.runs if metric in RATES]
        return Night(values, min([*errors, LARGEST_ERROR]) if errors else 0.0)

    def typical(self, metric: Metric) -> Summary:
        """Return the run that is nearest to the night's value."""
        middle = self.of(metric).value
        return min(self.runs, key=lambda run: abs(comparable(metric, run.figures[metric]) - middle))


def incomparable(a: Summary, b: Summary, metric: Metric) -> list[str]:
    """Name what is not the same, and would have to be; empty where the figures of two runs can be compared."""
    return [name for name, value in COMPARABLE.items() if value(a, metric) != value(b, metric)]


def newest_alike(runs: Sequence[Summary], metric: Metric) -> list[Summary]:
    """Return those of some runs, oldest first, that can be compared with the newest of them."""
    return [run for run in runs if not incomparable(run, runs[-1], metric)]


def newest_by_model(runs: Sequence[Summary]) -> list[Summary]:
    """Return the newest run of every model, oldest first: a model that is evaluated again is no other training."""
    newest = {run.weights: run for run in runs}
    return [run for run in runs if run.weights is None or newest[run.weights] is run]


def of_one_state(runs: Sequence[Summary]) -> list[Summary]:
    """Return those of some runs, oldest first, that were made from the same sources as the newest of them.

    A change of the sources between runs that stand for one value would be taken for chance.
    """
    return [run for run in runs if _sources(run) == _sources(runs[-1])]


def counts(run: Summary, metric: Metric, cell: Cell) -> bool:
    """Tell whether a run's figure can be judged: there is one, and nothing has spoiled it.

    Noise spoils what was timed, also of a run that was kept in spite of it; not where the matrix has such runs marked,
    since there noise is what nights are like. AP it does not change.
    """
    if metric not in run.figures or run.status == "quarantined":
        return False
    return metric not in RATES or (run.figures[metric] > 0 and not run.spoiled_in(cell))


def is_exact(run: Summary, metric: Metric, check: Check) -> bool:
    """Tell whether a run's own interval is so narrow that a change could be seen against it."""
    return metric not in RATES or run.half_widths.get(metric, 0.0) <= widest(metric, check)


def is_evidence(run: Summary, metric: Metric, cell: Cell, check: Check) -> bool:
    """Tell whether a run's figure may be held against others, or they against it."""
    return counts(run, metric, cell) and is_exact(run, metric, check)


def by_night(runs: Iterable[Summary], *, each_alone: bool = False) -> tuple[NightRuns, ...]:
    """Put runs (oldest first) of one night together. `each_alone`: of AP, which has no reruns."""
    found: list[list[Summary]] = []
    for run in runs:
        if found and not each_alone and _of_one_night(found[-1][0], run):
            found[-1].append(run)
        else:
            found.append([run])
    return tuple(NightRuns(tuple(night)) for night in found)


def newest_night(runs: Sequence[Summary], metric: Metric) -> tuple[Summary, ...]:
    """Return the newest night whose runs were to give a figure for the metric. Some run must have been."""
    return by_night(run for run in runs if MEASURED_IN[metric] in run.phases)[-1].runs


def _of_one_night(first: Summary, run: Summary) -> bool:
    same_state = _state(first) == _state(run)
    return same_state and 0 <= run.started_unix_s - first.started_unix_s <= NIGHT_S


def _state(run: Summary) -> tuple[object, ...]:
    """Return what is one in a night; several seeds may be of one."""
    return (*_sources(run), run.recipe_sha256, run.driver, run.software)


def _sources(run: Summary) -> tuple[object, ...]:
    return run.commit, run.dirty, run.inputs
