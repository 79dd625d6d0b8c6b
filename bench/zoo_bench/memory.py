"""The memory that a job took, by every definition that can be had: peaks over its training. Bytes; pure functions.

- NVML per process: what NVML counts for the job's processes on one GPU, summed over them, at its highest.
- NVML device delta: the device's memory in use at its highest, less what was in use before the job was launched.
- NVML device: the device's memory in use at its highest.
- Allocator: what the framework itself says it allocated and reserved, per rank.
- Host: proportional set size of the job's process tree.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from zoo_bench.events import Event
from zoo_bench.measurements import AllocatorPeak, GpuMemory, Memory
from zoo_bench.telemetry import Floats, GpuSeries, Sighting, Telemetry


def training_end_s(events: Sequence[Event]) -> float:
    """Return when the last iteration ended (monotonic seconds); infinity where nothing was trained."""
    ends = [
        event.number("end_s") if "end_s" in event.fields else event.time_s for event in events if event.name == "step"
    ]
    return max(ends, default=math.inf)


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
        seen = [one for one in telemetry.sightings if one.gpu == gpu.index and one.time_s <= until_s]
        process_bytes, problem = _process_peak(gpu.index, seen, len(lists), hidden_own)
        problems += [problem] if problem else []
        gpus.append(_gpu_peaks(gpu, until_s, process_bytes))
    return Memory(
        host_bytes=_peak(telemetry.host.tree_bytes, telemetry.host.time_s, until_s),
        gpus=tuple(gpus),
        allocator=_allocator(events),
        problems=(*telemetry.problems, *problems),
    )


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


def _process_peak(
    gpu: int, seen: Sequence[Sighting], lists: int, hidden_own: frozenset[int]
) -> tuple[int | None, str | None]:
    """Return the highest sum over one list, and the reason why that is not known, or not of all lists."""
    own: dict[float, list[int | None]] = defaultdict(list)
    for one in seen:
        if one.owner == "job" or one.pid in hidden_own:
            own[one.time_s].append(one.memory_bytes)
    sums = [
        sum(known) for parts in own.values() if len(known := [part for part in parts if part is not None]) == len(parts)
    ]
    peak = max(sums, default=None)
    if len(sums) < len(own):
        return peak, f"GPU {gpu}: per-process memory: N/A in {len(own) - len(sums)} of {len(own)} lists"
    if peak is not None:
        return peak, None
    if any(one.owner == "unknown" for one in seen):
        return None, f"GPU {gpu}: per-process memory: NVML names PIDs that this machine does not have (a container?)"
    return None, f"GPU {gpu}: per-process memory: NVML names no process of the job in {lists} lists"


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
