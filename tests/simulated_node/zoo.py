"""A workspace of one cell that the fake backend runs on a simulated node, for benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from zoo_bench.recipe import merge
from zoo_bench.record import Record
from zoo_bench.store import Store

from .node import build, environment

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class NodeWorkspace:
    """One cell of the fake backend in a folder. `values` are laid over every value of the cell."""

    root: Path
    iterations: int
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scenario = self.root / "scenario"
        matrix = yaml.safe_load((REPOSITORY / "matrix.yaml").read_text(encoding="utf-8"))
        cell = {
            "dataset": "shapes",
            "phases": ["train"],
            "recipe": {
                "base_batch_size": None,
                "lr_schedule": {"iterations": self.iterations, "milestones": []},
            },
            "trust": {"on_noise": "mark"},
        }
        changes = {
            "default_profile": "bench",
            "document": {"backend": "fake"},
            "axes": {"backend": ["fake"], "detector": ["retinanet_fpn"], "backbone": ["r50"]},
            "datasets": {"shapes": {"train_images": 8, "val_images": 4}},
            "profiles": {"bench": {"description": "a benchmark's", "set": merge(cell, self.values)}},
        }
        (self.root / "matrix.yaml").write_text(yaml.safe_dump(merge(matrix, changes)), encoding="utf-8")
        build(self.root)

    def run(self) -> Record:
        """Call ``zoo-bench run`` on the node; return the record it leaves."""
        command = [sys.executable, "-m", "zoo_bench", "run", "--force"]
        done = subprocess.run(command, cwd=self.root, env=self.variables(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return self.records()[-1]

    def records(self) -> tuple[Record, ...]:
        """Return all records so far."""
        return Store(self.root / "results").load().runs.records()

    def run_bare(self, record: Record, folder: Path) -> Path:
        """Start the worker of an earlier run by itself, with the same job; return its event file."""
        log = self.root / record.files["log"]
        job = json.loads(log.with_name("job.json").read_text(encoding="utf-8"))
        folder.mkdir()
        job["paths"] = {name: str(folder / Path(path).name) for name, path in job["paths"].items()}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "models.fake.train", "--job", str(folder / "job.json")]
        with log.open("ab") as stream:
            subprocess.run(
                command, cwd=REPOSITORY, env=self.variables(), stdout=stream, stderr=stream, check=True,
                start_new_session=True,
            )  # fmt: skip
        return folder / "events.jsonl"

    def variables(self) -> dict[str, str]:
        """Return the environment of a process on the node."""
        return {**os.environ, **environment(self.root, self.scenario)}
