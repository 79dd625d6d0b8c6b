"""Does the nightly check find what got worse, and nothing else? Against histories of which the truth is known.

The histories are those of benchmarks/histories.py, drawn from seeds that nothing was tuned on. The check sees what it
would see each night: the runs so far, and where it finds a cell suspicious, as many reruns of that night as
`check --confirm` would make. Prints and judges

- false alarms: of 8 cells by 4 metrics nothing changes for 365 nights, on so many machines; an alarm is a metric of a
  cell that is called regressed in a night. Fewer than one a month;
- a step of 3 % in s/iter, found within 2 nights in 95 % of cases, and one of 5 %, found the same night in 99 %;
- a drift of 1 % a week in s/iter, found before it has reached 5 % in 95 % of cases;
- a loss of 0.5 points of AP, found within 3 full runs in 95 % of cases;
- false alarms of 100 cells: fewer than one a month, as of eight.

Prints without judging: how many runs are made again, whether the night is named in which a step came, whether a search
for its commit is right, and alarms of newly trained AP. Exits with 1 for a miss.

    python benchmarks/detection_truth.py [--tune SEED]      # other seeds, for whoever changes the rule
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from histories import (
    CELLS,
    FINAL_SEEDS,
    METRICS,
    NIGHTS,
    Change,
    Floats,
    Metric,
    machine_drift,
    runs_of_nights,
    trained_aps,
)
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from find_commit import Search

from zoo_bench.matrix import Check
from zoo_bench.regression import Course, Judgement, Night
from zoo_bench.rules import comparable, rule_of

CONFIRM = 4
MACHINES, CASES = 100, 2000
SAID_CASES = 400
MANY_CELLS = 100
"""A larger zoo, each cell of which may be accused less often."""
EARLIEST, LATEST = 14, 300
"""Something changes in a night between these."""
DRIFT_NIGHTS = 35
"""A drift of 1 % a week has reached 5 % after these."""
ASKED_AFTER = 10
EARLY = (3, 8)
"""Nights after the accepted one in which little is known yet."""
SAID_AFTER, SAID_NIGHTS = 90, 30
"""So long after a step that nobody mends, and in so many nights, it is asked whether it is still said."""
SEARCH_STEPS = 7
"""What a search among 128 commits takes."""
WIDER_SEEDS = 7.0
"""Of a short recipe on a small dataset seeds are a point of AP apart, not 0.15."""
SEARCH_RUNS = 4
ACCEPTED_RUNS, FULL_RUNS, EARLIEST_LOSS = 5, 52, 5
"""Of full runs: accepted at first (`run --repeat 5`), made in a year, and before something is lost."""
POINT = 0.01
MONTH = 365 / 12
CHECK = Check()
LEVELS: dict[Metric, float] = {"memory": 6.0e9, "s_per_iter": 0.4, "fps": 12.0, "box_ap": 37.0}


@dataclass(frozen=True)
class Year:
    """What was said of a machine on which nothing changed: alarms, what was called better, and runs made again."""

    alarms: int
    improved: int
    reruns: int


def drawn(rng: np.random.Generator, metric: Metric, drift: Floats, change: Change | None = None) -> Floats:
    """Runs by night, in the units of records."""
    return runs_of_nights(rng, metric, drift, change, LEVELS[metric]) * (POINT if metric == "box_ap" else 1.0)


def values_of(runs: Floats, metric: Metric) -> Floats:
    """As the check compares them."""
    return np.vectorize(partial(comparable, metric))(runs)


def followed(cell: Mapping[Metric, Floats], cells: int = CELLS) -> Iterator[tuple[dict[Metric, Judgement], bool]]:
    """Check one of `cells` night after night; with each night's judgements, whether the cell was run again in it."""
    values = {metric: values_of(runs, metric) for metric, runs in cell.items()}
    courses = {
        metric: Course(rule_of(metric, CHECK, same_model=True, cells=cells), mine[0, : 1 + CONFIRM].tolist())
        for metric, mine in values.items()
    }
    for night in range(1, len(next(iter(values.values())))):
        again = any(courses[metric].look(Night((float(mine[night, 0]),))).suspicious for metric, mine in values.items())
        seen = {metric: Night(tuple(mine[night, : 1 + CONFIRM * again].tolist())) for metric, mine in values.items()}
        yield {metric: courses[metric].add(one) for metric, one in seen.items()}, again


