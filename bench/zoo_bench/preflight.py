"""Before anything is launched: does this machine have what the planned cells need? All that is missing, at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from zoo_bench import allocation
from zoo_bench.adapters.template import example_values, fill, misnamed
from zoo_bench.backends import SPEC_NAME
from zoo_bench.cell import Cell, expand
from zoo_bench.datasets.locate import locate, missing
from zoo_bench.environments import environment_status
from zoo_bench.errors import ConfigError, PreflightError
from zoo_bench.machine import MachineInfo, usable_gpus
from zoo_bench.recipe import WORKER_PHASES, Phase
from zoo_bench.session import Session

# The first architecture with units for TensorFloat-32 and bfloat16, as the major number of its compute capability.
AMPERE = 8
Need = tuple[Cell, tuple[Phase, ...]]


def needs_of(session: Session, cells: Iterable[Cell]) -> list[Need]:
    """Return the cells with all the phases that their backends can do, as if nothing had been run yet."""
    return [(cell, session.as_offered(cell).phases) for cell in cells]


def check(session: Session, needs: Sequence[Need], machine: MachineInfo | None) -> None:
    """Raise PreflightError when some cell's phases could not run here, naming the profiles that would.

    `machine`: None where the cells run on others, of which nothing is known yet.
    """
    if session.destination is None and any("publish" in phases for _, phases in needs):
        raise ConfigError(
            "phase publish: matrix.yaml does not say where to", "add `publish: {address: ..., url: ...}` to it"
        )
    problems = shortcomings(session, needs, machine)
    if not problems:
        return
    backends = fitting_backends(session, needs, machine)
    fitting = [f"--profile {session.profile} {only(backends)}"] if backends else []
    fitting += [f"--profile {name}" for name in fitting_profiles(session, machine)]
    hint = "; ".join(f"this would run here: zoo-bench run {options}" for options in fitting)
    listed = "\n".join(f"  - {problem}" for problem in problems)
    raise PreflightError(
        f"profile '{session.profile}' cannot run on this machine, and nothing was started:\n{listed}",
        hint or "`zoo-bench doctor` says what would be needed for each profile",
    )


def fitting_profiles(session: Session, machine: MachineInfo | None) -> list[str]:
    """Return the profiles of the matrix whose cells could all run here."""
    return [
        name
        for name in session.matrix.profiles
        if not shortcomings(session, needs_of(session, expand(session.matrix, name)), machine)
    ]


def fitting_backends(session: Session, needs: Iterable[Need], machine: MachineInfo | None) -> list[str]:
    """Return the backends whose cells among `needs` could all run here."""
    by_backend: dict[str, list[Need]] = {}
    for cell, phases in needs:
        by_backend.setdefault(cell.backend, []).append((cell, phases))
    return [name for name, mine in by_backend.items() if not shortcomings(session, mine, machine)]


def only(backends: Sequence[str]) -> str:
    """Return the option that chooses the cells of some backends."""
    return f"--select '{' '.join(f'backend={name}' for name in backends)}'"


def shortcomings(session: Session, needs: Iterable[Need], machine: MachineInfo | None) -> list[str]:
    """Return what this machine or the backends lack for the cells' phases, each once."""
    found = (problem for cell, phases in needs for problem in _lacking(session, cell, phases, machine))
    return list(dict.fromkeys(found))


def _lacking(session: Session, cell: Cell, phases: Sequence[Phase], machine: MachineInfo | None) -> Iterator[str]:
    if set(phases) & set(WORKER_PHASES):
        if machine is not None:
            yield from _hardware(cell, machine)
            yield from _precision(cell, machine)
        yield from _backend(session, cell)
        yield from _phases(session, cell, phases)
        yield from _command(session, cell)
        yield from _nodes(session, cell, machine)
        yield from _dataset(session, cell, phases)
    if "publish" in phases:
        yield from _publish(session)


def _hardware(cell: Cell, machine: MachineInfo) -> list[str]:
    have, wanted = len(usable_gpus(machine)), cell.gpus // allocation.nodes()
    if wanted <= have:
        return []
    why = f" ({machine.nvml_problem})" if machine.nvml_problem else ""
    return [f"{wanted} GPUs are needed; this machine has {have or 'none'}{why}"]


