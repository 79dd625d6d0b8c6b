"""What CUDA's caching allocator of this process held at most."""

from __future__ import annotations

import time

import torch

from models import worker

PERIOD_S = 1.0


class AllocatorPeaks:
    """Writes the peaks so far, about once a second and at the end. A CPU has no such allocator: nothing is written.

    The curve lets the harness recognise this process among those that a container hides the numbers of.
    """

    def __init__(self, device: torch.device, events: worker.EventWriter) -> None:
        self._device = device
        self._events = events
        self._written_s = 0.0

    def after_step(self) -> None:
        """To be called after every iteration."""
        if time.monotonic() - self._written_s >= PERIOD_S:
            self.write()

    def write(self) -> None:
        """Write them now."""
        if self._device.type != "cuda":
            return
        self._written_s = time.monotonic()
        self._events.write(
            "allocator_peak",
            rank=0,
            device=f"gpu:{self._device.index}",
            allocated_bytes=torch.cuda.max_memory_allocated(self._device),
            reserved_bytes=torch.cuda.max_memory_reserved(self._device),
        )
