"""Choosing cells: ``--select`` and ``--skip``, ``exclude`` and ``overrides`` in matrix.yaml. Pure functions.

A selector is one or more patterns separated by spaces; a cell is chosen when any pattern matches it. A pattern is

- a glob over the cell's id, with or without its backend: ``torchvision/mask-rcnn_*``, ``*_r50_*``;
- or ``key=glob`` terms joined by commas, all of which must hold: ``detector=retinanet*,backbone=r50``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from zoo_bench.errors import ConfigError, nearest

KEYS = ("backend", "detector", "family", "neck", "backbone", "schedule", "precision", "dataset")


class Selectable(Protocol):
    """What a selector looks at: the id, and the attributes in `KEYS`."""

    @property
    def id(self) -> str:
        """``backend/name``."""


Item = TypeVar("Item", bound=Selectable)


def matches(selector: str, item: Selectable) -> bool:
    """Tell whether `selector` chooses `item`.

    Raises:
        ConfigError: the selector is empty or names an unknown key.
    """
    patterns = selector.split()
    if not patterns:
        raise ConfigError("a selector is empty", "write '*' for every cell")
    return any(_pattern_matches(pattern, item) for pattern in patterns)


def choose(items: Sequence[Item], select: str | None, skip: str | None) -> tuple[Item, ...]:
    """Return the items that `select` chooses (None: all of them) and `skip` does not.

    Raises:
        ConfigError: a pattern of `select` or `skip` matches nothing; it names the nearest id.
    """
    for option, selector in (("--select", select), ("--skip", skip)):
        if selector is not None:
            check(option, selector, items)
    return tuple(
        item
        for item in items
        if (select is None or matches(select, item)) and not (skip is not None and matches(skip, item))
    )


def check(option: str, selector: str, items: Iterable[Selectable]) -> None:
    """Raise ConfigError unless every pattern of `selector` matches one of `items` at least."""
    known = list(items)
    for pattern in selector.split() or [selector]:
        if not any(matches(pattern, item) for item in known):
            words = [item.id.split("/", 1)[1] for item in known] + [item.id for item in known]
            raise ConfigError(f"{option} '{pattern}' matches no cell", _advice(pattern, known, words))


def _advice(pattern: str, known: Sequence[Selectable], words: Iterable[str]) -> str:
    key, separator, glob = pattern.partition("=")
    if separator and "," not in glob:
        return nearest(glob, {str(getattr(item, key)) for item in known})
    bare = re.sub(r"[*?\[\]]+", "", pattern).strip("_/")
    parts = {part for word in words for part in re.split(r"[/_]", word)}
    return nearest(bare, parts if len(bare) < 12 else words)


def _pattern_matches(pattern: str, item: Selectable) -> bool:
    if "=" not in pattern:
        return fnmatchcase(item.id, pattern) or fnmatchcase(item.id.split("/", 1)[1], pattern)
    return all(_term_holds(term, item) for term in pattern.split(","))


def _term_holds(term: str, item: Selectable) -> bool:
    key, _, glob = term.partition("=")
    if key not in KEYS:
        raise ConfigError(f"selector term '{term}': unknown key '{key}'", nearest(key, KEYS))
    return fnmatchcase(str(getattr(item, key)), glob)
