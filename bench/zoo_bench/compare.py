"""Two records side by side: their figures, the change between them, and what differs in how they came about.

Pure functions. A change is only called one where both sides say how exact they are: `within noise` when the difference
is no larger than the half-widths of the two 95 % intervals added in quadrature (the runs are independent), else
`differs`. The intervals are of one run each; what changes from run to run comes on top. Of noisy runs nothing is said:
their intervals do not speak of what the noise did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from zoo_bench.cell import recipe_values
from zoo_bench.columns import HAS, WITH_ENERGY, Column
from zoo_bench.figures import DEFAULT_MEMORY, NOTHING, Figure, figure
from zoo_bench.measurements import Interval
from zoo_bench.noise import describe
from zoo_bench.provenance import revision_text, unequal_traits
from zoo_bench.recipe import differences
from zoo_bench.record import Record

Verdict = Literal["within noise", "differs", ""]


@dataclass(frozen=True)
class Compared:
    """One figure on both sides. `change` is (b - a) / a; None where the two are not of one kind, as `remark` says."""

    column: Column
    a: Figure
    b: Figure
    change: float | None
    verdict: Verdict
    remark: str


def compare_figures(a: Record, b: Record) -> list[Compared]:
    """Compare every figure that at least one of two records has."""
    pairs = [(column, _figure(column, a), _figure(column, b)) for column in WITH_ENERGY if column != "download"]
    return [
        _compared(column, mine, theirs, _unlike_memory(column, a, b), noisy=bool(a.noise or b.noise))
        for column, mine, theirs in pairs
        if mine.value is not None or theirs.value is not None
    ]


def unlike(a: Record, b: Record) -> list[str]:
    """Say what differs in how two records came about, one ``what: a -> b`` a difference; of noise, either side's."""
    # An id says nothing that backend, detector, backbone, schedule and dataset do not say.
    mine, theirs = ({**recipe_values(record.cell), "id": None} for record in (a, b))
    found = differences(mine, theirs, "recipe: ")
    found += [f"{what}: {x or 'none'} -> {y or 'none'}" for what, x, y in unequal_traits(a, b)]
    found += [f"noise: {describe(a.noise) or 'none'} -> {describe(b.noise) or 'none'}"] if a.noise or b.noise else []
    pairs = {
        "dataset": (_digest(a.inputs.dataset_sha256), _digest(b.inputs.dataset_sha256)),
        "lock": (_digest(a.inputs.lock_sha256), _digest(b.inputs.lock_sha256)),
        "worker sources": (_digest(a.inputs.sources_sha256), _digest(b.inputs.sources_sha256)),
        "zoo-bench": (a.zoo_bench, b.zoo_bench),
        "revision": (revision_text(a.revision), revision_text(b.revision)),
        **{f"definition of {name}": (a.definitions[name], b.definitions[name]) for name in _definitions(a, b)},
    }
    return found + [f"{what}: {x or 'none'} -> {y or 'none'}" for what, (x, y) in pairs.items() if x != y]


def _figure(column: Column, record: Record) -> Figure:
    return figure(column, record, DEFAULT_MEMORY) if HAS[column](record) else NOTHING


def _compared(column: Column, a: Figure, b: Figure, unlike_memory: str, *, noisy: bool) -> Compared:
    remark = unlike_memory or ("" if a.remark == b.remark else a.remark or b.remark)
    if a.value is None or b.value is None or not a.value or remark:
        return Compared(column, a, b, None, "", remark)
    return Compared(column, a, b, (b.value - a.value) / a.value, "" if noisy else _verdict(a, b), "")


def _verdict(a: Figure, b: Figure) -> Verdict:
    if a.interval is None or b.interval is None or a.value is None or b.value is None:
        return ""
    noise = math.hypot(_half_width(a.interval), _half_width(b.interval))
    return "within noise" if abs(b.value - a.value) <= noise else "differs"


def _half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _unlike_memory(column: Column, a: Record, b: Record) -> str:
    if column != "memory" or (a.cell["gpus"] == 0) == (b.cell["gpus"] == 0):
        return ""
    return "memory of the host on one side, of a GPU on the other"


def _definitions(a: Record, b: Record) -> list[str]:
    return sorted(a.definitions.keys() & b.definitions.keys())


def _digest(sha256: str | None) -> str:
    return f"SHA-256 {sha256[:8]}" if sha256 else ""
