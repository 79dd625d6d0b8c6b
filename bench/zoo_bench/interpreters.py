"""Finding a Python that fits a worker environment among those this machine has."""

from __future__ import annotations

import operator
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Version = tuple[int, int]
NEWEST_MINOR = 14

_OPERATORS: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_CLAUSE = re.compile(r"\s*(>=|<=|>|<|==|!=)\s*(\d+)\.(\d+)\s*")
_ASK = "import sys; print('%d.%d' % sys.version_info[:2])"
_ASK_TIMEOUT_S = 20.0


def satisfies(version: Version, wanted: str) -> bool:
    """Tell whether a Python of this major and minor version is among `wanted`, such as ``>=3.10,<3.14``."""
    clauses = (_CLAUSE.fullmatch(text) for text in wanted.split(","))
    return all(
        clause is not None and _OPERATORS[clause[1]](version, (int(clause[2]), int(clause[3]))) for clause in clauses
    )


def newest(wanted: str) -> str:
    """Return the newest Python among `wanted` that this code knows of, such as ``3.13``, for a message."""
    return f"3.{next(iter(_minors(wanted)), NEWEST_MINOR)}"


def find_interpreter(wanted: str) -> Path | None:
    """Return an interpreter among `wanted`: our own, else one on PATH or of pyenv; None without one."""
    if satisfies(sys.version_info[:2], wanted):
        return Path(sys.executable)
    return next((path for path in _candidates(wanted) if _fits(path, wanted)), None)


def interpreter_version(python: Path) -> Version | None:
    """Ask an interpreter for its major and minor version; None when it does not run."""
    try:
        answer = subprocess.run(
            [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    major, _, minor = answer.stdout.strip().partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def _fits(python: Path, wanted: str) -> bool:
    # A name promises nothing: a pyenv shim called python3.12 fails unless that version is active.
    version = interpreter_version(python)
    return version is not None and satisfies(version, wanted)


def _minors(wanted: str) -> list[int]:
    return [minor for minor in range(NEWEST_MINOR, 5, -1) if satisfies((3, minor), wanted)]


def _candidates(wanted: str) -> Iterator[Path]:
    minors = _minors(wanted)
    for name in [*(f"python3.{minor}" for minor in minors), "python3", "python"]:
        found = shutil.which(name)
        if found:
            yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")) / "versions"
    for minor in minors:
        yield from sorted(versions.glob(f"3.{minor}.*/bin/python"), reverse=True)
