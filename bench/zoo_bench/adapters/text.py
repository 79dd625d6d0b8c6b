"""Numbers in the text of a log, which may be damaged, cut off or written by something else altogether."""

from __future__ import annotations

import math


def read_number(text: object) -> float | None:
    """Return a finite number; None for what is none. A comma may part thousands."""
    if isinstance(text, bool):
        return None
    try:
        value = float(text.replace(",", "")) if isinstance(text, str) else float(text)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return None
    return value if math.isfinite(value) else None
