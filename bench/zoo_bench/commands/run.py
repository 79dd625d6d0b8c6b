"""`zoo-bench run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from zoo_bench import preflight
from zoo_bench.backends import Backend
from zoo_bench.commands.plan import print_plan
from zoo_bench.commands.status import print_runs
from zoo_bench.datasets.locate import prepare
from zoo_bench.display import Pace, bar, make_display
from zoo_bench.environments import WorkerEnvironment, ensure_environment
from zoo_bench.errors import (
    EXIT_CELL_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_QUARANTINED,
    EnvironmentBuildError,
)
from zoo_bench.interrupts import Interrupted
from zoo_bench.machine import MachineInfo, describe_machine, usable_gpus
from zoo_bench.plan import PlannedCell
from zoo_bench.recipe import PHASES
from zoo_bench.record import Record
from zoo_bench.recorder import Setting
from zoo_bench.revision import revision
from zoo_bench.runner import Bench, run_cells
from zoo_bench.session import Asked, Session
from zoo_bench.trial import Trials, refuse, try_cells, wanted


def run(asked: Asked, *, dry_run: bool, trial: bool = True) -> int:
    """Run the plan; 0 when every cell that was run succeeded. With `trial`, long cells are tried first.

    1 when one did not, 5 when one stayed quarantined and none did worse, 130 after Ctrl-C.
    """
    session = Session.open(asked)
    planned = session.plan()
    if dry_run:
        return print_plan(session, planned)
    console = Console(stderr=True)
    left = [cell for cell in planned if not cell.fresh]
    for cell in planned:
        if cell.fresh:
            console.print(f"{cell.cell.id}: fresh ({cell.reason})", markup=False, highlight=False, soft_wrap=True)
    if not left:
        console.print("nothing to do; --force runs the cells again", markup=False)
        return EXIT_OK
    machine = describe_machine(session.machine.name)
    preflight.check(session, [(cell.cell, cell.phases) for cell in left], machine)
    session.store.check()
    try:
        benches = _prepare(session, left, machine, console)
    except Interrupted:
        console.print("interrupted; nothing was started", markup=False)
        return EXIT_INTERRUPTED
    setting = _setting(session, machine)
    if trial and _try(session, left, benches, setting, console):
        console.print("interrupted; nothing was started", markup=False)
        return EXIT_INTERRUPTED
    records, interrupted = _run(session, left, benches, setting, console)
    print_runs([(record.cell_id, record) for record in records], session.name)
    if interrupted:
        return EXIT_INTERRUPTED
    statuses = {record.status for record in records} - {"succeeded"}
    if not statuses:
        return EXIT_OK
    return EXIT_QUARANTINED if statuses == {"quarantined"} else EXIT_CELL_FAILED


def _prepare(session: Session, left: Sequence[PlannedCell], machine: MachineInfo, console: Console) -> dict[str, Bench]:
    """Build the worker environments, generate and check the datasets: by cell id, what the cell is run with."""
    for name in dict.fromkeys(cell.cell.dataset for cell in left):
        declared = session.matrix.datasets[name]
        mine = [cell for cell in left if cell.cell.dataset == name]
        phases = tuple(phase for phase in PHASES if any(phase in cell.phases for cell in mine))
        progress, advance = bar(console, f"dataset {name}")
        with progress:
            prepare(declared, session.dataset(mine[0].cell), phases, advance)
    commands: dict[str, Bench] = {}
    for cell in left:
        backend = session.backend(cell.cell)
        environment = _environment(session, backend, left, console)
        commands[cell.cell.id] = Bench(
            command=(str(environment.python), "-m", backend.spec.run),
            folder=backend.root,
            dataset=session.dataset(cell.cell),
            gpus=tuple(gpu.index for gpu in usable_gpus(machine)[: cell.cell.gpus]),
        )
    return commands


def _environment(
    session: Session, backend: Backend, left: Sequence[PlannedCell], console: Console
) -> WorkerEnvironment:
    """Build a backend's environment; where that fails, say also which call leaves this backend out."""
    try:
        return ensure_environment(backend, session.workspace, session.machine, _teller(console))
    except EnvironmentBuildError as error:
        others = [name for name in dict.fromkeys(cell.cell.backend for cell in left) if name != backend.name]
        if others:
            without = f"; or run the other cells alone: {preflight.only(others)}"
            raise EnvironmentBuildError(error.message, error.hint + without) from None
        raise


def _teller(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _setting(session: Session, machine: MachineInfo) -> Setting:
    given = session.asked.checkpoint
    return Setting(
        workspace=session.workspace,
        store=session.store,
        profile=session.profile,
        machine=machine.model_dump(mode="json"),
        scorer=session.matrix.scorer,
        given_model=given.absolute() if given else None,
        revision=revision(session.workspace.root),
    )


def _try(
    session: Session, left: Sequence[PlannedCell], benches: dict[str, Bench], setting: Setting, console: Console
) -> bool:
    """Try the cells, where one of them is long; tell whether Ctrl-C ended that.

    Raises:
        PreflightError: one would fail.
    """
    trials = Trials.of(session.workspace)
    cells = wanted(left, trials)
    if not cells:
        return False
    console.print(f"trying {len(cells)} cells before the first long one (--no-trial does not)", markup=False)
    with make_display(console, Pace(cells, {}), session.name) as display:
        problems, interrupted = try_cells(cells, lambda cell: benches[cell.cell.id], setting, display, trials)
    if not interrupted:
        refuse(problems, len(cells))
    return interrupted


def _run(
    session: Session, left: Sequence[PlannedCell], benches: dict[str, Bench], setting: Setting, console: Console
) -> tuple[list[Record], bool]:
    earlier = session.contents.records
    expected_s = {record.cell_id: record.duration_s for record in earlier if record.status == "succeeded"}
    with make_display(console, Pace(left, expected_s), session.name) as display:
        return run_cells(left, lambda cell: benches[cell.cell.id], setting, display)
