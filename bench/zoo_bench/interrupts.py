"""Ctrl-C, SIGTERM and their like: they end a command, but are held back and counted while a cell runs.

One that the caller has told to be ignored (nohup, a shell's background job) stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from zoo_bench import allocation

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FROM_TERMINAL = "stopped from the terminal"


class Interrupted(BaseException):
    """A signal has asked to stop. No KeyboardInterrupt, of which the command line's library makes its own message."""


class Presses:
    """How often the user, or the system, has asked to stop. `from_terminal`: by Ctrl-C, once at least."""

    def __init__(self) -> None:
        self.count = 0
        self.from_terminal = False


def stopper() -> str:
    """Say who has stopped a run, when somebody has: on a cluster it is no terminal."""
    job = allocation.job()
    return f"stopped by Slurm: job {job} was preempted, out of time, requeued or cancelled" if job else FROM_TERMINAL


def raise_on_signals() -> None:
    """Let every signal that asks to stop raise Interrupted, so that what is half made is removed."""
    _handle(_raise)


@contextmanager
def held_back() -> Iterator[Presses]:
    """Count the signals that ask to stop, in place of what they did before. For the main thread only."""
    presses = Presses()

    def press(number: int, _frame: object) -> None:
        presses.count += 1
        presses.from_terminal |= number == signal.SIGINT

    before = _handle(press)
    try:
        yield presses
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the signals that ask to stop wait meanwhile, also for processes that are started: short ones alone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle(handler: Callable[[int, object], None]) -> dict[signal.Signals, Any]:
    """Set the handler; return those that were there before."""
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def _raise(number: int, _frame: object) -> None:
    if number != signal.SIGINT:  # a closing terminal sends SIGHUP twice, which must not interrupt the clean-up
        signal.signal(number, signal.SIG_IGN)
    raise Interrupted
