"""matrix.yaml's section `slurm`: what each job asks the cluster for."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StrictInt

from zoo_bench.recipe import Count, Positive, Strict

Word = Annotated[str, Field(pattern=r"^[^\s]+$", max_length=200)]
Line = Annotated[str, Field(pattern=r"^[^\r\n]+$", max_length=10_000)]
# What zoo-bench sets itself, with the key that does it where there is one.
OWN_OPTIONS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "time": "time_min",
    "signal": "grace_s",
    "array": "max_running",
    "cpus-per-task": "cpus",
    "gpus-per-node": "gpu_kind",
    "nodes": "nodes",
    **dict.fromkeys(("job-name", "output", "error", "open-mode", "requeue", "ntasks", "ntasks-per-node")),
}


def _foreign(options: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name in options:
        if name in OWN_OPTIONS:
            key = OWN_OPTIONS[name]
            raise ValueError(f"'{name}' is set by zoo-bench{f'; use the key {key}' if key else ''}")
    return options


OptionName = Annotated[str, Field(pattern="^[a-z][a-z0-9-]*$", max_length=64)]
Options = Annotated[dict[OptionName, Line | StrictInt | StrictBool], AfterValidator(_foreign)]


class Slurm(Strict):
    """How `zoo-bench run --executor slurm` submits a cell's job. What is left out is as the cluster has it."""

    time_min: Positive = Field(description="minutes a job may run; one that needs longer is queued again and goes on")
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = Field(default=None, description="features that a node must have: v100&nvlink")
    gpu_kind: Word | None = Field(default=None, description="the kind of GPU, as the cluster calls it: v100")
    nodes: Positive = Field(default=1, description="how many nodes share one cell, and its GPUs evenly")
    cpus: Positive | None = Field(default=None, description="processors for each job, on each of its nodes")
    extra: Options = Field(default={}, description="more options of sbatch by their long names: {mem: 64G}")
    setup: tuple[Line, ...] = Field(default=(), description="shell lines that a job begins with: module load cuda")
    max_running: Positive | None = Field(default=None, description="how many jobs of an array run at once")
    max_timeouts: Count = Field(default=20, description="how often a job that reached its time limit is queued again")
    grace_s: Positive = Field(default=120, description="seconds before its time limit that a job is told to end")
    poll_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=15.0, description="seconds between two looks at the queue"
    )
