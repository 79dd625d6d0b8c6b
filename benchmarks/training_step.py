"""The torchvision backend's training step and inference, beside the plain way to do the same with torchvision.

The plain loop is benchmarks/torchvision/plain_loop.py. Both sides have the same weights, photographs, batch of 2,
shorter side of 320, threads, fp32, frozen batch norm and three trainable stages; they take turns batch by batch in one
process.
Loading stands aside (benchmarks/loading.py), and with it, on our side, the resizing. Memory is of a process a side.

Needs ZOO_BENCH_TINY_COCO. Exits with 1 when a limit is missed.

    python benchmarks/training_step.py [DETECTOR ...]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).with_name("torchvision")))
from worker_side import measured, published, worker_python

SCRIPT = "steps.py"
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


def row(python: str, detector: str, data: Path) -> tuple[list[str], bool]:
    """A line of the table, and whether its limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        cell = Path(folder) / "cell.json"
        cell.write_text(json.dumps(published(detector, data, CHANGES)))
        steps = measured(python, SCRIPT, str(cell), "time")
        peaks = {side: measured(python, SCRIPT, str(cell), "memory", side)["peak_bytes"] for side in ("ours", "plain")}
        images = measured(python, SCRIPT, str(cell), "infer")
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
    python = worker_python()
    rows = [row(python, detector, Path(named).absolute()) for detector in arguments or MOST_TIME]
    heads = [
        "detector", "plain s/step", "ours", "ratio (by batch)", "limit", "plain GB", "memory ratio", "plain fps",
        f"fps ratio (at least {LEAST_FPS})", "detections an image, plain / ours",
    ]  # fmt: skip
    print(tabulate([line for line, _ in rows], headers=heads, tablefmt="pipe", disable_numparse=True))
    return 0 if all(held for _, held in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
