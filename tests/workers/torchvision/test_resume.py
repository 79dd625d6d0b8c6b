"""A training that was interrupted goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, SMALL, Cells, cell, events_of, in_process, named

ITERATIONS = 12


def resumable(detector: str = "mask-rcnn_fpn", interval: int = 3, **values: Any) -> dict[str, Any]:
    found = {**cell(detector, "r18", SMALL, {"lr_schedule": {"iterations": ITERATIONS, "milestones": [8]}}), **values}
    found["runtime"]["checkpoint_interval"] = interval
    return found


def losses(events: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    return {step["iteration"]: step["losses"] for step in named(events, "step")}


def killed(cells: Cells, job: dict[str, Any], checkpoints: int) -> None:
    """Run a job and kill it with SIGKILL after so many checkpoints."""
    process = subprocess.Popen(cells.command(job), cwd=ROOT, start_new_session=True)
    events = Path(job["paths"]["events"])
    while process.poll() is None and not (
        events.exists() and events.read_text().count("checkpoint_saved") >= checkpoints
    ):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def again(cells: Cells, job: dict[str, Any]) -> dict[str, Any]:
    """The job once more, in a folder of its own, with the same checkpoints."""
    fresh = cells.job(job["cell"], phases=job["phases"])
    fresh["paths"]["checkpoints"] = job["paths"]["checkpoints"]
    return fresh


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_losses_go_on_bit_by_bit_after_a_sigkill(cells: Cells, ranks: int) -> None:
    values = resumable(options={"cpu_ranks": ranks})
    whole = cells.job(values, phases=["train"])
    assert cells.run(whole)[0] == 0
    cut = cells.job(values, phases=["train"])
    killed(cells, cut, checkpoints=2)
    rest = again(cells, cut)
    code, events = cells.run(rest)
    assert code == 0
    (resumed,) = named(events, "train_resumed")
    assert 6 <= resumed["iteration"] < ITERATIONS
    expected, found = losses(events_of(whole)), losses(events)
    assert list(found) == list(range(resumed["iteration"] + 1, ITERATIONS + 1))
    assert found == {iteration: expected[iteration] for iteration in found}
    first, second = (Path(job["paths"]["model"]).read_bytes() for job in (whole, rest))
    assert first == second
    (saved,) = [event for event in named(events, "checkpoint_saved") if event["final"]]
    assert saved["trained"]


def test_the_last_two_checkpoints_are_kept(cells: Cells) -> None:
    job = cells.job(resumable("faster-rcnn_fpn"), phases=["train"])
    code, events = in_process(job)
    assert code == 0
    names = [path.name for path in sorted(Path(job["paths"]["checkpoints"]).iterdir())]
    assert names == ["iteration-00000009.pth", "iteration-00000012.pth"]
    assert [event["iteration"] for event in named(events, "checkpoint_saved") if not event["final"]] == [3, 6, 9, 12]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    cells: Cells, capsys: pytest.CaptureFixture[str]
) -> None:
    values = resumable("faster-rcnn_fpn")
    first = cells.job(values, phases=["train"])
    assert in_process(first)[0] == 0
    newest = Path(first["paths"]["checkpoints"]) / "iteration-00000012.pth"
    newest.write_bytes(newest.read_bytes()[:1000])
    code, events = in_process(again(cells, first))
    assert code == 0
    assert named(events, "train_resumed")[0]["iteration"] == 9
    assert f"passed over the checkpoint {newest}" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_stops_the_job_and_says_what_to_do(cells: Cells) -> None:
    first = cells.job(resumable("faster-rcnn_fpn"), phases=["train"])
    assert in_process(first)[0] == 0
    other = cells.job(resumable("retinanet_fpn"), phases=["train"])
    other["paths"]["checkpoints"] = first["paths"]["checkpoints"]
    code, events = in_process(other)
    assert code == 1
    (error,) = named(events, "error")
    assert error["kind"] == "data"
    assert "training cannot go on from" in error["message"]
    assert "--force" in error["message"]


class Payload:
    """What a hostile file would run when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_a_checkpoint_with_code_in_it_is_not_run(cells: Cells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = cells.job(resumable("faster-rcnn_fpn"), phases=["train"])
    folder = Path(job["paths"]["checkpoints"])
    folder.mkdir()
    torch.save({"iteration": 3, "model": Payload()}, folder / "iteration-00000003.pth")
    monkeypatch.chdir(tmp_path)
    code, events = in_process(job)
    assert code == 0
    assert not named(events, "train_resumed")
    assert not (tmp_path / "unpickled").exists()


def test_a_trial_trains_on_the_largest_images_and_leaves_a_checkpoint(cells: Cells) -> None:
    values = resumable("faster-rcnn_fpn", interval=1000)
    values["measure"]["train_iterations"] = 2
    job = cells.job(values, phases=["train"], trial=True)
    code, events = in_process(job)
    assert code == 0
    assert [event["final"] for event in named(events, "checkpoint_saved")] == [False, True]
    assert list(Path(job["paths"]["checkpoints"]).iterdir())