def quiet_year(seed: int, cells: int = CELLS) -> Year:
    """So many cells on one machine, and nothing happens."""
    rng = np.random.default_rng(seed)
    drifts = {metric: machine_drift(rng) for metric in METRICS}
    alarms = improved = reruns = 0
    for _ in range(cells):
        cell = {metric: drawn(rng, metric, drifts[metric]) for metric in METRICS}
        for judged, again in followed(cell, cells):
            alarms += sum(one.direction == "regressed" for one in judged.values())
            improved += sum(one.direction == "improved" for one in judged.values())
            reruns += CONFIRM * again
    return Year(alarms, improved, reruns)


def nights_until_found(seed: int, step: float = 0.0, weekly: float = 0.0, cells: int = CELLS) -> int:
    """Let s/iter of one of `cells` get worse in some night; return the nights until that was said, 0 for the same."""
    rng = np.random.default_rng(seed)
    night = int(rng.integers(EARLIEST, LATEST))
    change = Change(night, step, weekly)
    until = min(NIGHTS, night + DRIFT_NIGHTS + 1)
    cell = {
        metric: drawn(rng, metric, machine_drift(rng), change if metric == "s_per_iter" else None)[:until]
        for metric in METRICS
    }
    said = [judged["s_per_iter"].direction == "regressed" for judged, _ in followed(cell, cells)]
    found = [place for place, accused in enumerate(said, start=1) if accused and place >= night]
    return found[0] - night if found else NIGHTS


def night_named(seed: int, step: float) -> int | None:
    """Let s/iter step up in some night, and ask ten nights later since when; how late that is, None: not accused."""
    rng = np.random.default_rng(seed)
    night = int(rng.integers(EARLIEST, LATEST))
    runs = drawn(rng, "s_per_iter", machine_drift(rng), Change(night, step))[: night + ASKED_AFTER]
    *_, (judged, _) = followed({"s_per_iter": runs})
    told = judged["s_per_iter"]
    return told.since + 1 - night if told.direction == "regressed" else None


def nights_said(seed: int, step: float, cells: int = CELLS, night: int | None = None) -> float:
    """Let s/iter step up, and nobody mend it; return which share of a month's nights say so, three months later.

    `night`: in which it comes, the accepted one being 0; None: in some.
    """
    rng = np.random.default_rng(seed)
    night = night or int(rng.integers(EARLIEST, NIGHTS - SAID_AFTER - SAID_NIGHTS))
    runs = drawn(rng, "s_per_iter", machine_drift(rng), Change(night, step))[: night + SAID_AFTER + SAID_NIGHTS]
    said = [judged["s_per_iter"].direction == "regressed" for judged, _ in followed({"s_per_iter": runs}, cells)]
    return float(np.mean(said[-SAID_NIGHTS:]))


def called_right(seed: int, step: float) -> bool | None:
    """Ask of a commit between two that are a step apart, as tools/find_commit.py does: of the ends in one night, of the
    commit in the next one.

    None: the ends were not told apart, and nothing was searched.
    """
    rng = np.random.default_rng(seed)
    ends, later = drawn(rng, "s_per_iter", machine_drift(rng))[:2]
    bad = bool(rng.integers(2))
    good_end, bad_end = ends[:SEARCH_RUNS], ends[SEARCH_RUNS : 2 * SEARCH_RUNS] * (1 + step)
    between = later[:SEARCH_RUNS] * (1 + step * bad)
    least = rule_of("s_per_iter", CHECK, same_model=False).least
    search = Search("", "", "", "", "s_per_iter", SEARCH_RUNS, least).between(good_end.tolist(), bad_end.tolist())
    return None if search is None else search.is_bad(float(np.median(between))) == bad


