"""Bytes to what a network takes: normalised on the device, channels last in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from models.torchvision.batch import Batch

# Of ImageNet, in fractions: what torchvision's backbones were trained with.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def normalised(batch: Batch) -> ImageList:
    """The batch as float32, zero mean and unit deviation a channel; what lies beyond an image stays zero."""
    pixels = batch.images
    mean, deviation = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    images = pixels.to(torch.float32, memory_format=torch.channels_last)
    images = images.sub_(mean * 255).div_(deviation * 255)
    for image, (height, width) in zip(images, batch.sizes, strict=True):
        _clear(image, height, width)
    return ImageList(images, list(batch.sizes))


def _clear(image: Tensor, height: int, width: int) -> None:
    image[:, height:] = 0
    image[:, :, width:] = 0
