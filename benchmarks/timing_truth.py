"""Are s/iter and its 95 % interval right? Against simulated runs of which the truth is known.

The runs are those of tests/simulated_node/runs.py, drawn from seeds that nothing was tuned on; the rule gets the events
alone, as a worker writes them, half of them late. It must cut most of the warm-up by itself: only 10 iterations are cut
without asking. Prints and judges

- the error of s/iter in 100 runs of 10,000 iterations with jitter, compilation, decay, checkpoints and evaluations,
  against what the run's own iterations took without these: at most 1 % in every run;
- how often the interval holds the mean that the jitter was drawn around: 93 to 97 % of 1,000 runs of 400 to 4,000
  iterations, with nothing but the jitter, and with all of the above.

Prints without judging: the error against the mean that the jitter was drawn around, which has in it what chance put
into the run; and how good the runs are that are stopped when the interval is within 1 %. Exits with 1 for a miss.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from simulated_node.runs import SimulatedRun, iterations, write_events

from zoo_bench.events import Event, EventReader
from zoo_bench.measurements import TrainTiming
from zoo_bench.steady import steady_state
from zoo_bench.timing import PrecisionWatch, train_timing

FIRST_SEED = 1_000_000
LEAST_WARMUP = 10
HALF_WIDTH = 0.01
LARGEST_ERROR = 0.01
LEAST_COVERED, MOST_COVERED = 0.93, 0.97


@dataclass(frozen=True)
class Judged:
    """One run. Errors are relative: to the run's own steady state, and to the mean it was drawn around.

    `covered`: the interval holds that mean. `stopped_after`: iterations; None where nothing stopped it.
    """

    own_error: float
    error: float
    covered: bool
    stopped_after: int | None


def events_of(run: SimulatedRun) -> list[Event]:
    """What the harness reads of the run."""
    with tempfile.TemporaryDirectory() as folder:
        return EventReader(write_events(Path(folder) / "events.jsonl", run.events)).read()


def timed(events: list[Event]) -> TrainTiming:
    """Summarise; every run here is long enough for an interval."""
    found = train_timing(events, steady_state(events, LEAST_WARMUP), schedule=len(events), half_width=None)
    assert found is not None
    return found


def until_stopped(events: list[Event]) -> tuple[list[Event], int | None]:
    """Return the events up to where the watch stops the run, and how many iterations that took."""
    watch = PrecisionWatch(LEAST_WARMUP, HALF_WIDTH)
    for place, event in enumerate(events):
        if watch.see(event):
            return events[: place + 1], int(event.number("iteration"))
    return events, None


def judge(seed: int, count: int | None, extras: bool, watched: bool) -> Judged:
    """Draw one run, time it and compare."""
    late = bool(seed % 2)
    run = iterations(seed, count=count, warmup=extras, checkpoints=extras, evaluations=extras, late=late)
    events, stopped_after = until_stopped(events_of(run)) if watched else (events_of(run), None)
    found = timed(events)
    assert found.interval is not None
    own_s = float(np.mean(run.course.times_s - run.course.excess_s))
    return Judged(
        own_error=abs(found.mean_s / own_s - 1),
        error=abs(found.mean_s / run.mean_s - 1),
        covered=found.interval.low <= run.mean_s <= found.interval.high,
        stopped_after=stopped_after,
    )


def draw(
    first: int, runs: int, *, count: int | None = None, extras: bool = True, watched: bool = False
) -> list[Judged]:
    """Judge runs of consecutive seeds, on all processors."""
    task = partial(judge, count=count, extras=extras, watched=watched)
    with ProcessPoolExecutor() as pool:
        return list(pool.map(task, range(first, first + runs), chunksize=10))


def error_row(title: str, truth: str, errors: Sequence[float], limit: float | None = None) -> list[str]:
    """Format quantiles of relative errors."""
    quantiles = [f"{100 * value:.3f}" for value in np.quantile(errors, (0.5, 0.95, 1.0))]
    return [title, truth, *quantiles, f"{100 * limit:g}" if limit else ""]


def coverage_row(title: str, runs: Sequence[Judged], limits: str = "") -> list[str]:
    """Format how many intervals cover the truth."""
    return [title, f"{100 * covered(runs):.1f}", limits]


def covered(runs: Sequence[Judged]) -> float:
    """Share of the intervals that hold the mean that the run was drawn around."""
    return float(np.mean([run.covered for run in runs]))


def main() -> int:
    """Print the tables; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="another one for work on the rule")
    first = parser.parse_args().first_seed
    long = draw(first, 100, count=10_000)
    bare, full = draw(first + 1000, 1000, extras=False), draw(first + 2000, 1000)
    stopped = [run for run in draw(first + 3000, 1000, count=4000, watched=True) if run.stopped_after]
    median = np.median([run.stopped_after for run in stopped])
    of_stopped = f"{len(stopped)} of 1,000 runs stopped at 1 %, after {median:.0f} iterations (median)"
    errors = [
        error_row("100 runs of 10,000", "the run's own", [run.own_error for run in long], LARGEST_ERROR),
        error_row("100 runs of 10,000", "the drawn mean", [run.error for run in long]),
        error_row(of_stopped, "the drawn mean", [run.error for run in stopped]),
    ]
    coverage = [
        coverage_row("1,000 runs, jitter alone", bare, "93 to 97"),
        coverage_row("1,000 runs, with warm-up and pauses", full, "93 to 97"),
        coverage_row(of_stopped, stopped),
    ]
    headers = ["s/iter", "truth", "median error %", "95 % below", "largest %", "limit %"]
    print(tabulate(errors, headers=headers, tablefmt="pipe", disable_numparse=True))
    print()
    print(tabulate(coverage, headers=["95 % interval", "covers %", "limits %"], tablefmt="pipe", disable_numparse=True))
    passed = max(run.own_error for run in long) <= LARGEST_ERROR
    passed = passed and all(LEAST_COVERED <= covered(runs) <= MOST_COVERED for runs in (bare, full))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
