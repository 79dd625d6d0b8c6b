"""A published document against the one that the store gives: what differs, by table, row and column. Pure functions."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from zoo_bench.units import BACKEND_HEAD, NAME_HEADS, PRECISION_HEAD

MARKS = re.compile(r"\[\^\d+\]")
BAR = re.compile(r"(?<!\\)\|")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Place:
    """A value's place in a document. `nth`: rows that have one heading and one name are told apart by their order.

    `section` is the table's heading. `under` is the one above it where headings repeat, as where backends stand apart.
    """

    under: str
    section: str
    row: str
    nth: int
    column: str

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.under, self.section, self.row, self.column)))


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
    repeated = _repeated(published) | _repeated(stored)
    theirs, ours = dict(values(published, repeated)), dict(values(stored, repeated))
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


def values(text: str, repeated: Container[str] = ()) -> Iterator[tuple[Place, str]]:
    """Read the values out of a document's tables: those whose first columns are backbone, schedule and, where they are
    told, precision and backend. Tables under a heading that is `repeated` are told apart by the heading above it.
    """
    above: dict[int, str] = {}
    under, section, heads = "", "", list[str]()
    seen: dict[tuple[str, str, str], int] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            section, heads = _heading(line), []
            level = len(line) - len(line.lstrip("#"))
            above = {depth: title for depth, title in above.items() if depth < level}
            under = above[max(above)] if above and section in repeated else ""
            above[level] = section
        elif not line.startswith("|"):
            heads = []
        elif not heads:
            heads = _cells(line)
        elif set(line) - set("|:- "):
            cells = _cells(line)
            first = len(NAME_HEADS) + sum(head in heads for head in (PRECISION_HEAD, BACKEND_HEAD))
            row = " ".join(cells[:first])
            nth = seen[under, section, row] = seen.get((under, section, row), 0) + 1
            for head, cell in zip(heads[first:], cells[first:], strict=False):
                yield Place(under, section, row, nth, head), cell


def _heading(line: str) -> str:
    return line.lstrip("#").strip()


def _repeated(text: str) -> set[str]:
    counts = Counter(_heading(line) for line in text.splitlines() if line.startswith("#"))
    return {heading for heading, count in counts.items() if count > 1}


def _cells(line: str) -> list[str]:
    """Split a table's line at the bars that are no text, without marks of footnotes."""
    return [" ".join(MARKS.sub("", cell).split()) for cell in BAR.split(line.strip())[1:-1]]


def _copied_from(place: Place, value: str | None, ours: Values) -> tuple[str, ...]:
    if not value:
        return ()
    where = (place.under, place.section, place.column)
    return tuple(
        other.row
        for other, own in ours.items()
        if own == value and (other.under, other.section, other.column) == where and other.row != place.row
    )
