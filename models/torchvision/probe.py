"""``python -m models.torchvision.probe``: print one JSON object that says what this environment can run on.

versions      {python, torch, torchvision, cuda, cudnn, nccl}; null for what the build lacks
arch_list     compute capabilities the torch build was compiled for, also readable on a machine without a GPU
cuda_available  whether torch can use a GPU here
"""

from __future__ import annotations

import json
import platform
import sys

import torch
import torchvision


def versions() -> dict[str, str | None]:
    """Versions a record keeps, as the projects themselves write them."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "cudnn": _cudnn_version(),
        "nccl": _nccl_version(),
    }


def _cudnn_version() -> str | None:
    number = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    if number is None:
        return None
    # 9.24.0 is 92400; before 9, 8.9.7 was 8907.
    scale = 10000 if number >= 90000 else 1000
    return f"{number // scale}.{number % scale // 100}.{number % 100}"


def _nccl_version() -> str | None:
    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return None
    return ".".join(str(part) for part in torch.cuda.nccl.version())


def _arch_list() -> list[str]:
    # torch.cuda.get_arch_list() is empty without a GPU; this is what it reads when there is one.
    flags = torch._C._cuda_getArchFlags() if torch.version.cuda else None
    return flags.split() if flags else []


def probe() -> dict[str, object]:
    """The object this module prints."""
    return {
        "versions": versions(),
        "arch_list": _arch_list(),
        "cuda_available": torch.cuda.is_available(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
