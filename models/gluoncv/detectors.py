"""The zoo's four detectors: Faster R-CNN (C4, FPN) and Mask R-CNN from GluonCV's model zoo, and our RetinaNet.

With the published values the first three have the blocks, names and shapes of GluonCV's own builders (such as
``faster_rcnn_fpn_resnet50_v1b_coco``), so its parameter files load into them. A cell's values shrink what stands on the
backbone, never the backbone.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import mxnet as mx
import numpy as np
from gluoncv.model_zoo.rcnn.faster_rcnn import FasterRCNN
from gluoncv.model_zoo.resnetv1b import ResNetV1b
from gluoncv.nn.feature import FPNFeatureExpander
from mxnet.gluon import HybridBlock, nn

from models import worker
from models.gluoncv.backbones import DEPTHS, STAGES, STEM, build_resnet, load_backbone, stage_outputs
from models.gluoncv.data import AnchorLevel, anchors_of
from models.gluoncv.pooling import LevelPooling, PyramidFasterRCNN, PyramidMaskRCNN, spare_regions
from models.gluoncv.retinanet import PYRAMID_INIT, RetinaNet
from models.gluoncv.weights import parameters_of

ASPECT_RATIOS = (0.5, 1, 2)
PYRAMID_STRIDES = (4, 8, 16, 32, 64)
C4_STRIDE = 16
# Of GluonCV's published models: the log of the largest ratio of sizes that a box may be changed by.
BOX_CLIP = 4.14
RPN_NMS_THRESHOLD = 0.7
FOREGROUND_IOU, FOREGROUND_SHARE = 0.5, 0.25


class Detector(NamedTuple):
    """A network, the categories its classes are, in their order, and how it was asked for."""

    net: HybridBlock
    category_ids: Tuple[int, ...]
    cell: Dict[str, Any]

    @property
    def is_retinanet(self) -> bool:
        """Whether its raw outputs have still to be made boxes of."""
        return isinstance(self.net, RetinaNet)

    def parameter_count(self) -> int:
        """The numbers in its weights, statistics of batch norm left out."""
        return sum(
            int(np.prod(value.shape))
            for name, value in parameters_of(self.net).items()
            if not name.endswith(("running_mean", "running_var"))
        )


class Parts(NamedTuple):
    """What a detector is built from."""

    backbone: str
    body: ResNetV1b
    recipe: Dict[str, Any]
    classes: Tuple[str, ...]
    batch: int
    most_objects: int


def build_detector(
    cell: Dict[str, Any],
    category_ids: Tuple[int, ...],
    contexts: List[mx.Context],
    images_per_context: int,
    most_objects: int,
    has_checkpoint: bool,
) -> Detector:
    """The detector a cell describes, on its contexts, with its first weights.

    ``most_objects`` is the largest number of objects in a training image. ``has_checkpoint`` leaves the backbone's own
    weights out: a whole detector will follow.
    """
    name, backbone = cell["detector"], cell["backbone"]
    for value, known, what in ((name, BUILDERS, "detector"), (backbone, DEPTHS, "backbone")):
        if value not in known:
            raise worker.WorkerError(f"unknown {what} {value!r}; this worker has {', '.join(known)}")
    model = cell["recipe"]["model"]
    body = build_resnet(backbone, model)
    classes = tuple(str(number) for number in category_ids)
    net = BUILDERS[name](Parts(backbone, body, cell["recipe"], classes, images_per_context, most_objects))
    detector = Detector(net, category_ids, cell)
    refuse_too_few(detector)
    initialize(net, contexts, cell["recipe"]["input"]["min_size"])
    if not has_checkpoint:
        load_backbone(body, backbone, model["backbone_weights"])
    return detector


def refuse_too_few(detector: Detector) -> None:
    """Raise WorkerError where there are fewer anchors than proposals wanted, or fewer of these than regions sampled.

    GluonCV slices as many off as it is asked for, and MXNet would say at which operator that failed.
    """
    side, levels = detector.cell["recipe"]["input"]["min_size"], proposal_levels(detector)
    if not levels:
        return
    anchors, model = len(anchors_of(levels, side, side)), detector.cell["recipe"]["model"]
    proposals = {
        when: min(model["rpn_post_nms"][when], len(levels) * model["rpn_pre_nms"][when]) for when in ("train", "test")
    }
    if max(proposals.values()) > anchors:
        raise worker.WorkerError(
            f"an image of {side} x {side} pixels has {anchors} anchors, fewer than the {max(proposals.values())} "
            "proposals that rpn_post_nms asks for; GluonCV needs as many"
        )
    if model["roi_batch_per_image"] > proposals["train"]:
        raise worker.WorkerError(
            f"the cell samples {model['roi_batch_per_image']} regions an image (roi_batch_per_image) of "
            f"{proposals['train']} proposals (rpn_post_nms); GluonCV needs as many"
        )


def initialize(net: HybridBlock, contexts: List[mx.Context], side: int) -> None:
    """First weights where a block does not say its own: as in He et al. 2015 (arXiv:1502.01852) by fan-out in the
    ResNet, and by fan-in in the pyramid, which brings many channels down to few.

    Their shapes are found by looking at an image of ``side`` pixels a side, or they would be there after a first batch
    only, and nothing could be loaded into them before.
    """
    for name, parameter in net.collect_params("P[2-6]_.*").items():
        # GluonCV's pyramid is made of symbols, whose wishes for first weights get lost on the way.
        parameter.init = mx.init.Zero() if name.endswith("bias") else PYRAMID_INIT
    net.infer_shape(mx.nd.zeros((1, 3, side, side)))
    net.initialize(mx.init.MSRAPrelu(factor_type="out", slope=0), ctx=contexts)
    if not isinstance(net, RetinaNet):
        # Made when first asked for, on the CPU alone, and no part of what an image alone goes through.
        net.target_generator.collect_params().reset_ctx(contexts)


def build_c4(parts: Parts) -> FasterRCNN:
    """Faster R-CNN on conv4: one level, all anchor sizes on it, conv5 as the head of each region."""
    model, body = parts.recipe["model"], parts.body
    features, head = nn.HybridSequential(), nn.HybridSequential()
    features.add(*[getattr(body, name) for name in (*STEM, *STAGES[1:4])])
    head.add(body.layer4)
    side = -(-parts.recipe["input"]["max_size"] // C4_STRIDE)
    return FasterRCNN(
        features=features,
        top_features=head,
        rpn_channel=DEPTHS[parts.backbone].channels // 2,
        strides=C4_STRIDE,
        scales=tuple(model["anchor_sizes"]),
        alloc_size=(side, side),
        roi_size=(model["box_roi_size"],) * 2,
        **_region_values(parts, levels=1),
    )


def build_fpn(parts: Parts) -> PyramidFasterRCNN:
    """Faster R-CNN with a feature pyramid (Lin et al. 2016, arXiv:1612.03144)."""
    size = parts.recipe["model"]["box_roi_size"]
    net = PyramidFasterRCNN(box_features=_box_head(parts), roi_size=(size, size), **_pyramid_values(parts))
    return _by_level(net, parts, size)


def build_mask(parts: Parts) -> PyramidMaskRCNN:
    """Mask R-CNN with a feature pyramid (He et al. 2017, arXiv:1703.06870).

    GluonCV's pools every region once, for its mask; the box head halves that.
    """
    model = parts.recipe["model"]
    size = model["mask_roi_size"]
    if size != 2 * model["box_roi_size"]:
        raise worker.WorkerError(
            f"GluonCV's Mask R-CNN pools boxes at half the size of masks; the cell asks for box_roi_size "
            f"{model['box_roi_size']} and mask_roi_size {size}"
        )
    head = _box_head(parts, nn.AvgPool2D(pool_size=(3, 3), strides=2, padding=1))
    net = PyramidMaskRCNN(
        box_features=head,
        roi_size=(size, size),
        target_roi_scale=2,
        num_fcn_convs=4,
        mask_channels=model["mask_head_channels"],
        rcnn_max_dets=parts.recipe["test"]["detections_per_image"],
        **_pyramid_values(parts),
    )
    return _by_level(net, parts, size)


def build_retinanet(parts: Parts) -> RetinaNet:
    """RetinaNet (Lin et al. 2017, arXiv:1708.02002), which GluonCV lacks: models/gluoncv/retinanet.py."""
    model = parts.recipe["model"]
    return RetinaNet(
        body=parts.body,
        channels=model["fpn_channels"],
        classes=len(parts.classes),
        sizes=_level_sizes(parts.recipe),
        ratios=ASPECT_RATIOS,
        largest_side=parts.recipe["input"]["max_size"],
        group_norm=model["head_norm"] == "group",
    )


BUILDERS: Dict[str, Callable[[Parts], HybridBlock]] = {
    "faster-rcnn_c4": build_c4,
    "faster-rcnn_fpn": build_fpn,
    "mask-rcnn_fpn": build_mask,
    "retinanet_fpn": build_retinanet,
}


def proposal_levels(detector: Detector) -> Tuple[AnchorLevel, ...]:
    """The anchors of its region proposal network, as `build_detector` made them; none of a RetinaNet."""
    if detector.is_retinanet:
        return ()
    sizes = tuple(detector.cell["recipe"]["model"]["anchor_sizes"])
    if detector.net.num_stages == 1:
        return (AnchorLevel(C4_STRIDE, sizes, ASPECT_RATIOS),)
    return tuple(AnchorLevel(stride, (size,), ASPECT_RATIOS) for stride, size in zip(PYRAMID_STRIDES, sizes))


def _pyramid_values(parts: Parts) -> Dict[str, Any]:
    channels = parts.recipe["model"]["fpn_channels"]
    # Enough places for anchors on the first level, and a number that GluonCV can halve from level to level.
    side = 32 * -(-parts.recipe["input"]["max_size"] // (32 * PYRAMID_STRIDES[0]))
    return {
        "features": FPNFeatureExpander(
            network=parts.body,
            outputs=stage_outputs(parts.backbone),
            num_filters=[channels] * 4,
            use_1x1=True,
            use_upsample=True,
            use_elewadd=True,
            use_p6=True,
            no_bias=False,
            pretrained=False,
        ),
        "top_features": None,
        "min_stage": 2,
        "max_stage": 6,
        "strides": PYRAMID_STRIDES,
        "rpn_channel": 4 * channels,  # as published: 1024 on a pyramid of 256
        "scales": tuple((size,) for size in _level_sizes(parts.recipe)),
        "alloc_size": (side, side),
        **_region_values(parts, levels=len(PYRAMID_STRIDES)),
    }


def _box_head(parts: Parts, *first: HybridBlock) -> nn.HybridSequential:
    head = nn.HybridSequential()
    head.add(*first)
    for _ in range(2):
        head.add(nn.Dense(parts.recipe["model"]["box_head_channels"], weight_initializer=PYRAMID_INIT))
        head.add(nn.Activation("relu"))
    return head


def _region_values(parts: Parts, levels: int) -> Dict[str, Any]:
    """``rpn_pre_nms`` of a recipe is per level, as in the papers; GluonCV's own is of all levels together."""
    model, test = parts.recipe["model"], parts.recipe["test"]
    return {
        "classes": parts.classes,
        "short": parts.recipe["input"]["min_size"],
        "max_size": parts.recipe["input"]["max_size"],
        "nms_thresh": test["nms_threshold"],
        "nms_topk": -1,
        "post_nms": -1,
        "clip": BOX_CLIP,
        "base_size": 1,  # scales are sizes in pixels
        "ratios": ASPECT_RATIOS,
        "rpn_nms_thresh": RPN_NMS_THRESHOLD,
        "rpn_train_pre_nms": levels * model["rpn_pre_nms"]["train"],
        "rpn_train_post_nms": model["rpn_post_nms"]["train"],
        "rpn_test_pre_nms": levels * model["rpn_pre_nms"]["test"],
        "rpn_test_post_nms": model["rpn_post_nms"]["test"],
        "rpn_min_size": 1,
        "per_device_batch_size": parts.batch,
        "num_sample": model["roi_batch_per_image"],
        "pos_iou_thresh": FOREGROUND_IOU,
        "pos_ratio": FOREGROUND_SHARE,
        "max_num_gt": max(parts.most_objects, 1),
    }


def _by_level(net: LevelPooling, parts: Parts, size: int) -> LevelPooling:
    """Suppress overlapping proposals level by level, as the papers do, and pool each region from its own level.

    GluonCV's constructor cannot be asked for the first.
    """
    net.rpn._per_level_nms = True
    model, test = parts.recipe["model"], parts.recipe["test"]
    most = max(parts.batch * model["roi_batch_per_image"], model["rpn_post_nms"]["test"], test["detections_per_image"])
    net.spare_regions = spare_regions(most, model["fpn_channels"] * size**2)
    return net


def _level_sizes(recipe: Dict[str, Any]) -> Tuple[int, ...]:
    sizes = tuple(recipe["model"]["anchor_sizes"])
    if len(sizes) != len(PYRAMID_STRIDES):
        raise worker.WorkerError(
            f"anchor_sizes {list(sizes)} has {len(sizes)} sizes; a feature pyramid takes {len(PYRAMID_STRIDES)}, "
            "one a level"
        )
    return sizes
