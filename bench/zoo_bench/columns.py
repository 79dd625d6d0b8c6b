"""The columns of the table, and which of them a run has a figure for. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from zoo_bench.record import Record

Column = Literal["memory", "s_per_iter", "energy", "fps", "box_ap", "mask_ap", "download"]
SCORES: tuple[Column, ...] = ("box_ap", "mask_ap")
OF_ONE_MODEL: tuple[Column, ...] = ("fps", "box_ap", "mask_ap", "download")
COLUMNS: tuple[Column, ...] = ("memory", "s_per_iter", "fps", "box_ap", "mask_ap", "download")
WITH_ENERGY: tuple[Column, ...] = ("memory", "s_per_iter", "energy", "fps", "box_ap", "mask_ap", "download")


def _memory_is_of_training(record: Record) -> bool:
    reported = record.measurements.reported
    known = record.measurements.memory is not None or (reported is not None and reported.memory is not None)
    return known and "train" in record.phases_done


def _has_fps(record: Record) -> bool:
    reported = record.measurements.reported
    timed = record.measurements.infer is not None and "infer" in record.phases_done
    return (timed or (reported is not None and reported.fps is not None)) and record.has_model


# An untrained model floods postprocessing, so its fps would mean nothing.
HAS: dict[Column, Callable[[Record], bool]] = {
    "memory": _memory_is_of_training,
    "s_per_iter": lambda record: record.measurements.train is not None and "train" in record.phases_done,
    "energy": lambda record: (
        record.measurements.energy is not None
        and record.measurements.energy.joules_per_iteration is not None
        and "train" in record.phases_done
    ),
    "fps": _has_fps,
    "box_ap": lambda record: (
        record.measurements.scores is not None and record.measurements.scores.box is not None and record.has_model
    ),
    "mask_ap": lambda record: (
        record.measurements.scores is not None and record.measurements.scores.mask is not None and record.has_model
    ),
    # A run that only published measured nothing: what it links is in `Row.published`.
    "download": lambda record: record.has_model and record.measured,
}
