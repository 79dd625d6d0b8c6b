"""`zoo-bench run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rich.console import Console

from zoo_bench import preflight
from zoo_bench.benches import make_runner, make_setting, prepare_benches
from zoo_bench.commands.plan import expected_costs, print_plan
from zoo_bench.commands.status import print_runs
from zoo_bench.display import Pace, make_display
from zoo_bench.errors import (
    EXIT_CELL_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_QUARANTINED,
)
from zoo_bench.interrupts import Interrupted
from zoo_bench.machine import describe_machine
from zoo_bench.plan import PlannedCell
from zoo_bench.record import Record
from zoo_bench.recorder import Setting
from zoo_bench.runner import Bench
from zoo_bench.session import Asked, Session
from zoo_bench.trial import Trials, refuse, try_cells, unreachable, wanted

Executor = Literal["local", "slurm"]


def run(asked: Asked, *, dry_run: bool, trial: bool = True, executor: Executor = "local") -> int:
    """Run the plan; 0 when every cell that was run succeeded. With `trial`, long cells are tried first.

    1 when one did not, 5 when one stayed quarantined and none did worse, 130 after Ctrl-C.
    """
    session = Session.open(asked)
    if executor == "slurm":
        from zoo_bench.executors.slurm import start  # submitit is not for those who run on one machine

        start.check(session)
    planned = session.plan()
    if dry_run:
        return print_plan(session, planned)
    console = Console(stderr=True)
    left = [cell for cell in planned if not cell.fresh]
    for cell in planned:
        if cell.fresh:
            told = cell.reason if cell.unpublished else f"fresh ({cell.reason})"
            console.print(f"{cell.cell.id}: {told}", markup=False, highlight=False, soft_wrap=True)
    if not left:
        again = "" if any(cell.unpublished for cell in planned) else "; --force runs the cells again"
        console.print(f"nothing to do{again}", markup=False)
        return EXIT_OK
    machine = describe_machine(session.machine.name)
    here = machine if executor == "local" else None
    preflight.check(session, [(cell.cell, cell.phases) for cell in left], here)
    session.store.check(cell.cell.id for cell in left)
    try:
        benches = prepare_benches(session, left, machine, console)
    except Interrupted:
        console.print("interrupted; nothing was started", markup=False)
        return EXIT_INTERRUPTED
    setting = make_setting(session, machine)
    if executor == "slurm":
        # The machine of a record is the node, which nobody knows where no job has begun.
        records, interrupted = start.run(session, left, replace(setting, machine={"name": machine.name}), console)
    elif trial and _try(session, left, benches, setting, console):
        console.print("interrupted; nothing was started", markup=False)
        return EXIT_INTERRUPTED
    else:
        records, interrupted = _run(session, left, benches, setting, console)
    print_runs(records, session.name)
    if interrupted:
        return EXIT_INTERRUPTED
    statuses = {record.status for record in records} - {"succeeded"}
    if not statuses:
        return EXIT_OK
    return EXIT_QUARANTINED if statuses == {"quarantined"} else EXIT_CELL_FAILED


def _try(
    session: Session, left: Sequence[PlannedCell], benches: dict[str, Bench], setting: Setting, console: Console
) -> bool:
    """Try the cells, where one of them is long; tell whether Ctrl-C ended that.

    Raises:
        PreflightError: one would fail.
    """
    trials = Trials.of(session.workspace)
    problems, interrupted = unreachable(left, session.destination), False
    cells = wanted(left, trials)
    if cells:
        console.print(f"trying {len(cells)} cells before the first long one (--no-trial does not)", markup=False)
        with make_display(console, Pace(cells, {}), session.name) as display:
            found, interrupted = try_cells(cells, make_runner(session, benches, setting, display), trials)
        problems += found
    if not interrupted:
        refuse(problems)
    return interrupted


def _run(
    session: Session, left: Sequence[PlannedCell], benches: dict[str, Bench], setting: Setting, console: Console
) -> tuple[list[Record], bool]:
    recorded = {cost.cell_id: cost.wall_s for cost in expected_costs(session, left) if cost.recorded}
    expected_s = {cell_id: wall_s for cell_id, wall_s in recorded.items() if wall_s is not None}
    with make_display(console, Pace(left, expected_s), session.name) as display:
        return make_runner(session, benches, setting, display).run(left)
