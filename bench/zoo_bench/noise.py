"""What else happened on the machine while a run was timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from zoo_bench.recipe import Strict

NoiseKind = Literal["foreign_process", "slowdown", "clock_drop", "cpu_load"]


class Noise(Strict):
    """One thing that may have spoiled the figures: its evidence. Times are seconds since the job was started.

    `gpu` is NVML's index, None for what happened on the host.
    """

    kind: NoiseKind
    gpu: int | None
    from_s: float
    to_s: float
    detail: str


def describe(noise: Sequence[Noise]) -> str:
    """Write the evidence as one line."""
    return "; ".join(
        f"{'' if one.gpu is None else f'GPU {one.gpu}: '}{one.detail} ({one.from_s:.0f} to {one.to_s:.0f} s)"
        for one in noise
    )
