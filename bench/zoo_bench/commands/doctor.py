"""`zoo-bench doctor`: what this machine has, what it lacks, and the command that supplies it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.text import Text

from zoo_bench.backends import Backend, find_backend
from zoo_bench.cell import expand
from zoo_bench.datasets.locate import declared_kind, locate, missing, prepare
from zoo_bench.display import bar, plain_table, table_console
from zoo_bench.environments import EnvironmentStatus, ensure_environment, environment_status
from zoo_bench.errors import EXIT_OK, EnvironmentBuildError
from zoo_bench.machine import MachineInfo, describe_limits, describe_machine
from zoo_bench.preflight import fitting_backends, needs_of, only, shortcomings
from zoo_bench.probe import Probe, probe_backend
from zoo_bench.recipe import PHASES
from zoo_bench.session import Asked, Session

GB = 1e9
# Data-loading workers pass batches through shared memory and keep many files open.
SHARED_MEMORY_WANTED_BYTES = 1 * GB
OPEN_FILES_WANTED = 4096
DISK_WANTED_BYTES = 10 * GB
Verdict = Literal["ok", "warn", "lacks"]
STYLE: dict[Verdict, str] = {"ok": "green", "warn": "yellow", "lacks": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is what to do when it is not well.

    `stops` is the backend whose worker cannot start as things are.
    """

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""
    stops: str | None = None


def doctor(asked: Asked, *, fix: bool) -> int:
    """Print all findings, and for every profile whether it would run here."""
    session = Session.open(asked)
    console = table_console()
    if fix:
        _fix(session, Console(stderr=True))
    machine = describe_machine()
    table = plain_table("this machine")
    for head in ("what", "", "found", "what to do"):
        table.add_column(head, overflow="fold")
    environments = tuple(_environments(session, machine))
    for finding in (*_machine(machine), *_limits(session), *environments, *_datasets(session)):
        verdict = Text(finding.verdict, style=STYLE[finding.verdict])
        table.add_row(finding.what, verdict, Text(finding.found), Text(finding.remedy))
    console.print(table)
    _print_profiles(session, machine, environments, console)
    return EXIT_OK


def _print_profiles(session: Session, machine: MachineInfo, environments: Sequence[Finding], console: Console) -> None:
    """Say of every profile whether it would run here, what it lacks, and with which backends it would all the same."""
    for name, profile in session.matrix.profiles.items():
        cells = expand(session.matrix, name)
        needs = needs_of(session, cells)
        stopped = _stopped(environments, {cell.backend for cell in cells})
        lacking = [*shortcomings(session, needs, machine), *stopped.values()]
        verdict = Text(f"profile {name} ({profile.description}): ")
        verdict.append("would run here" if not lacking else "would not run here", style="red" if lacking else "green")
        console.print(verdict, soft_wrap=True)
        for problem in lacking:
            console.print(Text(f"  - {problem}"), soft_wrap=True)
        fitting = [backend for backend in fitting_backends(session, needs, machine) if backend not in stopped]
        if lacking and fitting:
            console.print(Text(f"  with {only(fitting)} it would"), soft_wrap=True)


def _stopped(environments: Iterable[Finding], backends: Container[str]) -> dict[str, str]:
    """Say which of the backends could not start a worker: `run` does not ask before, for it would take seconds."""
    return {
        finding.stops: f"backend {finding.stops}: its worker cannot start, see '{finding.what}' above"
        for finding in environments
        if finding.stops is not None and finding.stops in backends
    }


