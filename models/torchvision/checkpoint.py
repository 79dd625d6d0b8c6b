"""Weights in and out: safetensors, or PyTorch files read without running anything they contain."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection._utils import overwrite_eps

from models import worker
from models.misfit import misfit, refuse_misfit, shown

# torchvision trained these three published files with an epsilon of 0 in their frozen batch norm, and its builders
# set it back after loading them. The numbers are the start of each file's SHA-256, as in its name.
ZERO_EPSILON_FILES = {
    "258fb6c6": "fasterrcnn_resnet50_fpn_coco",
    "bf2d0c1e": "maskrcnn_resnet50_fpn_coco",
    "eeacb38b": "retinanet_resnet50_fpn_coco",
}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's weights and buffers as safetensors, beside and renamed."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    beside = path.with_name(path.name + ".tmp")
    save_file(state, beside)
    os.replace(beside, path)


def load_detector(model: nn.Module, path: Path) -> None:
    """Load a whole detector, as torchvision's builders would load the same file. Raises WorkerError, kind "data"."""
    load_weights(model, path)
    if content_hash(path)[:8] in ZERO_EPSILON_FILES:
        overwrite_eps(model, 0.0)


def load_weights(model: nn.Module, path: Path, may_miss: Sequence[str] = ()) -> None:
    """Load every weight of ``model`` from ``path``; names that start with one of ``may_miss`` may be absent.

    Raises WorkerError of kind "data" that names the first weights that are missing, unexpected or of another shape.
    """
    state = read_state(path)
    differing = _other_shapes(model, state)
    if differing:
        raise misfit(path, shown(differing))
    # Not strict: old torchvision names are translated by the modules themselves while they load.
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if not name.startswith(tuple(may_miss))]
    refuse_misfit(path, (missing, "are missing"), (result.unexpected_keys, "are not this model's"))


def read_state(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors or PyTorch file; a training checkpoint's are taken from its ``model``."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise worker.WorkerError(f"there is no weights file {path}", kind="data") from error
    except Exception as error:  # of a damaged file PyTorch's reader raises whatever its bytes lead to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise worker.WorkerError(
            f"{path} is neither safetensors nor a PyTorch file of plain weights: {reason}", kind="data"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise worker.WorkerError(f"{path} holds no table of weights, but {type(state).__name__}", kind="data")
    return state


def content_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _other_shapes(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} has shape {tuple(state[name].shape)} in the file and {tuple(own.shape)} in the model"
        for name, own in model.state_dict().items()
        if name in state and state[name].shape != own.shape
    ]
