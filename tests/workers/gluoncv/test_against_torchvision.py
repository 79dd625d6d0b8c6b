"""The same weights and inputs give the same figures as in torchvision; references.py has computed its part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from conftest import cell
from mxnet import autograd
from mxnet.gluon import nn
from safetensors.numpy import load_file

from models.gluoncv import retinanet
from models.gluoncv.backbones import DEPTHS, STAGES, STEM, build_resnet
from models.gluoncv.detectors import Detector, build_detector
from models.gluoncv.infer import postprocess
from models.gluoncv.optim import build_trainer
from models.gluoncv.weights import from_torchvision_names, load_parameters, load_torchvision_resnet, parameters_of

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
CPU = [mx.cpu()]


@pytest.fixture(scope="session")
def references() -> Path:
    folder = os.environ.get("ZOO_BENCH_REFERENCES")
    assert folder, "tools/worker_tests.py makes the references; run these tests with it"
    return Path(folder)


def assert_features_agree(found: mx.nd.NDArray, expected: np.ndarray) -> None:
    # Of the largest: MXNet's convolutions in single precision round away more than 1e-4 of what is all but zero.
    assert np.abs(found.asnumpy() - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("suffix", [".pth", "_legacy.pth"])
@pytest.mark.parametrize("name", ["r18", "r50"])
def test_a_backbone_with_torchvisions_weights_has_its_features(name: str, suffix: str, references: Path) -> None:
    model = cell("faster-rcnn_c4", name)["recipe"]["model"]
    body = build_resnet(name, model)
    body.initialize()
    load_torchvision_resnet(body, references / (name + suffix))
    expected = np.load(references / (name + ".npz"))
    features = nn.HybridSequential()
    features.add(*[getattr(body, part) for part in STEM])
    found = features(mx.nd.array(expected["image"]))
    for number, stage in enumerate(STAGES[1:], start=2):
        found = getattr(body, stage)(found)
        assert_features_agree(found, expected[f"conv{number}"])
    assert found.shape[1] == DEPTHS[name].channels


def to_gluon(state: dict[str, np.ndarray], group_norm: bool) -> dict[str, np.ndarray]:
    """The weights of torchvision's RetinaNet by the names of ours."""
    backbone = {n[len("backbone.body.") :]: v for n, v in state.items() if n.startswith("backbone.body.")}
    stem = {"conv1": "stem.0", "bn1": "stem.1", "layer1": "stem.4"}
    found = {}
    for name, value in from_torchvision_names(backbone).items():
        first, rest = name.split(".", 1)
        found[f"{stem.get(first, first)}.{rest}"] = value
    per_layer = 3 if group_norm else 2
    for name, value in state.items():
        parts = name.split(".")
        if name.startswith("backbone.fpn.extra_blocks"):
            found[f"pyramid.{parts[3]}.{parts[4]}"] = value
        elif name.startswith("backbone.fpn"):
            what = {"inner_blocks": "lateral", "layer_blocks": "output"}[parts[2]]
            found[f"pyramid.{what}.{parts[3]}.{parts[-1]}"] = value
        elif name.startswith("head"):
            head = {"classification_head": "class_head", "regression_head": "box_head"}[parts[1]]
            if parts[2] != "conv":
                found[f"{head}.last.{parts[3]}"] = value
            elif parts[4] == "0":
                found[f"{head}.tower.{per_layer * int(parts[3])}.{parts[5]}"] = value
            else:
                own = {"weight": "gamma", "bias": "beta"}[parts[5]]
                found[f"{head}.tower.{per_layer * int(parts[3]) + 1}.{own}"] = value.reshape(1, -1, 1, 1)
    return found


class Case:
    """Our RetinaNet with torchvision's weights, and what torchvision made of two images."""

    def __init__(self, references: Path, head_norm: str) -> None:
        values = cell("retinanet_fpn", "r18", {"model": {"fpn_channels": 32, "head_norm": head_norm}})
        values["recipe"]["test"]["score_threshold"] = 0.3
        values["recipe"]["model"]["batch_norm"] = "frozen"
        self.expected = np.load(references / f"retinanet_{head_norm}.npz")
        self.detector: Detector = build_detector(values, (0, 1, 2, 3), CPU, 2, 3, has_checkpoint=True)
        path = references / f"retinanet_{head_norm}.safetensors"
        state = to_gluon(load_file(str(path)), head_norm == "group")
        load_parameters(parameters_of(self.detector.net), state, path)


@pytest.fixture(scope="module", params=["none", "group"])
def case(request: Any, references: Path) -> Case:
    return Case(references, request.param)


def test_retinanets_pyramid_is_torchvisions(case: Case) -> None:
    net = case.detector.net
    conv3 = net.layer2(net.stem(mx.nd.array(case.expected["images"])))
    conv4 = net.layer3(conv3)
    for number, level in enumerate(net.pyramid(conv3, conv4, net.layer4(conv4)), start=3):
        assert_features_agree(level, case.expected[f"level{number}"])


