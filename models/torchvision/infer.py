"""Inference in the stages whose times a record keeps, and the evaluation's detections.

Batch 1. load: file to pixels; preprocess: to the device, normalised and resized; forward: the network up to boxes
(RetinaNet: up to raw outputs); postprocess: back to the original image, masks pasted, RetinaNet's choice of boxes;
encode: to the COCO results format, masks as run lengths.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet

from models import coco, report, worker
from models.coco import Detection, Sample, Split
from models.torchvision.data import image_stream, load_image
from models.torchvision.folding import folded
from models.torchvision.precision import arithmetic
from models.torchvision.ranks import Group

MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Clock:
    """Reads the time once a device has done what it was given."""

    device: torch.device

    def read_s(self) -> float:
        """Seconds of a clock that only goes forward."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def preprocess(model: nn.Module, pixels: Tensor, device: torch.device) -> ImageList:
    """uint8 [3, H, W] to the normalised, resized and padded batch of one that the network takes."""
    image = pixels.to(device, non_blocking=True).float().div_(255)
    return model.transform([image])[0]


def forward(model: nn.Module, images: ImageList) -> Any:
    """The network's output: detections in the resized image, or, of RetinaNet, (features, head outputs, anchors)."""
    features = model.backbone(images.tensors)
    if isinstance(model, RetinaNet):
        levels = list(features.values())
        return levels, model.head(levels), model.anchor_generator(images, levels)
    proposals, _ = model.rpn(images, features)
    return model.roi_heads(features, proposals, images.image_sizes)[0]


def postprocess(model: nn.Module, output: Any, images: ImageList, size: tuple[int, int]) -> dict[str, Tensor]:
    """Detections in the original image of ``size`` (height, width): boxes, labels, scores and bool masks [N, H, W]."""
    if isinstance(model, RetinaNet):
        output = _choose_boxes(model, output, images)
    detections = model.transform.postprocess(output, images.image_sizes, [size])[0]
    if "masks" in detections:
        detections["masks"] = detections["masks"][:, 0] >= MASK_THRESHOLD
    return detections


def _choose_boxes(model: RetinaNet, output: Any, images: ImageList) -> list[dict[str, Tensor]]:
    levels, heads, anchors = output
    positions = [level.shape[-2] * level.shape[-1] for level in levels]
    per_position = heads["cls_logits"].shape[1] // sum(positions)
    counts = [count * per_position for count in positions]
    split_heads = {name: list(value.split(counts, dim=1)) for name, value in heads.items()}
    split_anchors = [list(of_image.split(counts)) for of_image in anchors]
    return model.postprocess_detections(split_heads, split_anchors, images.image_sizes)


def encode(detections: dict[str, Tensor], image_id: int) -> list[Detection]:
    """COCO results of one image; its boxes and masks are in the original image."""
    found = {name: value.cpu().numpy() for name, value in detections.items()}
    return coco.encode(image_id, found["boxes"], found["labels"], found["scores"], found.get("masks"))


@torch.inference_mode()
def measure_inference(
    model: nn.Module, split: Split, device: torch.device, cell: dict[str, Any], events: worker.EventWriter
) -> None:
    """Time the stages image by image."""
    timed = partial(_timed, folded(model), device, cell["precision"], Clock(device))
    report.measure_inference(split, cell["measure"], timed, events)


def _timed(
    model: nn.Module, device: torch.device, precision: str, clock: Clock, sample: Sample
) -> tuple[dict[str, float], int]:
    laps = report.Laps(clock.read_s)
    pixels = laps.end("load_s", load_image(sample))
    images = laps.end("preprocess_s", preprocess(model, pixels, device))
    with arithmetic(precision, device):
        output = laps.end("forward_s", forward(model, images))
    size = (sample.height, sample.width)
    detections = laps.end("postprocess_s", postprocess(model, output, images, size))
    results = laps.end("encode_s", encode(detections, sample.image_id))
    return laps.times, len(results)


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, group: Group, job: dict[str, Any], events: worker.EventWriter) -> None:
    """Write the detections on the split, or on its first images, for the harness to score; each rank does its share."""
    model = folded(model)
    cell, rank = job["cell"], group.rank
    every = split.samples[: cell["measure"]["evaluate_images"]]
    samples = every[rank.number :: rank.count]
    stream = zip(samples, image_stream(samples, cell["runtime"]["data_workers"]), strict=True)
    found = (_detect(model, rank.device, cell["precision"], sample, pixels) for sample, pixels in stream)
    report.evaluate(found, len(every), Path(job["paths"]["detections"]), events, rank.share, group.wait)


def _detect(model: nn.Module, device: torch.device, precision: str, sample: Sample, pixels: Tensor) -> list[Detection]:
    images = preprocess(model, pixels, device)
    with arithmetic(precision, device):
        output = forward(model, images)
    detections = postprocess(model, output, images, (sample.height, sample.width))
    return encode(detections, sample.image_id)
