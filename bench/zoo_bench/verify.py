"""A published document against the one that the store gives: what differs, by table, row and column. Pure functions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

MARKS = re.compile(r"\[\^\d+\]")
BAR = re.compile(r"(?<!\\)\|")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Place:
    """A value's place in a document. `nth`: rows that have one heading and one name are told apart by their order."""

    section: str
    row: str
    nth: int
    column: str

    def __str__(self) -> str:
        return f"{self.section}, {self.row}, {self.column}"


@dataclass(frozen=True)
class Change:
    """One value that differs. None: the row or the column is not there at all.

    `copied_from`: the rows of the same table in which the store has the value that the document has here.
    """

    place: Place
    published: str | None
    stored: str | None
    copied_from: tuple[str, ...]


Values: TypeAlias = Mapping[Place, str]


def changes(published: str, stored: str) -> list[Change]:
    """Name the values of the tables in which two documents differ; footnote marks do not count as values."""
    theirs, ours = dict(values(published)), dict(values(stored))
    return [
        Change(place, theirs.get(place), ours.get(place), _copied_from(place, theirs.get(place), ours))
        for place in dict.fromkeys([*ours, *theirs])
        if theirs.get(place) != ours.get(place)
    ]


def diff(published: str, stored: str, name: str) -> list[str]:
    """Return a unified diff from the published document to the one the store gives, empty when they are equal."""
    lines = difflib.unified_diff(published.split("\n"), stored.split("\n"), name, "the store", lineterm="")
    return list(lines)


def links(text: str) -> frozenset[str]:
    """Return the files that a document links to."""
    return frozenset(unquote(target) for target in LINK.findall(text))


def values(text: str) -> Iterator[tuple[Place, str]]:
    """Read the values out of a document's tables: those whose first two columns are backbone and schedule."""
    section, heads = "", list[str]()
    seen: dict[tuple[str, str], int] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            section, heads = line.lstrip("#").strip(), []
        elif not line.startswith("|"):
            heads = []
        elif not heads:
            heads = _cells(line)
        elif set(line) - set("|:- "):
            cells = _cells(line)
            row = " ".join(cells[:2])
            nth = seen[section, row] = seen.get((section, row), 0) + 1
            for head, cell in zip(heads[2:], cells[2:], strict=False):
                yield Place(section, row, nth, head), cell


def _cells(line: str) -> list[str]:
    """Split a table's line at the bars that are no text, without marks of footnotes."""
    return [" ".join(MARKS.sub("", cell).split()) for cell in BAR.split(line.strip())[1:-1]]


def _copied_from(place: Place, value: str | None, ours: Values) -> tuple[str, ...]:
    if not value:
        return ()
    return tuple(
        other.row
        for other, own in ours.items()
        if own == value and other.column == place.column and other.section == place.section and other.row != place.row
    )
