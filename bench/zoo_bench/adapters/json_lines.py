"""Files of one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any


def json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Return the objects of these lines; what is none is passed over, such as the half of a line at the end."""
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def number(values: dict[str, Any], *names: str) -> float | None:
    """Return the first of these that is there and a finite number."""
    for name in names:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return value
    return None


def numbers(values: dict[str, Any], prefix: str) -> dict[str, float]:
    """Return every finite number whose name begins so."""
    found = {name: number(values, name) for name in values if name.startswith(prefix)}
    return {name: value for name, value in found.items() if value is not None}