def test_retinanets_heads_are_torchvisions(case: Case) -> None:
    levels = [mx.nd.array(case.expected[f"level{number}"]) for number in range(3, 8)]
    for head, values, name in (
        (case.detector.net.class_head, 4, "cls_logits"),
        (case.detector.net.box_head, 4, "bbox_regression"),
    ):
        found = mx.nd.concat(*[retinanet.by_anchor(head(level), values) for level in levels], dim=1)
        np.testing.assert_allclose(found.asnumpy(), case.expected[name], **CLOSE)


def test_retinanets_anchors_are_torchvisions(case: Case) -> None:
    _, _, anchors = case.detector.net(mx.nd.array(case.expected["images"]))
    np.testing.assert_array_equal(anchors[0].asnumpy(), case.expected["anchors"])


BOXES = [
    [[8.0, 10.0, 60.0, 70.0], [50.0, 20.0, 150.0, 120.0], [100.0, 90.0, 116.0, 108.0]],
    [[0.0, 0.0, 255.0, 127.0], [30.0, 33.0, 41.0, 47.0], [-1.0, -1.0, -1.0, -1.0]],
]
LABELS = [[1, 3, 2], [2, 0, -1]]


@pytest.mark.parametrize("hybrid", [False, True])
def test_retinanets_targets_are_torchvisions(case: Case, hybrid: bool) -> None:
    targets = retinanet.Targets(2)
    targets.hybridize(hybrid)
    wanted, offsets = targets(mx.nd.array(case.expected["anchors"][None]), mx.nd.array(BOXES), mx.nd.array(LABELS))
    matched = case.expected["matched"]
    labels = np.array(LABELS)[np.arange(2)[:, None], np.maximum(matched, 0)]
    expected = np.select([matched >= 0, matched == -1], [labels, retinanet.BACKGROUND], retinanet.BETWEEN)
    assert (matched >= 0).sum() > 20
    assert (matched == -2).sum() > 20
    np.testing.assert_array_equal(wanted.asnumpy(), expected)
    is_object = matched >= 0
    np.testing.assert_allclose(offsets.asnumpy()[is_object], case.expected["offsets"][is_object], **CLOSE)


@pytest.mark.parametrize("beta", [0, 0.11])
@pytest.mark.parametrize("end_to_end", [False, True])
def test_retinanets_losses_are_torchvisions(case: Case, end_to_end: bool, beta: float) -> None:
    names = ("cls_logits", "bbox_regression")
    logits, offsets = (mx.nd.array(case.expected[name]) for name in names)
    anchors = mx.nd.array(case.expected["anchors"][None])
    if end_to_end:
        logits, offsets, anchors = case.detector.net(mx.nd.array(case.expected["images"]))
    targets, loss = retinanet.Targets(2), retinanet.Loss(4, beta)
    wanted = targets(anchors, mx.nd.array(BOXES), mx.nd.array(LABELS))
    classification, regression = loss(logits, offsets, *wanted)
    np.testing.assert_allclose(classification.asscalar(), case.expected["classification"], **CLOSE)
    np.testing.assert_allclose(regression.asscalar(), case.expected[f"box_loss_{beta}"], **CLOSE)


def test_retinanets_detections_are_torchvisions(case: Case) -> None:
    size = case.expected["images"].shape[2:]
    for row in range(2):
        outputs = [case.expected[name][row][None] for name in ("cls_logits", "bbox_regression")]
        outputs = [mx.nd.array(values) for values in (*outputs, case.expected["anchors"][None])]
        found = postprocess(case.detector, outputs, size, size)
        boxes, scores, labels = (case.expected[f"found{row}_{name}"] for name in ("boxes", "scores", "labels"))
        assert len(scores) == case.detector.cell["recipe"]["test"]["detections_per_image"]
        np.testing.assert_allclose(found.scores, scores, **CLOSE)
        # Scores that are all but equal may stand in another order, and the last of them may not be among the best.
        for box, score, label in zip(boxes, scores, labels):
            near = np.abs(found.corners - box).max(axis=1) < 1e-3
            same = near & (np.array(found.category_ids) == label) & (np.abs(found.scores - score) < 1e-4)
            assert same.any() or score < scores[-1] + 1e-4


def test_adamw_takes_torchs_steps(references: Path) -> None:
    expected = np.load(references / "adamw.npz")
    parameter = mx.gluon.Parameter("weight", shape=(6,))
    parameter.initialize()
    parameter.set_data(mx.nd.array(expected["weights"][0]))
    values = {"name": "adamw", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    trainer = build_trainer([parameter], values, CPU, "device")
    for gradient, weights in zip(expected["gradients"], expected["weights"][1:]):
        with autograd.record():
            loss = (parameter.data() * mx.nd.array(gradient)).sum()
        loss.backward()
        trainer.step(1)
        np.testing.assert_allclose(parameter.data().asnumpy(), weights, rtol=1e-5, atol=1e-6)
