"""What the page that compares chooses from: runs with their figures, intervals and surroundings. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from zoo_bench.columns import HAS
from zoo_bench.figures import DEFAULT_MEMORY, figure
from zoo_bench.provenance import machine_line, revision_text, versions
from zoo_bench.record import Record
from zoo_bench.report.overview import FIGURES

DIGEST = 8


def side(record: Record) -> dict[str, Any]:
    """Return a run as the page shows it: figures [value, low, high] in base units, and what it was made from."""
    day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(record.started_unix_s))
    found = {column: figure(column, record, DEFAULT_MEMORY) for column in FIGURES if HAS[column](record)}
    return {
        "label": f"{record.cell_id}, {day} UTC, {machine_line(record)}",
        "noisy": bool(record.noise),
        "host": record.cell["gpus"] == 0,
        "figures": {
            column: [one.value, one.interval.low if one.interval else None, one.interval.high if one.interval else None]
            for column, one in found.items()
            if one.value is not None
        },
        "traits": {
            "machine": machine_line(record),
            **versions(record),
            "zoo-bench": record.zoo_bench,
            "revision": revision_text(record.revision) or "none",
            "recipe": record.recipe_sha256[:DIGEST],
            "worker sources": record.inputs.sources_sha256[:DIGEST],
            "lock": (record.inputs.lock_sha256 or "none")[:DIGEST],
            "dataset": f"{record.dataset} {record.inputs.dataset_sha256[:DIGEST]}",
            "profile": record.profile,
        },
    }


def sides(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return those of some runs that have a figure."""
    return [one for one in map(side, records) if one["figures"]]
