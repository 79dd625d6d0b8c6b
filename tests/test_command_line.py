"""What the verbs print: help, completion, doctor, status, data."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, Zoo
from records import changed

from zoo_bench.noise import Noise
from zoo_bench.store import Store

VERBS = ("run", "plan", "status", "show", "render", "verify", "compare", "export", "doctor", "data")


def completed(zoo: Zoo, words: str) -> list[str]:
    """What the shell offers after `words`."""
    variables = {**os.environ, "_ZOO_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words}
    variables["COMP_CWORD"] = str(len(words.split()) - 1)
    code = "import sys; sys.argv = ['zoo-bench']; from zoo_bench.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=zoo.root, env=variables, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return sorted(done.stdout.split())


def test_help_names_every_verb_and_a_first_call(zoo: Zoo) -> None:
    done = zoo.call("--help")
    assert done.returncode == 0
    assert all(f" {verb} " in done.stdout for verb in VERBS)
    assert "zoo-bench run --profile smoke" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("zoo-bench pl", ["plan"]),
        ("zoo-bench run --profile q", ["quick"]),
        ("zoo-bench show ret", ["retinanet_r50_fpn_1x_shapes", "retinanet_r50_fpn_1x_coco"]),
        ("zoo-bench compare --published simple", ["simpledet"]),
        ("zoo-bench render --mem-def a", ["allocated"]),
        ("zoo-bench render --tables a", ["apart"]),
        ("zoo-bench render --backend f", ["fake"]),
        ("zoo-bench export mo", ["model-card", "model-index"]),
        ("zoo-bench run --select fake/ret", ["fake/retinanet_r50_fpn_1x_shapes", "fake/retinanet_r50_fpn_1x_coco"]),
    ],
)
def test_the_shell_completes_verbs_profiles_and_cells(zoo: Zoo, words: str, offered: list[str]) -> None:
    assert completed(zoo, words) == sorted(offered)


def test_the_shell_completes_runs_and_machines(zoo: Zoo) -> None:
    (zoo.root / "machine.yaml").write_text("name: lab-2\n")
    zoo.call("run", "--select", "*retinanet*")
    run = zoo.records[0].run_id
    assert zoo.records[0].machine["name"] == "lab-2"
    assert completed(zoo, f"zoo-bench show {run[:9]}") == [run]
    assert completed(zoo, f"zoo-bench compare {run[:9]}") == [run]
    assert completed(zoo, "zoo-bench compare lab") == ["lab-2"]


@pytest.mark.parametrize("verb", ["show", "render", "verify", "compare", "export"])
def test_help_shows_a_call(zoo: Zoo, verb: str) -> None:
    told = zoo.call(verb, "--help").stdout
    assert f"zoo-bench {verb} " in " ".join(told.replace("│", " ").split()).split("Arguments")[0].split("Options")[0]


def test_doctor_says_what_is_missing_and_which_profile_runs_here(zoo: Zoo) -> None:
    done = zoo.call("doctor")
    assert done.returncode == 0
    for what in ("CPU", "NVML", "disk", "open files", "fake (current)", "dataset coco_2017", "dataset shapes"):
        assert what in done.stdout
    assert "machine.yaml: datasets: {coco_2017: /path}" in done.stdout
    assert "profile quick (a second a cell): would run here" in done.stdout
    assert "profile full (the published recipe, COCO 2017, 8 GPUs): would not run here" in done.stdout


def test_status_shows_every_cell_run_or_not(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 1, "kind": "diverged"})
    zoo.call("run", "--select", "*retinanet*")
    lines = zoo.call("status").stdout.splitlines()
    assert any("mask-rcnn_r50_fpn_1x_shapes" in line and "never run" in line for line in lines)
    assert any("retinanet_r50_fpn_1x_shapes" in line and "diverged" in line for line in lines)
    assert any(line.strip().startswith("log: ") for line in lines)


def test_status_says_that_a_run_is_noisy_and_why(zoo: Zoo) -> None:
    zoo.call("run", "--select", "*retinanet*")
    record = zoo.records[0]
    assert "noisy" not in zoo.call("status").stdout
    noise = Noise(kind="cpu_load", gpu=None, from_s=1, to_s=4, detail="1.5 of 2 cores were busy with something else")
    noisy = changed(record, noise=(noise,), run_id="29990101T000000.000Z-0001")
    Store(zoo.root / "results").add(noisy)
    told = zoo.call("status").stdout
    assert re.search(r"retinanet_r50_fpn_1x_shapes +succeeded, noisy ", told)
    assert f"{record.cell_id}: noisy: 1.5 of 2 cores were busy with something else (1 to 4 s)" in told


def test_data_shapes_makes_a_folder_that_data_check_accepts(zoo: Zoo) -> None:
    zoo.change({"datasets": {"shapes": {"train_images": 4, "val_images": 3}}})
    target = zoo.root / "made"
    done = zoo.call("data", "shapes", "-o", str(target))
    assert done.returncode == 0
    assert done.stdout.strip() == str(target)
    assert len(list(target.glob("train/*.jpg"))) == 4
    checked = zoo.call("data", "check", "shapes")
    assert checked.returncode == 0
    assert "no problems" in checked.stdout


def test_a_broken_dataset_stops_a_run_before_anything_is_launched(zoo: Zoo) -> None:
    folder = zoo.root / "data" / "coco"
    for split in ("train2017", "val2017"):
        (folder / split).mkdir(parents=True)
        annotations = folder / "annotations" / f"instances_{split}.json"
        annotations.parent.mkdir(exist_ok=True)
        annotations.write_text('{"images": [], "annotations": [}')
    zoo.change({"profiles": {"quick": {"set": {"dataset": "coco_2017"}}}})
    done = zoo.call("run")
    assert done.returncode == 2
    assert "line 1" in done.stderr
    assert not (zoo.root / "results").exists()
    assert zoo.call("data", "check", "coco_2017").returncode == 1


def test_an_empty_folder_is_a_working_zoo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zoo_bench", "plan", "--profile", "smoke"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "16 of 16 would run" in done.stdout
    assert str(tmp_path) in done.stdout


def test_the_harness_never_imports_a_framework() -> None:
    frameworks = {"torch", "torchvision", "mxnet", "gluoncv", "models"}
    for path in (REPOSITORY / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & frameworks, path


def test_only_what_the_phases_read_of_a_dataset_is_needed(zoo: Zoo) -> None:
    made = zoo.root / "made"
    zoo.change({"datasets": {"shapes": {"train_images": 4, "val_images": 3}}})
    zoo.call("data", "shapes", "-o", str(made))
    folder = zoo.root / "data" / "coco"
    (folder / "annotations").mkdir(parents=True)
    (made / "val").rename(folder / "val2017")
    (made / "annotations" / "instances_val.json").rename(folder / "annotations" / "instances_val2017.json")
    zoo.change({"profiles": {"quick": {"set": {"dataset": "coco_2017"}}}})
    (zoo.root / "mine.pth").write_bytes(b"weights")
    done = zoo.call("run", "--phases", "infer,evaluate", "--checkpoint", "mine.pth", "--select", "*retinanet*")
    assert done.returncode == 0, done.stderr
    assert "train2017 does not exist" in zoo.call("run", "--select", "*retinanet*").stderr


def test_render_starts_without_the_slow_imports(finished: Zoo) -> None:
    code = (
        "import sys; sys.argv = ['zoo-bench', 'render']\n"
        "from zoo_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'pandas', 'numpy', 'hotcoco', 'pycocotools', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=finished.root, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
