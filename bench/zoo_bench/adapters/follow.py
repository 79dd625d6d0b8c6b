"""A file that another process writes, read line by line as it grows."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.2


def followed(pattern: str, since_unix_s: float, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of the newest file that fits a pattern (``**`` is any folders), until `ended` says so.

    The file may come into being later; one that was not written since then is of an earlier run. Half a line waits for
    its other half, as long as there can be one.
    """
    while not (names := [name for name in glob.glob(pattern, recursive=True) if _written(name) >= since_unix_s]):
        if ended():
            return
        time.sleep(POLL_S)
    rest = ""
    with Path(max(names, key=_written)).open(encoding="utf-8", errors="replace") as stream:
        while True:
            last = ended()
            chunk = stream.read()
            *whole, rest = (rest + chunk).split("\n")
            yield from whole
            if last and not chunk:
                yield from [rest] if rest else []
                return
            if not chunk:
                time.sleep(POLL_S)


def _written(name: str) -> float:
    try:
        return os.path.getmtime(name)
    except OSError:  # it is gone again
        return 0.0
