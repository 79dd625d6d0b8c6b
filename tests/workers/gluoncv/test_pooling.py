from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import HybridBlock

from models.gluoncv.pooling import LevelPooling, spare_regions

SIDE, CHANNELS, SIZE = 640, 3, (7, 7)
STRIDES = (4, 8, 16, 32)
# Image, corners, and the level (of 2 to 5) that the paper's equation gives to a region of its size.
REGIONS = (
    ((0, 10.5, 20, 40.25, 61), 2),
    ((1, 0, 0, 110, 110), 2),
    ((1, 0, 0, 111, 111), 3),
    ((0, 300, 100, 500, 250), 3),
    ((0, 16, 16, 238, 238), 3),
    ((0, 16, 16, 239, 239), 4),
    ((1, 100, 50, 500, 350), 4),
    ((1, 0, 0, 639, 639), 5),
    ((0, 5, 5, 5, 5), 2),
    ((0, 0, 0, 5000, 5000), 5),
    ((0, -1, -1, -1, -1), 2),
)


class Pooling(LevelPooling, HybridBlock):
    size = SIZE

    def hybrid_forward(self, ops: Any, regions: Any, *features: Any) -> Any:
        return self._pyramid_roi_feats(ops, features, regions, self.size, STRIDES)


@pytest.fixture(scope="module")
def regions() -> mx.nd.NDArray:
    return mx.nd.array([region for region, _ in REGIONS])


@pytest.fixture(scope="module")
def features() -> list[mx.nd.NDArray]:
    draw = np.random.RandomState(0)
    made = [mx.nd.array(draw.normal(size=(2, CHANNELS, SIDE // stride, SIDE // stride))) for stride in STRIDES]
    for feature in made:
        feature.attach_grad()
    return made


def on_its_level(features: list[mx.nd.NDArray], size: tuple[int, int] = SIZE) -> mx.nd.NDArray:
    """Every region from the one right level, alone."""
    return mx.nd.concat(
        *[
            mx.nd.contrib.ROIAlign(
                features[level - 2], mx.nd.array([region]), size, 1 / STRIDES[level - 2], sample_ratio=2
            )
            for region, level in REGIONS
        ],
        dim=0,
    )


def dirty_memory() -> None:
    """Leave NaN in the memory that is given out next."""
    shapes = [(len(REGIONS), CHANNELS, *SIZE), (len(REGIONS), 5), (len(REGIONS), 1), (512, 512)]
    dirt = [mx.nd.full(shape, np.nan) for shape in shapes for _ in range(20)]
    mx.nd.waitall()
    del dirt


@pytest.mark.parametrize("hybrid", [False, True])
def test_every_region_is_pooled_from_its_own_level_whatever_was_in_memory(
    hybrid: bool, regions: mx.nd.NDArray, features: list[mx.nd.NDArray]
) -> None:
    pooling = Pooling()
    pooling.hybridize(active=hybrid, static_alloc=True)
    expected = on_its_level(features).asnumpy()
    for _ in range(5):
        dirty_memory()
        found = pooling(regions, *features).asnumpy()
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("hybrid", [False, True])
def test_gradients_go_to_the_level_a_region_was_pooled_from(
    hybrid: bool, regions: mx.nd.NDArray, features: list[mx.nd.NDArray]
) -> None:
    pooling = Pooling()
    pooling.hybridize(active=hybrid, static_alloc=True)
    weights = mx.nd.array(np.random.RandomState(1).normal(size=(len(REGIONS), CHANNELS, *SIZE)))

    def gradients(pooled: Any) -> list[np.ndarray]:
        dirty_memory()
        with autograd.record():
            loss = (pooled() * weights).sum()
        loss.backward()
        return [feature.grad.asnumpy() for feature in features]

    expected = gradients(lambda: on_its_level(features))
    for _ in range(3):
        for mine, wanted in zip(gradients(lambda: pooling(regions, *features)), expected):
            np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)


def test_more_regions_than_a_region_has_numbers_are_pooled_the_same(
    regions: mx.nd.NDArray, features: list[mx.nd.NDArray]
) -> None:
    pooling = Pooling()
    pooling.size = (2, 1)
    pooling.spare_regions = spare_regions(len(REGIONS), CHANNELS * 2)
    assert pooling.spare_regions == 3
    assert np.array_equal(pooling(regions, *features).asnumpy(), on_its_level(features, (2, 1)).asnumpy())


def test_as_few_regions_are_spared_as_hold_a_place_for_each() -> None:
    assert spare_regions(2000, 256 * 49) == 1
    for regions, values in ((1, 2), (48, 49), (49, 49), (1000, 16), (1001, 16)):
        spare = spare_regions(regions, values)
        assert (spare - 1) * values < regions + spare - 1 or spare == 1
        assert regions + spare <= spare * values
