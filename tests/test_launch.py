"""A trainer that is not ours becomes a backend by a file alone: launched, watched, sampled, recorded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, Zoo

from zoo_bench.record import Record

SCRIPT = """
import sys, time
steps, save, say = int(sys.argv[1]), sys.argv[2], sys.argv[3]
for step in range(1, steps + 1):
    time.sleep(0.01)
    print(f"[{step} of {steps}] cost={1 / step:.4f} mem 1536.0MiB", flush=True)
    if say == "crash" and step == 7:
        sys.exit("the disk of the cluster is full")
    if say == "hang" and step == 7:
        time.sleep(600)
open(save, "w").write("weights")
if say != "silent":
    print("quality 41.25%")
"""
COMMAND: dict[str, Any] = {
    "words": ["{python}", "stranger.py", "{iterations}", "{output}/final.bin", "fine"],
    "adapter": "regex",
    "patterns": {
        "step": r"\[(?P<iteration>\d+) of (?P<iterations>\d+)\] cost=(?P<loss>\S+)",
        "memory_peak": r"mem (?P<mib>[\d.]+)MiB",
        "eval_result": r"quality (?P<box_ap_points>[\d.]+)%",
    },
    "model": "{output}/final.bin",
    "sources": ["stranger.py"],
}
LOGGING = """
import json, sys, time
with open(sys.argv[1] + "/20261129_120000.log.json", "w") as log:
    for step in range(1, 31):
        time.sleep(0.01)
        line = {"mode": "train", "epoch": 1, "iter": step * 50, "lr": 0.02, "memory": 3905, "data_time": 0.00005,
                "loss": 1.5, "time": 0.0002}
        print(json.dumps(line), file=log, flush=True)
    scores = {"mode": "val", "epoch": 1, "bbox_mAP": 0.374, "segm_mAP": 0.341}
    print(json.dumps(scores), file=log)
print("done")
"""


def backend(zoo: Zoo, script: str, **changes: Any) -> None:
    """Put a stranger's script into the workspace, and the backend that it is."""
    folder = zoo.root / "models" / "stranger"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "models" / "__init__.py", folder.parent)
    (zoo.root / "stranger.py").write_text(script, encoding="utf-8")
    spec = {
        "name": "stranger",
        "description": "somebody's script",
        "command": {**COMMAND, **changes},
        "offers": {"detectors": ["retinanet_fpn"], "backbones": ["r50"], "precisions": ["fp32"], "max_gpus": 8},
        "default_variant": "current",
        "variants": {"current": {"about": "zoo-bench's own interpreter", "python": ">=3.10"}},
    }
    (folder / "backend.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    zoo.change({"axes": {"backend": ["stranger"], "detector": ["retinanet_fpn"]}})
    zoo.change(
        {"profiles": {"quick": {"set": {"phases": ["train", "evaluate"]}}}, "document": {"backends": ["stranger"]}}
    )


def ran(zoo: Zoo, code: int = 0) -> Record:
    done = zoo.call("run", "--no-trial")
    assert done.returncode == code, done.stderr
    return zoo.records[-1]


def test_a_script_that_prints_its_own_format_is_recorded_like_any_other(zoo: Zoo) -> None:
    backend(zoo, SCRIPT)
    record = ran(zoo)
    assert record.phases_done == ("train", "evaluate")
    train, scores = record.measurements.train, record.measurements.scores
    assert train is not None
    assert train.iterations_run == 30
    assert 0.01 <= train.mean_s < 0.1, "without a time in its lines, the clock between them tells it"
    assert train.final_loss == pytest.approx(1 / 30, abs=1e-4)
    assert scores is not None
    assert scores.box is not None
    assert scores.box.ap == pytest.approx(0.4125)
    assert record.measurements.reported is not None
    assert record.measurements.reported.memory is not None
    assert record.measurements.reported.memory.bytes == 1536 * 2**20
    assert record.measurements.memory is not None
    assert (record.measurements.memory.host_bytes or 0) > 2**20, "it is sampled from outside too"
    assert record.checkpoint is not None
    assert record.checkpoint.trained
    model = zoo.root / record.checkpoint.file
    assert model.read_text() == "weights"
    assert model.suffix == ".bin", "what it left is not called what it is not"
    assert "[30 of 30]" in (zoo.root / record.files["log"]).read_text()
    assert "41.2" in zoo.call("render").stdout
    assert "nothing to do" in zoo.call("run").stderr


def test_a_changed_script_is_run_again(zoo: Zoo) -> None:
    backend(zoo, SCRIPT)
    ran(zoo)
    (zoo.root / "stranger.py").write_text(SCRIPT + "# changed\n", encoding="utf-8")
    assert "worker sources changed" in zoo.call("plan").stdout


def test_a_trainer_that_logs_to_a_file_of_its_own_is_followed_there(zoo: Zoo) -> None:
    backend(
        zoo,
        LOGGING,
        words=["{python}", "stranger.py", "{output}"],
        adapter="mmdet",
        patterns={},
        log="{output}/*.log.json",
        model=None,
    )
    zoo.change({"profiles": {"quick": {"set": {"recipe": {"lr_schedule": {"iterations": 1500, "milestones": []}}}}}})
    train = ran(zoo).measurements.train
    assert train is not None
    assert (train.mean_s, train.averaged_over, train.iterations_run) == (pytest.approx(0.0002), 50, 1500)
    assert train.data_share == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("say", "words"),
    [
        ("crash", "exit code 1; the last it printed: the disk of the cluster is full"),
        ("silent", "found no AP in what the command told after its last iteration"),
    ],
)
def test_what_went_wrong_with_it_is_told(say: str, words: str, zoo: Zoo) -> None:
    backend(zoo, SCRIPT, words=[*COMMAND["words"][:-1], say])
    record = ran(zoo, code=1)
    assert record.status == "failed"
    assert words in record.reason


