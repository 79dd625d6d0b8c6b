"""What a record says of where it was measured and with what, and how two records differ in it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from zoo_bench.record import Record
from zoo_bench.revision import Revision, short_commit
from zoo_bench.units import gigabytes

# What people call the software whose versions workers report; anything else stands as it is.
SOFTWARE_NAMES = {
    "python": "Python",
    "torch": "PyTorch",
    "mxnet": "MXNet",
    "gluoncv": "GluonCV",
    "cuda": "CUDA",
    "cudnn": "CUDNN",
    "nccl": "NCCL",
}
MachineKey: TypeAlias = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True)
class CurrentInputs:
    """Digests (SHA-256, hex) of what a backend's worker would be run from now: its sources, and all its locks."""

    sources_sha256: str
    locks_sha256: frozenset[str]


def machine_key(record: Record) -> MachineKey:
    """Return what two records of one machine have in common: its name where it has one, its CPU and its GPUs."""
    return machine_key_of(record.machine)


def machine_key_of(machine: Mapping[str, Any]) -> MachineKey:
    """Return the same of a machine as records describe it."""
    return str(machine.get("name") or ""), str(machine.get("cpu", "")), tuple(sorted(_names(machine.get("gpus", ()))))


def machine_text(key: MachineKey) -> str:
    """Say which machine it is: by its name where it has one, else by GPUs and CPU."""
    name, cpu, gpus = key
    return name or ", ".join([*(f"{gpus.count(gpu)} {gpu}" for gpu in dict.fromkeys(gpus)), cpu])


def machine_name(record: Record) -> str:
    """Return the name that machine.yaml gives the machine; empty where it gives none."""
    return str(record.machine.get("name") or "")


def gpus_used(record: Record) -> list[str]:
    """Return the names of the GPUs that a run used, one a GPU; of several nodes all are taken to be like the first."""
    nodes = int(record.machine.get("nodes") or 1)
    count = int(record.cell["gpus"]) // nodes
    gpus = record.machine.get("gpus", ())
    seen = [gpu.index for gpu in record.measurements.memory.gpus] if record.measurements.memory else []
    mine = [gpu for gpu in gpus if gpu.get("index") in seen]
    return nodes * _names(mine if len(mine) == count else gpus[:count])


def gpu_lines(record: Record) -> list[str]:
    """Say which GPUs a run used: ``8 NVIDIA Tesla V100 GPUs``, one line a kind."""
    names, count = gpus_used(record), int(record.cell["gpus"])
    if not names and count:
        return [f"{count} GPUs, of a kind that is not told"]
    return [gpus_text(names.count(name), name) for name in dict.fromkeys(names)] or ["No GPU"]


def interconnect(record: Record) -> str:
    """Say how the GPUs of a run reach one another; empty for fewer than two, or where it is not known."""
    return str(record.machine.get("interconnect") or "") if int(record.cell["gpus"]) > 1 else ""


def gpus_text(count: int, name: str) -> str:
    """Write a number of GPUs as the document does."""
    name = name if name.startswith("NVIDIA") else f"NVIDIA {name}"
    return f"{count} {name} GPU{'s' if count != 1 else ''}"


def cpu_line(record: Record) -> str:
    """Say which CPU a run used; empty where it is not known."""
    if "cpu" not in record.machine:
        return ""
    return f"{record.machine['cpu']}, {record.machine.get('cores', '?')} cores"


def ram_line(record: Record) -> str:
    """Say how much memory the host of a run has; empty where it is not known."""
    size = record.machine.get("memory_bytes")
    return f"{gigabytes(size)} GB of host memory" if size else ""


def versions(record: Record) -> dict[str, str]:
    """Return what a run ran with, by name: its software, system, container and GPU driver, as far as is known."""
    system = {
        "OS": record.machine.get("os"),
        "Container": record.machine.get("container"),
        "GPU driver": driver(record),
    }
    found = {SOFTWARE_NAMES.get(name, name): version for name, version in record.software.items()} | system
    return {name: str(version) for name, version in found.items() if version}


def machine_line(record: Record) -> str:
    """Describe a machine in one line: its name, GPUs and CPU."""
    return ", ".join(filter(None, [machine_name(record), *gpu_lines(record), cpu_line(record)]))


def revision_text(revision: Revision | None) -> str:
    """Write the state of the zoo's files; empty outside of git."""
    if revision is None:
        return ""
    return f"commit {short_commit(revision.commit)}{', with changes' if revision.dirty else ''}"


def driver(record: Record) -> str | None:
    """Return the version of the GPU driver that a run on GPUs had."""
    return record.machine.get("driver") if int(record.cell["gpus"]) > 0 else None


def staleness(record: Record, current: CurrentInputs | None, drivers: Mapping[MachineKey, str]) -> list[str]:
    """Say what has changed since a record was made; `current` None: its backend is not here to compare with.

    A record without a lock was made with an interpreter that the user named: there is no lock that could have changed.
    """
    changes = []
    if current is not None and record.inputs.sources_sha256 != current.sources_sha256:
        changes.append("the worker's sources")
    lock = record.inputs.lock_sha256
    if current is not None and lock is not None and lock not in current.locks_sha256:
        changes.append("the lock of the worker's environment")
    newest = drivers.get(machine_key(record))
    if driver(record) and newest != driver(record):
        changes.append(f"that machine's GPU driver ({driver(record)}, now {newest})")
    return changes


def departures(record: Record, hardware: Record, software: Record) -> list[str]:
    """Say in which hardware a record departs from one, and in which software from another; a phrase a difference."""
    unequal = [
        *_unequal(_hardware(record), _hardware(hardware)),
        *_unequal(versions(record), versions(software)),
    ]
    return [f"{what} {mine or 'none'} in place of {theirs or 'none'}" for what, mine, theirs in unequal]


def unequal_traits(a: Record, b: Record) -> list[tuple[str, str, str]]:
    """Return what of hardware and software is not the same for two records, with both values; empty for none."""
    return [*_unequal(_hardware(a), _hardware(b)), *_unequal(versions(a), versions(b))]


def _unequal(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[tuple[str, str, str]]:
    names = dict.fromkeys([*mine, *theirs])
    return [(n, mine.get(n, ""), theirs.get(n, "")) for n in names if mine.get(n, "") != theirs.get(n, "")]


def _hardware(record: Record) -> dict[str, str]:
    """Everything about a machine that a figure may depend on, as text."""
    return {
        "machine": machine_name(record),
        "GPUs": ", ".join(gpu_lines(record)),
        "CPU": cpu_line(record),
        "interconnect": interconnect(record),
        "nodes": str(record.machine.get("nodes") or ""),
    }


def _names(gpus: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(gpu["name"]) for gpu in gpus]
