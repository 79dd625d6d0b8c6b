"""A job on several nodes of a Slurm cluster: where its ranks meet, and what runs on the nodes beside the first.

The worker runs on the first node, and starts a step of Slurm's on the others, one process a node, that launches the
ranks there. They meet, as torchrun's do, at an address of the first node: Slurm tells every process of a step the one
from which it was started.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import worker

MODULE = "models.torchvision.node"
PATIENCE_S = 15.0


def count_nodes(job: dict[str, Any]) -> int:
    """The machines that share a job."""
    return int(job.get("nodes", 1))


@dataclass(frozen=True)
class Meeting:
    """Where ranks meet. ``node``: this one's number, the first's is 0; ``port`` 0: there is one node alone."""

    node: int
    port: int

    def options(self, patience_s: float) -> dict[str, Any]:
        """The same in the words of torchrun's launcher, which waits so long for the other nodes."""
        if not self.port:
            return {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
        return {
            "rdzv_backend": "static",
            "rdzv_endpoint": f"{first_node()}:{self.port}",
            "rdzv_configs": {"rank": self.node},
            "rdzv_timeout": int(patience_s),
        }


def first_node() -> str:
    """The address of the node on which the worker runs. Raises WorkerError where Slurm has not told it."""
    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    if not address:
        raise worker.WorkerError("several nodes are used as jobs of a Slurm cluster alone, and this is none")
    return address


@contextmanager
def other_nodes(job: dict[str, Any], count: int) -> Iterator[Meeting]:
    """Have the other nodes launch their share of ``count`` ranks meanwhile; afterwards nothing of that is left."""
    if count_nodes(job) == 1:
        yield Meeting(0, 0)
        return
    meeting = Meeting(0, _free_port(first_node()))
    step = subprocess.Popen(_step(job, count, meeting.port), stdin=subprocess.DEVNULL)
    try:
        yield meeting
        step.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        pass  # all ranks have ended well, and their launchers are ended below
    finally:
        _end(step)


def _step(job: dict[str, Any], count: int, port: int) -> list[str]:
    others = str(count_nodes(job) - 1)
    return [
        *("srun", "--overlap", "--quit-on-interrupt", "--kill-on-bad-exit=1", "--cpu-bind=none", "--input=none"),
        *("--nodes", others, "--ntasks", others, "--ntasks-per-node=1", "--exclude", os.environ["SLURMD_NODENAME"]),
        *(sys.executable, "-m", MODULE, "--job", str(Path(job["paths"]["output"]) / "job.json")),
        *("--ranks", str(count), "--port", str(port)),
    ]


def _end(step: subprocess.Popen[bytes]) -> None:
    if step.poll() is None:
        step.terminate()
        try:
            step.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            step.kill()
            step.wait()


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
