"""The number formats of a cell: fp32, tf32 (fp32 with the tensor cores' 10-bit products), bf16 (automatic mixed)."""

from __future__ import annotations

import torch
from torch import Tensor

from models import worker

PRECISIONS = ("fp32", "tf32", "bf16")


def prepare_arithmetic(precision: str, device: torch.device) -> None:
    """Set what holds for the whole process. Raises WorkerError for a precision that is not to be had here."""
    if precision not in PRECISIONS:
        raise worker.WorkerError(f"unknown precision {precision!r}; this worker has {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type != "cuda":
        raise worker.WorkerError("tf32 is a format of NVIDIA's tensor cores; on the CPU there are fp32 and bf16")
    if precision != "fp32" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise worker.WorkerError(
            f"{precision} needs a GPU of compute capability 8.0 (Ampere) or newer; this is a {name}"
        )
    # fp32 means fp32: not the TF32 that torch's convolutions would use from Ampere on. bf16 keeps it out as well, so
    # that what autocast leaves in single precision is that.
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def at_least_single(value: Tensor) -> Tensor:
    """What losses and box arithmetic take of a network's output: autocast's half precision becomes single."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def arithmetic(precision: str, device: torch.device) -> torch.autocast:
    """Context of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
