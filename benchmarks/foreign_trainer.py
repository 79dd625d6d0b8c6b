"""A stranger's training script as a backend: a plain torchvision loop, started, watched and recorded unchanged.

tests/foreign/ holds the script, which knows nothing of zoo-bench, and the file that makes it a backend. It is run in
the environment of the torchvision backend, on generated images; the record is held against what the script printed.
Exits with 1 when they differ, or the file has more than MOST_LINES lines.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean

import yaml

from zoo_bench.backends import find_backend
from zoo_bench.environments import ensure_environment
from zoo_bench.machine_config import load_machine_config
from zoo_bench.store import Store
from zoo_bench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ROOT / "tests" / "foreign"
MOST_LINES = 30
ITERATIONS, WARMUP = 30, 5


def prepare(folder: Path) -> None:
    """Make a workspace of the stranger's files, the repository's matrix and torchvision's interpreter."""
    workspace = Workspace.locate(ROOT)
    environment = ensure_environment(
        find_backend("torchvision", workspace), workspace, load_machine_config(workspace), print
    )
    shutil.copytree(FOREIGN, folder, dirs_exist_ok=True)
    shutil.copy(ROOT / "models" / "__init__.py", folder / "models")
    matrix = yaml.safe_load((ROOT / "matrix.yaml").read_text(encoding="utf-8"))
    matrix["axes"] |= {"backend": ["plain"], "detector": ["faster-rcnn_fpn"], "backbone": ["r18"]}
    matrix["document"]["backends"] = ["plain"]
    values = matrix["profiles"]["smoke"]["set"]
    values["recipe"]["lr_schedule"] |= {"iterations": ITERATIONS, "milestones": [ITERATIONS - 1]}
    values["measure"]["warmup_iterations"] = WARMUP
    (folder / "matrix.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False), encoding="utf-8")
    machine = {"backends": {"plain": {"python": str(environment.python)}}}
    (folder / "machine.yaml").write_text(yaml.safe_dump(machine), encoding="utf-8")


def problems(folder: Path) -> list[str]:
    """Return what the record and the script's own words disagree in."""
    (record,) = Store(folder / "results").load().runs.records()
    train, scores = record.measurements.train, record.measurements.scores
    if record.status != "succeeded" or train is None or scores is None or scores.box is None:
        return [f"{record.status}: {record.reason}"]
    log = (folder / record.files["log"]).read_text(encoding="utf-8")
    times_ms = [float(text) for text in re.findall(r"~ ([\d.]+)ms", log)]
    ap = float(re.findall(r"bbox AP is ([\d.]+)", log)[0])
    print(f"{record.cell_id}: {train.mean_s:.4f} s/iter over {train.iterations_measured} iterations, box AP {ap:.2f}")
    found = []
    if train.iterations_run != ITERATIONS or abs(train.mean_s - fmean(times_ms[WARMUP:]) / 1000) > 0.2 * train.mean_s:
        found.append(f"the script's iterations took {fmean(times_ms[WARMUP:]):.1f} ms")
    if abs((scores.box.ap or 0.0) * 100 - ap) > 0.01:
        found.append(f"the script's AP is {ap}, the record's {scores.box.ap}")
    if record.checkpoint is None or not (folder / record.checkpoint.file).is_file():
        found.append("its model was not kept")
    return found


def main() -> int:
    """Run the cell, print what was recorded, judge."""
    lines = len((FOREIGN / "models" / "plain" / "backend.yaml").read_text(encoding="utf-8").splitlines())
    print(f"backend.yaml: {lines} lines (limit {MOST_LINES})")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        command = [sys.executable, "-m", "zoo_bench", "run", "--profile", "smoke", "--no-trial"]
        if subprocess.run(command, cwd=folder, check=False).returncode != 0:
            return 1
        found = problems(folder)
    for problem in found:
        print(f"FAILED: {problem}")
    return 1 if found or lines > MOST_LINES else 0


if __name__ == "__main__":
    sys.exit(main())
