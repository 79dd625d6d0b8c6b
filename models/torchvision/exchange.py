"""What the ranks tell one another in every iteration, in one small sum: losses, whether to stop, allocator peaks.

One message that travels behind the gradients, and is read when the losses are: it costs no wait of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.torchvision.ranks import Group

ENOUGH = "enough"
Peak = tuple[int, int]


@dataclass(frozen=True)
class Heard:
    """Mean losses over the ranks, whether rank 0 has enough, and each rank's (allocated, reserved) bytes, by rank."""

    losses: dict[str, float]
    enough: bool
    peaks: Sequence[Peak]


def tell(group: Group, losses: dict[str, Tensor], enough: bool, peak: Peak) -> dict[str, Tensor]:
    """Send this rank's part; returns scalars to be given to `heard` when the device is done with them."""
    rank = group.rank
    told = torch.zeros(1 + 2 * rank.count, dtype=torch.float64)
    told[0] = float(enough and rank.is_first)
    told[1 + 2 * rank.number], told[2 + 2 * rank.number] = peak
    # In double precision, which holds a number of bytes exactly.
    means = torch.stack(list(losses.values())).double() / rank.count
    summed = group.sum(torch.cat([means, told.to(means.device, non_blocking=True)]))
    names = [
        *losses,
        ENOUGH,
        *(f"{kind} {number}" for number in range(rank.count) for kind in ("allocated", "reserved")),
    ]
    return dict(zip(names, summed.unbind(), strict=True))


def heard(values: dict[str, float]) -> Heard:
    """What all ranks told."""
    names = list(values)
    split = names.index(ENOUGH)
    told = [int(values[name]) for name in names[split + 1 :]]
    peaks = list(zip(told[::2], told[1::2], strict=True))
    return Heard({name: values[name] for name in names[:split]}, bool(values[ENOUGH]), peaks)
