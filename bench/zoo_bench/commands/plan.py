"""`zoo-bench plan`, and what `run --dry-run` shows."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from zoo_bench.display import plain_table, table_console
from zoo_bench.errors import EXIT_OK
from zoo_bench.plan import PlannedCell
from zoo_bench.session import Asked, Session


def plan(asked: Asked) -> int:
    """Print the plan."""
    session = Session.open(asked)
    return print_plan(session, session.plan())


def print_plan(session: Session, planned: Sequence[PlannedCell]) -> int:
    """Print a table of the cells: what is fresh, what would run, and why."""
    table = plain_table(f"profile {session.profile}: {len(planned)} cells")
    table.add_column("cell", no_wrap=True)
    table.add_column("would run", no_wrap=True)
    table.add_column("why", overflow="fold")
    for cell in planned:
        phases = Text("fresh", style="green") if cell.fresh else Text(", ".join(cell.phases), style="bold")
        table.add_row(Text(session.name(cell.cell.id)), phases, Text(cell.reason))
    console = table_console()
    console.print(table)
    left = sum(not cell.fresh for cell in planned)
    console.print(
        f"{left} of {len(planned)} would run; results in {session.workspace.results}", markup=False, soft_wrap=True
    )
    return EXIT_OK