def _precision(cell: Cell, machine: MachineInfo) -> list[str]:
    """What lacks the units for a precision computes in another one, without a word: its row would be wrong."""
    if cell.precision == "fp32" or (cell.precision == "bf16" and cell.gpus == 0):
        return []
    if cell.gpus == 0:
        return [f"precision {cell.precision} is one of GPUs; the CPU computes in fp32"]
    return [
        f"precision {cell.precision} needs GPUs of compute capability {AMPERE}.0; GPU {gpu.index}, {gpu.name}, has "
        f"{gpu.compute_capability}"
        for gpu in usable_gpus(machine)[: cell.gpus]
        if int(gpu.compute_capability.split(".")[0]) < AMPERE
    ]


def _backend(session: Session, cell: Cell) -> list[str]:
    backend = session.backend(cell)
    offers = backend.spec.offers
    problems = [
        f"backend {backend.name} does not offer {what} '{wanted}', only {', '.join(known)}; "
        f"to leave such cells out, add 'backend={backend.name},{what}={wanted}' to exclude in matrix.yaml"
        for what, wanted, known in (
            ("detector", cell.detector, offers.detectors),
            ("backbone", cell.backbone, offers.backbones),
            ("precision", cell.precision, offers.precisions),
        )
        if wanted not in known
    ]
    most = offers.max_gpus * offers.max_nodes
    if cell.gpus > most:
        problems.append(
            f"backend {backend.name} drives {most} GPU(s) at most, and {cell.gpus} are asked for; "
            f"with --gpus {most} the batch is smaller, and the learning rate "
            f"{'stays' if cell.recipe.base_batch_size is None else 'and the schedule are scaled to it'}"
        )
    environment = environment_status(backend, session.workspace, session.machine)
    if cell.gpus and environment.source == "built" and not backend.variant(environment.variant).gpus:
        others = backend.variant_advice(name for name, variant in backend.spec.variants.items() if variant.gpus)
        problems.append(
            f"backend {backend.name} ({environment.variant}) is built for CPUs alone, and {cell.gpus} GPU(s) are asked "
            f"for; another can be chosen in {others}"
        )
    if environment.lock is None and not environment.ready:
        problems.append(f"backend {backend.name}: {environment.detail}")
    return problems


def _phases(session: Session, cell: Cell, phases: Sequence[Phase]) -> list[str]:
    offered = session.backend(cell).spec.phases
    return [
        f"backend {cell.backend} cannot {phase}: it starts a trainer, which trains and evaluates in one go"
        for phase in phases
        if phase not in offered
    ]


def _command(session: Session, cell: Cell) -> list[str]:
    """What is wrong with the command that starts a trainer which is not ours: better told now than after a training."""
    backend = session.backend(cell)
    spec = backend.spec.command
    if spec is None:
        return []
    values = example_values(cell.resolved())
    texts = [text for text in (*spec.words, spec.folder, spec.log, spec.model) if text is not None]
    file = backend.folder / SPEC_NAME
    problems = [f"{file}: {problem}" for problem in map(partial(misnamed, values=values), texts) if problem]
    problems += [f"{file}: sources: there is no {name}" for name in spec.sources if not (backend.root / name).is_file()]
    if not problems and not (backend.root / fill(spec.folder, values)).is_dir():
        problems.append(f"{file}: folder: there is no {spec.folder}")
    return problems


def _nodes(session: Session, cell: Cell, machine: MachineInfo | None) -> list[str]:
    """What is in the way of sharing a cell among several machines: those of a cluster alone can."""
    here = session.matrix.slurm.nodes if machine is None and session.matrix.slurm else allocation.nodes()
    offers = session.backend(cell).spec.offers
    if here > offers.max_nodes:
        return [f"backend {cell.backend} uses {offers.max_nodes} node(s) for a cell, and slurm.nodes is {here}"]
    if cell.gpus % here:
        return [f"{cell.gpus} GPUs cannot be shared evenly by {here} nodes"]
    each = cell.gpus // here
    return [] if each <= offers.max_gpus else [f"backend {cell.backend} drives {offers.max_gpus} GPUs of a machine"]


def _publish(session: Session) -> list[str]:
    if session.destination is None:
        return ["phase publish: matrix.yaml does not say where to"]
    problem = session.destination.problem()
    return [problem] if problem else []


def _dataset(session: Session, cell: Cell, phases: Sequence[Phase]) -> list[str]:
    declared = session.matrix.datasets[cell.dataset]
    paths = locate(cell.dataset, declared, session.workspace, session.machine.datasets)
    lacking = missing(declared, paths, phases)
    if not lacking:
        return []
    return [f"dataset {cell.dataset}: {lacking[0]}; put it there, or name its folder in machine.yaml"]
