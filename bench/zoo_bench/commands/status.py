"""`zoo-bench status`: the newest run of every cell, and who runs one just now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from zoo_bench.columns import Column
from zoo_bench.display import format_s, plain_table, table_console
from zoo_bench.errors import EXIT_OK, ZooBenchError
from zoo_bench.executors.slurm.places import Place, places
from zoo_bench.figures import figure
from zoo_bench.locks import holder, is_held
from zoo_bench.noise import describe
from zoo_bench.record import Record
from zoo_bench.session import Asked, Session
from zoo_bench.streams import heard
from zoo_bench.units import written

WATCH_S = 2.0
HEAD_LINES = 3  # of the table, and the line that counts what is not shown
STYLE = {"succeeded": "green", "interrupted": "yellow", "quarantined": "yellow"}


def status(asked: Asked, *, watch: bool = False) -> int:
    """Print a table of the chosen cells, each with its newest run; with `watch`, again and again until Ctrl-C."""
    session = Session.open(asked)
    if not watch:
        _print(table_console(), *_state(session))
        return EXIT_OK
    console = table_console()
    if not console.is_terminal:
        while heard():
            _print(console, *_watched(asked, None), "")
            time.sleep(WATCH_S)
        return EXIT_OK
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(Group(*_watched(asked, Screen(console, console.height))), refresh=True)
            time.sleep(WATCH_S)


@dataclass(frozen=True)
class Screen:
    """A terminal, and how many of its lines are free."""

    console: Console
    height: int

    def lines(self, texts: Iterable[str]) -> int:
        """Return how many lines texts take there."""
        return sum(len(Text(text).wrap(self.console, self.console.width)) for text in texts)


def _watched(asked: Asked, screen: Screen | None) -> list[RenderableType]:
    """Return one look at the store, with what is wrong with it: files may come and go while somebody watches."""
    warnings: list[str] = []
    session = Session.open(asked, warn=warnings.append)
    try:
        if session.cells and session.runs and screen:  # all that warns has been looked at
            screen = replace(screen, height=screen.height - screen.lines(warnings))
        told = _state(session, screen)
    except ZooBenchError as error:
        return [Text(error.message)]
    return [*(Text(warning) for warning in warnings), *told]


def print_runs(records: Sequence[Record], name: Callable[[str], str]) -> None:
    """Print runs as a table of status and figures, then why each failed or is noisy, and where its log is.

    `name` is how the table calls a cell.
    """
    _print(table_console(), *_table([Line(record.cell_id, record) for record in records], name))


@dataclass(frozen=True)
class Line:
    """A cell's line. `tries`: its runs so far, where that is told. `place`: where it is just now, None for nowhere.

    `unpublished`: the run that was to publish it, and could not.
    """

    cell_id: str
    record: Record | None
    unpublished: Record | None = None
    tries: int | None = None
    place: Place | None = None


def _state(session: Session, screen: Screen | None = None) -> list[RenderableType]:
    """Return the table, what is told below it, and above it who runs what; of that what fits on `screen`."""
    lines = []
    on_cluster = places(session.workspace, session.profile)
    for cell in session.cells:
        runs = session.runs.of(cell.id)
        measured = [run for run in runs.summaries if run.measured]
        newest = runs.read(measured[-1]) if measured else None
        upload = next((run for run in reversed(runs.summaries) if not run.measured), None)
        failed = runs.read(upload) if upload and upload.status != "succeeded" else None
        lines.append(Line(cell.id, newest, failed, len(measured), _place(session, cell.id, on_cluster)))
    if screen is None:
        return _table(lines, session.name)
    chosen = _most_telling(lines, screen)
    left_out = Counter(_state_of(line).plain for line in lines if line.cell_id not in chosen)
    rest = ", ".join(f"{count} {state}" for state, count in left_out.items())
    table = _table([line for line in lines if line.cell_id in chosen], session.name)
    return [*table, *([Text(f"and {rest}", style="dim")] if rest else [])]


def _most_telling(lines: Sequence[Line], screen: Screen) -> set[str]:
    """Return the ids of the cells that fit: first of all those that run, then those that went wrong."""
    left, chosen = screen.height - HEAD_LINES, set[str]()
    for line in sorted(lines, key=_interest):
        left -= 1 + screen.lines([*_told(line), *_where(line)])
        if left < 0:
            break
        chosen.add(line.cell_id)
    return chosen


def _interest(line: Line) -> int:
    if line.place:
        return 0 if line.place.state == "running" else 1
    if line.record is None:
        return 4
    return 3 if line.record.status == "succeeded" and not line.unpublished else 2


def _place(session: Session, cell_id: str, on_cluster: Mapping[str, Place]) -> Place | None:
    """Return where a cell is: what the cluster says, or who holds its lock, of this machine or another."""
    path = session.store.cell_lock(cell_id)
    queued = on_cluster.get(cell_id)
    if queued is None and path.exists() and is_held(path):
        return Place("running", holder(path))
    return queued


def _table(lines: Sequence[Line], name: Callable[[str], str]) -> list[RenderableType]:
    table = plain_table()
    table.add_column("cell", overflow="fold")  # what gives way where a terminal is narrow: figures stay whole
    told_tries = any(line.tries is not None for line in lines)
    heads = ["status", *(["runs"] if told_tries else []), "took", "s/iter", "fps", "box AP", "mask AP"]
    for head in heads:
        table.add_column(head, no_wrap=True, justify="left" if head == "status" else "right")
    for line in lines:
        tries = [str(line.tries)] if told_tries else []
        record = line.record
        state = _state_of(line)
        figures = [format_s(record.duration_s), *_figures(record)] if record and not line.place else []
        table.add_row(name(line.cell_id), state, *tries, *figures)
    running = [Text(where) for line in lines for where in _where(line)]
    return [*running, table, *(Text(text) for line in lines for text in _told(line))]


def _where(line: Line) -> list[str]:
    return [f"{line.cell_id}: {line.place.state}: {line.place.told}"] if line.place else []


def _state_of(line: Line) -> Text:
    if line.place:
        return Text(line.place.state, style="cyan")
    state = _status(line.record)
    return Text(f"{state.plain}, not published", style="yellow") if line.unpublished else state


def _print(console: Console, *parts: RenderableType) -> None:
    for part in parts:
        console.print(part)


def _marked_noisy(record: Record) -> bool:
    """A quarantined run has its noise for a reason: no need to say it twice."""
    return bool(record.noise) and record.status != "quarantined"


def _status(record: Record | None) -> Text:
    if record is None:
        return Text("never run", style="dim")
    noisy = _marked_noisy(record)
    style = "yellow" if noisy and record.status == "succeeded" else STYLE.get(record.status, "red")
    return Text(f"{record.status}, noisy" if noisy else record.status, style=style)


def _told(line: Line) -> Iterator[str]:
    record = line.record
    if record is None or line.place:
        return
    if line.unpublished:
        yield f"{line.cell_id}: {line.unpublished.status}: {line.unpublished.reason}"
    if record.status != "succeeded":
        yield f"{record.cell_id}: {record.status}: {record.reason}\n    log: {record.files['log']}"
    if _marked_noisy(record):
        yield f"{record.cell_id}: noisy: {describe(record.noise)}"


def _figures(record: Record) -> list[str]:
    columns: tuple[Column, ...] = ("s_per_iter", "fps", "box_ap", "mask_ap")
    return [written(column, figure(column, record).value) for column in columns]