def trained_course(rng: np.random.Generator, lost_points: float, lost_at: int, wider: float = 1.0) -> list[bool]:
    """Say of every full run of a year whether it was accused. `wider`: how many times as far apart seeds are."""
    aps, more = trained_aps(rng, ACCEPTED_RUNS + FULL_RUNS, lost_points, ACCEPTED_RUNS + lost_at), 0.0
    if wider > 1:
        others = trained_aps(rng, ACCEPTED_RUNS + FULL_RUNS)
        more = np.sqrt(wider**2 - 1) * (others - others.mean())
    values = values_of((aps + more) * POINT, "box_ap").tolist()
    course = Course(rule_of("box_ap", CHECK, same_model=False), values[:ACCEPTED_RUNS])
    return [course.add(Night((value,))).direction == "regressed" for value in values[ACCEPTED_RUNS:]]


def runs_until_found(seed: int) -> int:
    """Let a cell lose half a point of AP at some full run; return how many runs that took to be said, 1 for at once."""
    rng = np.random.default_rng(seed)
    lost_at = int(rng.integers(EARLIEST_LOSS, FULL_RUNS - 3))
    accused = trained_course(rng, 0.5, lost_at)[lost_at:]
    return accused.index(True) + 1 if any(accused) else FULL_RUNS


def quiet_full_runs(seed: int, wider: float = 1.0) -> int:
    """A year of weekly full runs of eight cells in which nothing happens; returns alarms."""
    rng = np.random.default_rng(seed)
    return sum(sum(trained_course(rng, 0.0, FULL_RUNS, wider)) for _ in range(CELLS))


@dataclass(frozen=True)
class Line:
    """A line of the table. `met`: None where nothing is asked."""

    what: str
    found: str
    asked: str
    met: bool | None


def share(counts: Iterable[int], most: int) -> float:
    """How many of these are no more than `most`, as a share."""
    counts = list(counts)
    return sum(count <= most for count in counts) / len(counts)


def at_least(what: str, counts: Iterable[int], most: int, asked: float) -> Line:
    """A line for a share that must be reached."""
    found = share(counts, most)
    return Line(what, f"{found:.2%}", f"at least {asked:.0%}", found >= asked)


