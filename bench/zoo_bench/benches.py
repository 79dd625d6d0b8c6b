"""What cells are run with: worker environments that are built, datasets that are there, and what all cells share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from zoo_bench import allocation, preflight
from zoo_bench.backends import Backend
from zoo_bench.datasets.locate import prepare
from zoo_bench.display import bar
from zoo_bench.environments import WorkerEnvironment, ensure_environment
from zoo_bench.errors import EnvironmentBuildError
from zoo_bench.locks import Leases
from zoo_bench.machine import MachineInfo, usable_gpus
from zoo_bench.plan import PlannedCell
from zoo_bench.recipe import PHASES
from zoo_bench.recorder import Setting
from zoo_bench.revision import revision
from zoo_bench.runner import Bench, Runner, Watcher
from zoo_bench.session import Session


def prepare_benches(
    session: Session, left: Sequence[PlannedCell], machine: MachineInfo, console: Console
) -> dict[str, Bench]:
    """Build the worker environments, generate and check the datasets: by cell id, what the cell is run with.

    Cells that no worker is needed for are left out.
    """
    left = [cell for cell in left if cell.worker_phases]
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
            command=backend.worker(environment.python),
            folder=backend.root,
            dataset=session.dataset(cell.cell),
            candidates=usable_gpus(machine),
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


def make_setting(session: Session, machine: MachineInfo) -> Setting:
    """Return what all cells of the session share."""
    given = session.asked.checkpoint
    return Setting(
        workspace=session.workspace,
        store=session.store,
        profile=session.profile,
        machine=machine.model_dump(mode="json") | ({"nodes": count} if (count := allocation.nodes()) > 1 else {}),
        scorer=session.matrix.scorer,
        given_model=given.absolute() if given else None,
        revision=revision(session.workspace.root),
        destination=session.destination,
    )


def make_runner(session: Session, benches: dict[str, Bench], setting: Setting, watcher: Watcher) -> Runner:
    """Return what runs the session's cells, beside other runners of this machine and of this store."""
    return Runner(
        lambda cell: benches[cell.instead_of or cell.cell.id], session.replan, setting, watcher, Leases.of_machine()
    )
