from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from conftest import cell
from gluoncv import model_zoo
from mxnet.gluon import nn
from small import CPU, DETECTORS, STEADY, batches_of, built, small_cell

from models import worker
from models.gluoncv import steps
from models.gluoncv.backbones import STAGES, build_resnet
from models.gluoncv.data import AnchorLevel
from models.gluoncv.detectors import Detector, proposal_levels
from models.gluoncv.loop import backward
from models.gluoncv.optim import apply_gradients, build_trainer
from models.gluoncv.weights import parameters_of

COCO = tuple(range(1, 81))
BUILDERS = {
    "faster-rcnn_c4": model_zoo.faster_rcnn_resnet50_v1b_coco,
    "faster-rcnn_fpn": model_zoo.faster_rcnn_fpn_resnet50_v1b_coco,
    "mask-rcnn_fpn": model_zoo.mask_rcnn_fpn_resnet50_v1b_coco,
}
# torchvision's have 41.8 (FPN) and 44.4 million (Mask R-CNN), with a fourth of the channels in the region proposals.
MILLIONS = {"faster-rcnn_c4": (30, 50), "faster-rcnn_fpn": (41, 46), "mask-rcnn_fpn": (43, 49)}


@pytest.fixture(scope="module", params=DETECTORS)
def live(request: pytest.FixtureRequest) -> Detector:
    """Every detector with batch norms that learn; the tests train it further and further."""
    return built(small_cell(request.param))


def trained(detector: Detector, dataset: Path, count: int) -> dict[str, mx.gluon.Parameter]:
    """Train for some steps as the worker does; returns the weights that learn."""
    detector.net.hybridize(static_alloc=True)
    step = steps.build_step(detector, 2)
    learning = {name: value for name, value in parameters_of(detector.net).items() if value.grad_req != "null"}
    values = {"name": "adamw", "lr": 0.001, "momentum": 0.9, "weight_decay": 0.01}
    trainer = build_trainer(list(learning.values()), values, [CPU], "device")
    for batch in batches_of(detector, dataset, count):
        losses = backward(step, batch, 2, [CPU])
        assert all(np.isfinite(value.asscalar()) for own in losses.values() for value in own)
        apply_gradients(trainer, list(learning.values()), [CPU], 1.0)
    return learning


@pytest.mark.parametrize("detector", BUILDERS)
def test_published_values_give_the_names_and_shapes_of_gluoncvs_own(detector: str) -> None:
    roi_size = {"model": {"box_roi_size": 14 if detector == "faster-rcnn_c4" else 7}}
    made = built(cell(detector, "r50", roi_size, STEADY), category_ids=COCO)
    # Of GluonCV's own, some shapes are known after a first image only: 0 stands for what is not.
    reference = parameters_of(BUILDERS[detector](pretrained=False, pretrained_base=False))
    found = {name: value.shape for name, value in parameters_of(made.net).items()}
    assert found.keys() == reference.keys()
    for name, value in reference.items():
        assert value.shape is None or len(value.shape) == len(found[name]), name
        assert all(wanted in (0, mine) for wanted, mine in zip(value.shape or (), found[name])), name
    counted = [value for name, value in parameters_of(made.net).items() if "running" not in name]
    assert made.parameter_count() == sum(np.prod(value.shape) for value in counted)
    low, high = MILLIONS[detector]
    assert low < made.parameter_count() / 1e6 < high


def test_retinanet_has_torchvisions_size() -> None:
    made = built(cell("retinanet_fpn", "r50", STEADY), category_ids=tuple(range(91)))
    # torchvision's frozen batch norms are no parameters; here their two numbers a channel are counted.
    norms = sum(value.shape[0] * 2 for name, value in parameters_of(made.net).items() if name.endswith("running_mean"))
    assert made.parameter_count() - norms == 34_014_999


def test_the_recipe_arrives_in_gluoncvs_network() -> None:
    values = {
        "rpn_pre_nms": {"train": 200, "test": 100},
        "rpn_post_nms": {"train": 150, "test": 90},
        "roi_batch_per_image": 64,
        "anchor_sizes": [10, 20, 30, 40, 50],
    }
    test = {"nms_threshold": 0.4, "detections_per_image": 33}
    net = built(small_cell("mask-rcnn_fpn", {"model": values, "test": test})).net
    # GluonCV divides what is kept before suppression by the levels.
    assert (net.rpn._train_pre_nms, net.rpn._test_pre_nms) == (1000, 500)
    assert (net.rpn._train_post_nms, net.rpn._test_post_nms) == (150, 90)
    assert net.rpn._per_level_nms
    assert net.rpn._nms_thresh == 0.7
    assert (net.sampler._num_sample, net.sampler._max_pos, net.sampler._num_proposal) == (64, 16, 150)
    assert net.sampler._max_num_gt == 8
    assert (net.nms_thresh, net._rcnn_max_dets) == (0.4, 33)
    assert (net.short, net.max_size) == (64, 96)
    assert net._roi_size == (8, 8)
    for generator, size, stride in zip(net.rpn.anchor_generator, values["anchor_sizes"], (4, 8, 16, 32, 64)):
        (anchor,) = generator.anchors.data().asnumpy()[0, 0, 0, 0, 4:8][None]
        assert (anchor[:2] + anchor[2:]).tolist() == [stride - 1] * 2
        assert (anchor[2:] - anchor[:2] + 1).tolist() == [size] * 2


