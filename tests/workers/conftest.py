"""A small dataset with every kind of annotation, and cells small enough to train in a second, for either backend."""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from models import worker

ROOT = Path(__file__).resolve().parents[2]
BACKEND = "gluoncv" if importlib.util.find_spec("mxnet") else "torchvision"
WIDTH, HEIGHT = 80, 64
PUBLISHED: dict[str, Any] = {
    "base_batch_size": None,
    "input": {"min_size": 800, "max_size": 1333, "flip_probability": 0.5},
    "model": {
        "backbone_weights": "none",
        "batch_norm": "live",
        "frozen_stages": 0,
        "fpn_channels": 256,
        "box_head_channels": 1024,
        "mask_head_channels": 256,
        "head_norm": "none",
        "box_roi_size": 7,
        "mask_roi_size": 14,
        "anchor_sizes": [32, 64, 128, 256, 512],
        "rpn_pre_nms": {"train": 2000, "test": 1000},
        "rpn_post_nms": {"train": 2000, "test": 1000},
        "rpn_batch_per_image": 256,
        "roi_batch_per_image": 512,
        "box_loss_beta": 1.0,
    },
    "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0001, "clip_norm": None},
    "lr_schedule": {
        "iterations": 4,
        "milestones": [3],
        "gamma": 0.1,
        "warmup_iterations": 2,
        "warmup_factor": 0.001,
    },
    "test": {"score_threshold": 0.05, "nms_threshold": 0.5, "detections_per_image": 100},
}
SMALL = {
    "input": {"min_size": 64, "max_size": 96},
    "model": {
        "fpn_channels": 16,
        "box_head_channels": 16,
        "mask_head_channels": 8,
        "box_roi_size": 4,
        "mask_roi_size": 8,
        "anchor_sizes": [8, 16, 24, 32, 48],
        "rpn_pre_nms": {"train": 50, "test": 50},
        "rpn_post_nms": {"train": 50, "test": 50},
        "rpn_batch_per_image": 16,
        "roi_batch_per_image": 8,
    },
    "optimizer": {"lr": 0.001},
    "test": {"score_threshold": 0.0, "detections_per_image": 5},
}


