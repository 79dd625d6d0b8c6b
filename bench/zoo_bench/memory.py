"""The memory that a job took, by every definition that can be had: peaks over its training. Bytes; pure functions.

- NVML per process: what NVML counts for the job's processes on one GPU, summed over them, at its highest.
- NVML device delta: the device's memory in use at its highest, less what was in use before the job was launched.
- NVML device: the device's memory in use at its highest.
- Allocator: what the framework itself says it allocated and reserved, per rank.
- Host: proportional set size of the job's process tree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zoo_bench.events import Event, ended_s
from zoo_bench.measurements import AllocatorPeak, GpuMemory, Memory
from zoo_bench.telemetry import Floats, GpuSeries, ProcessSeries, Telemetry, floats
from zoo_bench.units import gigabytes


def training_end_s(events: Sequence[Event]) -> float:
    """Return when the last iteration ended (monotonic seconds); infinity where nothing was trained."""
    return max((ended_s(event) for event in events if event.name == "step"), default=math.inf)


def memory(
    events: Sequence[Event], telemetry: Telemetry, until_s: float, hidden_own: frozenset[int] = frozenset()
) -> Memory:
    """Take the peaks of everything up to `until_s`: the end of training, or infinity for the whole job.

    `hidden_own` are PIDs that were found to be the job's own behind hidden ones (`zoo_bench.foreign`).
    """
    lists = telemetry.list_times_s[telemetry.list_times_s <= until_s]
    problems: list[str] = []
    gpus = []
    for gpu in telemetry.gpus:
        seen = [_until(one, until_s) for one in telemetry.processes if one.gpu == gpu.index]
        process_bytes, problem = _process_peak(gpu.index, seen, len(lists), hidden_own)
        problems += [problem] if problem else []
        gpus.append(_gpu_peaks(gpu, until_s, process_bytes))
    return Memory(
        host_bytes=_peak(telemetry.host.tree_bytes, telemetry.host.time_s, until_s),
        gpus=tuple(gpus),
        allocator=_allocator(events),
        problems=(*telemetry.problems, *problems),
    )


def peaks(found: Memory | None) -> str:
    """Say how much a job held at most, for one that had not enough."""
    if found is None:
        return "no peak is known"
    held = [(f"GPU {gpu.index}", gpu.nvml_process_bytes or gpu.nvml_used_bytes) for gpu in found.gpus]
    held.append(("host", found.host_bytes))
    known = [f"{where} {gigabytes(count, 2)} GB" for where, count in held if count is not None]
    return f"peak: {', '.join(known)}" if known else "no peak is known"


def _gpu_peaks(gpu: GpuSeries, until_s: float, process_bytes: int | None) -> GpuMemory:
    used = _peak(gpu.used_bytes, gpu.time_s, until_s)
    above = None if used is None or math.isnan(gpu.baseline_bytes) else used - int(gpu.baseline_bytes)
    return GpuMemory(
        index=gpu.index,
        nvml_process_bytes=process_bytes,
        # Less than nothing means that somebody else left the GPU in the meantime: no figure of ours.
        nvml_delta_bytes=above if above is not None and above >= 0 else None,
        nvml_used_bytes=used,
    )


def _peak(values: Floats, times_s: Floats, until_s: float) -> int | None:
    """The highest value up to `until_s`; of all where that comes before the first sample."""
    known = np.isfinite(values)
    window = known & (times_s <= until_s)
    chosen = values[window if window.any() else known]
    return int(chosen.max()) if chosen.size else None


def _until(one: ProcessSeries, until_s: float) -> ProcessSeries:
    """Return the start of a series, without a copy of it."""
    end = int(np.searchsorted(one.time_s, until_s, side="right"))
    return replace(one, time_s=one.time_s[:end], memory_bytes=one.memory_bytes[:end], owners=one.owners[:end])


def _process_peak(
    gpu: int, seen: Sequence[ProcessSeries], lists: int, hidden_own: frozenset[int]
) -> tuple[int | None, str | None]:
    """Return the highest sum over one list, and the reason why that is not known, or not of all lists."""
    sums = _list_sums(seen, hidden_own)
    known = sums[np.isfinite(sums)]
    peak = int(known.max()) if known.size else None
    if known.size < sums.size:
        return peak, f"GPU {gpu}: per-process memory: N/A in {sums.size - known.size} of {sums.size} lists"
    if peak is not None:
        return peak, None
    if any(one.found("unknown").any() for one in seen):
        return None, f"GPU {gpu}: per-process memory: NVML names PIDs that this machine does not have (a container?)"
    return None, f"GPU {gpu}: per-process memory: NVML names no process of the job in {lists} lists"


def _list_sums(seen: Sequence[ProcessSeries], hidden_own: frozenset[int]) -> Floats:
    """Sum up the job's processes for every list that has one of them; NaN where the memory of one is not told."""
    own = [(one, one.found("job") | (one.pid in hidden_own)) for one in seen]
    times_s = np.concatenate([floats(()), *(one.time_s[mine] for one, mine in own)])
    held = np.concatenate([floats(()), *(one.memory_bytes[mine] for one, mine in own)])
    taken_s, places = np.unique(times_s, return_inverse=True)
    return np.asarray(np.bincount(places, weights=held, minlength=len(taken_s)), dtype=np.float64)


def _allocator(events: Sequence[Event]) -> tuple[AllocatorPeak, ...]:
    """Return the last word of every rank: the peaks only grow."""
    last = {int(event.number("rank")): event for event in events if event.name == "allocator_peak"}
    return tuple(
        AllocatorPeak(
            rank=rank,
            device=str(event.fields.get("device")),
            allocated_bytes=int(event.number("allocated_bytes")),
            reserved_bytes=int(event.number("reserved_bytes")),
        )
        for rank, event in sorted(last.items())
    )
