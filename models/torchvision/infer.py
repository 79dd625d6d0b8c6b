"""Inference in the stages whose times a record keeps, and the evaluation's detections.

Batch 1. load: file to pixels; preprocess: to the device, normalised and resized; forward: the network up to boxes
(RetinaNet: up to raw outputs); postprocess: back to the original image, masks pasted, RetinaNet's choice of boxes;
encode: to the COCO results format, masks as run lengths.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet

from models import worker
from models.torchvision.data import Sample, Split, image_stream, load_image

Detection = dict[str, Any]
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
    """COCO results: boxes as x, y, width, height in the original image, masks as compressed run lengths."""
    corners = detections["boxes"].cpu().double()
    corners[:, 2:] -= corners[:, :2]
    boxes, labels, scores = corners.tolist(), detections["labels"].tolist(), detections["scores"].tolist()
    results = [
        {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
        for box, label, score in zip(boxes, labels, scores, strict=True)
    ]
    if "masks" in detections and results:
        masks = detections["masks"].to("cpu", torch.uint8).permute(1, 2, 0).numpy()
        for result, encoded in zip(results, rle.encode(np.asfortranarray(masks)), strict=True):
            encoded["counts"] = encoded["counts"].decode("ascii")
            result["segmentation"] = encoded
    return results


@torch.inference_mode()
def measure_inference(
    model: nn.Module, split: Split, device: torch.device, measure: dict[str, Any], events: worker.EventWriter
) -> None:
    """Time the stages image by image, first over ``infer_warmup_images``, then over ``infer_images``.

    A split with fewer images is gone through again.
    """
    model.eval()
    clock = Clock(device)
    warmup = measure["infer_warmup_images"]
    planned = warmup + measure["infer_images"]
    for index, sample in enumerate(islice(cycle(split.samples), planned), start=1):
        times, count = _timed(model, sample, device, clock)
        events.write(
            "infer_step",
            index=index,
            images=planned,
            image_id=sample.image_id,
            detections=count,
            warmup=index <= warmup,
            **times,
        )


def _timed(model: nn.Module, sample: Sample, device: torch.device, clock: Clock) -> tuple[dict[str, float], int]:
    started_s = clock.read_s()
    pixels = load_image(sample)
    loaded_s = clock.read_s()
    images = preprocess(model, pixels, device)
    preprocessed_s = clock.read_s()
    output = forward(model, images)
    forwarded_s = clock.read_s()
    detections = postprocess(model, output, images, (sample.height, sample.width))
    postprocessed_s = clock.read_s()
    count = len(encode(detections, sample.image_id))
    encoded_s = clock.read_s()
    times = {
        "load_s": loaded_s - started_s,
        "preprocess_s": preprocessed_s - loaded_s,
        "forward_s": forwarded_s - preprocessed_s,
        "postprocess_s": postprocessed_s - forwarded_s,
        "encode_s": encoded_s - postprocessed_s,
    }
    return times, count


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Split,
    device: torch.device,
    limit: int | None,
    workers: int,
    path: Path,
    events: worker.EventWriter,
) -> None:
    """Write the detections on the split, or on its first ``limit`` images, for the harness to score."""
    model.eval()
    samples = split.samples[:limit]
    events.write("eval_start", images=len(samples))
    results: list[Detection] = []
    for index, (sample, pixels) in enumerate(_with_pixels(samples, workers), start=1):
        images = preprocess(model, pixels, device)
        output = forward(model, images)
        results += encode(postprocess(model, output, images, (sample.height, sample.width)), sample.image_id)
        events.write("eval_step", index=index, images=len(samples))
    write_detections(results, path)
    events.write("eval_stop", detections=str(path), count=len(results))


def _with_pixels(samples: tuple[Sample, ...], workers: int) -> Iterator[tuple[Sample, Tensor]]:
    return zip(samples, image_stream(samples, workers), strict=True)


def write_detections(results: list[Detection], path: Path) -> None:
    """Write a COCO results list, beside and renamed."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(results), encoding="utf-8")
    os.replace(beside, path)