def table(first: int, pool: ProcessPoolExecutor) -> Iterator[Line]:
    """Make the table from seeds that begin with `first`."""
    cases, machines = range(first, first + CASES), range(first, first + MACHINES)
    years = list(pool.map(quiet_year, machines, chunksize=4))
    alarms = sum(year.alarms for year in years) / (MACHINES * 12)
    yield Line("false alarms a month, 8 cells by 4 metrics", f"{alarms:.2f}", "fewer than 1", alarms < 1)
    improved = sum(year.improved for year in years) / (MACHINES * 12)
    yield Line("called better by chance, a month", f"{improved:.2f}", "", None)
    reruns = sum(year.reruns for year in years) / (MACHINES * (NIGHTS - 1))
    yield Line("runs made again a night, of 8 cells", f"{reruns:.2f}", "", None)
    three = list(pool.map(partial(nights_until_found, step=0.03), cases, chunksize=20))
    yield Line("a step of 3 %, the same night", f"{share(three, 0):.2%}", "", None)
    yield at_least("a step of 3 %, within 2 nights", three, 1, 0.95)
    named = list(pool.map(partial(night_named, step=0.03), cases, chunksize=20))
    right = sum(late is not None and abs(late) <= 1 for late in named) / len(named)
    what = f"a step of 3 %, {ASKED_AFTER} nights later: said, and of its night or one beside it"
    yield Line(what, f"{right:.2%}", "", None)
    for step, cells in ((0.03, CELLS), (0.05, MANY_CELLS)):
        still = np.mean(list(pool.map(partial(nights_said, step=step, cells=cells), cases[:SAID_CASES], chunksize=10)))
        what = f"a step of {step * 100:.0f} % of one of {cells} cells, not mended"
        yield Line(f"{what}: nights that say so three months later", f"{still:.2%}", "", None)
    for night in EARLY:
        still = np.mean(list(pool.map(partial(nights_said, step=0.03, night=night), cases[:SAID_CASES], chunksize=10)))
        what = f"a step of 3 % of one of {CELLS} cells, in night {night} after the accepted one: the same"
        yield Line(what, f"{still:.2%}", "", None)
    same = list(pool.map(partial(called_right, step=0.0), cases, chunksize=100))
    mistaken = sum(right is not None for right in same) / len(same)
    yield Line("equal ends, taken for apart by tools/find_commit.py", f"{mistaken:.2%}", "", None)
    searched = list(pool.map(partial(called_right, step=0.03), cases, chunksize=100))
    apart = [right for right in searched if right is not None]
    yield Line("ends 3 % apart, told apart by it", f"{len(apart) / len(searched):.2%}", "", None)
    one = sum(apart) / len(apart)
    yield Line("a commit between them, called right", f"{one:.2%}", "", None)
    yield Line(f"{SEARCH_STEPS} of them in a row, for 128 commits", f"{one**SEARCH_STEPS:.2%}", "", None)
    many = list(pool.map(partial(quiet_year, cells=MANY_CELLS), machines[: MACHINES * CELLS // MANY_CELLS]))
    alarms = sum(year.alarms for year in many) / (len(many) * 12)
    yield Line(f"false alarms a month, {MANY_CELLS} cells by 4 metrics", f"{alarms:.2f}", "fewer than 1", alarms < 1)
    among = list(pool.map(partial(nights_until_found, step=0.05, cells=MANY_CELLS), cases, chunksize=20))
    yield Line(f"a step of 5 % of one of {MANY_CELLS} cells, within 2 nights", f"{share(among, 1):.2%}", "", None)
    five = pool.map(partial(nights_until_found, step=0.05), cases, chunksize=20)
    yield at_least("a step of 5 %, the same night", five, 0, 0.99)
    drift = list(pool.map(partial(nights_until_found, weekly=0.01), cases, chunksize=20))
    yield at_least("1 % a week, before 5 %", drift, DRIFT_NIGHTS - 1, 0.95)
    yield Line("1 % a week, median nights", f"{np.median(drift):.0f}", "", None)
    lost = pool.map(runs_until_found, cases, chunksize=100)
    yield at_least("0.5 points of AP, within 3 full runs", lost, 3, 0.95)
    trained = sum(pool.map(quiet_full_runs, machines, chunksize=4)) / (MACHINES * 12)
    yield Line("false alarms a month of newly trained AP, weekly", f"{trained:.2f}", "", None)
    wide = sum(pool.map(partial(quiet_full_runs, wider=WIDER_SEEDS), machines, chunksize=4)) / (MACHINES * 12)
    yield Line("the same where seeds are seven times as far apart", f"{wide:.2f}", "", None)


def main() -> int:
    """Print the table; 1 where something is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", type=int, metavar="SEED", help="begin with this seed; it must not be a final one")
    chosen = parser.parse_args().tune
    if chosen is not None and chosen + CASES > FINAL_SEEDS:
        parser.error(f"seeds from {FINAL_SEEDS} on are for the final table")
    with ProcessPoolExecutor() as pool:
        lines = list(table(FINAL_SEEDS if chosen is None else chosen, pool))
    rows = [(one.what, one.found, one.asked, {None: "", True: "met", False: "MISSED"}[one.met]) for one in lines]
    print(tabulate(rows, headers=("", "found", "asked", ""), disable_numparse=True))
    return int(any(one.met is False for one in lines))


if __name__ == "__main__":
    sys.exit(main())
