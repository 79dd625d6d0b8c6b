"""`zoo-bench plan`, and what `run --dry-run` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from zoo_bench.cell import Cell
from zoo_bench.display import plain_table, table_console
from zoo_bench.errors import EXIT_OK
from zoo_bench.plan import PlannedCell
from zoo_bench.scaling import base_batch_of
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
    for line in dict.fromkeys(line for cell in planned for line in _scaled(cell.cell)):
        console.print(line, markup=False, soft_wrap=True)
    left = sum(not cell.fresh for cell in planned)
    console.print(
        f"{left} of {len(planned)} would run; results in {session.workspace.results}", markup=False, soft_wrap=True
    )
    return EXIT_OK


def _scaled(cell: Cell) -> Iterator[str]:
    """Say what another batch than the recipe's does to the training."""
    batch, base = cell.batch_size, base_batch_of(cell.resolved())
    if base is not None:
        yield (
            f"{batch} images an iteration in place of the recipe's {base}: learning rate x {batch / base:.4g}, "
            f"iterations x {base / batch:.4g}"
        )
