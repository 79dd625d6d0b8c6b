"""What people read: the names of the columns, and numbers in their units. The one place that converts and rounds."""

from __future__ import annotations

from zoo_bench.columns import Column

GIB = 2**30
HOUR_S = 3600.0
# The columns that name a row; precision and backend only where a document has others than the usual, or several.
NAME_HEADS = ("Backbone", "Lr schd")
PRECISION_HEAD = "Precision"
BACKEND_HEAD = "Backend"
COLUMN_HEADS: dict[Column, str] = {
    "memory": "Mem (GB)",
    "s_per_iter": "Train time (s/iter)",
    "energy": "Energy (J/iter)",
    "fps": "Inf time (fps)",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "download": "Download",
}
SHORT_HEADS: dict[Column, str] = {**COLUMN_HEADS, "s_per_iter": "s/iter", "energy": "J/iter", "fps": "fps"}
HOST_MEMORY_HEAD = "Host mem (GB)"
DIGITS: dict[Column, int] = {"memory": 1, "s_per_iter": 3, "energy": 1, "fps": 1, "box_ap": 1, "mask_ap": 1}
# From the unit inside (bytes, seconds, joules, images a second, fractions) to the one that is shown.
SHOWN_PER_UNIT: dict[Column, float] = {"memory": 1 / GIB, "box_ap": 100, "mask_ap": 100}


def shown(column: Column, value: float) -> float:
    """Convert a figure to the unit of its column; memory as GB of 2^30 bytes, AP as points."""
    return value * SHOWN_PER_UNIT.get(column, 1)


def as_printed(column: Column, printed: float) -> str:
    """Write a figure that is in its column's unit already, as published ones are."""
    return f"{printed:.{DIGITS[column]}f}"


def gigabytes(count: float, digits: int = 0) -> str:
    """Write bytes as GB of 2^30 bytes."""
    return f"{count / GIB:.{digits}f}"


def milliseconds(seconds: float) -> str:
    """Write a short time."""
    return f"{seconds * 1000:.2f}"


def hours(seconds: float) -> str:
    """Write hours of computing: short ones with more digits."""
    return f"{seconds / HOUR_S:,.{1 if seconds >= 10 * HOUR_S else 2}f}"


def kilowatt_hours(kwh: float) -> str:
    """Write the energy of a whole job."""
    return f"{kwh:.3f}"


def percent(share: float) -> str:
    """Write a share of one."""
    return f"{share * 100:.1f} %"


def percent_change(share: float) -> str:
    """Write a change, with its sign."""
    return f"{share:+.1%}"


def points_change(share: float) -> str:
    """Write a change of AP in points, with its sign."""
    return f"{share * SHOWN_PER_UNIT['box_ap']:+.2f}"


def per_second(rate: float) -> str:
    """Write a throughput."""
    return f"{rate:.1f}"


def average(count: float) -> str:
    """Write a number of things that need not be whole."""
    return f"{count:.1f}"


def written(column: Column, value: float | None, more_digits: int = 0) -> str:
    """Write a figure as its column does, with more digits where they are asked for; nothing for None."""
    return "" if value is None else f"{shown(column, value):.{DIGITS[column] + more_digits}f}"
