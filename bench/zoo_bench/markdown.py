"""Markdown pieces: escaped text, links, tables and footnotes. Nothing a value contains can break out of its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from tabulate import tabulate

SPECIAL = re.compile(r"([\\`*\[\]|])")


def escape(value: object) -> str:
    """Return `value` as one line of literal Markdown text: no table cell, link, tag or footnote can start in it."""
    line = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    return SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))


def link(text: str, target: str) -> str:
    """Return a link; `target` is a relative path or an address."""
    return f"[{escape(text)}]({quote(target, safe='/:#?&=%@+~,-._')})"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a pipe table with centred columns. The strings are Markdown already."""
    return tabulate(rows, headers=headers, tablefmt="pipe", colalign=["center"] * len(headers), disable_numparse=True)


class Footnotes:
    """Numbers footnotes in the order of their first use; the same text has one number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """Return the reference to a footnote. `text` is Markdown already."""
        return f"[^{self._numbers.setdefault(text, len(self._numbers) + 1)}]"

    def lines(self) -> list[str]:
        """Return the definitions, one a line."""
        return [f"[^{number}]: {text}" for text, number in self._numbers.items()]
