"""`zoo-bench status`: the newest run of every cell."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from zoo_bench.display import format_s, plain_table, short_names, table_console
from zoo_bench.errors import EXIT_OK
from zoo_bench.figures import figure
from zoo_bench.record import Record
from zoo_bench.session import Asked, Session
from zoo_bench.table import Column
from zoo_bench.units import written

STYLE = {"succeeded": "green", "interrupted": "yellow", "quarantined": "yellow"}


def status(asked: Asked) -> int:
    """Print a table of the chosen cells, each with its newest run."""
    session = Session.open(asked)
    newest = {record.cell_id: record for record in session.contents.records}
    print_runs([(cell.id, newest.get(cell.id)) for cell in session.cells])
    return EXIT_OK


def print_runs(runs: Sequence[tuple[str, Record | None]]) -> None:
    """Print runs as a table of status and figures, then why each failed one failed and where its log is."""
    console, table, failed = table_console(), plain_table(), list[Record]()
    table.add_column("cell", no_wrap=True)
    for head in ("status", "took", "s/iter", "fps", "box AP", "mask AP"):
        table.add_column(head, no_wrap=True, justify="left" if head == "status" else "right")
    names = short_names([cell_id for cell_id, _ in runs])
    for cell_id, record in runs:
        if record is None:
            table.add_row(names[cell_id], Text("never run", style="dim"))
            continue
        status = Text(record.status, style=STYLE.get(record.status, "red"))
        table.add_row(names[cell_id], status, format_s(record.duration_s), *_figures(record))
        if record.status != "succeeded":
            failed.append(record)
    console.print(table)
    for record in failed:
        console.print(Text(f"{record.cell_id}: {record.status}: {record.reason}\n    log: {record.files['log']}"))


def _figures(record: Record) -> list[str]:
    columns: tuple[Column, ...] = ("s_per_iter", "fps", "box_ap", "mask_ap")
    return [written(column, figure(column, record).value) for column in columns]
