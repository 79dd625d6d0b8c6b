"""Whatever a worker does or writes, a run ends in a record that says what happened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY, Zoo

from zoo_bench.privacy import without_folders
from zoo_bench.record import Record
from zoo_bench.store import Store

RETINANET = ("--select", "*retinanet*")
HEAD = """
import os, sys
from models import worker
job = worker.read_job()
events = worker.EventWriter(job["paths"]["events"])
"""


def ran(zoo: Zoo, code: str) -> Record:
    """Run one cell with a worker of the workspace's own; return its record."""
    folder = zoo.root / "models" / "fake"
    folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / "models" / "__init__.py", folder.parent)
    shutil.copy(REPOSITORY / "models" / "fake" / "backend.yaml", folder)
    (folder / "train.py").write_text(HEAD + code, encoding="utf-8")
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    (record,) = zoo.records
    return record


BACKWARDS = """
parts = dict.fromkeys(("load_s", "preprocess_s", "forward_s", "postprocess_s", "encode_s"), 0.1)
for index in range(1, 6):
    parts["load_s"] = -0.1
    events.write("infer_step", index=index, images=5, image_id=index, detections=1, warmup=False, **parts)
"""
HUGE = """
import time
huge = 10**300
events.write("step", iteration=1, iterations=huge, loss=1, lr=1, iteration_time_s=1, data_time_s=0, batch_size=huge)
time.sleep(1)
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), 40)", "was killed by signal 40"),
        ("print('no libcuda.so\\n\\n'); os._exit(3)", "without saying why; its log ends with: no libcuda.so"),
        ("print('\\x1b[2Jred'); os._exit(3)", r"its log ends with: \x1b[2Jred"),
        ("events.write('error', phase='train', kind='data', message='\\x1b]0;x\\x07 \\ud800')", r"\x1b]0;x\x07 \ud800"),
        ("os.remove(job['paths']['events']); os.mkdir(job['paths']['events'])", "events cannot be read"),
        (BACKWARDS, "zoo-bench could not tell what was measured"),
        (HUGE, "run_stop says nothing"),
    ],
)
def test_an_odd_worker_leaves_a_record(zoo: Zoo, code: str, words: str) -> None:
    record = ran(zoo, code)
    assert record.status == "failed"
    assert words in record.reason
    assert zoo.call("status").returncode == zoo.call("render").returncode == 0


def test_a_worker_cannot_report_more_than_everything(zoo: Zoo) -> None:
    zoo.options(box_ap=500.0)
    assert zoo.call("run", *RETINANET).returncode == 1
    (record,) = zoo.records
    assert record.reason == "evaluate: eval_result: box: ap is 500.0, and no fraction from 0 to 1"
    assert record.measurements.scores is None
    assert record.phases_done == ("train", "infer")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("schema_version",), 9, "a newer zoo-bench wrote it: schema 9"),
        (("files",), {}, "not a record: files: Value error, log: Field required"),
        (("cell",), {"dataset": "x"}, "not a record: cell: Value error, gpus: Field required"),
        (("machine",), {"gpus": [{}]}, "not a record: machine:"),
        (("measurements", "train", "mean_s"), 0, "not a record: measurements.train.mean_s:"),
        (("measurements", "infer", "forward_s"), -1, "not a record: measurements.infer.forward_s:"),
        (("measurements", "scores", "box", "ap"), 500, "not a record: measurements.scores.box.ap:"),
        ((), "{", "not a record: Invalid JSON"),
    ],
)
def test_a_record_that_cannot_be_is_passed_over(
    finished: Zoo, tmp_path: Path, path: tuple[str, ...], value: object, words: str
) -> None:
    document = finished.records[1].model_dump(mode="json")
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if path:
        inner[path[-1]] = value
    file = tmp_path / "fake" / "cell" / "1.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(document) if path else str(value), encoding="utf-8")
    contents = Store(tmp_path).load()
    assert contents.runs.summaries == ()
    assert next(iter(contents.problems.values())).startswith(f"{file}: {words}")


@pytest.mark.parametrize(
    ("home", "text", "published"),
    [
        ("/home/u", "/home/u/data and /home/u.", "~/data and ~."),
        ("/home/u", "/home/u2/x /mnt/home/u/x /home/u.bak", "/home/u2/x /mnt/home/u/x /home/u.bak"),
        ("/home/u", "file:///home/u/x: no such file", "file://~/x: no such file"),
        ("/home/u", "/home/u/zoo/models/x /home/u/zoo2/x", "models/x ~/zoo2/x"),
        ("/", "/data/x", "/data/x"),
        ("", "/data/x", "/data/x"),
        ("here", "here/x", "here/x"),
    ],
)
def test_records_name_no_folder_of_the_user(
    monkeypatch: pytest.MonkeyPatch, home: str, text: str, published: str
) -> None:
    monkeypatch.setenv("HOME", home)
    assert without_folders(text, Path("/home/u/zoo")) == published
