"""`zoo-bench show CELL --history`: each metric night by night, and where its level changed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import plotext
from rich.console import Console
from rich.text import Text

from zoo_bench.compare import unlike
from zoo_bench.display import plain_table, table_console
from zoo_bench.errors import EXIT_OK, ConfigError
from zoo_bench.findings import change_text, commit_of
from zoo_bench.history import FEWEST_NIGHTS, levels, nights_of, span, value_of
from zoo_bench.lookup import find_cell, find_run, not_found
from zoo_bench.nights import NightRuns
from zoo_bench.provenance import machine_text
from zoo_bench.rules import METRICS, Metric, change_of, figure_of
from zoo_bench.session import Asked, Session
from zoo_bench.text import one_line
from zoo_bench.units import SHORT_HEADS, shown, written

HEIGHT, TICKS = 12, 4
LEAST_MARGIN = 0.01
WIDE = 80  # characters, in which a run's id has a place too


def history(asked: Asked, word: str, *, as_json: bool) -> int:
    """Draw every metric of a cell, and list the changes of its level with what else changed there."""
    session = Session.open(asked)
    run = find_run(word, session.runs.summaries)
    if run is not None:
        raise ConfigError(f"--history is of a cell, and {word} is a run", f"zoo-bench show {run.cell_id} --history")
    found = find_cell(word, session.matrix, asked.profile)
    if found is None:
        raise not_found(word, session.matrix, asked.profile, session.runs.summaries)
    every = [run for run in session.runs.of(found.cell.id).summaries if run.profile == found.profile]
    machine = session.only_machine or next((run.machine for run in reversed(every)), None)
    runs = [run for run in every if run.machine == machine]
    nights = {metric: nights_of(found.cell, runs, found.profile, metric) for metric in METRICS}
    told = {metric: mine for metric, mine in nights.items() if len(mine) >= FEWEST_NIGHTS}
    if not told:
        raise ConfigError(
            f"{found.cell.id}: fewer than {FEWEST_NIGHTS} nights of profile {found.profile} can be compared",
            "zoo-bench run --force measures once more",
        )
    if as_json:
        print(json.dumps({metric: _as_json(session, metric, mine) for metric, mine in told.items()}, indent=2))
        return EXIT_OK
    console = table_console()
    first, *others = (one_line(machine_text(key)) for key in dict.fromkeys(run.machine for run in (*runs, *every)))
    console.print(Text(f"{found.cell.id}, profile {found.profile}, on {first}", style="bold"))
    if others:
        console.print(Text(f"also run on {'; '.join(others)}: add --machine"), soft_wrap=True)
    for metric, mine in told.items():
        _draw(console, metric, mine)
        _print_changes(console, session, metric, mine)
    return EXIT_OK


def _as_json(session: Session, metric: Metric, nights: Sequence[NightRuns]) -> list[dict[str, Any]]:
    """Return the nights in base units; `step` is true of the first night of a new level."""
    steps = set(levels(nights, metric, session.matrix.check)[1:])
    return [
        {
            "value": value_of(night, metric),
            "step": place in steps,
            "commit": night.runs[0].commit,
            "started_unix_s": night.runs[0].started_unix_s,
            "runs": [run.run_id for run in night.runs],
        }
        for place, night in enumerate(nights)
    ]


def _draw(console: Console, metric: Metric, nights: Sequence[NightRuns]) -> None:
    values = [shown(metric, value_of(night, metric)) for night in nights]
    ticks = sorted({round(tick) for tick in np.linspace(0, len(nights) - 1, TICKS)})
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(min(console.width, 100), HEIGHT)
    plotext.scatter(list(range(len(values))), values, marker="dot")
    plotext.ylim(*span(values, LEAST_MARGIN))
    plotext.xticks(ticks, [_day(nights[tick]) for tick in ticks])
    plotext.title(f"{SHORT_HEADS[metric]}, night by night")
    print()
    print(plotext.uncolorize(plotext.build()))


def _day(night: NightRuns) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(night.runs[0].started_unix_s))


def _print_changes(console: Console, session: Session, metric: Metric, nights: Sequence[NightRuns]) -> None:
    values = [night.of(metric).value for night in nights]
    ends = levels(nights, metric, session.matrix.check)
    middles = [figure_of(metric, median(values[begin:end])) for begin, end in pairwise(ends)]
    table = plain_table()
    heads = ("level", "change", "nights", "from", "commit", "run")
    for head in heads if console.width >= WIDE else heads[:-1]:
        table.add_column(head, justify="right" if head in ("level", "change", "nights") else "left", no_wrap=True)
    for place, (begin, end) in enumerate(pairwise(ends)):
        first = nights[begin].runs[0]
        change = change_text(metric, change_of(metric, middles[place - 1], middles[place])) if place else ""
        level = written(metric, middles[place], more_digits=1)
        entries = [level, change, str(end - begin), _day(nights[begin]), commit_of(first), first.run_id]
        table.add_row(*entries[: len(table.columns)])
    console.print(table)
    for begin in ends[1:-1]:
        _print_step(console, session, nights[begin - 1], nights[begin])


def _print_step(console: Console, session: Session, before: NightRuns, after: NightRuns) -> None:
    last, first = before.runs[-1], after.runs[0]
    between = f"{commit_of(last) or last.run_id}..{commit_of(first) or first.run_id}"
    differences = unlike(session.runs.read(last), session.runs.read(first))
    console.print(Text(f"between {between}:"))
    for text in differences or ["nothing else that the records hold"]:
        console.print(Text(f"  - {one_line(text)}"), soft_wrap=True)
