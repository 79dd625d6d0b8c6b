"""`zoo-bench plan`, and what `run --dry-run` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from zoo_bench.cell import Cell
from zoo_bench.costs import UNKNOWN, Cost, costs, total
from zoo_bench.display import format_s, plain_table, table_console
from zoo_bench.errors import EXIT_OK
from zoo_bench.plan import PlannedCell
from zoo_bench.published import load_published
from zoo_bench.scaling import base_batch_of
from zoo_bench.session import Asked, Session
from zoo_bench.units import hours

NO_COST = ("", "", "")


def plan(asked: Asked) -> int:
    """Print the plan."""
    session = Session.open(asked)
    return print_plan(session, session.plan())


def print_plan(session: Session, planned: Sequence[PlannedCell]) -> int:
    """Print a table of the cells: what is fresh, what would run, what that is expected to cost, and why."""
    table = plain_table(f"profile {session.profile}: {len(planned)} cells")
    table.add_column("cell", no_wrap=True)
    table.add_column("would run", no_wrap=True)
    table.add_column("GPU-hours", justify="right", no_wrap=True)
    table.add_column("wall time", justify="right", no_wrap=True)
    table.add_column("expected from", overflow="fold")
    table.add_column("why", overflow="fold")
    expected = expected_costs(session, planned)
    by_cell = {cost.cell_id: _written(cost) for cost in expected}
    for cell in planned:
        phases = Text("fresh", style="green") if cell.fresh else Text(", ".join(cell.phases), style="bold")
        cost = by_cell.get(cell.cell.id, NO_COST) if cell.worker_phases else NO_COST
        table.add_row(Text(session.name(cell.cell.id)), phases, *map(Text, cost), Text(cell.reason))
    console = table_console()
    console.print(table)
    for line in dict.fromkeys(line for cell in planned for line in _scaled(cell.cell)):
        console.print(line, markup=False, soft_wrap=True)
    if expected:
        console.print(_summed(expected), markup=False, soft_wrap=True)
    left = sum(not cell.fresh for cell in planned)
    console.print(
        f"{left} of {len(planned)} would run; results in {session.workspace.results}", markup=False, soft_wrap=True
    )
    return EXIT_OK


def expected_costs(session: Session, planned: Sequence[PlannedCell]) -> tuple[Cost, ...]:
    """Return what the cells that are left will cost; this machine and what was published are looked at where needed."""
    left = [cell for cell in planned if cell.worker_phases]
    if not left:
        return ()
    zoos = load_published()[0] if any(cell.cell.gpus for cell in left) else ()
    return costs(left, session.runs, session.machine_key, zoos, session.matrix.target.gpu)


def _written(cost: Cost) -> tuple[str, str, str]:
    left_out = f", without {' and '.join(cost.without)}" if cost.without else ""
    gpu_hours = UNKNOWN if cost.gpu_s is None else hours(cost.gpu_s)
    return gpu_hours, format_s(cost.wall_s), f"{cost.source}{left_out}"


def _summed(expected: Sequence[Cost]) -> str:
    """Write what all cells will cost, and what is not in that."""
    found = total(expected)
    if found.unknown == len(expected):
        return "expected: ?; nothing like it has been run or published"
    missing = [f"{phase} of {count}" for phase, count in found.without.items()]
    missing += [f"all of {found.unknown}, of which nothing is known"] if found.unknown else []
    told = f"expected: {hours(found.gpu_s)} GPU-hours, {format_s(found.wall_s)} one cell after another"
    return f"{told}; not included, of {len(expected)} cells: {', '.join(missing)}" if missing else told


def _scaled(cell: Cell) -> Iterator[str]:
    """Say what another batch than the recipe's does to the training."""
    batch, base = cell.batch_size, base_batch_of(cell.resolved())
    if base is not None:
        yield (
            f"{batch} images an iteration in place of the recipe's {base}: learning rate x {batch / base:.4g}, "
            f"iterations x {base / batch:.4g}"
        )
