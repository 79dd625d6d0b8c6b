"""A random source for `shapes` whose every bit is fixed by this file.

Neither numpy nor the standard library promises the same stream in all versions for what is needed here, so
numbers come from SplitMix64 (Steele, Lea, Flood, 2014, "Fast splittable pseudorandom number generators"): a
counter put through an integer mixer. Only integer arithmetic is used; no C library function decides a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

IntField = NDArray[np.int64]
Item = TypeVar("Item")

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def mix(value: int) -> int:
    """The SplitMix64 finaliser: 64 bits in, 64 well-mixed bits out."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def derive(*parts: int) -> int:
    """One 64-bit key out of several integers; another order or another length is another key."""
    key = len(parts)
    for part in parts:
        key = mix(key + _STEP + mix(part + _STEP))
    return key


class Stream:
    """Random integers that depend on `key` alone."""

    def __init__(self, key: int) -> None:
        self._state = key & _MASK

    def key(self) -> int:
        """The next 64 bits, for use as the key of something else."""
        self._state = (self._state + _STEP) & _MASK
        return mix(self._state)

    def between(self, low: int, high: int) -> int:
        """An integer of ``low..high``, both included (``low`` when the range is empty)."""
        return low + self.key() % (high - low + 1) if high > low else low

    def chance(self, numerator: int, denominator: int) -> bool:
        """True `numerator` times of `denominator`."""
        return self.key() % denominator < numerator

    def choice(self, items: Sequence[Item]) -> Item:
        """One of `items`, each as likely as the others."""
        return items[self.key() % len(items)]

    def weighted(self, weights: Sequence[int]) -> int:
        """An index into `weights`, as often as its weight says."""
        rest = self.key() % sum(weights)
        for index, weight in enumerate(weights):
            if rest < weight:
                return index
            rest -= weight
        raise AssertionError("weights are positive")


def white_noise(key: int, height: int, width: int) -> IntField:
    """Independent integers 0..255 of shape ``(height, width)``."""
    counter = np.arange(1, height * width + 1, dtype=np.uint64)
    value = counter * np.uint64(_STEP) + np.uint64(key & _MASK)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_MIX_1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_MIX_2)
    value ^= value >> np.uint64(31)
    noise: IntField = (value >> np.uint64(56)).astype(np.int64)
    return noise.reshape(height, width)


def smooth_noise(key: int, height: int, width: int, cell: int) -> IntField:
    """Integers 0..255 of shape ``(height, width)`` that change over about `cell` pixels (bilinear lattice
    noise).
    """
    lattice = white_noise(key, height // cell + 2, width // cell + 2)
    row, below = np.divmod(np.arange(height), cell)
    column, right = np.divmod(np.arange(width), cell)
    upper = lattice[row] * (cell - below)[:, None] + lattice[row + 1] * below[:, None]
    field: IntField = upper[:, column] * (cell - right) + upper[:, column + 1] * right
    return field // (cell * cell)
