"""RetinaNet (Lin et al. 2017, arXiv:1708.02002) on gluon: GluonCV has none.

Feature pyramid levels 3 to 7, nine anchors at each place (three scales an octave, three shapes), a class and a box
subnet that all levels share, focal loss. In every number the same as torchvision's, which the tests hold it to: P6
comes from P5, anchors are rounded to whole pixels.
"""

import math
from typing import Any, List, Sequence, Tuple

import mxnet as mx
import numpy as np
from gluoncv.model_zoo.resnetv1b import ResNetV1b
from mxnet.gluon import HybridBlock, nn

from models.gluoncv.losses import cross_entropy, smooth_l1

STRIDES = (8, 16, 32, 64, 128)
SCALES_PER_OCTAVE = 3
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.4
ALPHA, GAMMA = 0.25, 2.0
PRIOR = 0.01  # what every anchor is first believed to be an object by, section 4.1
MOST_PER_LEVEL = 1000
BOX_CLIP = math.log(1000 / 16)
GROUPS = 32
BACKGROUND, BETWEEN = -1, -2
# Variance 1 / fan-in, as Detectron's and torchvision's pyramids begin.
PYRAMID_INIT = mx.init.Xavier(rnd_type="uniform", factor_type="in", magnitude=3)


class RetinaNet(HybridBlock):
    """Images [B, 3, H, W] to class logits [B, N, K], box offsets [B, N, 4] and anchors [1, N, 4].

    N counts the anchors of all levels, finest first; K the classes, without a background.
    """

    def __init__(
        self,
        body: ResNetV1b,
        channels: int,
        classes: int,
        sizes: Sequence[int],
        ratios: Sequence[float],
        largest_side: int,
        group_norm: bool,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.per_place = SCALES_PER_OCTAVE * len(ratios)
        with self.name_scope():
            self.stem = nn.HybridSequential()
            self.stem.add(body.conv1, body.bn1, body.relu, body.maxpool, body.layer1)
            self.layer2, self.layer3, self.layer4 = body.layer2, body.layer3, body.layer4
            self.pyramid = Pyramid(channels)
            self.class_head = Subnet(channels, self.per_place * classes, group_norm, -math.log((1 - PRIOR) / PRIOR))
            self.box_head = Subnet(channels, self.per_place * 4, group_norm, 0.0)
            self.anchors = nn.HybridSequential()
            for size, stride in zip(sizes, STRIDES):
                self.anchors.add(Anchors(size, stride, ratios, -(-largest_side // stride)))

    def hybrid_forward(self, F: Any, images: Any) -> Tuple[Any, Any, Any]:
        """See the class."""
        conv3 = self.layer2(self.stem(images))
        conv4 = self.layer3(conv3)
        levels = self.pyramid(conv3, conv4, self.layer4(conv4))
        logits = [by_anchor(self.class_head(level), self.classes) for level in levels]
        offsets = [by_anchor(self.box_head(level), 4) for level in levels]
        anchors = [grid(level) for grid, level in zip(self.anchors, levels)]
        return F.concat(*logits, dim=1), F.concat(*offsets, dim=1), F.concat(*anchors, dim=1)

    def anchors_per_level(self, height: int, width: int) -> List[int]:
        """How many of the N belong to each level, for images of this size in pixels."""
        return [self.per_place * -(-height // stride) * -(-width // stride) for stride in STRIDES]


def by_anchor(head: Any, values: int) -> Any:
    """[B, A * values, H, W] to [B, H * W * A, values]: place by place, at each its anchors."""
    return head.reshape((0, -4, -1, values, -2)).transpose((0, 3, 4, 1, 2)).reshape((0, -1, values))


class Pyramid(HybridBlock):
    """conv3, conv4 and conv5 to P3 to P7 (Lin et al. 2016, arXiv:1612.03144; P6 and P7 as in RetinaNet's)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        begin = {"weight_initializer": PYRAMID_INIT}
        with self.name_scope():
            self.lateral = nn.HybridSequential()
            self.output = nn.HybridSequential()
            for _ in range(3):
                self.lateral.add(nn.Conv2D(channels, 1, **begin))
                self.output.add(nn.Conv2D(channels, 3, padding=1, **begin))
            self.p6 = nn.Conv2D(channels, 3, strides=2, padding=1, **begin)
            self.p7 = nn.Conv2D(channels, 3, strides=2, padding=1, **begin)

    def hybrid_forward(self, F: Any, *stages: Any) -> List[Any]:
        """[P3, P4, P5, P6, P7], each half as wide as the one before."""
        merged = [lateral(stage) for lateral, stage in zip(self.lateral, stages)]
        for level in (1, 0):
            above = F.UpSampling(merged[level + 1], scale=2, sample_type="nearest")
            merged[level] = merged[level] + F.slice_like(above, merged[level], axes=(2, 3))
        levels = [output(level) for output, level in zip(self.output, merged)]
        p6 = self.p6(levels[-1])
        return [*levels, p6, self.p7(F.relu(p6))]


class Subnet(HybridBlock):
    """Four convolutions and a last one, over every level alike. ``begin`` is the last one's first bias."""

    def __init__(self, channels: int, outputs: int, group_norm: bool, begin: float) -> None:
        super().__init__()
        normal = mx.init.Normal(0.01)
        with self.name_scope():
            self.tower = nn.HybridSequential()
            for _ in range(4):
                self.tower.add(
                    nn.Conv2D(channels, 3, padding=1, use_bias=not group_norm, weight_initializer=normal),
                    *([ChannelGroupNorm(channels)] if group_norm else []),
                    nn.Activation("relu"),
                )
            self.last = nn.Conv2D(
                outputs, 3, padding=1, weight_initializer=normal, bias_initializer=mx.init.Constant(begin)
            )

    def hybrid_forward(self, F: Any, level: Any) -> Any:  # noqa: ARG002 - gluon names it so
        """[B, channels, H, W] to [B, outputs, H, W]."""
        return self.last(self.tower(level))


class ChannelGroupNorm(HybridBlock):
    """Group normalisation (Wu & He 2018, arXiv:1803.08494): a scale and a shift for each channel.

    MXNet 1's own layer has them for each group only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = self.params.get("gamma", shape=(1, channels, 1, 1), init=mx.init.One())
        self.beta = self.params.get("beta", shape=(1, channels, 1, 1), init=mx.init.Zero())

    def hybrid_forward(self, F: Any, x: Any, gamma: Any, beta: Any) -> Any:
        """The same shape, normalised over each of 32 groups of channels."""
        plain = F.GroupNorm(x, F.ones((GROUPS,)), F.zeros((GROUPS,)), num_groups=GROUPS, eps=1e-5)
        return F.broadcast_add(F.broadcast_mul(plain, gamma), beta)


def base_anchors(size: int, ratios: Sequence[float]) -> np.ndarray:
    """The anchors at one place, [A, 4] as corners around it: every shape (height to width) in every scale."""
    scales = np.array([int(size * 2 ** (step / SCALES_PER_OCTAVE)) for step in range(SCALES_PER_OCTAVE)], np.float32)
    roots = np.sqrt(np.array(ratios, np.float32))
    heights, widths = np.outer(roots, scales).ravel(), np.outer(1 / roots, scales).ravel()
    return np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2)


class Anchors(HybridBlock):
    """The anchors of one level, [1, H * W * A, 4] in pixels, for a level [B, C, H, W]."""

    def __init__(self, size: int, stride: int, ratios: Sequence[float], side: int) -> None:
        super().__init__()
        x, y = np.meshgrid(np.arange(side) * stride, np.arange(side) * stride)
        places = np.stack([x, y, x, y], axis=-1)[:, :, None, :]
        grid = places + base_anchors(size, ratios)
        self.grid = self.params.get_constant("grid", grid.reshape((1, 1, side, side, -1)).astype(np.float32))

    def hybrid_forward(self, F: Any, level: Any, grid: Any) -> Any:
        """See the class."""
        return F.slice_like(grid, level, axes=(2, 3)).reshape((1, -1, 4))


class Targets(HybridBlock):
    """What the loss wants of every anchor of ``batch`` images.

    anchors [1, N, 4], boxes [B, M, 4] and classes [B, M] (both padded with -1) to classes [B, N] (BACKGROUND, or
    BETWEEN for anchors that count for nothing) and offsets [B, N, 4]. An anchor is of the box it overlaps most, where
    that is FOREGROUND_IOU at least, or where no anchor overlaps the box more (section 4, and torchvision's Matcher).
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self._batch = batch

    def hybrid_forward(self, F: Any, anchors: Any, boxes: Any, classes: Any) -> Tuple[Any, Any]:
        """See the class."""
        anchors = anchors.reshape((-1, 4))
        found = [
            _targets_of_one(F, anchors, *(_one(F, values, image) for values in (boxes, classes)))
            for image in range(self._batch)
        ]
        return F.stack(*(of_image[0] for of_image in found)), F.stack(*(of_image[1] for of_image in found))


def _one(F: Any, values: Any, image: int) -> Any:
    return F.slice_axis(values, axis=0, begin=image, end=image + 1).squeeze(axis=0)


def _targets_of_one(F: Any, anchors: Any, boxes: Any, classes: Any) -> Tuple[Any, Any]:
    overlaps = F.contrib.box_iou(anchors, boxes, format="corner")
    most, matched = overlaps.max(axis=1), overlaps.argmax(axis=1)
    is_box = (classes >= 0).expand_dims(0)
    is_best = F.broadcast_mul(F.broadcast_equal(overlaps, overlaps.max(axis=0, keepdims=True)), is_box).max(axis=1)
    other = F.where(most < BACKGROUND_IOU, F.ones_like(most) * BACKGROUND, F.ones_like(most) * BETWEEN)
    wanted = F.where(F.maximum(most >= FOREGROUND_IOU, is_best), F.take(classes, matched), other)
    return wanted, encoded(F, anchors, F.take(boxes, matched))


def _centres(F: Any, corners: Any) -> Tuple[Any, Any]:
    """Corners [..., 4] to centres [..., 2] and sizes [..., 2]."""
    low = F.slice_axis(corners, axis=-1, begin=0, end=2)
    size = F.slice_axis(corners, axis=-1, begin=2, end=4) - low
    return low + size / 2, size


def encoded(F: Any, anchors: Any, boxes: Any) -> Any:
    """How to move and stretch anchors [N, 4] into boxes [N, 4] (Girshick et al. 2013, arXiv:1311.2524, appendix C)."""
    (from_centre, from_size), (to_centre, to_size) = _centres(F, anchors), _centres(F, boxes)
    return F.concat((to_centre - from_centre) / from_size, F.log(to_size / from_size), dim=-1)


def decoded(F: Any, anchors: Any, offsets: Any) -> Any:
    """The boxes [1, N, 4] that offsets [1, N, 4] make of anchors [1, N, 4]."""
    centre, size = _centres(F, anchors)
    shift = F.slice_axis(offsets, axis=-1, begin=0, end=2)
    growth = F.slice_axis(offsets, axis=-1, begin=2, end=4)
    centre = centre + shift * size
    half = F.exp(F.broadcast_minimum(growth, F.ones((1, 1, 1)) * BOX_CLIP)) * size / 2
    return F.concat(centre - half, centre + half, dim=-1)


class Loss(HybridBlock):
    """Focal loss of the classes (equation 5) and smooth L1 of the offsets, over an image's number of foreground
    anchors. ``box_loss_beta`` is the recipe's: where smooth L1 turns from a square to a line.
    """

    def __init__(self, classes: int, box_loss_beta: float) -> None:
        super().__init__()
        self._classes = classes
        self._beta = box_loss_beta

    def hybrid_forward(self, F: Any, logits: Any, offsets: Any, wanted: Any, targets: Any) -> Tuple[Any, Any]:
        """Logits [B, N, K], offsets [B, N, 4], wanted classes [B, N] and offsets [B, N, 4] to two scalars [1]."""
        foreground = wanted >= 0
        count = F.maximum(foreground.sum(axis=1), F.ones_like(foreground.sum(axis=1)))
        focal = focal_loss(F, logits, F.one_hot(wanted, depth=self._classes)).sum(axis=2)
        counted = F.where(wanted == BETWEEN, F.zeros_like(focal), focal)
        # Chosen, not multiplied: the offsets of a padded box may be infinite.
        far = smooth_l1(F, offsets - targets, self._beta).sum(axis=2)
        near = F.where(foreground, far, F.zeros_like(far))
        return (counted.sum(axis=1) / count).mean(), (near.sum(axis=1) / count).mean()


def focal_loss(F: Any, logits: Any, wanted: Any) -> Any:
    """Equation 5 of every logit, computed as torchvision's sigmoid_focal_loss is: never a logarithm of zero."""
    likely = F.sigmoid(logits)
    right = likely * wanted + (1 - likely) * (1 - wanted)
    return (ALPHA * wanted + (1 - ALPHA) * (1 - wanted)) * cross_entropy(F, logits, wanted) * (1 - right) ** GAMMA


class Choice(HybridBlock):
    """The boxes of one image, at last: [T, 6] of class, score and corners, best first; what is no box has class -1.

    Of every level, which has ``counts`` anchors, the best MOST_PER_LEVEL above the threshold, cut at the image of
    ``size`` (height, width); then suppression class by class (section 4).
    """

    def __init__(
        self,
        classes: int,
        counts: Sequence[int],
        size: Tuple[int, int],
        score_threshold: float,
        nms_threshold: float,
    ) -> None:
        super().__init__()
        self._classes, self._counts, self._size = classes, tuple(counts), size
        self._score_threshold, self._nms_threshold = score_threshold, nms_threshold

    def hybrid_forward(self, F: Any, logits: Any, offsets: Any, anchors: Any) -> Any:
        """Logits [1, N, K], offsets [1, N, 4] and anchors [1, N, 4] to [1, T, 6]."""
        found, begin = [], 0
        for count in self._counts:
            of_level = [F.slice_axis(v, axis=1, begin=begin, end=begin + count) for v in (logits, offsets, anchors)]
            found.append(self._best(F, count, *of_level))
            begin += count
        return F.contrib.box_nms(
            F.concat(*found, dim=1),
            overlap_thresh=self._nms_threshold,
            valid_thresh=self._score_threshold,
            id_index=0,
            score_index=1,
            coord_start=2,
        )

    def _best(self, F: Any, count: int, logits: Any, offsets: Any, anchors: Any) -> Any:
        scores = F.sigmoid(logits).reshape((-1,))
        kept = F.topk(scores, k=min(MOST_PER_LEVEL, count * self._classes), dtype="int32")
        place = F.floor(F.cast(kept, "float64") / self._classes)
        left, top, right, bottom = F.split(F.take(decoded(F, anchors, offsets), place, axis=1), 4, axis=2)
        height, width = self._size
        boxes = [F.clip(left, 0, width), F.clip(top, 0, height), F.clip(right, 0, width), F.clip(bottom, 0, height)]
        classes = F.cast(F.cast(kept, "float64") - place * self._classes, "float32")
        return F.concat(classes.reshape((1, -1, 1)), F.take(scores, kept).reshape((1, -1, 1)), *boxes, dim=2)
