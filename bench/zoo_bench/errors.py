"""Errors a person can act on, and the exit codes they become.

Every error that bad input or a bad machine can cause derives from `ZooBenchError`. It is turned into a message and
an exit code in one place only: `zoo_bench.cli.main`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_CELL_FAILED = 1
EXIT_DIFFERS = 1
EXIT_USAGE = 2
EXIT_REGRESSED = 3
EXIT_NO_BASELINE = 4
EXIT_QUARANTINED = 5
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class ZooBenchError(Exception):
    """What happened and where (`message`), and what to do about it (`hint`)."""

    exit_code = EXIT_USAGE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(ZooBenchError):
    """A configuration file or an argument is wrong."""


class DatasetError(ZooBenchError):
    """A dataset is missing or broken."""


class EnvironmentBuildError(ZooBenchError):
    """A worker environment could not be made or does not work."""


class StoreError(ZooBenchError):
    """The results folder cannot be read or written."""


class PreflightError(ZooBenchError):
    """This machine lacks something the planned cells need; nothing was launched."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest of `known`, or the list of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "none is declared"
