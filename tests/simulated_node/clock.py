"""Scenario time as a test sets it, shared with the simulated node through a mapped file. Standard library only."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from types import TracebackType


class VirtualClock:
    """A clock in a file of 8 bytes, mapped. Opening one that exists keeps its time."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with self.path.open("ab") as stream:
            if stream.tell() == 0:
                stream.write(struct.pack("<d", 0.0))
        with self.path.open("r+b") as stream:
            self._map = mmap.mmap(stream.fileno(), 8)

    def set(self, time_s: float) -> None:
        """Make it this time, for every process that has mapped the clock."""
        self._map[:] = struct.pack("<d", time_s)

    def close(self) -> None:
        """Unmap the clock; the file keeps the time."""
        self._map.close()

    def __enter__(self) -> VirtualClock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
