"""`zoo-bench status`: the newest run of every cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.text import Text

from zoo_bench.display import format_s, plain_table, table_console
from zoo_bench.errors import EXIT_OK
from zoo_bench.figures import figure
from zoo_bench.noise import describe
from zoo_bench.record import Record
from zoo_bench.session import Asked, Session
from zoo_bench.table import Column
from zoo_bench.units import written

STYLE = {"succeeded": "green", "interrupted": "yellow", "quarantined": "yellow"}


def status(asked: Asked) -> int:
    """Print a table of the chosen cells, each with its newest run."""
    session = Session.open(asked)
    # That something was published later changes no figure; that it could not be is the newest there is to tell.
    told = (record for record in session.contents.records if record.measured or record.status != "succeeded")
    newest = {record.cell_id: record for record in told}
    print_runs([(cell.id, newest.get(cell.id)) for cell in session.cells], session.name)
    return EXIT_OK


def print_runs(runs: Sequence[tuple[str, Record | None]], name: Callable[[str], str]) -> None:
    """Print runs as a table of status and figures, then why each failed or is noisy, and where its log is.

    `name` is how the table calls a cell.
    """
    console, table = table_console(), plain_table()
    table.add_column("cell", no_wrap=True)
    for head in ("status", "took", "s/iter", "fps", "box AP", "mask AP"):
        table.add_column(head, no_wrap=True, justify="left" if head == "status" else "right")
    for cell_id, record in runs:
        if record is None:
            table.add_row(name(cell_id), Text("never run", style="dim"))
            continue
        table.add_row(name(cell_id), _status(record), format_s(record.duration_s), *_figures(record))
    console.print(table)
    for _, record in runs:
        for line in _told(record) if record is not None else ():
            console.print(Text(line))


def _marked_noisy(record: Record) -> bool:
    """A quarantined run has its noise for a reason: no need to say it twice."""
    return bool(record.noise) and record.status != "quarantined"


def _status(record: Record) -> Text:
    noisy = _marked_noisy(record)
    style = "yellow" if noisy and record.status == "succeeded" else STYLE.get(record.status, "red")
    return Text(f"{record.status}, noisy" if noisy else record.status, style=style)


def _told(record: Record) -> Iterator[str]:
    if record.status != "succeeded":
        yield f"{record.cell_id}: {record.status}: {record.reason}\n    log: {record.files['log']}"
    if _marked_noisy(record):
        yield f"{record.cell_id}: noisy: {describe(record.noise)}"


def _figures(record: Record) -> list[str]:
    columns: tuple[Column, ...] = ("s_per_iter", "fps", "box_ap", "mask_ap")
    return [written(column, figure(column, record).value) for column in columns]
