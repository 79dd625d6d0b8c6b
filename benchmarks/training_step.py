"""The torchvision backend's training step and inference, beside the plain way to do the same with torchvision.

The plain loop is benchmarks/torchvision/plain_loop.py. Both sides have the same weights, photographs, batch of 2, shorter
side of 320, threads, fp32, frozen batch norm and three trainable stages; they take turns batch by batch in one process.
Loading stands aside (benchmarks/loading.py), and with it, on our side, the resizing. Memory is of a process a side.

Needs ZOO_BENCH_TINY_COCO. Exits with 1 when a limit is missed.

    python benchmarks/training_step.py [DETECTOR ...]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

from zoo_bench.backends import find_backend, worker_variables
from zoo_bench.cell import expand
from zoo_bench.environments import ensure_environment
from zoo_bench.load import load_matrix
from zoo_bench.machine_config import load_machine_config
from zoo_bench.recipe import merge
from zoo_bench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "torchvision" / "steps.py"
# At most so many times the plain loop's seconds a step; at least so many times its images a second.
MOST_TIME = {"mask-rcnn_fpn": 0.7, "faster-rcnn_fpn": 0.8, "retinanet_fpn": 0.9}
LEAST_FPS = 1.1
MEMORY_AIM = 0.8  # told, not held to
CHANGES: dict[str, Any] = {
    "gpus": 0,
    "images_per_gpu": 2,
    "runtime": {"threads": 2, "data_workers": 0},
    "recipe": {
        "input": {"min_size": 320, "max_size": 533, "flip_probability": 0.0},
        "model": {"frozen_stages": 2, "backbone_weights": "none"},
    },
}
# The plain loop's own losses: torchvision's.
BETA = {"mask-rcnn_fpn": 1 / 9, "faster-rcnn_fpn": 1 / 9, "retinanet_fpn": 0.0}


def resolved(detector: str, data: Path) -> dict[str, Any]:
    """The published cell with what the plain loop has otherwise, and the dataset's files in place of its name."""
    cells = expand(load_matrix(ROOT / "matrix.yaml"), "full")
    cell = next(
        cell for cell in cells if (cell.backend, cell.detector, cell.backbone) == ("torchvision", detector, "r50")
    )
    beta = {"recipe": {"model": {"box_loss_beta": BETA[detector]}}}
    files = [str(data / "train2017"), str(data / "annotations" / "instances_train2017.json")]
    return {**merge(merge(cell.resolved(), CHANGES), beta), "dataset": files}


def measured(python: str, cell: Path, *what: str) -> dict[str, Any]:
    """What the script prints, run in the worker's environment."""
    variables = {**worker_variables(), "PYTHONPATH": str(ROOT)}
    command = [python, str(SCRIPT), str(cell), *what]
    done = subprocess.run(command, cwd=ROOT, env=variables, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def row(python: str, detector: str, data: Path) -> tuple[list[str], bool]:
    """A line of the table, and whether its limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        cell = Path(folder) / "cell.json"
        cell.write_text(json.dumps(resolved(detector, data)))
        steps = measured(python, cell, "time")
        peaks = {side: measured(python, cell, "memory", side)["peak_bytes"] for side in ("ours", "plain")}
        images = measured(python, cell, "infer")
    ratios = [ours / plain for ours, plain in zip(steps["ours"], steps["plain"], strict=True)]
    ratio = sum(steps["ours"]) / sum(steps["plain"])
    fps = sum(images["plain"]) / sum(images["ours"])
    detections = images["detections"]
    line = [
        detector,
        f"{statistics.mean(steps['plain']):.2f}",
        f"{statistics.mean(steps['ours']):.2f}",
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{MOST_TIME[detector]}",
        f"{peaks['plain'] / 2**30:.1f}",
        f"{peaks['ours'] / peaks['plain']:.2f}",
        f"{len(images['plain']) / sum(images['plain']):.1f}",
        f"{fps:.2f}",
        f"{detections['plain']:.1f} / {detections['ours']:.1f}",
    ]
    return line, ratio <= MOST_TIME[detector] and fps >= LEAST_FPS


def main(arguments: list[str]) -> int:
    """Measure, print a table, judge."""
    named = os.environ.get("ZOO_BENCH_TINY_COCO")
    if not named:
        print("ZOO_BENCH_TINY_COCO is not set; it names a folder with train2017/ and annotations/")
        return 0
    workspace = Workspace.locate(ROOT)
    backend = find_backend("torchvision", workspace)
    python = str(ensure_environment(backend, workspace, load_machine_config(workspace), print).python)
    rows = [row(python, detector, Path(named).absolute()) for detector in arguments or MOST_TIME]
    heads = [
        "detector", "plain s/step", "ours", "ratio (by batch)", "limit", "plain GB", "memory ratio", "plain fps",
        f"fps ratio (at least {LEAST_FPS})", "detections an image, plain / ours",
    ]  # fmt: skip
    print(tabulate([line for line, _ in rows], headers=heads, tablefmt="pipe", disable_numparse=True))
    return 0 if all(held for _, held in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
