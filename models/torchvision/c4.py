"""The two parts of Faster R-CNN C4: features up to conv4, and conv5 as the head of every region.

Source: Ren et al. 2015 (arXiv:1506.01497) with the ResNet split of He et al. 2015 (arXiv:1512.03385, appendix A):
conv1 to conv4 are shared by the region proposal network and the regions, conv5 and a global average pool run on each
14 x 14 region. torchvision ships no such detector; its FasterRCNN takes these two as backbone and box head.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import ResNet


class C4Backbone(IntermediateLayerGetter):
    """conv1 to conv4 (torchvision's ``layer3``): one level ``"0"`` at stride 16, of 1024 channels for R-50."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__(resnet, return_layers={"layer3": "0"})
        # Read by FasterRCNN. After construction `inplanes` is the width of layer4, twice that of layer3.
        self.out_channels: int = resnet.inplanes // 2


class C4Head(nn.Module):
    """conv5 (``layer4``) and a global average pool: [R, C, S, S] regions to [R, 2 C] features."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.layer4 = resnet.layer4
        self.out_channels: int = resnet.inplanes

    def forward(self, regions: Tensor) -> Tensor:
        """Features of each region."""
        return self.layer4(regions).mean(dim=(2, 3))
