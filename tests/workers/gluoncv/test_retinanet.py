"""What needs no other framework beside it; that every number is torchvision's is shown elsewhere."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from small import built, small_cell

from models.gluoncv import retinanet
from models.gluoncv.detectors import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return built(small_cell("retinanet_fpn", {"input": {"min_size": 64, "max_size": 160}}))


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 160), (160, 1), (129, 127), (7, 7)])
def test_anchors_of_all_levels_are_those_the_network_gives(size: tuple[int, int], detector: Detector) -> None:
    logits, offsets, anchors = detector.net(mx.nd.zeros((2, 3, *size)))
    count = sum(detector.net.anchors_per_level(*size))
    assert logits.shape == (2, count, 2)
    assert offsets.shape == (2, count, 4)
    assert anchors.shape == (1, count, 4)


def test_places_of_a_level_come_row_by_row_with_their_anchors_together(detector: Detector) -> None:
    anchors = detector.net(mx.nd.zeros((1, 3, 64, 96)))[2][0].asnumpy()
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    begin = 0
    for count, stride in zip(detector.net.anchors_per_level(64, 96), retinanet.STRIDES):
        columns = -(-96 // stride)
        for place in range(count // 9):
            wanted = [stride * (place % columns), stride * (place // columns)]
            assert np.abs(centres[begin + 9 * place : begin + 9 * place + 9] - wanted).max() <= 0.5
        begin += count


def test_the_first_beliefs_are_low(detector: Detector) -> None:
    logits = detector.net(mx.nd.random.normal(shape=(1, 3, 64, 64)))[0]
    assert mx.nd.sigmoid(logits).mean().asscalar() == pytest.approx(0.01, rel=0.3)


ANCHORS = np.array([[[0, 0, 10, 10], [0, 0, 20, 20], [30, 30, 50, 50], [31, 31, 52, 50], [60, 60, 70, 75]]], np.float32)
BOXES = np.array(
    [[[1, 0, 20, 20], [30, 30, 50, 48], [62, 58, 80, 90]], [[0, 0, 9, 9], [29, 30, 52, 51], [0, 0, 21, 19]]]
)
CLASSES = np.array([[4, 2, 7], [1, 0, 3]])


def targets_of(boxes: np.ndarray, classes: np.ndarray, hybrid: bool = True) -> tuple[np.ndarray, np.ndarray]:
    block = retinanet.Targets(len(boxes))
    block.hybridize(active=hybrid)
    wanted, offsets = block(mx.nd.array(ANCHORS), mx.nd.array(boxes), mx.nd.array(classes))
    return wanted.asnumpy(), offsets.asnumpy()


def test_an_anchor_is_of_the_box_it_overlaps_most_where_that_is_enough_or_the_best() -> None:
    wanted, offsets = targets_of(BOXES, CLASSES)
    # The last anchor overlaps the third box by a fifth only, yet no other overlaps it more.
    assert wanted.tolist() == [[-1, 4, 2, 2, 7], [1, 3, 0, 0, -1]]
    np.testing.assert_allclose(offsets[0, 1], [0.025, 0, np.log(0.95), 0], atol=1e-6)


def test_overlaps_between_the_thresholds_count_for_nothing() -> None:
    # With the first two anchors: 100 / 360 and 360 / 400; 100 / 210 and 210 / 400; 90 / 190 and 180 / 400.
    for boxes, expected in (
        ([[0, 0, 20, 18]], [retinanet.BACKGROUND, 0]),
        ([[0, 0, 14, 15]], [retinanet.BETWEEN, 0]),
        ([[0, 0, 10, 10], [0, 0, 20, 9]], [0, retinanet.BETWEEN]),
    ):
        wanted, _ = targets_of(np.array([boxes]), np.arange(len(boxes))[None])
        assert wanted[0].tolist() == [*expected, -1, -1, -1]


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("hybrid", [False, True])
def test_padded_boxes_change_nothing(rows: int, hybrid: bool) -> None:
    wanted, offsets = targets_of(BOXES, CLASSES, hybrid)
    padded = [np.concatenate([v, np.full((2, rows, *v.shape[2:]), -1)], axis=1) for v in (BOXES, CLASSES)]
    other_wanted, other_offsets = targets_of(*padded, hybrid)
    assert np.array_equal(wanted, other_wanted)
    assert np.array_equal(offsets[wanted >= 0], other_offsets[wanted >= 0])


def test_an_image_in_a_batch_has_the_targets_it_has_alone() -> None:
    together = targets_of(BOXES, CLASSES)
    for row in range(2):
        for mine, wanted in zip(targets_of(BOXES[row : row + 1], CLASSES[row : row + 1]), together):
            assert np.array_equal(mine[0], wanted[row])


def test_offsets_decode_to_the_boxes_they_were_made_of() -> None:
    anchors, boxes = mx.nd.array(ANCHORS[0]), mx.nd.array([[3, 1, 9, 30], [0, 0, 20, 20]] * 2 + [[50, 60, 71, 72]])
    offsets = retinanet.encoded(mx.nd, anchors, boxes)
    found = retinanet.decoded(mx.nd, anchors.expand_dims(0), offsets.expand_dims(0))
    np.testing.assert_allclose(found[0].asnumpy(), boxes.asnumpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [0, 0.11])
@pytest.mark.parametrize("hybrid", [False, True])
def test_the_losses_are_those_of_the_paper_and_finite(hybrid: bool, beta: float) -> None:
    draw = np.random.RandomState(0)
    logits, offsets = draw.normal(size=(2, 5, 8)) * 3, draw.normal(size=(2, 5, 4))
    logits[0, 0, 0], logits[1, 2, 3] = 200, -200
    wanted, targets = targets_of(BOXES, CLASSES)
    wanted[0, 0] = retinanet.BETWEEN
    targets[0, 0] = np.inf
    block = retinanet.Loss(8, beta)
    block.hybridize(active=hybrid)
    arrays = [mx.nd.array(values) for values in (logits, offsets, wanted, targets)]
    for array in arrays[:2]:
        array.attach_grad()
    with autograd.record():
        found = block(*arrays)
        total = sum(found)
    total.backward()
    expected = np.zeros(2)
    for image in range(2):
        objects = wanted[image] >= 0
        right = np.eye(9)[wanted[image].astype(int)][:, :8] * objects[:, None]
        margin = np.where(right, logits[image], -logits[image])
        loss = np.logaddexp(0, -margin) * (1 - 1 / (1 + np.exp(-margin))) ** 2 * np.where(right, 0.25, 0.75)
        expected[0] += loss[wanted[image] != retinanet.BETWEEN].sum() / objects.sum() / 2
        far = np.abs(offsets[image] - targets[image])[objects]
        expected[1] += np.where(far < beta, far**2 / (2 * beta or 1), far - beta / 2).sum() / objects.sum() / 2
    np.testing.assert_allclose([value.asscalar() for value in found], expected, rtol=1e-5)
    for array in arrays[:2]:
        assert np.isfinite(array.grad.asnumpy()).all()


def test_an_image_without_objects_costs_only_what_is_believed_wrongly() -> None:
    block = retinanet.Loss(2, 0.11)
    wanted = mx.nd.full((1, 5), retinanet.BACKGROUND)
    classification, regression = block(mx.nd.zeros((1, 5, 2)), mx.nd.ones((1, 5, 4)), wanted, mx.nd.zeros((1, 5, 4)))
    assert classification.asscalar() == pytest.approx(10 * 0.75 * 0.25 * np.log(2))
    assert regression.asscalar() == 0


def apart(count: int) -> np.ndarray:
    """Anchors that do not overlap, [1, N, 4]."""
    left = 20 * np.arange(count, dtype=np.float32)
    return np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1)[None]


def chosen(
    logits: np.ndarray, anchors: np.ndarray, counts: list[int], threshold: float = 0.05, hybrid: bool = False
) -> np.ndarray:
    choice = retinanet.Choice(logits.shape[2], counts, (10**6, 10**6), threshold, 0.5)
    choice.hybridize(active=hybrid)
    found = choice(*(mx.nd.array(values) for values in (logits, np.zeros_like(anchors), anchors)))[0].asnumpy()
    return found[found[:, 0] >= 0]


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_level_gives_its_best_thousand_at_most(hybrid: bool) -> None:
    draw = np.random.RandomState(0)
    logits = draw.permutation(1510 * 2).reshape((1, 1510, 2)) / 1000
    found = chosen(logits, apart(1510), [1500, 10], hybrid=hybrid)
    assert len(found) == 1020
    assert (np.diff(found[:, 1]) <= 0).all()
    flat = logits[0, :1500].ravel()
    best = np.sort(flat)[::-1][:1000]
    last = logits[0, 1500:].ravel()
    wanted = np.sort(1 / (1 + np.exp(-np.concatenate([best, last]))))[::-1]
    np.testing.assert_allclose(found[:, 1], wanted, rtol=1e-5)
    # Every box is where its anchor is, of the class whose score it has.
    place = (found[:, 2] / 20).round().astype(int)
    scores = 1 / (1 + np.exp(-logits[0][place, found[:, 0].astype(int)]))
    np.testing.assert_allclose(found[:, 1], scores, rtol=1e-5)


def test_classes_are_suppressed_apart() -> None:
    anchors = np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [40, 40, 50, 50]]], np.float32)
    logits = np.array([[[3, 2], [2, 1], [-1, -9]]], np.float32)
    found = chosen(logits, anchors, [2, 1])
    assert found[:, 0].tolist() == [0, 1, 0]
    assert found[:, 2:].tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [40, 40, 50, 50]]


def test_scores_below_the_threshold_are_no_boxes() -> None:
    found = chosen(np.array([[[0.0], [-4.0], [2.0]]]), apart(3), [3], threshold=0.3)
    assert found[:, 2].tolist() == [40, 0]
    assert len(chosen(np.full((1, 3, 1), -9.0), apart(3), [3])) == 0


@pytest.mark.parametrize("hybrid", [False, True])
def test_groups_are_normalised_with_a_scale_for_each_channel(hybrid: bool) -> None:
    draw = np.random.RandomState(0)
    values, gamma, beta = draw.normal(3, 2, (2, 64, 5, 7)), draw.normal(size=64), draw.normal(size=64)
    block = retinanet.ChannelGroupNorm(64)
    block.initialize()
    block.hybridize(active=hybrid)
    np.testing.assert_allclose(block(mx.nd.array(values)).asnumpy().mean(), 0, atol=1e-5)
    block.gamma.set_data(mx.nd.array(gamma.reshape((1, -1, 1, 1))))
    block.beta.set_data(mx.nd.array(beta.reshape((1, -1, 1, 1))))
    groups = values.reshape((2, 32, -1))
    plain = (groups - groups.mean(axis=2, keepdims=True)) / np.sqrt(groups.var(axis=2, keepdims=True) + 1e-5)
    expected = plain.reshape(values.shape) * gamma[:, None, None] + beta[:, None, None]
    np.testing.assert_allclose(block(mx.nd.array(values)).asnumpy(), expected, rtol=1e-3, atol=1e-4)


def test_boxes_are_cut_at_the_image_before_they_suppress_one_another() -> None:
    anchors = np.array([[[0, 0, 10, 10], [5, 0, 45, 10]]], np.float32)
    logits, offsets = mx.nd.array([[[2.0], [1.0]]]), mx.nd.zeros((1, 2, 4))
    for width, left in ((100, 2), (10, 1)):  # apart they overlap by an eighth; what is left of both, by a half
        choice = retinanet.Choice(1, [2], (10, width), 0.05, 0.4)
        found = choice(logits, offsets, mx.nd.array(anchors))[0].asnumpy()
        assert (found[:, 0] == 0).sum() == left
        assert found[found[:, 0] == 0][:, 4].max() <= width
