"""Reasons why something is missing, collected by whoever meets them, each once."""

from __future__ import annotations

from collections.abc import Hashable


class Problems:
    """Texts by what they are about. Of several about one thing the first is kept, so a failing sensor fills nothing.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._texts: dict[Hashable, str] = {}

    def add(self, about: Hashable, text: str) -> None:
        """Keep `text`, unless something is known about `about` already."""
        self._texts.setdefault(about, text)

    @property
    def texts(self) -> tuple[str, ...]:
        """The reasons, in the order in which they came up."""
        return tuple(self._texts.values())