def test_anchors_of_one_level_are_all_on_it() -> None:
    made = built(small_cell("faster-rcnn_c4", {"model": {"anchor_sizes": [8, 16, 24]}}))
    assert proposal_levels(made) == (AnchorLevel(16, (8, 16, 24), (0.5, 1, 2)),)
    assert made.net.rpn.anchor_generator.num_depth == 9
    assert made.net.rpn._train_pre_nms == 50


def test_proposals_are_suppressed_level_by_level() -> None:
    net = built(small_cell("faster-rcnn_fpn", {"model": {"anchor_sizes": [32] * 5}})).net
    for head in (net.rpn.rpn_head.score, net.rpn.rpn_head.loc):
        head.weight.set_data(mx.nd.zeros(head.weight.shape))
    levels = [mx.nd.zeros((1, 16, 64 // stride, 64 // stride)) for stride in (4, 8, 16, 32, 64)]

    def most_overlap() -> float:
        scores, boxes = (value[0].asnumpy() for value in net.rpn(mx.nd.zeros((1, 3, 64, 64)), *levels))
        kept = mx.nd.array(boxes[scores[:, 0] > 0])
        assert len(kept) > 2
        overlaps = mx.nd.contrib.box_iou(kept, kept).asnumpy()
        return float((overlaps - np.eye(len(overlaps))).max())

    assert most_overlap() > 0.7
    net.rpn._per_level_nms = False
    assert most_overlap() <= 0.7


@pytest.mark.parametrize("batch_norm", ["live", "frozen"])
@pytest.mark.parametrize("count", range(6))
def test_frozen_stages_stop_their_gradient_only(count: int, batch_norm: str) -> None:
    model = {**cell("retinanet_fpn")["recipe"]["model"], "frozen_stages": count, "batch_norm": batch_norm}
    body = build_resnet("r18", model)
    learning = []
    for stage in STAGES:
        found = parameters_of(getattr(body, stage))
        weights = [value.grad_req != "null" for name, value in found.items() if name.endswith("weight")]
        norms = [value.grad_req != "null" for name, value in found.items() if name.endswith(("gamma", "beta"))]
        assert len(set(weights)) == 1
        assert set(norms) <= {weights[0] and batch_norm == "live"}
        learning.append(weights[0])
    assert learning == [False] * count + [True] * (5 - count)
    stem = {value.grad_req != "null" for name, value in parameters_of(body.bn1).items() if "running" not in name}
    assert stem == {count == 0 and batch_norm == "live"}


@pytest.mark.parametrize("detector", ["faster-rcnn_c4", "faster-rcnn_fpn"])
def test_what_is_frozen_stays_and_the_rest_moves(detector: str, dataset: Path) -> None:
    made = built(small_cell(detector, {"model": {"batch_norm": "frozen", "frozen_stages": 2}}))
    before = {name: value.data().asnumpy() for name, value in parameters_of(made.net).items()}
    learning = trained(made, dataset, 2)
    moved = {name for name, value in parameters_of(made.net).items() if (value.data().asnumpy() != before[name]).any()}
    norms = {name for name in before if name.endswith(("gamma", "beta", "running_mean", "running_var"))}
    assert len(norms) == 80
    assert not moved & norms
    # Images as small as these lend nothing to the coarsest levels.
    assert {name for name in learning if not name.startswith(("features.P5_conv1", "features.P6_"))} <= moved
    assert moved <= set(learning)
    # conv1 and the four of layer1.
    assert len({name for name in before if name.endswith("weight")} - set(learning)) == 5


def test_live_batch_norms_learn_and_count(live: Detector, dataset: Path) -> None:
    before = {name: value.data().asnumpy() for name, value in parameters_of(live.net).items()}
    trained(live, dataset, 2)  # a branch whose last gamma was zero learns from the second step on
    for name, value in parameters_of(live.net).items():
        if name.endswith(("gamma", "beta", "running_mean", "running_var")):
            assert (value.data().asnumpy() != before[name]).any(), name


def test_residual_branches_start_at_zero_only_where_they_can_leave_it() -> None:
    def gain(*changes: dict[str, Any]) -> float:
        body = build_resnet("r50", cell("retinanet_fpn", "r50", *changes)["recipe"]["model"])
        body.initialize(mx.init.Xavier())
        return float(body.layer1[0].bn3.gamma.data().sum().asscalar())

    assert gain() == 0
    assert gain(STEADY) > 0


def test_training_and_inference_can_take_turns(live: Detector, dataset: Path) -> None:
    image = mx.nd.random.normal(shape=(1, 3, 64, 96))
    for _ in range(2):
        trained(live, dataset, 1)
        live.net.hybridize(static_alloc=True)
        outputs = [output.asnumpy() for output in live.net(image)]
        assert len(outputs) == (4 if live.cell["masks"] else 3)
        assert all(np.isfinite(output).all() for output in outputs)
        live.net.hybridize(active=False)
        for mine, wanted in zip(outputs, live.net(image)):
            np.testing.assert_allclose(mine, wanted.asnumpy(), rtol=1e-3, atol=1e-3)


def test_images_of_other_sizes_go_through_the_same_network(live: Detector) -> None:
    live.net.hybridize(static_alloc=True)
    for height, width in ((64, 96), (50, 33), (96, 64)):
        images = mx.nd.random.normal(shape=(1, 3, height, width))
        assert all(np.isfinite(output.asnumpy()).all() for output in live.net(images))


def test_values_shrink_the_heads_but_never_the_backbone() -> None:
    def body(values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        found = parameters_of(built(values).net)
        return {name: value.shape for name, value in found.items() if not name.split(".")[1].startswith("P")}

    def backbone(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in shapes.items() if name.startswith("features.resnet")}

    small, published = (
        {name.split("resnetv1b")[-1]: shape for name, shape in backbone(body(values)).items()}
        for values in (small_cell("faster-rcnn_fpn"), cell("faster-rcnn_fpn", "r18"))
    )
    assert small == published
    assert len(small) > 90


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"detector": "yolo"}, "retinanet_fpn"), ({"backbone": "r34"}, "r50")],
)
def test_an_unknown_detector_or_backbone_names_the_known_ones(changes: dict[str, str], named: str) -> None:
    with pytest.raises(worker.WorkerError, match=named):
        built({**small_cell("retinanet_fpn"), **changes})