def recipe(*changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The published recipe (but for its length and weights) with changed values."""
    merged = deepcopy(PUBLISHED)
    for change in changes:
        for part, values in change.items():
            merged[part].update(values)
    return merged


def cell(detector: str, backbone: str = "r18", *changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A resolved cell on the CPU; ``changes`` are laid over the published recipe."""
    return {
        "detector": detector,
        "masks": detector.startswith("mask-rcnn"),
        "backbone": backbone,
        "precision": "fp32",
        "gpus": 0,
        "images_per_gpu": 2,
        "seed": 7,
        "recipe": recipe(*changes),
        "measure": {
            "train_iterations": None,
            "warmup_iterations": 0,
            "infer_images": 3,
            "infer_warmup_images": 1,
            "evaluate_images": None,
        },
        "runtime": {
            "data_workers": 0,
            "threads": None,
            "checkpoint_interval": 1000,
            "collective_timeout_s": 60,
        },
        "options": {},
    }


class Cells:
    """Writes jobs on a dataset and runs the worker on them, as the harness does."""

    def __init__(self, dataset: Path, output: Path) -> None:
        self.dataset = dataset
        self.output = output

    def job(self, values: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """A job that runs all phases of the cell in a folder of its own."""
        folder = self.output / str(len(list(self.output.iterdir())))
        folder.mkdir()
        split = {"images": str(self.dataset), "annotations": str(self.dataset / "instances.json")}
        job = {
            "protocol": 1,
            "run_id": "test",
            "cell": values,
            "phases": ["train", "infer", "evaluate"],
            "dataset": {"name": "test", "train": split, "val": split},
            "devices": ["cpu"],
            "checkpoint": None,
            "paths": {
                "output": str(folder),
                "events": str(folder / "events.jsonl"),
                "model": str(folder / "model.safetensors"),
                "detections": str(folder / "detections.json"),
                "enough": str(folder / "enough"),
                "checkpoints": str(folder / "checkpoints"),
                "index": str(self.dataset / "index"),
            },
            "trial": False,
        }
        return {**job, **changes}

    def command(self, job: dict[str, Any]) -> list[str]:
        """The words that start the worker, its job written."""
        path = Path(job["paths"]["output"]) / "job.json"
        path.write_text(json.dumps(job))
        return [sys.executable, "-m", f"models.{BACKEND}.train", "--job", str(path)]

    def run(self, job: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and events of a run."""
        done = subprocess.run(self.command(job), cwd=ROOT, capture_output=True, timeout=120, check=False)
        return done.returncode, events_of(job)

    def start(self, job: dict[str, Any], until: str) -> subprocess.Popen[bytes]:
        """The worker at work: started, and waited for until its events hold a text."""
        log, events = Path(job["paths"]["output"]) / "log", Path(job["paths"]["events"])
        with log.open("wb") as stream:
            process = subprocess.Popen(self.command(job), cwd=ROOT, stderr=stream, start_new_session=True)
        while process.poll() is None and not (events.exists() and until in events.read_text()):
            time.sleep(0.1)
        assert process.poll() is None, log.read_text()
        return process


def events_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The events written so far."""
    return [json.loads(line) for line in Path(job["paths"]["events"]).read_text().splitlines()]


def in_process(job: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """Run the worker's main here, where its framework is imported already."""
    path = Path(job["paths"]["output"]) / "job.json"
    path.write_text(json.dumps(job))
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = worker.run(importlib.import_module(f"models.{BACKEND}.train").main, ["--job", str(path)])
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    return code, events_of(job)


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The events of one name."""
    return [event for event in events if event["event"] == name]


def block(left: int, top: int, width: int, height: int) -> np.ndarray:
    """A mask [HEIGHT, WIDTH] of one rectangle."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed counts: runs of 0 and 1 in turn, column by column, a run of 0 first."""
    counts, value, length = [], 0, 0
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return [*counts, length]


def annotation(image_id: int, box: list[int], form: str, **changes: Any) -> dict[str, Any]:
    """A rectangular object whose segmentation is a polygon, or run lengths, compressed or not."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    mask = block(*box)
    compressed = rle.encode(np.asfortranarray(mask))
    forms = {
        "polygon": [[left, top, right, top, right, bottom, left, bottom]],
        "counts": {"size": [HEIGHT, WIDTH], "counts": run_lengths(mask)},
        "compressed": {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode("ascii")},
    }
    return {"image_id": image_id, "category_id": 1, "bbox": box, "iscrowd": 0, "segmentation": forms[form], **changes}


ANNOTATIONS = [
    annotation(1, [10, 20, 30, 24], "polygon"),
    annotation(1, [50, 8, 16, 16], "counts", category_id=3),
    annotation(1, [0, 0, 40, 40], "counts", iscrowd=1),
    annotation(1, [5, 5, 0, 10], "polygon"),
    annotation(2, [8, 4, 20, 20], "compressed"),
    annotation(3, [30, 30, 25, 25], "polygon", category_id=3),
    annotation(4, [12, 12, 40, 20], "polygon"),
]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 5 images (the last without objects) and instances.json."""
    folder = tmp_path_factory.mktemp("dataset")
    noise = np.random.default_rng(0)
    for number in range(1, 6):
        pixels = noise.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for item in ANNOTATIONS:
            if item["image_id"] == number and not item["iscrowd"]:
                pixels[block(*item["bbox"]) == 1] = (255, 60 * item["category_id"], 20)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(1, 6)]
    objects = [{"id": n, **item} for n, item in enumerate(ANNOTATIONS, start=1)]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1}, {"id": 3}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def cells(dataset: Path, tmp_path: Path) -> Cells:
    """Jobs on the small dataset."""
    return Cells(dataset, tmp_path)
