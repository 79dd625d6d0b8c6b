"""Before anything is launched: does this machine have what the planned cells need? All that is missing, at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo_bench.cell import Cell, expand
from zoo_bench.datasets.locate import locate, missing
from zoo_bench.environments import environment_status
from zoo_bench.errors import PreflightError, nearest
from zoo_bench.machine import MachineInfo
from zoo_bench.session import Session


def check(session: Session, cells: Sequence[Cell], machine: MachineInfo) -> None:
    """Raise PreflightError when some cell could not run here, naming the profiles that would."""
    problems = shortcomings(session, cells, machine)
    if not problems:
        return
    fitting = fitting_profiles(session, machine)
    hint = "; ".join(f"this would run here: zoo-bench run --profile {name}" for name in fitting)
    listed = "\n".join(f"  - {problem}" for problem in problems)
    raise PreflightError(
        f"profile '{session.profile}' cannot run on this machine, and nothing was started:\n{listed}",
        hint or "`zoo-bench doctor` says what would be needed for each profile",
    )


def fitting_profiles(session: Session, machine: MachineInfo) -> list[str]:
    """Return the profiles of the matrix whose cells could all run here."""
    return [
        name for name in session.matrix.profiles if not shortcomings(session, expand(session.matrix, name), machine)
    ]


def shortcomings(session: Session, cells: Iterable[Cell], machine: MachineInfo) -> list[str]:
    """Return what this machine or the backends lack for `cells`, each once."""
    found: dict[str, None] = {}
    for cell in cells:
        for problem in (*_hardware(cell, machine), *_backend(session, cell), *_dataset(session, cell)):
            found[problem] = None
    return list(found)


def _hardware(cell: Cell, machine: MachineInfo) -> list[str]:
    have = len(machine.gpus)
    if cell.gpus <= have:
        return []
    why = f" ({machine.nvml_problem})" if machine.nvml_problem else ""
    return [f"{cell.gpus} GPUs are needed; this machine has {have or 'none'}{why}"]


def _backend(session: Session, cell: Cell) -> list[str]:
    backend = session.backend(cell)
    offers = backend.spec.offers
    problems = [
        f"backend {backend.name} does not offer {what} '{wanted}'; {nearest(wanted, known)}"
        for what, wanted, known in (
            ("detector", cell.detector, offers.detectors),
            ("backbone", cell.backbone, offers.backbones),
            ("precision", cell.precision, offers.precisions),
        )
        if wanted not in known
    ]
    if cell.gpus > offers.max_gpus:
        problems.append(
            f"backend {backend.name} drives {offers.max_gpus} GPU(s) at most, and {cell.gpus} are asked for; "
            f"--gpus {offers.max_gpus} measures on that many"
        )
    environment = environment_status(backend, session.workspace, session.machine)
    if environment.source == "machine" and not environment.ready:
        problems.append(f"backend {backend.name}: {environment.detail}")
    return problems


def _dataset(session: Session, cell: Cell) -> list[str]:
    declared = session.matrix.datasets[cell.dataset]
    paths = locate(cell.dataset, declared, session.workspace, session.machine.datasets)
    lacking = missing(declared, paths)
    if not lacking:
        return []
    return [f"dataset {cell.dataset}: {lacking[0]}; put it there, or name its folder in machine.yaml"]
