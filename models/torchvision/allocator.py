"""What CUDA's caching allocator of every rank held at most."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from models import worker
from models.torchvision.exchange import Peak
from models.torchvision.ranks import Rank

PERIOD_S = 1.0


class AllocatorPeaks:
    """Reads this rank's peaks about once a second, and writes all ranks' as often, and at the end.

    A CPU has no such allocator: nothing is written. The curve lets the harness recognise the processes among those
    that a container hides the numbers of.
    """

    def __init__(self, rank: Rank, events: worker.EventWriter) -> None:
        self._rank = rank
        self._events = events
        self._read_s = self._written_s = 0.0
        self._own: Peak = (0, 0)

    def own(self) -> Peak:
        """This rank's allocated and reserved bytes, largest so far, at most a second old."""
        if time.monotonic() - self._read_s >= PERIOD_S:
            self._own = self.read()
        return self._own

    def read(self) -> Peak:
        """The same, now."""
        device, self._read_s = self._rank.device, time.monotonic()
        if device.type != "cuda":
            return 0, 0
        return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)

    def write_sometimes(self, peaks: Sequence[Peak]) -> None:
        """Write the peaks of all ranks, unless that was done within the last second."""
        if time.monotonic() - self._written_s >= PERIOD_S:
            self.write(peaks)

    def write(self, peaks: Sequence[Peak]) -> None:
        """Write them now."""
        if self._rank.device.type != "cuda":
            return
        self._written_s = time.monotonic()
        for number, (allocated, reserved) in enumerate(peaks):
            # The harness names a job's devices by their place in it, and a rank has the device of its number.
            self._events.write(
                "allocator_peak",
                rank=number,
                device=f"gpu:{number}",
                allocated_bytes=allocated,
                reserved_bytes=reserved,
            )
