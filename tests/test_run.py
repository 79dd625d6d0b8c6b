"""`zoo-bench run` from end to end: real processes, a real store, the fake worker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import Zoo

MASK, RETINA = "fake/mask-rcnn_r50_fpn_1x_shapes", "fake/retinanet_r50_fpn_1x_shapes"


def test_every_cell_leaves_a_record_with_what_was_measured(finished: Zoo) -> None:
    assert [record.cell_id for record in finished.records] == [MASK, RETINA]
    for record in finished.records:
        assert record.status == "succeeded"
        assert record.phases_done == ("train", "infer", "evaluate")
        train, infer, memory = (
            record.measurements.train,
            record.measurements.infer,
            record.measurements.memory,
        )
        assert train is not None
        assert (train.iterations_run, train.iterations_measured) == (30, 25)
        assert train.mean_s > 0.001
        assert infer is not None
        assert infer.images == 5
        assert memory is not None
        assert memory.host_bytes is not None
        assert memory.host_bytes > 64 * 2**20
        assert record.checkpoint is not None
        model = finished.root / record.checkpoint.file
        assert model.name.endswith(f"-{record.checkpoint.sha256[:8]}.safetensors")
        assert record.checkpoint.trained
        assert all((finished.root / file).is_file() for file in record.files.values())


def test_a_second_run_skips_what_is_fresh_and_says_why(finished: Zoo) -> None:
    done = finished.call("run")
    assert done.returncode == 0
    assert f"{MASK}: fresh (run {finished.records[0].run_id})" in done.stderr
    assert len(finished.records) == 2


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("error", "failed", "scripted error"),
        ("out_of_memory", "out_of_memory", "scripted out_of_memory"),
        ("diverged", "diverged", "scripted diverged"),
        ("exit", "failed", "exit code 3 without saying why"),
        ("kill", "failed", "killed by SIGKILL"),
        ("lie", "failed", "events show no end of: train"),
    ],
)
def test_a_failed_cell_is_a_result_and_the_next_cell_still_runs(zoo: Zoo, kind: str, status: str, words: str) -> None:
    fault = {"fault": {"phase": "train", "at": 8, "kind": kind}}
    zoo.change({"profiles": {"quick": {"overrides": [{"select": "*mask-rcnn*", "set": {"options": fault}}]}}})
    done = zoo.call("run")
    assert done.returncode == 1
    failed, succeeded = zoo.records
    assert (failed.status, succeeded.status) == (status, "succeeded")
    assert words in failed.reason
    assert words in done.stdout
    assert failed.files["log"] in done.stdout
    assert failed.checkpoint is None


def test_garbage_among_the_events_does_not_spoil_a_run(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 8, "kind": "garbage"})
    assert zoo.call("run", "--select", "*retinanet*").returncode == 0
    train = zoo.records[0].measurements.train
    assert train is not None
    assert train.iterations_run == 30


RETINANET = ("--select", "*retinanet*")


def test_a_cell_whose_training_is_done_goes_on_with_its_model(zoo: Zoo) -> None:
    assert zoo.call("run", "--phases", "train", *RETINANET).returncode == 0
    plan = zoo.call("plan", *RETINANET).stdout
    assert "infer, evaluate" in plan
    assert "train," not in plan
    assert zoo.call("run", *RETINANET).returncode == 0
    first, second = zoo.records
    assert (first.phases_done, second.phases_done) == (("train",), ("infer", "evaluate"))
    assert first.checkpoint is not None
    assert first.checkpoint == second.checkpoint
    job = json.loads((zoo.root / second.files["log"]).with_name("job.json").read_text(encoding="utf-8"))
    assert job["checkpoint"] == str(zoo.root / first.checkpoint.file)
    document = zoo.call("render").stdout
    assert f"from {first.run_id}; " in document
    assert f"from {second.run_id}." in document
    assert "fresh" in zoo.call("plan", *RETINANET).stdout


def test_a_cell_whose_evaluation_failed_goes_on_at_evaluation(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "evaluate", "at": 1, "kind": "kill"})
    assert zoo.call("run", *RETINANET).returncode == 1
    first = zoo.records[0]
    assert first.phases_done == ("train", "infer")
    plan = zoo.call("plan", *RETINANET).stdout
    assert "infer" not in plan
    assert f"failed in run {first.run_id}" in plan


def test_a_new_training_leaves_inference_and_evaluation_to_do(zoo: Zoo) -> None:
    assert zoo.call("run", *RETINANET).returncode == 0
    assert zoo.call("run", "--force", "--phases", "train", *RETINANET).returncode == 0
    assert "infer, evaluate" in zoo.call("plan", *RETINANET).stdout
    before, after = zoo.records
    footnote = next(line for line in zoo.call("render").stdout.splitlines() if "From several runs" in line)
    assert re.search(
        f"Train time.* from {re.escape(after.run_id)}; .*box AP.* from {re.escape(before.run_id)}", footnote
    )


def test_a_model_that_is_gone_is_trained_again_and_the_plan_says_so(zoo: Zoo) -> None:
    assert zoo.call("run", "--phases", "train", *RETINANET).returncode == 0
    record = zoo.records[0]
    assert record.checkpoint is not None
    (zoo.root / record.checkpoint.file).unlink()
    plan = zoo.call("plan", *RETINANET).stdout
    assert "train, infer, evaluate" in plan
    assert f"the model of run {record.run_id} is gone" in plan


def test_fps_of_an_inference_that_broke_off_is_not_shown(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "infer", "at": 5, "kind": "kill"})
    assert zoo.call("run", *RETINANET).returncode == 1
    assert zoo.records[0].phases_done == ("train",)
    line = next(line for line in zoo.call("render").stdout.splitlines() if zoo.records[0].run_id in line)
    assert line.split("|")[5].strip() == ""


def test_a_change_of_threads_is_another_measurement(finished: Zoo) -> None:
    text = (finished.root / "matrix.yaml").read_text(encoding="utf-8").replace("threads: null", "threads: 1")
    (finished.root / "threads.yaml").write_text(text, encoding="utf-8")
    plan = finished.call("plan", "--matrix", "threads.yaml").stdout
    assert "2 of 2 would run" in plan
    assert "runtime.threads: None -> 1" in plan


def test_the_plan_says_what_changed(finished: Zoo) -> None:
    other = finished.root / "other.yaml"
    text = (finished.root / "matrix.yaml").read_text(encoding="utf-8")
    other.write_text(text.replace("lr: 0.01", "lr: 0.005"), encoding="utf-8")
    plan = finished.call("plan", "--matrix", "other.yaml").stdout
    assert "recipe.optimizer.lr: 0.01 -> 0.005" in plan
    assert "1 of 2 would run" in plan
    assert "2 of 2 would run" in finished.call("run", "--dry-run", "--force").stdout
    assert len(finished.records) == 2


def test_a_model_one_already_has_is_measured_and_evaluated(zoo: Zoo, tmp_path: Path) -> None:
    model = tmp_path.with_name("elsewhere") / "mine.pth"
    model.parent.mkdir(exist_ok=True)
    model.write_bytes(b"weights")
    arguments = ("run", "--phases", "infer,evaluate", "--checkpoint", str(model), "--select", "*retinanet*")
    assert zoo.call(*arguments).returncode == 0
    record = zoo.records[0]
    assert record.phases_done == ("infer", "evaluate")
    assert record.checkpoint is not None
    assert record.checkpoint.given
    job = json.loads((zoo.root / record.files["log"]).with_name("job.json").read_text(encoding="utf-8"))
    assert job["checkpoint"] == str(model)
    document = zoo.call("render").stdout
    assert "A given model: mine.pth" in document
    assert str(tmp_path) not in document
    assert "[model]" not in document, "a file of the user's own is not published by a link"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--profile", "smok"), "did you mean 'smoke'?"),
        (("run", "--select", "*retinnet*"), "did you mean 'retinanet'?"),
        (("run", "--phases", "trian"), "phases: train, infer, evaluate"),
        (("run", "--phases", "infer"), "--checkpoint FILE"),
        (("run", "--checkpoint", "matrix.yaml"), "--phases infer,evaluate"),
        (("run", "--checkpoint", "none.pth"), "no such file"),
        (("run", "--checkpoint", "matrix.yaml", "--phases", "infer"), "--select"),
        (("run", "--matrix", "none.yaml"), "no such file"),
        (("run", "--root", "none"), "no such folder"),
        (("run", "--gpus", "64"), "64 GPUs are needed; this machine has"),
        (("run", "--profile", "full"), "this would run here: zoo-bench run --profile quick"),
        (("rum",), "Did you mean 'run'?"),
        (("data", "check", "shape"), "did you mean 'shapes'?"),
    ],
)
def test_a_wrong_call_says_what_to_do_and_starts_nothing(zoo: Zoo, arguments: tuple[str, ...], words: str) -> None:
    done = zoo.call(*arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert not (zoo.root / "results").exists()


def start(zoo: Zoo, *arguments: str) -> subprocess.Popen[str]:
    """Start zoo-bench in a process group of its own and wait until the worker has trained a little."""
    process = subprocess.Popen(
        zoo.command(*arguments),
        cwd=zoo.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not any('"step"' in file.read_text() for file in zoo.root.glob("results/runs/*/events.jsonl")):
        assert time.monotonic() < deadline, "the worker wrote no step"
        time.sleep(0.05)
    return process


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_ends_the_worker_and_its_children_and_leaves_a_record(zoo: Zoo, number: signal.Signals) -> None:
    zoo.options(iteration_s=1, child=True)
    process = start(zoo, "run")
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in out
    assert [record.status for record in zoo.records] == ["interrupted"], "the second cell must not be begun"
    assert not alive(workers)


def test_an_impatient_ctrl_c_ends_a_worker_that_does_not_listen(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 3, "kind": "deaf"})
    process = start(zoo, "run")
    time.sleep(1)  # until it has gone deaf
    workers = psutil.Process(process.pid).children(recursive=True)
    started = time.monotonic()
    for _ in range(3):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
    process.communicate(timeout=60)
    assert time.monotonic() - started < 10, "three presses must not wait for the whole patience"
    assert process.returncode == 130
    assert [record.status for record in zoo.records] == ["interrupted"]
    assert not alive(workers)


def test_what_is_in_the_way_of_the_results_is_said_before_anything_is_launched(zoo: Zoo) -> None:
    (zoo.root / "results").mkdir()
    (zoo.root / "results" / "runs").write_text("in the way")
    done = zoo.call("run")
    assert done.returncode == 2
    assert "results/runs is no folder" in done.stderr


def test_an_unreadable_record_is_named_and_passed_over(zoo: Zoo) -> None:
    broken = zoo.root / "results" / "fake" / "mask-rcnn_r50_fpn_1x_shapes" / "1.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"schema_version": 1, "run')
    done = zoo.call("status")
    assert done.returncode == 0
    assert f"passed over: {broken}" in done.stderr
    assert broken.exists()


def test_a_record_that_cannot_be_stored_is_not_lost(zoo: Zoo) -> None:
    zoo.options(iteration_s=0.05)
    command = zoo.command("run", "--select", "*retinanet*")
    with subprocess.Popen(command, cwd=zoo.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list((zoo.root / "results").glob("runs/*/events.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        (zoo.root / "results" / "fake").write_text("in the way")
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot be written" in told
    assert '"status": "succeeded"' in told