def test_one_that_hangs_is_ended_with_all_that_it_started(zoo: Zoo) -> None:
    backend(zoo, SCRIPT, words=[*COMMAND["words"][:-1], "hang"])
    zoo.change({"profiles": {"quick": {"set": {"trust": {"hang_timeout_s": 1.0}, "retry": {"hung": 0}}}}})
    record = ran(zoo, code=1)
    assert record.status == "hung"
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(zoo.root).encode() in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patterns": {"step": "(?P<iteration>"}}, "is no regular expression"),
        ({"patterns": {"step": r"(?P<itertion>\d+)"}}, "did you mean 'iteration'"),
        ({"patterns": {}}, "needs patterns"),
        ({"adapter": "mmdte", "patterns": {}}, "did you mean 'mmdet'"),
        ({"words": ["{python}", "{lrr}"]}, "there is no value {lrr}; did you mean 'lr'"),
        ({"model": "{output}/{nam}"}, "there is no value {nam}"),
        ({"sources": ["missing.py"]}, "sources: there is no missing.py"),
        ({"folder": "nowhere"}, "folder: there is no nowhere"),
        ({"words": ["no-such-program"]}, "no-such-program"),
        ({"model": "{output}/nowhere"}, "left no model"),
    ],
)
def test_a_wrong_backend_file_says_what_to_mend(changes: dict[str, Any], words: str, zoo: Zoo) -> None:
    backend(zoo, SCRIPT, **changes)
    done = zoo.call("run", "--no-trial")
    assert done.returncode == (1 if zoo.records else 2)
    assert words in done.stderr + "".join(record.reason for record in zoo.records)


EVALUATES = """
import time
for step in range(1, 31):
    time.sleep(0.01)
    print(f"[{step} of 30] cost=1 mem 1MiB", flush=True)
    if step == 10:
        time.sleep(0.5)
        print("quality 12.0%", flush=True)
"""


def test_an_evaluation_on_the_way_is_none_of_the_model_and_no_iteration_pays_for_it(zoo: Zoo) -> None:
    backend(zoo, EVALUATES, words=["{python}", "stranger.py"], model=None)
    record = ran(zoo, code=1)
    assert "found no AP" in record.reason
    assert record.measurements.train is not None
    assert record.measurements.train.p90_s < 0.1
    assert record.measurements.train.mean_s < 0.03


HOLDS = """
import subprocess, sys
for step in range(1, 31):
    print(f"[{step} of 30] cost=1 900000000000000.0ms mem 1MiB", flush=True)
print("quality 12.0%", flush=True)
open(sys.argv[1], "w").write("weights")
subprocess.Popen(["sleep", "60"], start_new_session=True)
"""


def test_a_helper_that_holds_the_output_open_is_not_waited_for_and_a_wrong_unit_is_no_time(zoo: Zoo) -> None:
    patterns = {**COMMAND["patterns"], "step": COMMAND["patterns"]["step"] + r" (?P<iteration_time_ms>\S+)ms"}
    backend(
        zoo,
        HOLDS,
        words=["{python}", "stranger.py", "{output}/model.pth"],
        model="{output}/model.pth",
        patterns=patterns,
    )
    record = ran(zoo)
    assert record.duration_s < 30
    assert record.measurements.train is not None
    assert record.measurements.train.mean_s < 1
    assert record.checkpoint is not None
    assert record.checkpoint.file.endswith(".pth"), "what lies where it is kept is taken as it is"


@pytest.mark.parametrize(
    ("script", "changes", "words"),
    [
        (SCRIPT.replace("range(1, steps + 1)", "range(1, 6)"), {}, "it ended well after iteration 5 of 30"),
        (SCRIPT.replace('open(save, "w")', 'open("/dev/null", "w")'), {"model": "old.pth"}, "older than this run"),
    ],
)
def test_what_is_not_of_a_whole_run_is_no_success(script: str, changes: dict[str, Any], words: str, zoo: Zoo) -> None:
    (zoo.root / "old.pth").touch()
    os.utime(zoo.root / "old.pth", (1, 1))
    backend(zoo, script, **changes)
    assert words in ran(zoo, code=1).reason


def test_a_command_that_is_the_same_for_several_cells_is_told(zoo: Zoo) -> None:
    backend(zoo, SCRIPT)
    zoo.change({"axes": {"backbone": ["r50", "r101"]}})
    assert "names no {backbone}" in zoo.call("plan").stderr


def test_the_log_of_an_earlier_run_is_not_taken_for_this_ones(zoo: Zoo) -> None:
    script = LOGGING.replace("20261129_120000", "new").replace("for step in range(1, 31)", "for step in range(1, 4)")
    script = script.replace("print(json.dumps(scores), file=log)", 'print(json.dumps(scores), file=log, end="")')
    backend(
        zoo,
        script,
        words=["{python}", "stranger.py", "logs"],
        adapter="mmdet",
        patterns={},
        log="logs/*.json",
        model=None,
    )
    (zoo.root / "logs").mkdir()
    old = zoo.root / "logs" / "old.log.json"
    old.write_text('{"mode": "val", "bbox_mAP": 0.11}\n')
    os.utime(old, (1, 1))
    zoo.change({"profiles": {"quick": {"set": {"recipe": {"lr_schedule": {"iterations": 150, "milestones": []}}}}}})
    zoo.change({"profiles": {"quick": {"set": {"measure": {"warmup_iterations": 0}}}}})
    scores = ran(zoo).measurements.scores
    assert scores is not None
    assert scores.box is not None
    assert scores.box.ap == 0.374
