"""The figures of the table, read out of a record: bytes, seconds, joules, images a second, fractions. Pure functions.

A record holds several counts of memory for each GPU; `MemoryDefinition` says which one is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from zoo_bench.columns import Column
from zoo_bench.measurements import AllocatorPeak, GpuMemory, Interval, Memory
from zoo_bench.record import Record

MemoryCount = Literal["nvml", "allocated", "reserved"]
OverGpus = Literal["max", "rank0", "sum"]
MEMORY_COUNTS: tuple[MemoryCount, ...] = get_args(MemoryCount)
OVER_GPUS: tuple[OverGpus, ...] = get_args(OverGpus)
FELL_BACK = "NVML did not give memory per process: memory in use on the device, less what was in use before the job"

RANKS_NAMED = 16


@dataclass(frozen=True)
class MemoryDefinition:
    """Which count of memory, and how the job's GPUs become one number.

    nvml: per process, as NVML counts it; allocated, reserved: as the framework's allocator does, by rank.
    """

    count: MemoryCount = "nvml"
    over_gpus: OverGpus = "max"


DEFAULT_MEMORY = MemoryDefinition()
# How people say it, of our own figures and of published ones.
COUNT_TEXT: dict[MemoryCount | Literal["nvidia-smi"], str] = {
    "nvml": "NVML's count of the job's processes",
    "allocated": "what the framework's allocator gave to tensors (allocated)",
    "reserved": "what the framework's allocator held (reserved, once called cached)",
    "nvidia-smi": "what nvidia-smi shows",
}
OVER_GPUS_TEXT: dict[OverGpus, str] = {
    "max": "the largest on any one GPU",
    "rank0": "of the first process (rank 0)",
    "sum": "summed over the GPUs",
}


@dataclass(frozen=True)
class Figure:
    """One figure. Without a value `remark` says why; with one, how it departs from what was asked for."""

    value: float | None
    interval: Interval | None = None
    remark: str = ""


NOTHING = Figure(None)


def figure(column: Column, record: Record, definition: MemoryDefinition = DEFAULT_MEMORY) -> Figure:
    """Return what a record says for a column; nothing for Download, which is no number."""
    measured = record.measurements
    if column == "memory":
        return memory_figure(record, definition)
    if column == "s_per_iter" and measured.train:
        return Figure(measured.train.mean_s, measured.train.interval, _as_reported(record, column))
    if column == "energy":
        return _energy(record)
    if column == "fps":
        return _fps(record)
    if column == "box_ap" and measured.scores and measured.scores.box:
        return Figure(measured.scores.box.ap)
    if column == "mask_ap" and measured.scores and measured.scores.mask:
        return Figure(measured.scores.mask.ap)
    return NOTHING


def _fps(record: Record) -> Figure:
    infer, reported = record.measurements.infer, record.measurements.reported
    if infer is not None:
        return Figure(infer.fps, _rate(infer.interval))
    if reported is not None and reported.fps is not None:
        return Figure(reported.fps, remark=_as_reported(record, "fps"))
    return NOTHING


def _energy(record: Record) -> Figure:
    memory, energy = record.measurements.memory, record.measurements.energy
    if energy is not None and energy.joules_per_iteration is not None:
        return Figure(energy.joules_per_iteration)
    if record.cell["gpus"] == 0:
        return Figure(None, remark="known of GPUs only")
    return Figure(None, remark="; ".join(memory.problems if memory else ()) or "not known")


def memory_figure(record: Record, definition: MemoryDefinition) -> Figure:
    """Return the peak memory of a run: of the host for a run without a GPU, where there is nothing to define."""
    memory, gpus = record.measurements.memory, int(record.cell["gpus"])
    if memory is None:
        return _reported_memory(record, definition)
    if gpus == 0:
        return Figure(memory.host_bytes)
    if definition.count == "nvml":
        return _nvml(memory, definition.over_gpus, gpus)
    return _allocator(memory, definition, gpus)


def _reported_memory(record: Record, definition: MemoryDefinition) -> Figure:
    """Take what a trainer says of itself; there is no other count of it, and a remark says which this is."""
    reported = record.measurements.reported
    if reported is None or reported.memory is None:
        return NOTHING
    found = reported.memory
    if (found.count, found.over_gpus) == (definition.count, definition.over_gpus):
        return Figure(found.bytes)
    return Figure(found.bytes, remark=_as_reported(record, "memory"))


def _as_reported(record: Record, column: Column) -> str:
    """Say what a figure means that another program reported; nothing of our own."""
    if record.origin is None:
        return ""
    return f"as reported: {record.definitions.get(column, 'it is not told how')}"


def _nvml(memory: Memory, over_gpus: OverGpus, gpus: int) -> Figure:
    """Take NVML's count per process where it has it for every GPU, else what the job added to the devices.

    `memory.gpus` are in the order of the ranks.
    """
    mine: Sequence[GpuMemory] = memory.gpus[: 1 if over_gpus == "rank0" else gpus]
    if not mine or (over_gpus != "rank0" and len(mine) < gpus):
        return Figure(None, remark=f"NVML saw {len(mine)} of the job's {gpus} GPUs{_because(memory)}")
    processes = _over([gpu.nvml_process_bytes for gpu in mine], over_gpus)
    if processes is not None:
        return Figure(processes)
    added = _over([gpu.nvml_delta_bytes for gpu in mine], over_gpus)
    if added is not None:
        return Figure(added, remark=FELL_BACK)
    return Figure(None, remark=f"NVML gave no memory of the job{_because(memory)}")


def _allocator(memory: Memory, definition: MemoryDefinition, gpus: int) -> Figure:
    """Take the allocator's peaks; a rank that reported none leaves the largest and the sum unknown."""
    peaks: dict[int, AllocatorPeak] = {peak.rank: peak for peak in memory.allocator}
    ranks = range(1 if definition.over_gpus == "rank0" else gpus)
    missing = list(islice((rank for rank in ranks if rank not in peaks), RANKS_NAMED + 1))
    if missing:
        named = ", ".join(map(str, missing[:RANKS_NAMED])) + (" and more" if len(missing) > RANKS_NAMED else "")
        return Figure(None, remark=f"the worker reported no allocator peak of rank {named}")
    counts: list[int | None] = [
        peaks[rank].allocated_bytes if definition.count == "allocated" else peaks[rank].reserved_bytes for rank in ranks
    ]
    return Figure(_over(counts, definition.over_gpus))


def _over(counts: Sequence[int | None], over_gpus: OverGpus) -> int | None:
    """Make one number of the GPUs' counts; None when one of them is not known."""
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    return sum(known) if over_gpus == "sum" else max(known)


def _because(memory: Memory) -> str:
    return f": {'; '.join(memory.problems)}" if memory.problems else ""


def _rate(seconds: Interval | None) -> Interval | None:
    """Turn an interval of seconds per image into one of images per second."""
    return None if seconds is None or seconds.low <= 0 else Interval(low=1 / seconds.high, high=1 / seconds.low)
