"""Where samples are kept while a job runs: rows of numbers in memory, and lines of JSON in a file.

A run may last for days at ten samples a second, so neither holds a Python object for each figure.
"""

from __future__ import annotations

import json
import threading
import time
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from zoo_bench.problems import Problems
from zoo_bench.telemetry import Floats

FLUSH_S = 1.0


class Table:
    """Rows of numbers under named columns, eight bytes each. One thread appends, until the arrays are taken."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._numbers = array("d")

    def append(self, row: Iterable[float]) -> None:
        """Add a row, as long as there are columns."""
        self._numbers.extend(row)

    def arrays(self) -> dict[str, Floats]:
        """Return every column by its name: views, since a week of samples does not fit into memory twice.

        No row can be appended while one of them is there (BufferError).
        """
        width = len(self.columns)
        count = len(self._numbers) // width
        rows = np.frombuffer(self._numbers, dtype=np.float64, count=count * width).reshape(count, width)
        return {name: rows[:, number] for number, name in enumerate(self.columns)}


class SampleFile:
    """JSON lines, one an object, written out about once a second: what a crash of the machine can lose.

    A file that cannot be written is a reason in `problems` and no more: the figures are in memory too. Safe to use from
    several threads.
    """

    def __init__(self, path: Path, problems: Problems) -> None:
        self._problems = problems
        self._lock = threading.Lock()
        self._flushed_s = time.monotonic()
        self._stream: TextIO | None = None
        try:
            self._stream = path.open("w", encoding="utf-8")
        except OSError as error:
            self._give_up(error)

    def write(self, **fields: Any) -> None:
        """Write one object. Raises ValueError for NaN, which JSON has not: see `row`."""
        line = json.dumps(fields, separators=(",", ":"), allow_nan=False) + "\n"
        with self._lock:
            if self._stream is None:
                return
            try:
                self._stream.write(line)
                if time.monotonic() - self._flushed_s >= FLUSH_S:
                    self._stream.flush()
                    self._flushed_s = time.monotonic()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Write out what is left."""
        with self._lock:
            try:
                if self._stream is not None:
                    self._stream.close()
            except OSError as error:
                self._give_up(error)
            self._stream = None

    def _give_up(self, error: OSError) -> None:
        self._stream = None
        self._problems.add("file", f"the samples' file is not complete: {error.strerror}")


def row(numbers: Iterable[float]) -> list[float | None]:
    """Return `numbers` as the file has them: to six decimals, and null for NaN."""
    return [None if number != number else round(number, 6) for number in numbers]
