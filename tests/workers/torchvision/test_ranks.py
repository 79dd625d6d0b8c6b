"""Several ranks on the CPU: real processes, started by torchrun's launcher and joined by gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, SMALL, Cells, cell, events_of, in_process, named
from safetensors.torch import load_file
from torch import Tensor, nn

from models.coco import read_split
from models.schedule import EndlessBatches
from models.torchvision.data import training_batches
from models.torchvision.detectors import build_detector
from models.torchvision.launch import Failure, error_file, first_failure
from models.torchvision.loop import train_step
from models.torchvision.short_logs import LEFT_OUT, ShortLogs


def shared(detector: str = "faster-rcnn_fpn", ranks: int = 2, images: int = 1, **values: Any) -> dict[str, Any]:
    """A cell on several ranks, with so many images a rank."""
    lr = {"optimizer": {"lr": 0.01}}
    return {
        **cell(detector, "r18", SMALL, lr),
        "images_per_gpu": ranks * images,
        "options": {"cpu_ranks": ranks},
        **values,
    }


def test_every_phase_runs_on_several_ranks_and_no_image_is_lost_or_evaluated_twice(cells: Cells) -> None:
    job = cells.job(shared("mask-rcnn_fpn", ranks=3))
    code, events = cells.run(job)
    assert code == 0, (Path(job["paths"]["output"]) / "worker.log", events[-2:])
    assert events[-1]["status"] == "success"
    assert [step["iteration"] for step in named(events, "step")] == [1, 2, 3, 4]
    assert {step["batch_size"] for step in named(events, "step")} == {3}
    assert len(named(events, "infer_step")) == 4, "one rank alone times inference"
    detections = json.loads(Path(job["paths"]["detections"]).read_text())
    # Every image gives its 5 best detections, since none is too low: more for an image evaluated twice.
    assert Counter(found["image_id"] for found in detections) == dict.fromkeys(range(1, 6), 5)
    assert named(events, "eval_stop")[0]["count"] == 25
    assert [step["index"] for step in named(events, "eval_step")][-1] == 5
    for name in ("init_start", "init_stop", "run_start", "eval_start", "eval_stop", "run_stop"):
        assert len(named(events, name)) == 1, name


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_the_gradients_of_two_ranks_are_the_mean_of_what_one_process_computes_for_each(cells: Cells) -> None:
    """Plain SGD, one iteration: the weights tell the gradient."""
    values = shared("mask-rcnn_fpn", ranks=2, images=2)
    values["recipe"]["optimizer"].update(momentum=0.0, weight_decay=0.0)
    values["recipe"]["lr_schedule"].update(iterations=1, milestones=[], warmup_iterations=0)
    values["recipe"]["model"]["batch_norm"] = "frozen"
    job = cells.job(values, phases=["train"])
    assert cells.run(job)[0] == 0

    split = read_split(cells.dataset, cells.dataset / "instances.json", cells.dataset / "index", masks=True)
    samples = [sample for sample in split.samples if len(sample.boxes)]
    torch.manual_seed(values["seed"])
    model = build_detector(values, 4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sums: dict[str, Tensor] = {}
    for rank in range(2):
        model.load_state_dict(before)
        torch.manual_seed(values["seed"] + rank)
        build_detector(values, 4)  # what this rank draws before it trains
        batch = next(training_batches(samples, values, share=(rank, 2)))
        train_step(model, batch, torch.device("cpu"), torch.optim.SGD(model.parameters(), lr=0.0), values)
        for name, gradient in gradients(model).items():
            sums[name] = sums.get(name, 0) + gradient / 2
    after = load_file(job["paths"]["model"])
    lr = values["recipe"]["optimizer"]["lr"]
    assert sums
    for name, mean in sums.items():
        found = (before[name] - after[name]) / lr
        assert torch.allclose(found, mean, rtol=1e-5, atol=1e-5 * float(mean.abs().max()) + 1e-5), name


def start(cells: Cells, job: dict[str, Any]) -> subprocess.Popen[bytes]:
    with (Path(job["paths"]["output"]) / "worker.log").open("wb") as log:
        return subprocess.Popen(cells.command(job), cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def endless(ranks: int = 2) -> dict[str, Any]:
    values = shared(ranks=ranks)
    values["recipe"]["lr_schedule"].update(iterations=100000, milestones=[])
    return values


def until_training(job: dict[str, Any], process: subprocess.Popen[bytes]) -> list[int]:
    """Wait for the first iterations; return the process ids of the ranks by number."""
    while process.poll() is None and not (Path(job["paths"]["events"]).exists() and named(events_of(job), "step")):
        time.sleep(0.1)
    assert process.poll() is None, (Path(job["paths"]["output"]) / "worker.log").read_text()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        ranks.update({int(text[5:]): int(child) for text in variables if text.startswith("RANK=")})
    assert sorted(ranks) == [0, 1]
    return [ranks[number] for number in sorted(ranks)]


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_gone(pids: list[int], patience_s: float) -> bool:
    """Wait until none of the processes runs; False where one still does after so long."""
    deadline = time.monotonic() + patience_s
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(lives, pids))


def test_a_rank_that_is_killed_ends_the_job_at_once_and_is_named(cells: Cells) -> None:
    job = cells.job(endless())
    process = start(cells, job)
    ranks = until_training(job, process)
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(timeout=20) == 1
    error, stop = events_of(job)[-2:]
    assert (error["event"], error["kind"], stop["status"]) == ("error", "exception", "failed")
    assert error["message"].startswith("rank 1: was killed by SIGKILL")
    assert until_gone(ranks, 5)


def test_a_rank_that_fails_ends_the_job_with_its_own_error(cells: Cells, tmp_path: Path) -> None:
    """Rank 1 alone meets an image that is broken."""
    values = shared(ranks=2)
    job = cells.job(values, phases=["train"])
    split = read_split(cells.dataset, cells.dataset / "instances.json", cells.dataset / "index", masks=False)
    samples = [sample for sample in split.samples if len(sample.boxes)]
    first = next(iter(EndlessBatches(samples, 2, 0.5, values["seed"], 0, (1, 2))))
    seen = {samples[index].image_id for index, _ in first}
    content = json.loads((cells.dataset / "instances.json").read_text())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for image in content["images"]:
        whole = cells.dataset / image["file_name"]
        image["file_name"] = str(broken if image["id"] in seen else whole)
    annotations = tmp_path / "broken.json"
    annotations.write_text(json.dumps(content))
    job["dataset"]["train"] = {"images": str(cells.dataset), "annotations": str(annotations)}
    code, events = cells.run(job)
    assert code == 1
    (error,) = named(events, "error")
    assert error["message"].startswith(f"rank 1: cannot read the image {broken}")
    assert (error["phase"], error["kind"]) == ("train", "data")


def test_ctrl_c_ends_every_rank(cells: Cells) -> None:
    job = cells.job(endless())
    process = start(cells, job)
    ranks = until_training(job, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert events_of(job)[-1]["status"] == "aborted"
    assert until_gone(ranks, 5)


def test_ranks_do_not_outlive_a_launcher_that_is_killed(cells: Cells) -> None:
    job = cells.job(endless())
    process = start(cells, job)
    ranks = until_training(job, process)
    process.kill()
    process.wait()
    assert until_gone(ranks, 10)


def test_the_harness_can_say_to_several_ranks_that_it_has_enough(cells: Cells) -> None:
    job = cells.job(endless(), phases=["train"])
    process = start(cells, job)
    until_training(job, process)
    Path(job["paths"]["enough"]).touch()
    assert process.wait(timeout=30) == 0
    (saved,) = named(events_of(job), "checkpoint_saved")
    assert saved["final"]
    assert saved["iteration"] == named(events_of(job), "step")[-1]["iteration"] < 100000


def test_ranks_that_cannot_share_a_batch_are_refused(cells: Cells) -> None:
    values = {**shared(ranks=2), "images_per_gpu": 3}
    code, events = in_process(cells.job(values))
    assert code == 1
    assert "a batch of 3 images cannot be shared by 2 ranks" in named(events, "error")[0]["message"]


def failure(output: Path, rank: int, unix_s: float, follows: bool) -> None:
    told = Failure(rank, "train", "exception", f"words of {rank}", unix_s, follows)
    error_file(output, rank).write_text(json.dumps(told.__dict__))


@pytest.mark.parametrize(
    ("told", "codes", "wanted"),
    [
        ([(0, 5.0, True), (1, 6.0, False)], {0: 1, 1: 1}, 1),
        ([(0, 6.0, False), (2, 5.0, False)], {0: 1, 2: 1}, 2),
        ([(0, 5.0, True)], {0: 1, 1: -9, 2: -15}, 1),
        ([(0, 5.0, True), (1, 4.0, True)], {0: 1, 1: 1, 2: -15}, 1),
    ],
    ids=["its own error before a lost peer", "the first of two", "a killed rank before a lost peer", "only lost peers"],
)
def test_the_failure_that_is_reported_is_the_one_the_others_follow_from(
    told: list[tuple[int, float, bool]], codes: dict[int, int], wanted: int, tmp_path: Path
) -> None:
    for rank, unix_s, follows in told:
        failure(tmp_path, rank, unix_s, follows)
    assert first_failure(tmp_path, 3, codes).rank == wanted


def test_of_a_flood_in_a_ranks_log_the_beginning_and_the_end_stay(tmp_path: Path) -> None:
    log, most_bytes = tmp_path / "rank-1.log", 0
    flood = "print('first', flush=True)\nfor line in range(40_000_000): print(line)\nprint('last')"
    with ShortLogs([log, tmp_path / "rank-2.log"], head_bytes=100_000, end_bytes=1000), log.open("ab") as stream:
        with subprocess.Popen(["timeout", "3", sys.executable, "-c", flood], stdout=stream) as process:
            while process.poll() is None:
                most_bytes = max(most_bytes, log.stat().st_size)
                time.sleep(0.01)
        stream.write(b"last\n")
        stream.flush()
        deadline = time.monotonic() + 10
        while log.stat().st_size > 200_000 and time.monotonic() < deadline:
            time.sleep(0.05)
    kept = log.read_bytes()
    assert most_bytes > 200_000, "there was a flood"
    assert len(kept) <= 200_000
    assert kept.startswith(b"first\n")
    assert LEFT_OUT in kept
    assert kept.endswith(b"last\n")
