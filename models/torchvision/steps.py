"""When iterations end, and what they lost: read from a clock on a CPU, from CUDA events without waiting on a GPU.

A GPU runs behind the program that feeds it. To read the time, or a loss, after every iteration would make the program
wait for it each time, and so slow down what is measured. So on CUDA an event is put behind every iteration and the
losses are copied behind it; both are read when the GPU has passed them, some iterations late.

While the program waits for a batch, the GPU may still be at work. So on CUDA an event is put behind the arrival of
every batch too: only where the GPU stood still between two iterations was time lost on data.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
# How many iterations the program may be ahead of the GPU before it waits for the oldest.
AHEAD = 4


@dataclass(frozen=True)
class Begun:
    """What is known of an iteration when it has been handed to the device."""

    iteration: int
    lr: float


@dataclass(frozen=True)
class Ended:
    """An iteration that the device is done with; ``end_s`` is monotonic.

    ``data_time_s`` is the part of ``iteration_time_s`` in which the device had nothing to do but wait for the batch.
    """

    begun: Begun
    values: dict[str, float]
    iteration_time_s: float
    data_time_s: float
    end_s: float


class Steps(Protocol):
    """Takes iterations in the order they were begun, gives them in the same order when they have ended."""

    def batch(self, batches: Iterator[T]) -> T:
        """Take the next batch: the iteration begins that ``add`` will be told of."""

    def add(self, begun: Begun, values: dict[str, Tensor]) -> list[Ended]:
        """Take one iteration, give those that have ended meanwhile."""

    def rest(self) -> list[Ended]:
        """Wait for and give all that are left."""


def follow(device: torch.device) -> Steps:
    """The steps of a training that begins now."""
    return CudaSteps(partial(_mark, device)) if device.type == "cuda" else HostSteps()


class HostSteps:
    """A CPU has done everything when the call returns."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._ended_s = time.monotonic()

    def batch(self, batches: Iterator[T]) -> T:
        """Time it."""
        asked_s = time.monotonic()
        found = next(batches)
        self._waited_s = time.monotonic() - asked_s
        return found

    def add(self, begun: Begun, values: dict[str, Tensor]) -> list[Ended]:
        """Give the iteration itself."""
        read = {name: float(value) for name, value in values.items()}
        started_s, self._ended_s = self._ended_s, time.monotonic()
        return [Ended(begun, read, self._ended_s - started_s, self._waited_s, self._ended_s)]

    def rest(self) -> list[Ended]:
        """Nothing is ever left."""
        return []


class Mark(Protocol):
    """A place in what a GPU has been told to do, as a recorded ``torch.cuda.Event``."""

    def query(self) -> bool:
        """Whether the GPU has passed it."""

    def synchronize(self) -> None:
        """Wait until it has."""

    def elapsed_time(self, later: Mark, /) -> float:
        """Milliseconds from this one to a later one, by the GPU's clock."""


@dataclass(frozen=True)
class _Waiting:
    """An iteration that the GPU may still be at. ``told_s``: when it had been handed over, so that it ended later."""

    begun: Begun
    names: tuple[str, ...]
    values: Tensor
    arrived: Mark
    waited_s: float
    passed: Mark
    told_s: float


class CudaSteps:
    """Marks around every iteration and a copy of the losses behind it, read once the GPU has passed them.

    ``mark`` puts a mark behind all that the GPU has been told so far. ``end_s`` sums up what the GPU's clock says,
    which drifts by seconds in days against the host's. But an iteration surely ended after the host last saw it
    unfinished, and before the host first saw it finished: ``end_s`` is kept between the two, never wrong by more.
    """

    def __init__(self, mark: Callable[[], Mark], clock: Callable[[], float] = time.monotonic) -> None:
        self._mark = mark
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._last = self._arrived = mark()
        self._last.synchronize()
        self._ended_s = self._unfinished_s = clock()
        self._waited_s = 0.0

    def batch(self, batches: Iterator[T]) -> T:
        """Put a mark behind its arrival."""
        asked_s = self._clock()
        found = next(batches)
        self._waited_s = self._clock() - asked_s
        self._arrived = self._mark()
        return found

    def add(self, begun: Begun, values: dict[str, Tensor]) -> list[Ended]:
        """Give what the GPU has passed; wait only where the program is more than ``AHEAD`` iterations ahead."""
        stacked = torch.stack(list(values.values()))
        # Pinned, or the copy would wait for the GPU.
        copied = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=stacked.is_cuda)
        copied.copy_(stacked, non_blocking=True)
        told_s = self._clock()
        self._waiting.append(
            _Waiting(begun, tuple(values), copied, self._arrived, self._waited_s, self._mark(), told_s)
        )
        ended = []
        while self._waiting and (self._has_ended() or len(self._waiting) > AHEAD):
            ended.append(self._take())
        return ended

    def rest(self) -> list[Ended]:
        """Wait for each in turn."""
        ended = []
        while self._waiting:
            self._has_ended()
            ended.append(self._take())
        return ended

    def _has_ended(self) -> bool:
        """Look at the oldest; what is not finished now ends later."""
        asked_s = self._clock()
        if self._waiting[0].passed.query():
            return True
        self._unfinished_s = asked_s
        return False

    def _take(self) -> Ended:
        step = self._waiting.popleft()
        step.passed.synchronize()
        # Summed up in double: CUDA tells milliseconds in single precision, too coarse over a day.
        taken_s = self._last.elapsed_time(step.passed) / 1000
        idle_s = max(0.0, self._last.elapsed_time(step.arrived) / 1000)
        earliest_s, latest_s = max(self._unfinished_s, step.told_s), self._clock()
        self._last, self._ended_s = step.passed, min(max(self._ended_s + taken_s, earliest_s), latest_s)
        values = dict(zip(step.names, step.values.tolist(), strict=True))
        # The GPU may have stood still for the program too, and not only for the batch that this waited for.
        return Ended(step.begun, values, taken_s, min(idle_s, step.waited_s), self._ended_s)


def _mark(device: torch.device) -> Mark:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event
