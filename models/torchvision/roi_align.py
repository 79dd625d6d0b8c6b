"""RoIAlign over a feature pyramid, as torchvision's MultiScaleRoIAlign, and many times faster on a CPU.

Every value of a region is a weighted sum of 16 values a channel of the features: four sample points of four neighbours
each (He et al. 2017, arXiv:1703.06870). So on a CPU all levels stand in one table of positions, a row each, and all
regions are one weighted bag of rows (``embedding_bag``), forward and backward over whole rows and on all threads.
torchvision's own kernel goes through a region channel by channel, and its backward on one thread. On a GPU, whose
kernel has none of that, it is torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag
from torchvision.ops import MultiScaleRoIAlign

SAMPLES = 2  # points a bin and axis


class RoIAlign(MultiScaleRoIAlign):
    """Pools boxes (a list of [N, 4] an image, in pixels) to [sum N, C, S, S], with 2 x 2 sample points a bin.

    Corners are not shifted by half a pixel (``aligned=False``), as in Detectron. Level by box size: equation 1 of Lin
    et al. 2016 (arXiv:1612.03144).
    """

    def __init__(self, levels: Sequence[str], output_size: int) -> None:
        super().__init__(list(levels), output_size, sampling_ratio=SAMPLES)

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """The pooled regions, in the order of the boxes, in single precision."""
        levels = [features[name].float() for name in self.featmap_names]
        if levels[0].device.type != "cpu":
            named = dict(zip(self.featmap_names, levels, strict=True))
            return super().forward(named, boxes, image_shapes)
        scales = _scales(levels, image_shapes)
        regions = torch.cat(boxes).float()
        images = torch.repeat_interleave(torch.tensor([len(found) for found in boxes]))
        level = _level_of(regions, scales, self.canonical_scale, self.canonical_level)
        return _pool(levels, scales, regions, images, level, self.output_size[0])


def _scales(levels: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]) -> list[float]:
    """Of each level against the image, the nearest power of two, as torchvision infers them."""
    height = max(shape[0] for shape in image_shapes)
    return [2.0 ** round(float(torch.tensor(level.shape[-2] / height).log2())) for level in levels]


def _level_of(regions: Tensor, scales: Sequence[float], canonical_scale: int, canonical_level: int) -> Tensor:
    lowest, highest = (-round(float(torch.tensor(scale).log2())) for scale in (scales[0], scales[-1]))
    side = ((regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])).sqrt()
    level = torch.floor(canonical_level + torch.log2(side / canonical_scale) + 1e-6)
    return level.clamp(lowest, highest).long() - lowest


def _pool(
    levels: Sequence[Tensor], scales: Sequence[float], regions: Tensor, images: Tensor, level: Tensor, size: int
) -> Tensor:
    channels, count = levels[0].shape[1], len(regions)
    # [positions of all levels and images, channels]: no copy but the one that joins them, with channels last.
    table = torch.cat([found.permute(0, 2, 3, 1).reshape(-1, channels) for found in levels])
    sizes = torch.tensor([found.shape[-2:] for found in levels])
    starts = torch.tensor([0, *(len(levels[0]) * int(h * w) for h, w in sizes)]).cumsum(0)[:-1]
    heights, widths, scale = sizes[level, 0], sizes[level, 1], torch.tensor(scales)[level]
    columns, column_weights = _taps(regions[:, 0], regions[:, 2], widths, scale, size)
    rows, row_weights = _taps(regions[:, 1], regions[:, 3], heights, scale, size)
    base = (starts[level] + images * heights * widths)[:, None, None, None, None]
    stride = widths[:, None, None, None, None]
    places = base + rows[:, :, None, :, None] * stride + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :] / SAMPLES**2
    bags = (count * size * size, (2 * SAMPLES) ** 2)
    pooled = embedding_bag(places.reshape(bags), table, mode="sum", per_sample_weights=weights.reshape(bags))
    return pooled.view(count, size, size, channels).permute(0, 3, 1, 2)


def _taps(low: Tensor, high: Tensor, length: Tensor, scale: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis, for every region and bin: the 4 positions that its two points lie between, and their weights.

    Both are [N, size, 4]. A point more than one position outside the features counts nothing; the others are moved in.
    """
    start = low * scale
    bin_length = (high * scale - start).clamp(min=1) / size
    points = torch.arange(size * SAMPLES)
    offset = (points // SAMPLES) + (points % SAMPLES + 0.5) / SAMPLES
    at = start[:, None] + offset * bin_length[:, None]
    last = (length - 1)[:, None]
    inside = (at >= -1) & (at <= last + 1)
    at = at.clamp(min=0)
    before = torch.minimum(at.long(), last)
    after = torch.minimum(before + 1, last)
    share = torch.where(before >= last, torch.zeros(()), at - before)
    positions = torch.stack([before, after], dim=-1)
    weights = torch.stack([1 - share, share], dim=-1) * inside[..., None]
    shape = (len(low), size, 2 * SAMPLES)
    return positions.view(shape), weights.view(shape)
