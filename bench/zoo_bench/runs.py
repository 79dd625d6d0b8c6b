"""What is known of a run without opening its record: all that is asked when runs are chosen. Pure functions.

A store has thousands of records, and a document shows a few of them. So runs are chosen by their summaries, which fit
into one file (store_index.py), and only the records of those chosen are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from zoo_bench.cell import Cell, digest
from zoo_bench.columns import HAS, Column
from zoo_bench.figures import MEMORY_COUNTS, OVER_GPUS, MemoryDefinition, figure, memory_figure
from zoo_bench.provenance import MachineKey, driver, machine_key
from zoo_bench.recipe import Phase
from zoo_bench.record import Checkpoint, Inputs, Published, Record, Status

SHORT_DIGEST = 16
DEFINITIONS = tuple(MemoryDefinition(count, over_gpus) for count in MEMORY_COUNTS for over_gpus in OVER_GPUS)


@dataclass(frozen=True)
class Summary:
    """A run in short. What is named as in `Record` is the same there.

    `noisy`: it has noise. `columns`: those it has a figure for. `memory_unknown`: the definitions by which its memory
    is not known. `iterations`: how long it trained. `inferred`: inference was timed. `driver`: of the GPUs it ran on;
    `software`: the digest of the versions of all else. `dirty`: its checkout was not what the commit is.
    `figures`: what it says for a column, of memory by the usual definition; `half_widths`: of their 95 % intervals, as
    a share of the figure, where they have one. `definitions`: by column, the digest of what says how its figure came
    about. `imported`: another program made it.
    """

    run_id: str
    cell_id: str
    profile: str
    recipe_sha256: str
    fingerprint: str
    inputs: Inputs
    status: Status
    measured: bool
    noisy: bool
    seed: int
    phases: tuple[Phase, ...]
    phases_done: tuple[Phase, ...]
    started_unix_s: float
    duration_s: float
    checkpoint: Checkpoint | None
    published: Published | None
    log: str
    columns: frozenset[Column]
    memory_unknown: frozenset[MemoryDefinition]
    iterations: int
    inferred: bool
    machine: MachineKey
    driver: str | None
    software: str
    commit: str | None
    dirty: bool
    figures: dict[Column, float]
    half_widths: dict[Column, float]
    definitions: dict[Column, str]
    imported: bool
    has_model: bool

    @classmethod
    def of(cls, record: Record) -> Summary:
        """Return the summary of a record."""
        train = record.measurements.train
        found = {column: figure(column, record) for column, has in HAS.items() if has(record)}
        figures = {column: one.value for column, one in found.items() if one.value is not None}
        intervals = {column: one.interval for column, one in found.items() if one.interval and one.value}
        return cls(
            run_id=record.run_id,
            cell_id=record.cell_id,
            profile=record.profile,
            recipe_sha256=record.recipe_sha256,
            fingerprint=record.fingerprint,
            inputs=record.inputs,
            status=record.status,
            measured=record.measured,
            noisy=bool(record.noise),
            seed=int(record.cell.get("seed", 0)),
            phases=record.phases,
            phases_done=record.phases_done,
            started_unix_s=record.started_unix_s,
            duration_s=record.duration_s,
            checkpoint=record.checkpoint,
            published=record.published,
            log=record.files["log"],
            columns=frozenset(found),
            memory_unknown=frozenset(one for one in DEFINITIONS if memory_figure(record, one).value is None),
            iterations=train.iterations_run if train else 0,
            inferred=record.measurements.infer is not None,
            machine=machine_key(record),
            driver=driver(record),
            software=digest([record.software, record.machine.get("os"), record.machine.get("kernel")])[:SHORT_DIGEST],
            commit=record.revision.commit if record.revision else None,
            dirty=record.revision is not None and record.revision.dirty,
            figures=_finite(figures),
            half_widths=_finite({column: one.half_width(figures[column]) for column, one in intervals.items()}),
            definitions={
                column: digest([record.definitions.get(column, ""), one.remark])[:SHORT_DIGEST]
                for column, one in found.items()
            },
            imported=record.origin is not None,
            has_model=record.has_model,
        )

    def spoiled_in(self, cell: Cell) -> bool:
        """Tell whether it has noise that would quarantine it, as the matrix has the cell now."""
        return self.noisy and cell.trust.on_noise == "quarantine"

    @property
    def weights(self) -> str | None:
        """The digest of the model that it made, or was given."""
        return self.checkpoint.sha256 if self.checkpoint else None


def _finite(values: dict[Column, float]) -> dict[Column, float]:
    return {column: value for column, value in values.items() if math.isfinite(value)}


@dataclass(frozen=True)
class Runs:
    """Runs, oldest first, and what reads the record of one."""

    summaries: tuple[Summary, ...]
    read: Callable[[Summary], Record]

    @cached_property
    def _by_cell(self) -> dict[str, list[Summary]]:
        found: dict[str, list[Summary]] = {}
        for run in self.summaries:
            found.setdefault(run.cell_id, []).append(run)
        return found

    def of(self, cell_id: str) -> Runs:
        """Return the runs of one cell."""
        return Runs(tuple(self._by_cell.get(cell_id, ())), self.read)

    def only(self, summaries: Iterable[Summary]) -> Runs:
        """Return some of the runs."""
        return Runs(tuple(summaries), self.read)

    def records(self) -> tuple[Record, ...]:
        """Read all of them."""
        return tuple(map(self.read, self.summaries))

    def newest_drivers(self) -> dict[MachineKey, str]:
        """Return the driver that the newest run on GPUs had, by machine."""
        return {run.machine: run.driver for run in self.summaries if run.driver}
