"""Text that others wrote, made fit for a terminal and for JSON."""

from __future__ import annotations

import unicodedata
from typing import Any


def printable(text: str) -> str:
    r"""Return `text` with every control character but newline and tab, and every lone surrogate, as ``\x1b``."""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_values(value: Any) -> Any:
    """Return a JSON value with `printable` done to every text in it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): printable_values(inner) for key, inner in value.items()}
    return [printable_values(inner) for inner in value] if isinstance(value, list) else value


def _shown(character: str) -> str:
    if character in "\n\t" or not unicodedata.category(character).startswith("C"):
        return character
    return character.encode("unicode_escape").decode("ascii")
