"""What benchmarks of the torchvision worker share: its interpreter, a published cell, and how a script is run there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from zoo_bench.backends import find_backend, worker_variables
from zoo_bench.cell import expand
from zoo_bench.environments import ensure_environment
from zoo_bench.load import load_matrix
from zoo_bench.machine_config import load_machine_config
from zoo_bench.recipe import merge
from zoo_bench.workspace import Workspace

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parents[1]
# The plain loop's own losses: torchvision's.
BETA = {"mask-rcnn_fpn": 1 / 9, "faster-rcnn_fpn": 1 / 9, "retinanet_fpn": 0.0}


def worker_python() -> str:
    """The interpreter of the torchvision backend, whose environment is built if it is not there."""
    workspace = Workspace.locate(ROOT)
    backend = find_backend("torchvision", workspace)
    return str(ensure_environment(backend, workspace, load_machine_config(workspace), print).python)


def published(detector: str, data: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """The R-50 cell of the profile full with torchvision's losses, `changes`, and the dataset's files as `dataset`."""
    cells = expand(load_matrix(ROOT / "matrix.yaml"), "full")
    wanted = ("torchvision", detector, "r50")
    cell = next(cell for cell in cells if (cell.backend, cell.detector, cell.backbone) == wanted)
    beta = {"recipe": {"model": {"box_loss_beta": BETA[detector]}}}
    files = [str(data / "train2017"), str(data / "annotations" / "instances_train2017.json")]
    return {**merge(merge(cell.resolved(), changes), beta), "dataset": files}


def measured(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """What a script under benchmarks/torchvision prints as its last line."""
    variables = {**worker_variables(), "PYTHONPATH": str(ROOT)}
    command = [python, str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
