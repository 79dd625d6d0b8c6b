"""Whose processes were on the job's GPUs: evidence of strangers, and the job's own behind hidden PIDs. Pure functions.

A container may hide the host's processes, so that NVML names PIDs that are nobody's here, or, by chance, another
process's. Where none of the job's processes was seen on a GPU, one of these must be the job's own: the one whose memory
follows what the job's allocator said it had reserved, plus a CUDA context. Where the allocator said nothing, a lone PID
that came after the job began is taken for it. Every other one is a stranger, if it was seen twice: a process that ended
between two looks, such as a child of the job's own, cannot be told from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo_bench.events import Event
from zoo_bench.noise import Noise
from zoo_bench.telemetry import Floats, Sighting, Telemetry, floats

GIB = 2**30
LEAST_SIGHTINGS = 2
FITTING_SHARE = 0.9
CONTEXT_BYTES = 2 * GIB
"""What a CUDA context and the libraries in it take at most beside the allocator."""

SLACK_BYTES = GIB // 16


@dataclass(frozen=True)
class Presence:
    """All sightings of one PID on one GPU, in order of time."""

    gpu: int
    pid: int
    sightings: tuple[Sighting, ...]

    @cached_property
    def owners(self) -> frozenset[str]:
        """Whom the sightings say it belongs to."""
        return frozenset(sighting.owner for sighting in self.sightings)

    @property
    def most_bytes(self) -> int | None:
        """The most memory it was seen with."""
        return max((one.memory_bytes for one in self.sightings if one.memory_bytes is not None), default=None)

    def is_stranger(self) -> bool:
        """True for a process of this machine that is not the job's, or one that nobody knows and that stayed."""
        if "job" in self.owners:
            return False
        return "foreign" in self.owners or len(self.sightings) >= LEAST_SIGHTINGS


def judge_processes(
    events: Sequence[Event], telemetry: Telemetry, timed: Sequence[tuple[float, float]]
) -> tuple[list[Noise], frozenset[int]]:
    """Return the strangers seen while something was timed, and the PIDs that are the job's own behind hidden ones."""
    noise: list[Noise] = []
    hidden: set[int] = set()
    # A list tells of the moment it was taken: what it shows was there from about the one before.
    reach_s = float(np.median(np.diff(telemetry.list_times_s))) if len(telemetry.list_times_s) > 1 else 0.0
    for rank, gpu in enumerate(telemetry.gpus):
        seen = _presences(gpu.index, telemetry.sightings)
        own = _hidden_own(events, rank, seen, telemetry.list_times_s[:1])
        if own is not None:
            hidden.add(own.pid)
        noise += [
            _evidence(one) for one in seen if one is not own and one.is_stranger() and _overlaps(one, timed, reach_s)
        ]
    return noise, frozenset(hidden)


def _presences(gpu: int, sightings: Iterable[Sighting]) -> list[Presence]:
    by_pid: dict[int, list[Sighting]] = {}
    for sighting in sightings:
        if sighting.gpu == gpu:
            by_pid.setdefault(sighting.pid, []).append(sighting)
    return [Presence(gpu, pid, tuple(found)) for pid, found in by_pid.items()]


def _overlaps(one: Presence, timed: Sequence[tuple[float, float]], reach_s: float) -> bool:
    first_s, last_s = one.sightings[0].time_s - reach_s, one.sightings[-1].time_s
    return any(first_s <= to_s and last_s >= from_s for from_s, to_s in timed)


def _evidence(one: Presence) -> Noise:
    most = one.most_bytes
    held = "its memory hidden" if most is None else f"up to {most / GIB:.1f} GB"
    where = "" if "foreign" in one.owners else ", which this machine's process table does not show"
    return Noise(
        kind="foreign_process",
        gpu=one.gpu,
        from_s=one.sightings[0].time_s,
        to_s=one.sightings[-1].time_s,
        detail=f"process {one.pid}{where}, {held}",
    )


def _hidden_own(events: Sequence[Event], rank: int, seen: Sequence[Presence], launched_s: Floats) -> Presence | None:
    """Return the presence that must be the job's own, where none of the job's processes was seen as such."""
    if any("job" in one.owners for one in seen):
        return None
    # What the first list shows, taken when the worker has just been started, was there before.
    late = [one for one in seen if one.is_stranger() and (one.sightings[0].time_s > launched_s).all()]
    reports = [event for event in events if event.name == "allocator_peak" and event.number("rank") == rank]
    if not reports:
        return late[0] if len(late) == 1 else None
    times_s = floats([event.time_s for event in reports])
    reserved = floats([event.number("reserved_bytes") for event in reports])
    fits = [(share, one) for one in late if (share := _fit(one, times_s, reserved)) >= FITTING_SHARE]
    return max(fits, key=lambda pair: pair[0])[1] if fits else None


def _fit(one: Presence, times_s: Floats, reserved: Floats) -> float:
    """Return the share of sightings whose highest memory so far lies where the allocator's reports put it."""
    known = [(seen.time_s, seen.memory_bytes) for seen in one.sightings if seen.memory_bytes is not None]
    if not known:
        return 0.0
    at_s = floats([time_s for time_s, _ in known])
    highest = np.maximum.accumulate(floats([held for _, held in known]))
    after = np.searchsorted(times_s, at_s)
    told = (after > 0) & (at_s <= times_s[-1])
    if not told.any():
        return 0.0
    least, most = reserved[after[told] - 1], reserved[np.minimum(after[told], len(reserved) - 1)]
    fitting = (highest[told] >= least - SLACK_BYTES) & (highest[told] <= most + CONTEXT_BYTES)
    return float(fitting.mean())
