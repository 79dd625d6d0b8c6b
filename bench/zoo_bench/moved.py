"""Which part of a figure moved between two records: all iterations or the slow ones, the network or what follows it.

A mean says that something is slower; how its distribution moved says what to look for. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping

from zoo_bench.measurements import InferTiming, TrainTiming
from zoo_bench.record import Record
from zoo_bench.rules import Metric
from zoo_bench.units import percent, percent_change


def moved(metric: Metric, a: Record, b: Record) -> str:
    """Say in one line how the parts of s/iter or fps differ; empty of other metrics, and where one was not measured."""
    if metric == "s_per_iter" and a.measurements.train and b.measurements.train:
        return _iterations(a.measurements.train, b.measurements.train)
    if metric == "fps" and a.measurements.infer and b.measurements.infer:
        return _images(a.measurements.infer, b.measurements.infer)
    return ""


def _iterations(a: TrainTiming, b: TrainTiming) -> str:
    names = {"p10_s": "the fast tenth", "median_s": "the middle", "p90_s": "the slow tenth"}
    told = f"iterations: {_changes(names, a, b)}"
    shares = [percent(one.data_share) for one in (a, b) if one.data_share is not None]
    if len(set(shares)) < 2:
        return told
    return f"{told}; waiting for data {' -> '.join(shares)} of the time"


def _images(a: InferTiming, b: InferTiming) -> str:
    names = {"forward_s": "forward", "postprocess_s": "postprocessing"}
    told = f"time of an image: {_changes(names, a, b)}"
    found = [f"{one.detections_per_image:.1f}" for one in (a, b)]
    return told if found[0] == found[1] else f"{told}; {' -> '.join(found)} detections an image"


def _changes(names: Mapping[str, str], a: object, b: object) -> str:
    pairs = {name: (getattr(a, field), getattr(b, field)) for field, name in names.items()}
    return ", ".join(f"{name} {percent_change(y / x - 1)}" for name, (x, y) in pairs.items() if x > 0)
