"""An existing repository becomes a zoo by one call that asks nothing it can find out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DETECTRON2 = "import sys\nfrom detectron2.engine import DefaultTrainer\n"
PLAIN = """
import sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
for step in range(1, int(words["--iterations"]) + 1):
    print(f"iter {step} loss {1 / step:.3f} time 0.0123")
print("box AP 0.31")
"""


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoo_bench", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_what_it_writes_is_a_zoo_whose_trainer_is_found(tmp_path: Path) -> None:
    root = tmp_path / "my detectors"
    (root / "tools").mkdir(parents=True)
    (root / "tools" / "train_net.py").write_text(DETECTRON2)
    annotations = root / "datasets" / "coco" / "annotations" / "instances_train2017.json"
    annotations.parent.mkdir(parents=True)
    annotations.touch()
    done = call(root, "init")
    assert done.returncode == 0, done.stderr
    assert "the adapter 'detectron2': train_net.py imports it" in done.stdout
    assert "COCO is in datasets/coco" in done.stdout
    spec = yaml.safe_load((root / "models" / "my-detectors" / "backend.yaml").read_text())
    assert spec["command"]["words"][:2] == ["{python}", "tools/train_net.py"]
    assert spec["command"]["log"] == "{output}/metrics.json"
    assert yaml.safe_load((root / ".github" / "workflows" / "zoo-nightly.yml").read_text())["jobs"]
    planned = call(root, "plan")
    assert planned.returncode == 0, planned.stderr
    assert "mask-rcnn_r50_fpn_1x_coco" in planned.stdout
    assert "train, evaluate" in planned.stdout
    again = call(root, "init")
    assert again.returncode == 2
    assert "there is already matrix.yaml" in again.stderr


def test_a_run_from_nothing_but_init(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PLAIN)
    done = call(tmp_path, "init", "--backend", "mine")
    assert done.returncode == 0, done.stderr
    assert "write patterns for it" in done.stdout
    ran = call(tmp_path, "run", "--profile", "smoke", "--select", "mine/retinanet_r50*", "--no-trial")
    assert ran.returncode == 0, ran.stderr
    assert "0.012" in ran.stdout
    assert "31.0" in call(tmp_path, "render", "--profile", "smoke").stdout


@pytest.mark.parametrize(
    ("file", "adapter"),
    [
        ("work_dirs/a/20220101.log.json", "mmdet"),
        ("work_dirs/a/vis_data/scalars.json", "mmdet"),
        ("output/metrics.json", "detectron2"),
        ("logs/result_0.txt", "mllog"),
        ("logs/train.log", "gluoncv"),
    ],
)
def test_what_a_trainer_logs_is_told_from_earlier_runs(file: str, adapter: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    log = tmp_path / file
    log.parent.mkdir(parents=True)
    log.write_text(":::MLLOG {}\n" if adapter == "mllog" else "[Epoch 0][Batch 99], Speed: 10.2 samples/sec, a=1\n")
    assert f"the adapter '{adapter}'" in call(tmp_path, "init").stdout


@pytest.mark.parametrize("name", ["2024", "on", "train net, v2.py"])
def test_odd_names_are_names(name: str, tmp_path: Path) -> None:
    root = tmp_path / name.removesuffix(".py")
    root.mkdir()
    script = name if name.endswith(".py") else "train.py"
    (root / script).write_text(PLAIN)
    done = call(root, "init", "--script", script)
    assert done.returncode == 0, done.stderr
    assert call(root, "plan", "--profile", "smoke").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--script path/to/train.py"),
        (("--script", "nowhere.py"), "no such file"),
        (("--root", "nowhere"), "no such folder"),
    ],
)
def test_where_there_is_nothing_to_start_it_says_what_to_name(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = call(tmp_path, "init", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
