"""Ctrl-C, SIGTERM and SIGHUP, held back: they are counted, and whoever is at work ends in its own time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Presses:
    """How often the user, or the system, has asked to stop."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def held_back() -> Iterator[Presses]:
    """Count the signals that ask to stop, in place of what they did before. For the main thread only."""
    presses = Presses()

    def press(_number: int, _frame: object) -> None:
        presses.count += 1

    before = {number: signal.signal(number, press) for number in SIGNALS}
    try:
        yield presses
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
