from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import SMALL, Cells, cell, in_process, named


@pytest.mark.parametrize("detector", ["faster-rcnn_c4", "faster-rcnn_fpn", "mask-rcnn_fpn", "retinanet_fpn"])
def test_mixed_precision_trains_infers_and_evaluates(detector: str, cells: Cells) -> None:
    job = cells.job({**cell(detector, "r18", SMALL), "precision": "bf16"})
    code, events = in_process(job)
    assert code == 0, events[-2:]
    assert all(math.isfinite(step["loss"]) for step in named(events, "step"))
    detections = json.loads(Path(job["paths"]["detections"]).read_text())
    assert detections
    # Boxes are decoded in single precision: in bf16 the corners would be whole multiples of 0.25 or more.
    sides = [side for found in detections for side in found["bbox"]]
    assert any(abs(side * 4 - round(side * 4)) > 1e-3 for side in sides)


def test_mixed_precision_is_not_single_precision(cells: Cells) -> None:
    def losses(precision: str) -> list[float]:
        job = cells.job({**cell("retinanet_fpn", "r18", SMALL), "precision": precision}, phases=["train"])
        code, events = in_process(job)
        assert code == 0
        return [step["loss"] for step in named(events, "step")]

    single, mixed = losses("fp32"), losses("bf16")
    assert single != mixed
    assert mixed == pytest.approx(single, rel=0.05)


@pytest.mark.parametrize(
    ("precision", "message"),
    [("tf32", "on the CPU there are fp32 and bf16"), ("fp16", "this worker has fp32, tf32, bf16")],
)
def test_a_precision_that_is_not_to_be_had_is_refused(precision: str, message: str, cells: Cells) -> None:
    code, events = in_process(cells.job({**cell("retinanet_fpn", "r18", SMALL), "precision": precision}))
    assert code == 1
    assert message in named(events, "error")[0]["message"]
