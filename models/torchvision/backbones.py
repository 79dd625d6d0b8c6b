"""The ResNets under the detectors: which one, its batch norm, its first weights and its frozen stages."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights, ResNet101_Weights, resnet
from torchvision.models.resnet import ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

from models import worker
from models.torchvision.checkpoint import load_weights

BUILDERS = {"r18": resnet.resnet18, "r50": resnet.resnet50, "r101": resnet.resnet101}
# The first ImageNet weights of each, as in torchvision's detection builders.
IMAGENET = {
    "r18": ResNet18_Weights.IMAGENET1K_V1,
    "r50": ResNet50_Weights.IMAGENET1K_V1,
    "r101": ResNet101_Weights.IMAGENET1K_V1,
}
NORMS: dict[str, type[nn.Module]] = {"frozen": FrozenBatchNorm2d, "live": nn.BatchNorm2d}
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
DOWNLOAD_TIMEOUT_S = 30.0


def build_resnet(name: str, model: dict[str, Any], load_backbone: bool) -> ResNet:
    """A ResNet with the batch norm, weights and frozen stages that ``recipe.model`` asks for.

    ``load_backbone`` is false when a whole detector is loaded over it next. Raises WorkerError of kind "data" when
    weights that it needs are not there.
    """
    source = model["backbone_weights"] if load_backbone else "none"
    # From scratch, a deep ResNet learns at once when its residual branches start at zero (Goyal et al. 2017,
    # arXiv:1706.02677). Under frozen batch norm that zero would stay, and the branches with it.
    starts_at_zero = source == "none" and model["batch_norm"] == "live"
    body = BUILDERS[name](norm_layer=NORMS[model["batch_norm"]], zero_init_residual=starts_at_zero)
    if source != "none":
        path = imagenet_file(name) if source == "imagenet" else Path(source)
        load_weights(body, path, may_miss=("fc.",))
    freeze_stages(body, model["frozen_stages"])
    return body


def freeze_stages(body: ResNet, count: int) -> None:
    """Stop the gradient of the first ``count`` of the five stages; torchvision's trainable_layers is 5 - count.

    As there, the stem's batch norm learns only when nothing is frozen.
    """
    frozen = STAGES[:count] + (("bn1",) if count else ())
    for name, parameter in body.named_parameters():
        if name.startswith(frozen):
            parameter.requires_grad_(False)


def imagenet_file(name: str) -> Path:
    """The ImageNet weights in torch.hub's cache; fetched if they are not there and the network is."""
    url = IMAGENET[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        _download(url, path)
    return path


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = path.stem.rsplit("-", 1)[-1]
    previous_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (OSError, RuntimeError) as error:
        raise worker.WorkerError(
            f"ImageNet weights {path.name} are not in {path.parent} and could not be fetched ({error}). "
            f"Fetch them where there is a network: curl --location --output {path} {url}",
            kind="data",
        ) from error
    finally:
        socket.setdefaulttimeout(previous_s)