def _machine(machine: MachineInfo) -> Iterator[Finding]:
    yield Finding("CPU", "ok", f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads usable")
    yield Finding("memory", "ok", f"{machine.memory_bytes / GB:.1f} GB")
    if machine.nvml_problem:
        yield Finding("NVML", "warn", machine.nvml_problem, "on a GPU machine: install the NVIDIA driver")
    else:
        yield Finding("NVML", "ok", f"driver {machine.driver}, CUDA {machine.cuda_driver}")
    for gpu in machine.gpus:
        found = f"{gpu.name}, {gpu.memory_bytes / GB:.1f} GB, compute capability {gpu.compute_capability}"
        yield Finding(f"GPU {gpu.index}", "ok", found)
    if not machine.gpus:
        yield Finding("GPUs", "warn", "none", "profiles with gpus: 0 run on the CPU")


def _limits(session: Session) -> Iterator[Finding]:
    limits = describe_limits(session.workspace.root)
    free = limits.disk_free_bytes
    yield _limit("disk", free, DISK_WANTED_BYTES, f"{free / GB:.1f} GB free", "free some space, or use --root")
    shared = limits.shared_memory_bytes
    if shared is not None:
        remedy = "in a container: --shm-size=8g"
        yield _limit("/dev/shm", shared, SHARED_MEMORY_WANTED_BYTES, f"{shared / GB:.1f} GB", remedy)
    files = limits.open_files
    yield _limit("open files", files, OPEN_FILES_WANTED, f"limit {files}", f"ulimit -n {OPEN_FILES_WANTED}")


def _limit(what: str, have: float, wanted: float, found: str, remedy: str) -> Finding:
    return Finding(what, "ok", found) if have >= wanted else Finding(what, "warn", found, remedy)


def _backends(session: Session) -> list[Backend]:
    profiles = session.matrix.profiles
    names = dict.fromkeys(cell.backend for name in profiles for cell in expand(session.matrix, name))
    return [find_backend(name, session.workspace) for name in names]


def _environments(session: Session, machine: MachineInfo) -> Iterator[Finding]:
    for backend in _backends(session):
        status = environment_status(backend, session.workspace, session.machine)
        what = f"{backend.name} ({status.variant})"
        if not status.ready:
            remedy = "zoo-bench doctor --fix" if status.source == "built" else "correct machine.yaml"
            yield Finding(what, "lacks", status.detail, remedy)
            continue
        try:
            probe = probe_backend(backend, status.python)
        except EnvironmentBuildError as error:  # one broken environment must not hide what else was found
            yield Finding(what, "lacks", error.message, error.hint, stops=backend.name)
            continue
        yield Finding(what, "ok", _versions(probe) if probe else status.detail)
        if probe is not None and probe.missing_libraries:
            yield _libraries(backend, status, probe)
        elif probe is not None and machine.gpus:
            yield from _on_gpus(backend, status, probe, machine)


def _versions(probe: Probe) -> str:
    return ", ".join(f"{name} {version}" for name, version in probe.versions.items() if version is not None)


def _libraries(backend: Backend, status: EnvironmentStatus, probe: Probe) -> Finding:
    """The shared libraries without which the framework does not even start."""
    names = ", ".join(probe.missing_libraries)
    return Finding(
        f"{backend.name} ({status.variant}) libraries",
        "lacks",
        f"{backend.variant(status.variant).about}, needs what this machine lacks: {names}",
        "install them (libcuda comes with the NVIDIA driver), or name the folder they are in in LD_LIBRARY_PATH; or "
        f"{_another_variant(backend, status)}",
        stops=backend.name,
    )


def _another_variant(backend: Backend, status: EnvironmentStatus) -> str:
    return backend.variant_advice(name for name in backend.spec.variants if name != status.variant)


def _on_gpus(backend: Backend, status: EnvironmentStatus, probe: Probe, machine: MachineInfo) -> Iterator[Finding]:
    """Whether the framework can use them at all, and has code for them where it says for which it has."""
    what = f"{backend.name} on GPUs"
    if not probe.cuda_available and probe.versions.get("cuda", "unknown") is None:
        yield Finding(what, "lacks", "the framework's build is for CPUs alone", _another_variant(backend, status))
    elif not probe.cuda_available:
        found = "the framework cannot use the GPUs: the driver is too old for its CUDA, or the devices are hidden"
        yield Finding(what, "lacks", found, "update the driver, or choose another variant")
    if probe.arch_list:
        yield from _architectures(backend, status, probe, machine)


def _architectures(
    backend: Backend, status: EnvironmentStatus, probe: Probe, machine: MachineInfo
) -> Iterator[Finding]:
    """Whether the framework's build has code for each GPU: the same major version, the same or a lower minor one."""
    for gpu in machine.gpus:
        major, minor = (int(part) for part in gpu.compute_capability.split("."))
        built = [divmod(int(name.removeprefix("sm_")), 10) for name in probe.arch_list if name[3:].isdigit()]
        fits = any(theirs == (major, lower) for theirs in built for lower in range(minor + 1))
        what = f"{backend.name} on GPU {gpu.index}"
        found = f"sm_{major}{minor}; the build has {', '.join(probe.arch_list)}"
        remedy = _another_variant(backend, status)
        yield Finding(what, "ok", found) if fits else Finding(what, "lacks", found, remedy)


def _datasets(session: Session) -> Iterator[Finding]:
    for name, declared in session.matrix.datasets.items():
        lacking = missing(declared, locate(name, declared, session.workspace, session.machine.datasets))
        remedy = f"download it, and name its folder in machine.yaml: datasets: {{{name}: /path}}"
        if lacking:
            yield Finding(f"dataset {name}", "lacks", "; ".join(lacking), remedy)
        else:
            yield Finding(f"dataset {name}", "ok", declared_kind(declared))


def _fix(session: Session, console: Console) -> None:
    failed: list[EnvironmentBuildError] = []
    for backend in _backends(session):
        try:
            ensure_environment(
                backend, session.workspace, session.machine, lambda line: console.print(line, markup=False)
            )
        except EnvironmentBuildError as error:  # the others, and the datasets, can be had all the same
            failed.append(error)
    for name, declared in session.matrix.datasets.items():
        paths = locate(name, declared, session.workspace, session.machine.datasets)
        progress, advance = bar(console, f"dataset {name}")
        if not missing(declared, paths):
            with progress:
                prepare(declared, paths, PHASES, advance)
    if failed:
        raise EnvironmentBuildError("\n".join(error.message for error in failed), failed[0].hint)