@pytest.mark.parametrize("detector", ["faster-rcnn_fpn", "mask-rcnn_fpn", "retinanet_fpn"])
def test_a_pyramid_takes_one_anchor_size_a_level(detector: str) -> None:
    with pytest.raises(worker.WorkerError, match="has 2 sizes; a feature pyramid takes 5"):
        built(small_cell(detector, {"model": {"anchor_sizes": [32, 64]}}))


@pytest.mark.parametrize(("detector", "anchors"), [("faster-rcnn_c4", 240), ("mask-rcnn_fpn", 1023)])
def test_more_proposals_than_a_small_image_has_anchors_are_refused(detector: str, anchors: int) -> None:
    def values(wanted: int) -> dict[str, Any]:
        counts = {"rpn_pre_nms": {"train": 2000, "test": 1000}, "rpn_post_nms": {"train": wanted, "test": 50}}
        return small_cell(detector, {"model": counts})

    with pytest.raises(worker.WorkerError, match=f"has {anchors} anchors, fewer than the {anchors + 1} proposals"):
        built(values(anchors + 1))
    assert built(values(anchors)).net.rpn._train_post_nms == anchors


def test_more_regions_than_there_are_proposals_are_refused() -> None:
    with pytest.raises(worker.WorkerError, match=r"samples 51 regions an image .* of 50 proposals"):
        built(small_cell("faster-rcnn_fpn", {"model": {"roi_batch_per_image": 51}}))


def test_masks_take_regions_twice_as_large_as_boxes() -> None:
    with pytest.raises(worker.WorkerError, match="box_roi_size 7 and mask_roi_size 16"):
        built(small_cell("mask-rcnn_fpn", {"model": {"box_roi_size": 7, "mask_roi_size": 16}}))


def test_groups_of_channels_are_normalised_where_the_cell_says_so() -> None:
    net = built(small_cell("retinanet_fpn", {"model": {"head_norm": "group", "fpn_channels": 64}})).net
    assert any(name.endswith("tower.1.gamma") for name in parameters_of(net))
    assert not any(isinstance(block, nn.BatchNorm) for block in net.class_head.tower)
