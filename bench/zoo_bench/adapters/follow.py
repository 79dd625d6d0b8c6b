"""A file that another process writes, read line by line as it grows."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.2


def followed(pattern: str, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of the newest file that fits a pattern (``**`` is any folders), until `ended` says so.

    The file may come into being later. Half a line at the end waits for its other half.
    """
    while not (names := glob.glob(pattern, recursive=True)):
        if ended():
            return
        time.sleep(POLL_S)
    rest = ""
    with Path(max(names, key=os.path.getmtime)).open(encoding="utf-8", errors="replace") as stream:
        while True:
            last = ended()
            chunk = stream.read()
            *whole, rest = (rest + chunk).split("\n")
            yield from whole
            if last and not chunk:
                return
            if not chunk:
                time.sleep(POLL_S)
