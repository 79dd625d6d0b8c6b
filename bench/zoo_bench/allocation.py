"""What a cluster has given the job that this process is part of: told by the environment, and nothing elsewhere."""

from __future__ import annotations

import os

JOB_VARIABLE = "ZOO_BENCH_SLURM_JOB"
NODES_VARIABLE = "ZOO_BENCH_NODES"


def job() -> str:
    """Return which job of the cluster this is, and where: ``12_3 on node7``; empty for none."""
    return os.environ.get(JOB_VARIABLE, "")


def nodes() -> int:
    """Return how many machines one cell has, of which this is the first."""
    told = os.environ.get(NODES_VARIABLE, "")
    return max(1, int(told)) if told.isdigit() else 1


def environment(job_and_node: str, count: int) -> dict[str, str]:
    """Return the variables that tell a process what it has been given."""
    return {JOB_VARIABLE: job_and_node, NODES_VARIABLE: str(count)}
