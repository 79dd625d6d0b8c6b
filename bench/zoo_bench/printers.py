"""Tables and lists with marks that are explained at their end: in a terminal, or as Markdown for GitHub."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zoo_bench.display import plain_table
from zoo_bench.markdown import Footnotes, escape, table

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Printer(Protocol):
    """Where tables and lists go."""

    def text(self, line: str) -> None:
        """Print a line."""

    def table(self, title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Print a table under a title."""

    def items(self, title: str, items: Iterable[str]) -> None:
        """Print a list under a title."""

    def marked(self, text: str, notes: Sequence[str]) -> str:
        """Return a table's text with a mark for each note."""

    def marks(self) -> None:
        """Print what the marks mean."""


def make_printer(*, markdown: bool) -> Printer:
    """Return the printer that a user asked for."""
    return MarkdownPrinter() if markdown else TerminalPrinter()


class TerminalPrinter:
    """Tables that fit a terminal; marks are letters."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._notes: dict[str, str] = {}

    def text(self, line: str) -> None:
        """Print a line."""
        self._console.print(Text(line))

    def table(self, title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Print a table under a title."""
        self._console.print(Text(f"\n{title}", style="bold"))
        grid = plain_table()
        for head in heads:
            grid.add_column(head, overflow="fold")
        for line in lines:
            grid.add_row(*(Text(text) for text in line))
        self._console.print(grid)

    def items(self, title: str, items: Iterable[str]) -> None:
        """Print a list under a title."""
        self._console.print(Text(f"\n{title}:"))
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for item in items:
            grid.add_row(Text("  -"), Text(item))
        self._console.print(grid)

    def marked(self, text: str, notes: Sequence[str]) -> str:
        """Return a table's text with a letter for each note."""
        marks = [self._notes.setdefault(note, _letters(len(self._notes))) for note in notes]
        return f"{text} {','.join(marks)}".rstrip()

    def marks(self) -> None:
        """Print what the letters mean."""
        if self._notes:
            self.items("What differs", [f"{mark}: {note}" for note, mark in self._notes.items()])


class MarkdownPrinter:
    """Markdown for GitHub; marks are footnotes."""

    def __init__(self) -> None:
        self._footnotes = Footnotes()

    def text(self, line: str) -> None:
        """Print a paragraph."""
        _write(escape(line))

    def table(self, title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Print a table under a heading; its texts are escaped unless `marked` made them."""
        _write(f"### {escape(title)}")
        _write(table([escape(head) for head in heads], [[_kept(text) for text in line] for line in lines]))

    def items(self, title: str, items: Iterable[str]) -> None:
        """Print a list under a title."""
        _write(f"{escape(title)}:")
        _write("\n".join(f"- {escape(item)}" for item in items))

    def marked(self, text: str, notes: Sequence[str]) -> str:
        """Return a table's text with a footnote for each note."""
        return _Markdown(escape(text) + "".join(self._footnotes.mark(escape(note)) for note in notes))

    def marks(self) -> None:
        """Print the footnotes."""
        _write("\n".join(self._footnotes.lines()))


class _Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def _kept(text: str) -> str:
    return text if isinstance(text, _Markdown) else escape(text)


def _write(paragraph: str) -> None:
    sys.stdout.write(f"{paragraph}\n\n")


def _letters(number: int) -> str:
    """Return a, b, ... z, aa, ab, ..."""
    first, rest = divmod(number, len(LETTERS))
    return (LETTERS[first - 1] if first else "") + LETTERS[rest]
