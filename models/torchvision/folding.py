"""Batch norm folded into the convolutions before it, for inference: by then it is a scale and a shift."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops.misc import FrozenBatchNorm2d

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def folded(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose ResNet has no batch norm left; the same function but for the order of rounding.

    In torchvision's ResNets a norm is registered right behind the convolution whose output it takes.
    """
    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, NORMS):
                setattr(module, name, _fused(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return copied


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> nn.Conv2d:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return conv
