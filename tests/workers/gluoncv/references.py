"""What torchvision makes of the same weights and inputs, for the tests that hold gluoncv's figures against it.

`python references.py FOLDER` runs in the environment of torchvision and fills the folder: random ResNets as PyTorch
files of both formats, their features, RetinaNets with everything that comes out of them, and the steps of AdamW. It
computes in double precision, so that what differs is what MXNet rounds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.resnet import ResNet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the cells in conftest.py
from conftest import cell

from models.torchvision.checkpoint import save_weights
from models.torchvision.detectors import build_detector
from models.torchvision.optim import build_optimizer

# Multiples of the coarsest stride: elsewhere torchvision spreads the anchors of a level evenly over the image, where
# the paper and our RetinaNet keep to the stride.
HEIGHT, WIDTH = 128, 256
CLASSES = 4
BOXES = [
    [[8.0, 10.0, 60.0, 70.0], [50.0, 20.0, 150.0, 120.0], [100.0, 90.0, 116.0, 108.0]],
    [[0.0, 0.0, 255.0, 127.0], [30.0, 33.0, 41.0, 47.0]],
]
LABELS = [[1, 3, 2], [2, 0]]


def with_statistics(body: ResNet) -> ResNet:
    """Give every batch norm the statistics of some images, and a scale and a shift: all four are then unlike."""
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all that is seen
            module.weight.uniform_(0.5, 1.0)
            module.bias.normal_(0, 0.1)
    body.train()(torch.randn(4, 3, HEIGHT, WIDTH))
    return body.eval()


def write_resnets(folder: Path) -> None:
    """Random ResNets, in both of PyTorch's formats, and the ends of their stages on one image."""
    for name, build in (("r18", resnet18), ("r50", resnet50)):
        body = with_statistics(build())
        torch.save(body.state_dict(), folder / f"{name}.pth")
        torch.save(body.state_dict(), folder / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
        image = torch.randn(1, 3, HEIGHT, WIDTH)
        stages = {f"layer{number}": str(number) for number in range(1, 5)}
        features = IntermediateLayerGetter(body.double(), stages)(image.double())
        save(folder / f"{name}.npz", image=image, **{f"conv{int(stage) + 1}": v for stage, v in features.items()})


def write_retinanet(folder: Path, head_norm: str) -> None:
    """A RetinaNet with random weights, and what it makes of two images: outputs, anchors, targets, losses, boxes."""
    backbone = {"backbone_weights": str(folder / "r18.pth"), "batch_norm": "frozen"}
    changes = {"fpn_channels": 32, "head_norm": head_norm, "box_loss_beta": 0, **backbone}
    values = cell("retinanet_fpn", "r18", {"model": changes})
    values["recipe"]["test"]["score_threshold"] = 0.3
    # Random numbers fill weights in the order in which they lie.
    model = build_detector(values, CLASSES).eval().to(memory_format=torch.contiguous_format)
    assert isinstance(model, RetinaNet)
    # With the weights that a training begins with, every anchor of a class would score about the same.
    model.head.classification_head.cls_logits.weight.normal_(0, 0.05)
    model.head.classification_head.cls_logits.bias.zero_()
    model.head.regression_head.bbox_reg.weight.normal_(0, 0.02)
    save_weights(model, folder / f"retinanet_{head_norm}.safetensors")
    images = torch.randn(2, 3, HEIGHT, WIDTH).double()
    model.double()
    levels = list(model.backbone(images).values())
    listed = ImageList(images, [(HEIGHT, WIDTH)] * 2)
    outputs, anchors = model.head(levels), model.anchor_generator(listed, levels)
    pairs = zip(BOXES, LABELS, strict=True)
    targets = [{"boxes": torch.tensor(boxes).double(), "labels": torch.tensor(labels)} for boxes, labels in pairs]
    matched = [matched_to(model, anchors[0], target) for target in targets]
    losses = model.compute_loss(targets, outputs, anchors)
    found: dict[str, Any] = {f"level{number}": level for number, level in enumerate(levels, start=3)}
    for row, detections in enumerate(choose(model, outputs, anchors, levels, listed)):
        found.update({f"found{row}_{name}": value for name, value in detections.items()})
    save(
        folder / f"retinanet_{head_norm}.npz",
        images=images,
        anchors=anchors[0],
        matched=torch.stack([one[0] for one in matched]),
        offsets=torch.stack([one[1] for one in matched]),
        **outputs,
        classification=losses["classification"],
        **{"box_loss_0": losses["bbox_regression"], "box_loss_0.11": smooth(outputs["bbox_regression"], matched, 0.11)},
        **found,
    )


def matched_to(model: RetinaNet, anchors: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Which box each anchor is of (-1 none, -2 none and not counted), and its offsets to that box, or zeros."""
    from torchvision.ops import box_iou

    matched = model.proposal_matcher(box_iou(target["boxes"], anchors))
    boxes = target["boxes"][matched.clamp(min=0)]
    offsets = model.box_coder.encode_single(boxes, anchors)
    return matched, torch.where((matched >= 0)[:, None], offsets, 0)


def smooth(offsets: Tensor, matched: list[tuple[Tensor, Tensor]], beta: float) -> Tensor:
    """The regression loss with smooth L1, each image's over its number of foreground anchors."""
    losses = []
    for found, (boxes, wanted) in zip(offsets, matched, strict=True):
        is_object = boxes >= 0
        loss = nn.functional.smooth_l1_loss(found[is_object], wanted[is_object], reduction="sum", beta=beta)
        losses.append(loss / is_object.sum().clamp(min=1))
    return torch.stack(losses).mean()


def choose(
    model: RetinaNet, outputs: dict[str, Tensor], anchors: list[Tensor], levels: list[Tensor], images: ImageList
) -> list[dict[str, Tensor]]:
    """The boxes at last, as RetinaNet.forward makes them of its outputs."""
    places = [level.shape[-2] * level.shape[-1] for level in levels]
    counts = [count * (len(anchors[0]) // sum(places)) for count in places]
    split_outputs = {name: list(value.split(counts, dim=1)) for name, value in outputs.items()}
    return model.postprocess_detections(split_outputs, [list(a.split(counts)) for a in anchors], images.image_sizes)


def write_adamw(folder: Path) -> None:
    """The weights after each step of AdamW on given gradients."""
    parameter = nn.Parameter(torch.randn(6))
    values = {"name": "adamw", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    optimizer = build_optimizer([parameter], values)
    gradients, weights = torch.randn(8, 6), [parameter.detach().clone()]
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
        weights.append(parameter.detach().clone())
    save(folder / "adamw.npz", gradients=gradients, weights=torch.stack(weights))


def save(path: Path, **tensors: Tensor) -> None:
    """Write named tensors for numpy."""
    np.savez(path, **{name: value.detach().numpy() for name, value in tensors.items()})


def main(folder: Path) -> None:
    """Fill the folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    write_adamw(folder)
    with torch.no_grad():
        write_resnets(folder)
        for head_norm in ("none", "group"):
            write_retinanet(folder, head_norm)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
