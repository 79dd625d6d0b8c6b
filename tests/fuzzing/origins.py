"""The files that are mutated: those of the project, and what one run of the fake backend leaves."""

from __future__ import annotations

import atexit
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from conftest import MATRIX, REPOSITORY, Zoo

from zoo_bench.datasets.shapes import ShapesSettings, generate
from zoo_bench.record import Record

BACKEND = REPOSITORY / "models" / "torchvision" / "backend.yaml"
TEMPLATES = REPOSITORY / "templates"


@cache
def scratch() -> Path:
    """A folder that goes away with the process."""
    folder = tempfile.TemporaryDirectory(prefix="zoo-bench-fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name).resolve()


@cache
def zoo() -> Zoo:
    """A workspace in which both cells have been run. What is made of it must not change it."""
    root = scratch() / "zoo"
    root.mkdir()
    made = Zoo(root)
    made.options(box_ap=0.375, mask_ap=0.341)
    done = made.call("run")
    assert done.returncode == 0, done.stderr
    return made


@cache
def matrix() -> Any:
    """The project's matrix.yaml, read."""
    return yaml.safe_load(MATRIX.read_text(encoding="utf-8"))


@cache
def backend() -> Any:
    """A backend.yaml, read."""
    return yaml.safe_load(BACKEND.read_text(encoding="utf-8"))


@cache
def record_file(number: int = 0) -> Path:
    """The file of a record."""
    record = zoo().records[number]
    return zoo().root / "results" / record.cell_id / f"{record.run_id}.json"


@cache
def record(number: int = 0) -> Any:
    """A record as it is written."""
    return json.loads(record_file(number).read_text(encoding="utf-8"))


def run_file(name: str, number: int = 0) -> Path:
    """A file that a run left in its folder."""
    found: Record = zoo().records[number]
    return zoo().root / "results" / "runs" / found.run_id / name


@cache
def events() -> tuple[Any, ...]:
    """The events of a run, read."""
    return tuple(json.loads(line) for line in run_file("events.jsonl").read_text(encoding="utf-8").splitlines())


@cache
def dataset() -> Path:
    """A dataset of a few images, with crowds."""
    root = scratch() / "shapes"
    generate(root, ShapesSettings(train_images=3, val_images=1, crowd_permille=500))
    return root


def annotations_file() -> Path:
    """Its annotation file of the training images."""
    return dataset() / "annotations" / "instances_train.json"


@cache
def annotations() -> Any:
    """What that holds."""
    return json.loads(annotations_file().read_text(encoding="utf-8"))
