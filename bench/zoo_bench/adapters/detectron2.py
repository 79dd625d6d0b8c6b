"""detectron2's metrics.json: an object every 20 iterations, and one an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from zoo_bench.adapters import Told
from zoo_bench.adapters.json_lines import json_lines, number, numbers

METRICS = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "APs": "ap_small",
    "APm": "ap_medium",
    "APl": "ap_large",
}
PERCENT = 100.0


def detectron2(lines: Iterable[str]) -> Iterator[Told]:
    """Read a metrics.json. Its iterations count from 0, and its AP is in points. A resumed run appends to the file.

    How much is left to do stands in it only as seconds, from which the number of iterations is told where it fits.
    """
    last = 0
    for values in json_lines(lines):
        place = number(values, "iteration")
        if place is None:
            continue
        iteration = int(place) + 1
        if number(values, "total_loss") is not None:
            gap = iteration - last if iteration > last else 1
            yield "step", {"iteration": iteration, "averaged_over": gap, **_step(values, iteration)}
            last = iteration
        scores = {kind: _scores(values, name) for kind, name in (("box", "bbox"), ("mask", "segm"))}
        known = {kind: found for kind, found in scores.items() if "ap" in found}
        if known:
            yield "eval_result", known


def _step(values: dict[str, Any], iteration: int) -> dict[str, Any]:
    told = {
        "loss": number(values, "total_loss"),
        "lr": number(values, "lr"),
        "iteration_time_s": number(values, "time"),
        "data_time_s": number(values, "data_time"),
    }
    time_s, left_s = told["iteration_time_s"], number(values, "eta_seconds")
    fields: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    if time_s and left_s is not None:
        fields["iterations"] = iteration + round(left_s / time_s)
    return {**fields, "losses": numbers(values, "loss_")}


def _scores(values: dict[str, Any], kind: str) -> dict[str, float]:
    found = {metric: number(values, f"{kind}/{name}") for name, metric in METRICS.items()}
    return {metric: value / PERCENT for metric, value in found.items() if value is not None and value >= 0}
