"""A job: one worker process, told what to do by job.json, in a process group of its own, stopped in stages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_bench import allocation
from zoo_bench.backends import worker_variables
from zoo_bench.cell import Cell
from zoo_bench.errors import StoreError
from zoo_bench.events import PROTOCOL
from zoo_bench.guardian import RUN_VARIABLE, end_marked
from zoo_bench.interrupts import Presses
from zoo_bench.recipe import Phase

# How long a worker may take to end after each signal, in seconds.
STAGES = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True)
class JobPaths:
    """Every file of one run, by name, and the folder of what all runs share."""

    output: Path
    index: Path
    """What a backend made of annotation files; it may be removed at any time between runs."""

    @property
    def job(self) -> Path:
        """What the harness tells the worker."""
        return self.output / "job.json"

    @property
    def events(self) -> Path:
        """What the worker tells the harness."""
        return self.output / "events.jsonl"

    @property
    def log(self) -> Path:
        """What the worker and its framework print."""
        return self.output / "worker.log"

    @property
    def stacks(self) -> Path:
        """Where the job's processes stood when it was ended for making no progress."""
        return self.output / "stacks.txt"

    @property
    def samples(self) -> Path:
        """What was seen of the job from outside, over time."""
        return self.output / "samples.jsonl"

    @property
    def model(self) -> Path:
        """The final weights, before their content hash is put into the name."""
        return self.output / "model.safetensors"

    @property
    def enough(self) -> Path:
        """Appears when the worker may end its training: more iterations would tell nothing new."""
        return self.output / "enough"

    @property
    def detections(self) -> Path:
        """The detections on the evaluation split, a COCO results list."""
        return self.output / "detections.json"


@dataclass(frozen=True)
class SplitPaths:
    """The image folder and the annotation file of one split, absolute."""

    images: Path
    annotations: Path


@dataclass(frozen=True)
class DatasetPaths:
    """A dataset on this machine."""

    name: str
    train: SplitPaths
    val: SplitPaths

    def needed(self, phases: Sequence[Phase]) -> tuple[SplitPaths, ...]:
        """Return the splits that `phases` read: one trains on train; inference and evaluation are done on val."""
        train = (self.train,) if "train" in phases else ()
        return (*train, self.val) if {"infer", "evaluate"} & set(phases) else train


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, and how to start it.

    `checkpoints` is where an interrupted training of the cell is resumed from. A `trial` trains on the largest images.
    """

    run_id: str
    cell: Cell
    phases: tuple[Phase, ...]
    dataset: DatasetPaths
    gpus: tuple[int, ...]
    checkpoint: Path | None
    paths: JobPaths
    checkpoints: Path
    command: tuple[str, ...]
    folder: Path
    trial: bool = False

    def document(self) -> dict[str, Any]:
        """Return the content of job.json."""
        splits = {
            name: {"images": str(split.images), "annotations": str(split.annotations)}
            for name, split in (("train", self.dataset.train), ("val", self.dataset.val))
        }
        return {
            "protocol": PROTOCOL,
            "run_id": self.run_id,
            "cell": self.cell.resolved(),
            "phases": list(self.phases),
            "dataset": {"name": self.dataset.name, **splits},
            "nodes": allocation.nodes(),
            "devices": [f"gpu:{index}" for index in range(len(self.gpus))] or ["cpu"],
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "paths": {
                "output": str(self.paths.output),
                "events": str(self.paths.events),
                "model": str(self.paths.model),
                "detections": str(self.paths.detections),
                "enough": str(self.paths.enough),
                "checkpoints": str(self.checkpoints),
                "index": str(self.paths.index),
            },
            "trial": self.trial,
        }


def launch(job: Job) -> subprocess.Popen[bytes]:
    """Write job.json and start the worker in its own process group. What it prints comes through its `stdout`.

    Raises:
        StoreError: the run's folder cannot be written, or the worker's interpreter cannot be started.
    """
    try:
        job.paths.output.mkdir(parents=True, exist_ok=True)
        job.paths.job.write_text(json.dumps(job.document(), indent=2) + "\n", encoding="utf-8")
        job.paths.log.touch()
        return subprocess.Popen(
            [*job.command, "--job", str(job.paths.job)],
            cwd=job.folder,
            env=_environment(job),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise StoreError(
            f"{job.cell.id}: its job cannot be started: {error}",
            "free some space or mend the permissions, and run again",
        ) from None


def _environment(job: Job) -> dict[str, str]:
    return {
        **worker_variables(),
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, job.gpus)),
        RUN_VARIABLE: str(job.paths.output),
    }


def stop(process: subprocess.Popen[bytes], run: Path, presses: Presses) -> None:
    """End the worker of the run in that folder, and what it started: ask, insist, kill. Then they are gone.

    Only what has left the worker's group and cleared its environment is not found. Each further press (an impatient
    second Ctrl-C) goes on to the next stage.
    """
    for number, patience_s in STAGES:
        if process.poll() is not None:
            break
        _signal_group(process.pid, number)
        _wait(process, patience_s, presses)
    _signal_group(process.pid, signal.SIGKILL)  # children that outlived their parent
    process.wait()
    end_marked(str(run))


def _wait(process: subprocess.Popen[bytes], patience_s: float, presses: Presses) -> None:
    before, deadline = presses.count, time.monotonic() + patience_s
    while process.poll() is None and presses.count == before and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # everyone has gone already, which is what was wanted
        os.killpg(group, number)
