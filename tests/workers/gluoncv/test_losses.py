"""The losses of the regions: what they cost, by hand."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from models.gluoncv.losses import RegionLoss


@pytest.mark.parametrize("beta", [0, 1 / 9, 1.0])
@pytest.mark.parametrize("hybrid", [False, True])
def test_boxes_cost_a_square_up_to_beta_and_then_a_line(beta: float, hybrid: bool) -> None:
    draw = np.random.RandomState(0)
    offsets, targets = draw.normal(size=(1, 2, 3, 4)), draw.normal(size=(1, 2, 3, 4)) / 4
    weights = np.zeros((1, 2, 3, 4))
    weights[0, 0, 1] = weights[0, 1, 2] = 1
    wanted = np.array([[2, 3, 0, 0, -1]])
    block = RegionLoss(beta)
    block.hybridize(active=hybrid)
    arrays = (np.zeros((1, 5, 4)), offsets, wanted, targets, weights)
    classes, boxes = block(*map(mx.nd.array, arrays))
    far = np.abs(offsets - targets)
    costs = np.where(far < beta, far**2 / (2 * beta or 1), far - beta / 2) * weights
    assert boxes.asscalar() == pytest.approx(costs.sum() / 4, rel=1e-5)
    assert classes.asscalar() == pytest.approx(np.log(4), rel=1e-5)
