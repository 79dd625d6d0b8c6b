"""The ResNets under the detectors: which one, its batch norm, its first weights and its frozen stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models import resnet
from torchvision.models.resnet import ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

from models.imagenet import imagenet_file
from models.torchvision.checkpoint import load_weights

BUILDERS = {"r18": resnet.resnet18, "r50": resnet.resnet50, "r101": resnet.resnet101}
NORMS: dict[str, type[nn.Module]] = {"frozen": FrozenBatchNorm2d, "live": nn.BatchNorm2d}
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")


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
