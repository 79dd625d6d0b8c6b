"""What was accepted as the reference, on which machine, by whom and why: results/baselines/MACHINE.json, committed.

One file a machine, one entry a cell, profile and set of runs, in a fixed order, so that what `accept` changes can be
reviewed as a diff. The runs themselves are records like any other.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import Field

from zoo_bench.bounded import MIB, fault, read_bytes
from zoo_bench.errors import StoreError
from zoo_bench.provenance import MachineKey, machine_text
from zoo_bench.recipe import Name, Strict
from zoo_bench.rules import METRICS, Metric
from zoo_bench.store import LOCKS
from zoo_bench.text import one_line
from zoo_bench.whole import write_whole

FOLDER = "baselines"
MOST_BYTES = 16 * MIB
MOST_TEXT = 1000


class Accepted(Strict):
    """The runs of a cell that count as its reference in one profile, for some metrics. `on`: the day, UTC."""

    cell_id: str
    profile: str
    metrics: tuple[Metric, ...] = METRICS
    runs: tuple[Name, ...] = Field(min_length=1)
    by: str = Field(max_length=MOST_TEXT)
    why: str = Field(max_length=MOST_TEXT)
    on: str


class _File(Strict):
    schema_version: Literal[1] = 1
    machine: MachineKey
    accepted: tuple[Accepted, ...]


@dataclass(frozen=True)
class Baseline:
    """What was accepted on one machine, and the file that keeps it."""

    machine: MachineKey
    path: Path
    accepted: tuple[Accepted, ...] = ()

    @classmethod
    def of(cls, results: Path, machine: MachineKey) -> Baseline:
        """Return what was accepted on a machine; nothing where nothing was. Raises StoreError as `read_all`."""
        found = read_all(results).get(machine)
        return found or cls(machine, results / FOLDER / f"{file_name(machine)}.json")

    def runs_of(self, cell_id: str, metric: Metric | None = None) -> frozenset[str]:
        """Return the ids of the accepted runs of a cell, of whatever profile; `metric`: of that one alone."""
        mine = [one for one in self.accepted if one.cell_id == cell_id and (metric is None or metric in one.metrics)]
        return frozenset(run for one in mine for run in one.runs)

    def cells(self, profile: str) -> int:
        """Return of how many cells something was accepted in a profile: so many are judged each night."""
        return len({one.cell_id for one in self.accepted if one.profile == profile})

    def of_metric(self, cell_id: str, profile: str, metric: Metric) -> tuple[str, ...]:
        """Return the ids of the runs that are the reference of one metric; none where there is none."""
        mine = [one for one in self.accepted if (one.cell_id, one.profile) == (cell_id, profile)]
        return next((one.runs for one in mine if metric in one.metrics), ())

    def accepting(self, entries: Iterable[Accepted]) -> Baseline:
        """Return the baseline with these entries in place of the earlier ones of the same cells and profiles."""
        new = tuple(entries)
        replaced = {(one.cell_id, one.profile) for one in new}
        kept = [one for one in self.accepted if (one.cell_id, one.profile) not in replaced]
        ordered = sorted((*kept, *new), key=lambda one: (one.cell_id, one.profile, one.runs))
        return Baseline(self.machine, self.path, tuple(ordered))

    def write(self) -> None:
        """Write the file whole. Raises StoreError where that cannot be done."""
        file = _File(machine=self.machine, accepted=self.accepted)
        try:
            write_whole(self.path, file.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise _unwritable(self.path, error) from None


def accept_in(results: Path, machine: MachineKey, entries: Iterable[Accepted]) -> Baseline:
    """Put entries into a machine's baseline, and return it; whoever does the same meanwhile waits.

    Raises:
        StoreError: as `read_all` and `Baseline.write`.
    """
    lock = results / LOCKS / "baselines.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            changed = Baseline.of(results, machine).accepting(entries)
            changed.write()
    except OSError as error:
        raise _unwritable(lock, error) from None
    return changed


def _unwritable(path: Path, error: OSError) -> StoreError:
    hint = "free some space, or mend its folder; nothing was accepted"
    return StoreError(f"{path}: cannot be written: {error.strerror or error}", hint)


def read_all(results: Path) -> dict[MachineKey, Baseline]:
    """Read what was accepted, by the machine.

    Raises:
        StoreError: a file is damaged, cannot be read, or is not named after its machine. It is kept as it is.
    """
    folder = results / FOLDER
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        hint = "it is to be a folder that you may read"
        raise StoreError(f"{folder}: cannot be read: {error.strerror or error}", hint) from None
    found = [_read(folder / name) for name in names]
    return {one.machine: one for one in found}


def _read(path: Path) -> Baseline:
    try:
        file = _File.model_validate_json(read_bytes(path, MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        said = one_line(fault(error))
        raise StoreError(f"{path}: no baseline: {said}", "take it back to what git has") from None
    if path.stem != file_name(file.machine):
        named = one_line(machine_text(file.machine))
        raise StoreError(
            f"{path}: is of the machine {named}", f"call it {file_name(file.machine)}.json, or take it away"
        )
    return Baseline(file.machine, path, file.accepted)


def file_name(machine: MachineKey) -> str:
    """Return a machine's file: readable, and another one for every name, CPU and set of GPUs."""
    name, cpu, gpus = machine
    counted = [f"{gpus.count(gpu)}x-{gpu}" for gpu in dict.fromkeys(gpus)]
    said = re.sub(r"[^A-Za-z0-9]+", "-", name or " ".join([*counted, cpu])).strip("-").lower()[:80]
    digest = hashlib.sha256("\0".join((name, cpu, *gpus)).encode()).hexdigest()[:8]
    return f"{said or 'machine'}-{digest}"
