"""Text that others wrote, made fit for a terminal and for JSON."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any


def printable(text: str) -> str:
    r"""Return `text` with every control character but newline and tab, and every lone surrogate, as ``\x1b``."""
    return text if text.isprintable() else "".join(map(_shown, text))


def one_line(text: str) -> str:
    r"""Return the same without line breaks, which stand as ``\n``: of text that must not begin a line of its own."""
    return printable(text).replace("\n", r"\n")


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with `change` done to every text in it, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): each_text(inner, change) for key, inner in value.items()}
    return [each_text(inner, change) for inner in value] if isinstance(value, list) else value


def _shown(character: str) -> str:
    if character in "\n\t" or not unicodedata.category(character).startswith("C"):
        return character
    return character.encode("unicode_escape").decode("ascii")
