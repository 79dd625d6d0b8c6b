"""Inference in the stages whose times a record keeps, and the evaluation's detections.

Batch 1. load: file to pixels; preprocess: resized, to the device, normalised; forward: the network up to boxes
(RetinaNet: up to raw outputs); postprocess: the best boxes in the original image, masks pasted, RetinaNet's choice of
boxes; encode: to the COCO results format, masks as run lengths.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import mxnet as mx
import numpy as np
from gluoncv.data.transforms.mask import fill

from models import coco, report, worker
from models.coco import Detection, Sample, Split
from models.gluoncv.data import Loaders, resized
from models.gluoncv.detectors import Detector
from models.gluoncv.retinanet import Choice
from models.gluoncv.steps import normalised

Outputs = Tuple[mx.nd.NDArray, ...]


class Found(NamedTuple):
    """Detections of one image, best first: corners [N, 4] in the original image, category ids, scores, masks."""

    corners: np.ndarray
    category_ids: List[int]
    scores: np.ndarray
    masks: Optional[np.ndarray]


def measure_inference(detector: Detector, split: Split, context: mx.Context, events: worker.EventWriter) -> None:
    """Time the stages image by image."""
    detector.net.hybridize(static_alloc=True)
    report.measure_inference(split, detector.cell["measure"], partial(_timed, detector, context), events)


def evaluate(
    detector: Detector,
    split: Split,
    context: mx.Context,
    loaders: Loaders,
    job: Dict[str, Any],
    events: worker.EventWriter,
) -> None:
    """Write the detections on the split, or on its first images, for the harness to score."""
    detector.net.hybridize(static_alloc=True)
    samples = split.samples[: detector.cell["measure"]["evaluate_images"]]
    recipe = detector.cell["recipe"]["input"]
    prepare = partial(_load, min_size=recipe["min_size"], max_size=recipe["max_size"])
    found = (
        _detect(detector, context, sample, pixels)
        for sample, pixels in zip(samples, loaders.in_order(prepare, samples))
    )
    report.evaluate(found, len(samples), Path(job["paths"]["detections"]), events)


def _load(sample: Sample, min_size: int, max_size: int) -> np.ndarray:
    return resized(coco.load_pixels(sample), min_size, max_size)


def _detect(detector: Detector, context: mx.Context, sample: Sample, pixels: np.ndarray) -> List[Detection]:
    images = normalised(pixels, context).expand_dims(0)
    found = postprocess(detector, detector.net(images), images.shape[2:], (sample.height, sample.width))
    return coco.encode(sample.image_id, *found)


def _timed(detector: Detector, context: mx.Context, sample: Sample) -> Tuple[Dict[str, float], int]:
    recipe = detector.cell["recipe"]["input"]
    laps = report.Laps(_clock_s)
    pixels = laps.end("load_s", coco.load_pixels(sample))
    small = resized(pixels, recipe["min_size"], recipe["max_size"])
    images = laps.end("preprocess_s", normalised(small, context).expand_dims(0))
    outputs = laps.end("forward_s", detector.net(images))
    size, original = images.shape[2:], (sample.height, sample.width)
    found = laps.end("postprocess_s", postprocess(detector, outputs, size, original))
    results = laps.end("encode_s", coco.encode(sample.image_id, *found))
    return laps.times, len(results)


def _clock_s() -> float:
    mx.nd.waitall()  # MXNet only queues what it is told
    return time.perf_counter()


def postprocess(detector: Detector, outputs: Outputs, size: Tuple[int, int], original: Tuple[int, int]) -> Found:
    """The detections that count, in the original image; sizes are (height, width), the first that of the input."""
    test = detector.cell["recipe"]["test"]
    classes, scores, corners, masks = _arrays(detector, outputs, size)
    kept = np.flatnonzero((classes >= 0) & (scores >= test["score_threshold"]))
    kept = kept[np.argsort(-scores[kept], kind="stable")][: test["detections_per_image"]]
    scale = np.array([original[1] / size[1], original[0] / size[0]] * 2, np.float32)
    limits = np.array([original[1], original[0]] * 2, np.float32)
    whole = corners[kept] * scale
    placed = whole.clip(0, limits)
    # A box that lies outside of the image has nothing left of it.
    inside = (placed[:, 2:] > placed[:, :2]).all(axis=1)
    kept, whole, placed = kept[inside], whole[inside], placed[inside]
    pasted = None
    if masks is not None:
        # A mask is of the whole box, whatever of it lies outside of the image; but not drawn at sixty times its size.
        pasted = fill(masks[kept], whole.clip(-limits, 2 * limits), (original[1], original[0])).astype(bool)
    return Found(placed, [detector.category_ids[int(index)] for index in classes[kept]], scores[kept], pasted)


def _arrays(detector: Detector, outputs: Outputs, size: Tuple[int, int]) -> Tuple[Any, ...]:
    """Classes [T], scores [T], corners [T, 4], and masks [T, S, S] or None, on the host."""
    if detector.is_retinanet:
        test = detector.cell["recipe"]["test"]
        choice = Choice(
            detector.net.classes,
            detector.net.anchors_per_level(*size),
            size,
            test["score_threshold"],
            test["nms_threshold"],
        )
        with outputs[0].context:
            chosen = choice(*outputs)[0].asnumpy()
        return chosen[:, 0], chosen[:, 1], chosen[:, 2:], None
    classes, scores, corners, *masks = (output[0].asnumpy() for output in outputs)
    return classes[:, 0], scores[:, 0], corners, masks[0] if masks else None
