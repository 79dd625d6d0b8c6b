"""Keeps the logs of ranks 1 and up from filling a disk: of a flood the beginning and the end stay.

Rank 0 prints into a pipe that the harness reads. The others have files of their own, which they append to, so that
their last words are on disk however they end; the launcher, which only waits meanwhile, shortens them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

HEAD_BYTES = 16 * 2**20
END_BYTES = 2**20
PERIOD_S = 0.2
LEFT_OUT = b"\n[lines were left out here]\n"


class ShortLogs(threading.Thread):
    """While it is entered, no log grows far beyond twice ``head_bytes``."""

    def __init__(self, logs: Sequence[Path], head_bytes: int = HEAD_BYTES, end_bytes: int = END_BYTES) -> None:
        super().__init__(name="short logs", daemon=True)
        self._logs = logs
        self._head_bytes = head_bytes
        self._end_bytes = end_bytes
        self._over = threading.Event()

    def run(self) -> None:
        """Look at the logs now and then."""
        while not self._over.wait(PERIOD_S):
            for log in self._logs:
                if log.exists() and log.stat().st_size > 2 * self._head_bytes:
                    self._shorten(log)

    def _shorten(self, log: Path) -> None:
        with log.open("rb") as stream:
            stream.seek(-self._end_bytes, os.SEEK_END)
            end = stream.read(self._end_bytes)
        os.truncate(log, self._head_bytes)
        with log.open("ab", buffering=0) as stream:
            stream.write(LEFT_OUT + end)

    def __enter__(self) -> None:
        self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()
