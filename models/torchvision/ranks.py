"""The processes of a job: one a device, joined by torch.distributed where there are several.

Rank 0 alone writes events; what the others have to tell goes through it, or into a file when they die.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from models import worker
from models.torchvision.nodes import count_nodes

T = TypeVar("T")
CPU_RANKS = "cpu_ranks"
MOST_CPU_RANKS = 64
# How long a rank may wait for another that works on alone, as while rank 0 times inference. The harness ends a job
# whose rank 0 makes no progress long before.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Rank:
    """This process: its number among ``count``, and its device."""

    number: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes events and files."""
        return self.number == 0

    @property
    def share(self) -> tuple[int, int]:
        """Its part of every batch and of the images to evaluate."""
        return self.number, self.count


def count_ranks(job: dict[str, Any]) -> int:
    """One a GPU of every node; on the CPU as many as ``options.cpu_ranks`` says (1), which share the batch.

    Raises WorkerError for an option that this worker lacks, or a batch that cannot be shared evenly.
    """
    cell, devices, nodes = job["cell"], job["devices"], count_nodes(job)
    options = cell["options"]
    unknown = [name for name in options if name != CPU_RANKS]
    if unknown:
        raise worker.WorkerError(f"unknown option {unknown[0]!r}; this worker has {CPU_RANKS}")
    if devices != ["cpu"]:
        return len(devices) * nodes
    count = options.get(CPU_RANKS, 1)
    if type(count) is not int or not 1 <= count <= MOST_CPU_RANKS:
        raise worker.WorkerError(f"options: {CPU_RANKS}: expected a count from 1 to {MOST_CPU_RANKS}, found {count!r}")
    if cell["images_per_gpu"] % count:
        raise worker.WorkerError(f"a batch of {cell['images_per_gpu']} images cannot be shared by {count} ranks")
    if count % nodes:
        raise worker.WorkerError(f"options: {CPU_RANKS}: {count} ranks cannot be shared evenly by {nodes} nodes")
    return count


class Group:
    """The ranks together. With one rank everything is a no-op, and torch.distributed is left alone."""

    def __init__(self, rank: Rank, timeout_s: float) -> None:
        self.rank = rank
        self._waiting: dist.ProcessGroup | None = None
        if rank.count > 1:
            # Objects and waiting go over the CPU: a GPU that waits in NCCL keeps a processor busy.
            backend = "cpu:gloo,cuda:nccl" if rank.device.type == "cuda" else "gloo"
            if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine, whatever its name resolves to
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
            self._waiting = dist.new_group(backend="gloo", timeout=PATIENCE)

    def close(self) -> None:
        """Leave in good order, all ranks together."""
        if self._waiting is not None:
            self.wait()
            dist.destroy_process_group()

    def wait(self) -> None:
        """Return when all ranks are here."""
        if self._waiting is not None:
            dist.barrier(self._waiting)

    def gather(self, value: T) -> list[T]:
        """The value of every rank, by number, on every rank."""
        if self._waiting is None:
            return [value]
        found: list[Any] = [None] * self.rank.count
        dist.all_gather_object(found, value, self._waiting)
        return found

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are means over the ranks; all begin with rank 0's weights."""
        if self._waiting is None:
            return model
        # Frozen batch norm has constants in its buffers, which need no sending; live batch norm is rank 0's.
        is_live = any(isinstance(module, _BatchNorm) for module in model.modules())
        known = inspect.signature(DistributedDataParallel).parameters
        sends_buffers = (
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        )  # PyTorch 2.7
        return DistributedDataParallel(model, gradient_as_bucket_view=True, **{sends_buffers: is_live})

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, in place; on a GPU it is not waited for."""
        if self._waiting is not None:
            dist.all_reduce(values)
        return values

    def first_alone(self, work: Callable[[], object]) -> None:
        """Have rank 0 do some work while the others wait."""
        if self.rank.is_first:
            work()
        self.wait()
