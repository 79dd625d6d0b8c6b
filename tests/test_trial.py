"""Trials before long cells, and trainings that go on where they were interrupted: the fake worker, the real command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Zoo

RETINANET = ("--select", "*retinanet*")


def schedule(iterations: int, **values: Any) -> dict[str, Any]:
    """The quick profile with a schedule of so many iterations."""
    recipe = {"lr_schedule": {"iterations": iterations, "milestones": []}}
    return {"profiles": {"quick": {"set": {"recipe": recipe, **values}}}}


@pytest.fixture
def long_zoo(zoo: Zoo) -> Zoo:
    """Cells whose training is long enough to be tried first, and fast all the same."""
    zoo.change(schedule(1200))
    zoo.options(iteration_s=0.0005)
    return zoo


def leftovers(zoo: Zoo) -> list[Path]:
    return [path for path in (zoo.root / ".zoo-bench" / "trials").iterdir() if path.name != "passed" and path.is_dir()]


def test_every_cell_is_tried_before_the_first_long_one_and_only_once(long_zoo: Zoo) -> None:
    done = long_zoo.call("run")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    tried = [line for line in lines if line.endswith("(trial)")]
    assert len(tried) == 2
    assert all(lines.index(line) < lines.index(next(x for x in lines if "(never run)" in x)) for line in tried)
    assert [record.measurements.train.iterations_run for record in long_zoo.records if record.measurements.train] == [
        1200,
        1200,
    ]
    assert leftovers(long_zoo) == []
    again = long_zoo.call("run", "--force", *RETINANET)
    assert again.returncode == 0
    assert "(trial)" not in again.stderr


def test_what_would_fail_is_listed_together_and_nothing_is_started(long_zoo: Zoo) -> None:
    fault = {"fault": {"phase": "train", "at": 15, "kind": "out_of_memory"}}
    other = {"fault": {"phase": "evaluate", "at": 1, "kind": "error"}}
    overrides = [
        {"select": "*mask-rcnn*", "set": {"options": fault}},
        {"select": "*retinanet*", "set": {"options": other}},
    ]
    long_zoo.change({"profiles": {"quick": {"overrides": overrides}}})
    done = long_zoo.call("run")
    assert done.returncode == 2
    assert long_zoo.records == ()
    assert "the trial found 2 problem(s), and no cell was started" in done.stderr
    assert "mask-rcnn_r50_fpn_1x_shapes: out of memory: train: scripted out_of_memory (peak: host 0." in done.stderr
    assert "retinanet_r50_fpn_1x_shapes: failed: evaluate: scripted error (log: " in done.stderr
    assert "--no-trial" in done.stderr
    logs = [folder / "worker.log" for folder in leftovers(long_zoo)]
    assert len(logs) == 2
    assert all(str(log.relative_to(long_zoo.root)) in done.stderr and log.is_file() for log in logs)
    long_zoo.call("run")
    assert len(leftovers(long_zoo)) == 2, "what the first run left is gone"


def test_trials_can_be_skipped(long_zoo: Zoo) -> None:
    fault = {"phase": "train", "at": 15, "kind": "error"}
    long_zoo.options(fault=fault, iteration_s=0.0005)
    done = long_zoo.call("run", "--no-trial", *RETINANET)
    assert done.returncode == 1
    assert "(trial)" not in done.stderr
    assert len(long_zoo.records) == 1


def test_short_cells_are_not_tried(zoo: Zoo) -> None:
    assert "(trial)" not in zoo.call("run", *RETINANET).stderr


def interrupted_run(zoo: Zoo, signum: signal.Signals, after: int) -> int:
    """Start a run and send its whole session, or Ctrl-C to the harness alone, once a checkpoint is there."""
    process = subprocess.Popen(zoo.command("run", *RETINANET), cwd=zoo.root, stderr=subprocess.DEVNULL)
    folder = zoo.root / "results" / "checkpoints"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(int(path.name) >= after for path in folder.glob("*/*/*/*") if path.name.isdigit()):
            break
        time.sleep(0.01)
    os.kill(process.pid, signum)
    return process.wait(timeout=60)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_training_goes_on_after_its_last_checkpoint(zoo: Zoo, signum: signal.Signals) -> None:
    zoo.change(schedule(400, runtime={"checkpoint_interval": 20}))
    zoo.options(iteration_s=0.01)
    code = interrupted_run(zoo, signum, after=40)
    assert code == (130 if signum == signal.SIGINT else -signal.SIGKILL)
    time.sleep(2 if signum == signal.SIGKILL else 0)  # the worker looks once a second whether its parent is there
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 0, done.stderr
    record = zoo.records[-1]
    train = record.measurements.train
    assert train is not None
    assert train.resumed_at >= 40
    assert train.resumed_at % 20 == 0
    assert (train.iterations_run, record.checkpoint is not None and record.checkpoint.trained) == (400, True)
    assert train.iterations_measured + train.iterations_cut + train.pauses_cut == 400 - train.resumed_at
    assert f"figures of the training are of iterations {train.resumed_at + 1} to 400" in zoo.call("render").stdout
    assert "resumed after" in zoo.call("show", "*retinanet*").stdout
    assert not any((zoo.root / "results" / "checkpoints").glob("*/*/*/*")), "nothing is left to resume"


def test_force_begins_an_interrupted_training_anew(zoo: Zoo) -> None:
    zoo.change(schedule(200, runtime={"checkpoint_interval": 20}))
    zoo.options(iteration_s=0.01)
    interrupted_run(zoo, signal.SIGINT, after=20)
    assert zoo.call("run", "--force", *RETINANET).returncode == 0
    train = zoo.records[-1].measurements.train
    assert train is not None
    assert (train.resumed_at, train.iterations_run) == (0, 200)


def test_other_values_do_not_resume_what_was_begun_with_these(zoo: Zoo) -> None:
    zoo.change(schedule(200, runtime={"checkpoint_interval": 20}))
    zoo.options(iteration_s=0.01)
    interrupted_run(zoo, signal.SIGINT, after=20)
    zoo.change({"profiles": {"quick": {"set": {"seed": 1}}}})
    assert zoo.call("run", *RETINANET).returncode == 0
    train = zoo.records[-1].measurements.train
    assert train is not None
    assert train.resumed_at == 0
