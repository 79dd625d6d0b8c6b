"""Whose processes were on the job's GPUs: evidence of strangers, and the job's own behind hidden PIDs. Pure functions.

A container may hide the host's processes, so that NVML names PIDs that are nobody's here, or, by chance, another
process's. Where none of the job's processes was seen on a GPU, one of these must be the job's own: the one whose memory
follows what the job's allocator said it had reserved, plus a CUDA context. Where the allocator said nothing, a lone PID
that came after the job began is taken for it. Every other one is a stranger, if it was seen twice: a process that ended
between two looks, such as a child of the job's own, cannot be told from it.

A GPU that is divided (MIG) lists the processes of all its instances, most of which disturb nothing here: no strangers
are told of there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo_bench.events import Event
from zoo_bench.noise import Noise
from zoo_bench.telemetry import Floats, ProcessSeries, Span, Telemetry, floats

GIB = 2**30
LEAST_SIGHTINGS = 2
FITTING_SHARE = 0.9
CONTEXT_BYTES = 2 * GIB
"""What a CUDA context and the libraries in it take at most beside the allocator."""

SLACK_BYTES = GIB // 16


def judge_processes(
    events: Sequence[Event], telemetry: Telemetry, timed: Sequence[Span]
) -> tuple[list[Noise], frozenset[int]]:
    """Return the strangers seen while something was timed, and the PIDs that are the job's own behind hidden ones."""
    noise: list[Noise] = []
    hidden: set[int] = set()
    # A list tells of the moment it was taken: what it shows was there from about the one before.
    reach_s = float(np.median(np.diff(telemetry.list_times_s))) if len(telemetry.list_times_s) > 1 else 0.0
    for rank, gpu in enumerate(telemetry.gpus):
        seen = [one for one in telemetry.processes if one.gpu == gpu.index]
        own = _hidden_own(events, rank, seen, telemetry.list_times_s[:1])
        if own is not None:
            hidden.add(own.pid)
        if gpu.mig:
            continue
        noise += [
            _evidence(one) for one in seen if one is not own and _is_stranger(one) and _overlaps(one, timed, reach_s)
        ]
    return noise, frozenset(hidden)


def _is_stranger(one: ProcessSeries) -> bool:
    """Return True for a process of this machine that is not the job's, or one that nobody knows and that stayed."""
    if one.found("job").any():
        return False
    return bool(one.found("foreign").any()) or len(one.time_s) >= LEAST_SIGHTINGS


def _overlaps(one: ProcessSeries, timed: Sequence[Span], reach_s: float) -> bool:
    first_s, last_s = one.time_s[0] - reach_s, one.time_s[-1]
    return any(first_s <= to_s and last_s >= from_s for from_s, to_s in timed)


def _evidence(one: ProcessSeries) -> Noise:
    known = one.memory_bytes[np.isfinite(one.memory_bytes)]
    held = f"up to {known.max() / GIB:.1f} GB" if known.size else "its memory hidden"
    where = "" if one.found("foreign").any() else ", which this machine's process table does not show"
    return Noise(
        kind="foreign_process",
        gpu=one.gpu,
        from_s=float(one.time_s[0]),
        to_s=float(one.time_s[-1]),
        detail=f"process {one.pid}{where}, {held}",
    )


def _hidden_own(
    events: Sequence[Event], rank: int, seen: Sequence[ProcessSeries], launched_s: Floats
) -> ProcessSeries | None:
    """Return the process that must be the job's own, where none of the job's processes was seen as such."""
    if any(one.found("job").any() for one in seen):
        return None
    # What the first list shows, taken when the worker has just been started, was there before.
    late = [one for one in seen if _is_stranger(one) and (one.time_s[0] > launched_s).all()]
    reports = [event for event in events if event.name == "allocator_peak" and event.number("rank") == rank]
    if not reports:
        return late[0] if len(late) == 1 else None
    times_s = floats([event.time_s for event in reports])
    reserved = floats([event.number("reserved_bytes") for event in reports])
    fits = [(share, one) for one in late if (share := _fit(one, times_s, reserved)) >= FITTING_SHARE]
    return max(fits, key=lambda pair: pair[0])[1] if fits else None


def _fit(one: ProcessSeries, times_s: Floats, reserved: Floats) -> float:
    """Return the share of sightings whose highest memory so far lies where the allocator's reports put it."""
    known = np.isfinite(one.memory_bytes)
    if not known.any():
        return 0.0
    at_s = one.time_s[known]
    highest = np.maximum.accumulate(one.memory_bytes[known])
    after = np.searchsorted(times_s, at_s)
    told = (after > 0) & (at_s <= times_s[-1])
    if not told.any():
        return 0.0
    least, most = reserved[after[told] - 1], reserved[np.minimum(after[told], len(reserved) - 1)]
    fitting = (highest[told] >= least - SLACK_BYTES) & (highest[told] <= most + CONTEXT_BYTES)
    return float(fitting.mean())
