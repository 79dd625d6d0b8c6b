"""Draw one `shapes` image: pixels, and for every object the mask of what can be seen of it.

Geometry is in units of 1/16 pixel and in integers throughout (a pixel's centre is at 16 * index + 8), and
edges are not smoothed: a pixel belongs to exactly one object or to the background, so masks agree with pixels
exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo_bench.datasets.shapes_random import IntField, Stream, smooth_noise, white_noise

Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

CATEGORIES = ("circle", "square", "triangle", "ring")

_UNIT = 16
# 1024 * cos(7.5 degrees * k) for k = 0..12, written out: a C library may round the last bit of a cosine its
# own way.
_COSINES = (1024, 1015, 989, 946, 887, 812, 724, 623, 512, 392, 265, 134, 0)
_TURN = 48

# Sides are given for an image whose shorter side is 64 pixels and grow with it.
_REFERENCE_SIDE = 64
_SIDES = {"few": (16, 40), "many": (14, 26)}
_MANY = 4
_TINY_SIDES = (5, 7)
_TINY_COUNT = (7, 14)

# How often an image has 1, 2, ... 8 objects.
_COUNT_WEIGHTS = (30, 26, 17, 10, 7, 5, 3, 2)
_PLACEMENT_TRIES = 12
# An object of which less than 3/10 would stay visible is not drawn over: the later object goes elsewhere or
# is left out.
_VISIBLE = (3, 10)
# One object in so many borrows the colours of another category, so that colour alone does not settle the
# class.
_BORROWED_COLOUR = 16

# Lowest and highest red, green and blue of each category.
_COLOURS: dict[str, tuple[Colour, Colour]] = {
    "circle": ((180, 30, 30), (245, 85, 80)),
    "square": ((20, 60, 175), (80, 125, 245)),
    "triangle": ((30, 150, 30), (95, 225, 90)),
    "ring": ((205, 170, 15), (250, 225, 80)),
}


@dataclass(frozen=True)
class DrawnObject:
    """One annotated thing: its category and the pixels of it that can be seen, ``(height, width)``."""

    category: str
    visible: Mask
    crowd: bool


@dataclass(frozen=True)
class Drawing:
    """`pixels` is ``(height, width, 3)`` RGB; masks of `objects` do not overlap."""

    pixels: NDArray[np.uint8]
    objects: tuple[DrawnObject, ...]


@dataclass(frozen=True)
class _Layer:
    category: str
    mask: Mask
    crowd: bool


def draw(key: int, width: int, height: int, max_objects: int, crowd: bool) -> Drawing:
    """The image that belongs to `key`, with 1 to `max_objects` objects and, if asked, a crowd of tiny
    ones.
    """
    stream = Stream(key)
    background = _background(stream, height, width)
    layers = _place(stream, height, width, max_objects, crowd)
    owner = _owners(layers, height, width)
    pixels = _paint(stream, background, layers, owner)
    objects = tuple(DrawnObject(layer.category, owner == index, layer.crowd) for index, layer in enumerate(layers))
    return Drawing(pixels, objects)


def _owners(layers: Sequence[_Layer], height: int, width: int) -> NDArray[np.int64]:
    """For each pixel the index of the topmost layer there, or -1."""
    owner = np.full((height, width), -1, dtype=np.int64)
    for index, layer in enumerate(layers):
        owner[layer.mask] = index
    return owner


# Where things go


def _place(stream: Stream, height: int, width: int, max_objects: int, crowd: bool) -> list[_Layer]:
    count = 1 + stream.weighted(_COUNT_WEIGHTS[:max_objects])
    low, high = _SIDES["few"] if count < _MANY else _SIDES["many"]
    layers = [_crowd(stream, height, width)] if crowd else []
    for _ in range(count):
        category = stream.choice(CATEGORIES)
        for _ in range(_PLACEMENT_TRIES):
            mask = _random_shape(stream, category, height, width, _scaled(stream, low, high, height, width))
            if _all_visible(layers, mask):
                layers.append(_Layer(category, mask, crowd=False))
                break
    return layers


def _scaled(stream: Stream, low: int, high: int, height: int, width: int) -> int:
    """A side, in 1/16 pixel, for an image of this size."""
    shorter = min(height, width)
    return stream.between(low * _UNIT * shorter // _REFERENCE_SIDE, high * _UNIT * shorter // _REFERENCE_SIDE)


def _all_visible(layers: Sequence[_Layer], new: Mask) -> bool:
    """Whether enough of every earlier object would still be seen with `new` on top."""
    covered = new.copy()
    for layer in reversed(layers):
        area = np.count_nonzero(layer.mask)
        seen = np.count_nonzero(layer.mask & ~covered)
        if seen * _VISIBLE[1] < area * _VISIBLE[0]:
            return False
        covered |= layer.mask
    return True


def _random_shape(stream: Stream, category: str, height: int, width: int, side: int) -> Mask:
    margin = side // 3  # so a sixth of the shape at most lies beyond the border
    centre_x = stream.between(margin, width * _UNIT - margin)
    centre_y = stream.between(margin, height * _UNIT - margin)
    turn = stream.between(-3, 3) if category == "triangle" else stream.between(-2, 2)
    x = np.arange(width, dtype=np.int64)[None, :] * _UNIT + _UNIT // 2 - centre_x
    y = np.arange(height, dtype=np.int64)[:, None] * _UNIT + _UNIT // 2 - centre_y
    return _SHAPES[category](x, y, side, turn)


def _crowd(stream: Stream, height: int, width: int) -> _Layer:
    """Tiny shapes of one category, close together: one layer, to be annotated as one crowd."""
    category = stream.choice(CATEGORIES[:3])
    reach = 12 * min(height, width) // _REFERENCE_SIDE * _UNIT
    centre_x = stream.between(reach, width * _UNIT - reach)
    centre_y = stream.between(reach, height * _UNIT - reach)
    mask = np.zeros((height, width), dtype=np.bool_)
    x = np.arange(width, dtype=np.int64)[None, :] * _UNIT + _UNIT // 2 - centre_x
    y = np.arange(height, dtype=np.int64)[:, None] * _UNIT + _UNIT // 2 - centre_y
    for _ in range(stream.between(*_TINY_COUNT)):
        side = _scaled(stream, *_TINY_SIDES, height, width)
        dx, dy = stream.between(-reach, reach), stream.between(-reach, reach)
        mask |= _SHAPES[category](x - dx, y - dy, side, 0)
    return _Layer(category, mask, crowd=True)


# Shapes: x and y are offsets from the centre, (1, width) and (height, 1); `side` is the extent, `turn` is in
# 7.5 degrees


def _direction(turn: int) -> tuple[int, int]:
    """1024 times cosine and sine of `turn` * 7.5 degrees."""
    return _cosine(turn), _cosine(turn - _TURN // 4)


def _cosine(turn: int) -> int:
    quarter = _TURN // 4
    turn %= _TURN
    turn = min(turn, _TURN - turn)
    return _COSINES[turn] if turn <= quarter else -_COSINES[2 * quarter - turn]


def _circle(x: IntField, y: IntField, side: int, _turn: int) -> Mask:
    inside: Mask = (2 * x) ** 2 + (2 * y) ** 2 <= side * side
    return inside


def _ring(x: IntField, y: IntField, side: int, turn: int) -> Mask:
    return _circle(x, y, side, turn) & ~_circle(x, y, side // 2, turn)


def _square(x: IntField, y: IntField, side: int, turn: int) -> Mask:
    cosine, sine = _direction(turn)
    limit = 1024 * side * 9 // 10
    inside: Mask = (np.abs(x * cosine + y * sine) * 2 <= limit) & (np.abs(y * cosine - x * sine) * 2 <= limit)
    return inside


def _triangle(x: IntField, y: IntField, side: int, turn: int) -> Mask:
    """Three equal sides of length `side`; the distance of each from the centre is side / sqrt(12)."""
    inside = np.ones(np.broadcast_shapes(x.shape, y.shape), dtype=np.bool_)
    for corner in (_TURN // 4, _TURN // 4 + _TURN // 3, _TURN // 4 + 2 * (_TURN // 3)):
        cosine, sine = _direction(turn + corner)
        inside &= x * cosine + y * sine <= side * 296
    return inside


_SHAPES: dict[str, Callable[[IntField, IntField, int, int], Mask]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
}


# Colours


def _background(stream: Stream, height: int, width: int) -> IntField:
    """A muted texture, ``(height, width, 3)``: soft clouds, with stripes or tiles over some of them."""
    coarse = smooth_noise(stream.key(), height, width, stream.choice((16, 32, 64)))
    fine = smooth_noise(stream.key(), height, width, stream.choice((3, 5, 8)))
    grain = white_noise(stream.key(), height, width)
    grey = (coarse - 128) * stream.between(20, 80) + (fine - 128) * stream.between(20, 70) + (grain - 128) * 14
    texture = grey // 256 + _pattern(stream, height, width)
    level = stream.between(70, 170)
    tint = np.array([stream.between(-14, 14) for _ in range(3)], dtype=np.int64)
    return texture[:, :, None] + level + tint


def _pattern(stream: Stream, height: int, width: int) -> IntField:
    kind = stream.choice(("plain", "stripes", "tiles"))
    period, strength = stream.between(4, 14), stream.between(6, 22)
    across, down = stream.between(-2, 2), stream.between(1, 2)
    x = np.arange(width, dtype=np.int64)[None, :]
    y = np.arange(height, dtype=np.int64)[:, None]
    if kind == "stripes":
        return ((x * across + y * down) // period % 2) * strength
    if kind == "tiles":
        return ((x // period + y // period) % 2) * strength
    return np.zeros((height, width), dtype=np.int64)


def _paint(stream: Stream, background: IntField, layers: Sequence[_Layer], owner: IntField) -> NDArray[np.uint8]:
    height, width = owner.shape
    shade = (smooth_noise(stream.key(), height, width, 8) - 128) * 36 // 256
    shade = shade + (white_noise(stream.key(), height, width) - 128) * 16 // 256
    colours = np.array([_colour(stream, layer.category) for layer in layers], dtype=np.int64).reshape(-1, 3)
    painted = np.where((owner >= 0)[:, :, None], colours[owner] + shade[:, :, None], background)
    return np.clip(painted, 0, 255).astype(np.uint8)


def _colour(stream: Stream, category: str) -> Colour:
    family = stream.choice(CATEGORIES) if stream.chance(1, _BORROWED_COLOUR) else category
    low, high = _COLOURS[family]
    red, green, blue = (stream.between(*limits) for limits in zip(low, high, strict=True))
    return red, green, blue
