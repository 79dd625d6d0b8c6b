"""The ResNets under the detectors: GluonCV's v1b, which are torchvision's (the stride is in the 3 x 3 convolution).

Which one, its batch norm, its first weights and its frozen stages are what ``recipe.model`` says.
"""

from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import mxnet as mx
from gluoncv.model_zoo import resnetv1b
from mxnet.gluon import HybridBlock, nn

from models.gluoncv.weights import load_torchvision_resnet
from models.imagenet import imagenet_file

STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
STEM = ("conv1", "bn1", "relu", "maxpool")


class Depth(NamedTuple):
    """How a ResNet is built; each of its blocks ends with the last of ``convolutions`` ReLUs."""

    builder: Callable[..., resnetv1b.ResNetV1b]
    blocks: Tuple[int, int, int, int]
    convolutions: int
    channels: int


DEPTHS = {
    "r18": Depth(resnetv1b.resnet18_v1b, (2, 2, 2, 2), 2, 512),
    "r50": Depth(resnetv1b.resnet50_v1b, (3, 4, 6, 3), 3, 2048),
    "r101": Depth(resnetv1b.resnet101_v1b, (3, 4, 23, 3), 3, 2048),
}


def build_resnet(name: str, model: Dict[str, Any]) -> resnetv1b.ResNetV1b:
    """A ResNet with the batch norm and the frozen stages that are asked for; its weights are not there yet."""
    body = DEPTHS[name].builder(pretrained=False, use_global_stats=model["batch_norm"] == "frozen")
    if model["backbone_weights"] == "none" and model["batch_norm"] == "live":
        # From scratch, a deep ResNet learns at once when its residual branches start at zero (Goyal et al. 2017,
        # arXiv:1706.02677). Under frozen batch norm that zero would stay, and the branches with it.
        for block in _blocks(body):
            last_norm(block).gamma.init = mx.init.Zero()
    freeze(body, model)
    return body


def freeze(body: resnetv1b.ResNetV1b, model: Dict[str, Any]) -> None:
    """Stop the gradient of the first of the five stages, and of every frozen batch norm.

    As in torchvision, the stem's batch norm learns only when nothing is frozen.
    """
    count = model["frozen_stages"]
    frozen = [getattr(body, stage) for stage in STAGES[:count]] + ([body.bn1] if count else [])
    for block in frozen:
        block.collect_params().setattr("grad_req", "null")
    if model["batch_norm"] == "frozen":
        body.collect_params(".*(gamma|beta)$").setattr("grad_req", "null")


def load_backbone(body: resnetv1b.ResNetV1b, name: str, source: str) -> None:
    """Give the ResNet its first weights: imagenet, none, or the path of a file with torchvision's names.

    Raises WorkerError of kind "data" when weights that it needs are not there.
    """
    if source != "none":
        load_torchvision_resnet(body, imagenet_file(name) if source == "imagenet" else Path(source))


def stage_outputs(name: str) -> List[str]:
    """The names that GluonCV's symbols give to the ends of conv2 to conv5: the last ReLU of each."""
    depth = DEPTHS[name]
    return [
        f"layers{stage}_relu{count * depth.convolutions - 1}_fwd" for stage, count in enumerate(depth.blocks, start=1)
    ]


def last_norm(block: HybridBlock) -> nn.BatchNorm:
    """The batch norm that ends a residual branch."""
    return block.bn3 if hasattr(block, "bn3") else block.bn2


def _blocks(body: resnetv1b.ResNetV1b) -> List[HybridBlock]:
    return [block for stage in STAGES[1:] for block in getattr(body, stage)]
