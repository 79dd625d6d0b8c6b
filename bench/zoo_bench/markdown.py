"""Markdown pieces: escaped text, links, tables and footnotes. Nothing a value contains can break out of its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from tabulate import tabulate

SPECIAL = re.compile(r"([\\`*\[\]|~])")
# Between letters or digits it is none: most names have some.
EMPHASIS = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
# What makes a heading, a list, a quotation or a line across the page of a text that begins a line.
OPENING = re.compile(r"^(>|[#+=-](?=[#=\s-]|$))")
NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


def escape(value: object) -> str:
    """Return `value` as one line of literal Markdown text, wherever it is put: it is no heading or list, and no table
    cell, link, tag, emphasis or footnote can start in it.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    line = SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))
    line = EMPHASIS.sub(lambda found: r"\_" * len(found[0]), line)
    return NUMBERED.sub(r"\1\\\2", OPENING.sub(r"\\\1", line))


def address(target: str) -> str:
    """Return a relative path or an address with what no link can hold percent-encoded."""
    return quote(target, safe="/:#?&=%@+~,-._")


def link(text: str, target: str) -> str:
    """Return a link; `target` is a relative path or an address."""
    return f"[{escape(text)}]({address(target)})"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a pipe table with centred columns. The strings are Markdown already."""
    return tabulate(rows, headers=headers, tablefmt="pipe", colalign=["center"] * len(headers), disable_numparse=True)


@dataclass(frozen=True)
class Markup:
    """How a format writes literal text, links (text, target), tables (headers, rows), marks and texts of footnotes.

    What is put into a table or a footnote is in the format already.
    """

    escape: Callable[[object], str]
    link: Callable[[str, str], str]
    table: Callable[[Sequence[str], Sequence[Sequence[str]]], str]
    footnote_mark: Callable[[int], str]
    footnote: Callable[[int, str], str]


MARKDOWN = Markup(escape, link, table, "[^{}]".format, "[^{}]: {}".format)


class Footnotes:
    """Numbers footnotes in the order of their first use; the same text has one number."""

    def __init__(self, markup: Markup = MARKDOWN) -> None:
        self._markup = markup
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """Return the reference to a footnote. `text` is in the format already."""
        return self._markup.footnote_mark(self._numbers.setdefault(text, len(self._numbers) + 1))

    def lines(self) -> list[str]:
        """Return the definitions, one a line."""
        return [self._markup.footnote(number, text) for text, number in self._numbers.items()]
