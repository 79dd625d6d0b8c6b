"""What the harness may expect of every worker, whatever its framework."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import BACKEND, SMALL, Cells, cell, events_of, in_process, named

FRAMEWORK = {"torchvision": "torch", "gluoncv": "mxnet"}[BACKEND]


def small(detector: str = "faster-rcnn_fpn", *changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return cell(detector, "r18", SMALL, *changes)


def test_a_mask_cell_trains_infers_and_evaluates(cells: Cells) -> None:
    job = cells.job(small("mask-rcnn_fpn"))
    code, events = cells.run(job)
    assert code == 0
    order = list(dict.fromkeys(event["event"] for event in events if event["event"] != "heartbeat"))
    assert order == [
        "init_start", "init_stop", "run_start", "epoch_start", "step", "epoch_stop", "checkpoint_saved",
        "infer_step", "eval_start", "eval_step", "eval_stop", "run_stop",
    ]  # fmt: skip
    assert events[-1]["status"] == "success"
    (started,) = named(events, "init_stop")
    assert started["images"] == {"train": 5, "val": 5}
    assert started["environment"][FRAMEWORK]
    steps = named(events, "step")
    assert [step["iteration"] for step in steps] == [1, 2, 3, 4]
    assert set(steps[0]["losses"]) == {
        "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    }  # fmt: skip
    assert all(0 < step["data_time_s"] < step["iteration_time_s"] for step in steps)
    # 4 usable images in batches of 2: two epochs.
    assert [event["epoch"] for event in named(events, "epoch_stop")] == [1, 2]
    inferred = named(events, "infer_step")
    assert [step["warmup"] for step in inferred] == [True, False, False, False]
    assert all(step["forward_s"] > 0 and step["encode_s"] >= 0 for step in inferred)
    assert [step["index"] for step in named(events, "eval_step")] == [1, 2, 3, 4, 5]
    (saved,) = named(events, "checkpoint_saved")
    assert (saved["final"], saved["trained"], saved["iteration"]) == (True, True, 4)
    assert saved["bytes"] == Path(saved["path"]).stat().st_size
    detections = json.loads(Path(job["paths"]["detections"]).read_text())
    assert len(detections) == named(events, "eval_stop")[0]["count"] > 0
    assert {type(found["segmentation"]["counts"]) for found in detections} == {str}


def test_the_same_seed_gives_the_same_losses(cells: Cells) -> None:
    def losses(seed: int) -> list[dict[str, float]]:
        job = cells.job({**small("mask-rcnn_fpn"), "seed": seed}, phases=["train"])
        code, events = in_process(job)
        assert code == 0
        return [step["losses"] for step in named(events, "step")]

    first = losses(1)
    assert losses(1) == first
    assert losses(2) != first


def test_a_checkpoint_is_measured_without_training(cells: Cells) -> None:
    values = small("retinanet_fpn")
    trained = cells.job(values)
    assert in_process(trained)[0] == 0
    again = cells.job(values, phases=["infer", "evaluate"], checkpoint=trained["paths"]["model"])
    code, events = in_process(again)
    assert code == 0
    assert not named(events, "step")
    first, second = (json.loads(Path(job["paths"]["detections"]).read_text()) for job in (trained, again))
    assert first == second


def test_a_training_cut_short_says_so(cells: Cells) -> None:
    values = small()
    values["measure"]["train_iterations"] = 2
    code, events = in_process(cells.job(values, phases=["train"]))
    assert code == 0
    assert [step["iterations"] for step in named(events, "step")] == [2, 2]
    assert named(events, "checkpoint_saved")[0]["trained"] is False


@pytest.mark.parametrize(
    ("changes", "job_changes", "phase", "kind", "message"),
    [
        ({"optimizer": {"lr": 1e30}}, {}, "train", "diverged", "diverged at iteration"),
        ({}, {"devices": ["gpu:0"]}, "init", "exception", "the job wants gpu:0"),
        ({}, {"phases": ["infer"]}, "init", "data", "neither trains nor names a checkpoint"),
        ({"optimizer": {"name": "lamb"}}, {}, "train", "exception", "unknown optimizer"),
    ],
)  # fmt: skip
def test_a_failure_is_reported_with_its_phase_and_kind(
    changes: dict[str, dict[str, Any]],
    job_changes: dict[str, Any],
    phase: str,
    kind: str,
    message: str,
    cells: Cells,
) -> None:
    code, events = in_process(cells.job(small("faster-rcnn_fpn", changes), **job_changes))
    assert code == 1
    error, stop = events[-2:]
    assert (error["event"], error["phase"], error["kind"]) == ("error", phase, kind)
    assert message in error["message"]
    assert (stop["event"], stop["status"]) == ("run_stop", "failed")


def test_ctrl_c_ends_a_training_as_aborted(cells: Cells) -> None:
    values = small("faster-rcnn_fpn", {"lr_schedule": {"iterations": 100000, "milestones": []}})
    values["runtime"]["data_workers"] = 1
    job = cells.job(values)
    process = cells.start(job, until='"step"')
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert events_of(job)[-1]["status"] == "aborted"
    assert "Stopped" not in (Path(job["paths"]["output"]) / "log").read_text()
