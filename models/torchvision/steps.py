"""When iterations end, and what they lost: read from a clock on a CPU, from CUDA events without waiting on a GPU.

A GPU runs behind the program that feeds it. To read the time, or a loss, after every iteration would make the program
wait for it each time, and so slow down what is measured. So on CUDA an event is put behind every iteration and the
losses are copied behind it; both are read when the GPU has passed them, some iterations late.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# How many iterations the program may be ahead of the GPU before it waits for the oldest.
AHEAD = 4


@dataclass(frozen=True)
class Begun:
    """What is known of an iteration when it has been handed to the device."""

    iteration: int
    lr: float
    data_time_s: float


@dataclass(frozen=True)
class Ended:
    """An iteration that the device is done with; ``end_s`` is monotonic."""

    begun: Begun
    losses: dict[str, float]
    iteration_time_s: float
    end_s: float


class Steps(Protocol):
    """Takes iterations in the order they were begun, gives them in the same order when they have ended."""

    def add(self, begun: Begun, losses: dict[str, Tensor]) -> Iterator[Ended]:
        """Take one iteration, give those that have ended meanwhile."""

    def rest(self) -> Iterator[Ended]:
        """Wait for and give all that are left."""


def follow(device: torch.device) -> Steps:
    """The steps of a training that begins now."""
    return CudaSteps(device) if device.type == "cuda" else HostSteps()


class HostSteps:
    """A CPU has done everything when the call returns."""

    def __init__(self) -> None:
        self._ended_s = time.monotonic()

    def add(self, begun: Begun, losses: dict[str, Tensor]) -> Iterator[Ended]:
        """Give the iteration itself."""
        values = {name: float(loss) for name, loss in losses.items()}
        started_s, self._ended_s = self._ended_s, time.monotonic()
        yield Ended(begun, values, self._ended_s - started_s, self._ended_s)

    def rest(self) -> Iterator[Ended]:
        """Nothing is ever left."""
        return iter(())


@dataclass(frozen=True)
class _Waiting:
    begun: Begun
    names: tuple[str, ...]
    values: Tensor
    passed: torch.cuda.Event


class CudaSteps:
    """An event and a copy of the losses behind every iteration, read once the GPU has passed them."""

    def __init__(self, device: torch.device) -> None:
        self._waiting: deque[_Waiting] = deque()
        torch.cuda.synchronize(device)
        self._last = torch.cuda.Event(enable_timing=True)
        self._last.record(torch.cuda.current_stream(device))
        self._ended_s = time.monotonic()

    def add(self, begun: Begun, losses: dict[str, Tensor]) -> Iterator[Ended]:
        """Give what the GPU has passed; wait only where the program is more than ``AHEAD`` iterations ahead."""
        values = torch.stack(list(losses.values()))
        # Pinned, or the copy would wait for the GPU.
        copied = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
        passed = torch.cuda.Event(enable_timing=True)
        passed.record(torch.cuda.current_stream(values.device))
        self._waiting.append(_Waiting(begun, tuple(losses), copied, passed))
        while self._waiting and (len(self._waiting) > AHEAD or self._waiting[0].passed.query()):
            yield self._take()

    def rest(self) -> Iterator[Ended]:
        """Wait for each in turn."""
        while self._waiting:
            yield self._take()

    def _take(self) -> Ended:
        step = self._waiting.popleft()
        step.passed.synchronize()
        # Summed up in double: CUDA tells milliseconds in single precision, too coarse over a day.
        taken_s = self._last.elapsed_time(step.passed) / 1000
        self._last, self._ended_s = step.passed, self._ended_s + taken_s
        return Ended(step.begun, dict(zip(step.names, step.values.tolist(), strict=True)), taken_s, self._ended_s)
