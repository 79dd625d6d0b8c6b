"""One context's part of an iteration: its images on the device, through the network, to the losses."""

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import mxnet as mx
import numpy as np
from mxnet import autograd

from models.gluoncv import losses, retinanet
from models.gluoncv.data import Batch
from models.gluoncv.detectors import Detector

# Of ImageNet, over pixels from 0 to 1: what GluonCV's and torchvision's backbones were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Step = Callable[["Share"], Dict[str, mx.nd.NDArray]]


class Share(NamedTuple):
    """What one context trains on: B images with at most M objects, and S anchors sampled of each.

    images [B, 3, H, W]; boxes [B, M, 4], classes [B, M] and masks [B, M, H, W], padded with -1 (masks with 0);
    places [B * S] among the anchors of all images, wanted [B * S], targets [B * S, 4].
    """

    images: mx.nd.NDArray
    boxes: mx.nd.NDArray
    classes: mx.nd.NDArray
    masks: Optional[mx.nd.NDArray]
    proposals: Sequence[mx.nd.NDArray]


def on_context(batch: Batch, context: mx.Context) -> Share:
    """Put a batch on a context."""
    images = batch.images
    pixels = mx.nd.zeros((len(images), 3, batch.height, batch.width), ctx=context)
    for row, image in enumerate(images):
        height, width = image.pixels.shape[:2]
        pixels[row, :, :height, :width] = normalised(image.pixels, context)
    most = max(len(image.boxes) for image in images)
    boxes, classes = np.full((len(images), most, 4), -1, np.float32), np.full((len(images), most), -1, np.float32)
    for row, image in enumerate(images):
        boxes[row, : len(image.boxes)], classes[row, : len(image.classes)] = image.boxes, image.classes
    return Share(
        pixels,
        mx.nd.array(boxes, ctx=context),
        mx.nd.array(classes, ctx=context),
        _masks(batch, most, context),
        _proposals(batch, context),
    )


def normalised(pixels: np.ndarray, context: mx.Context) -> mx.nd.NDArray:
    """uint8 [H, W, 3] to float [3, H, W] on the context, of mean 0 and deviation 1 over ImageNet."""
    return mx.nd.image.normalize(mx.nd.image.to_tensor(mx.nd.array(pixels, context, np.uint8)), MEAN, STD)


def _masks(batch: Batch, most: int, context: mx.Context) -> Optional[mx.nd.NDArray]:
    if batch.images[0].masks is None:
        return None
    masks = np.zeros((len(batch.images), most, batch.height, batch.width), np.uint8)
    for row, image in enumerate(batch.images):
        own = image.masks
        masks[row, : own.shape[0], : own.shape[1], : own.shape[2]] = own
    return mx.nd.array(masks, context, np.uint8).astype(np.float32)


def _proposals(batch: Batch, context: mx.Context) -> List[mx.nd.NDArray]:
    if not batch.proposals:
        return []
    places = np.concatenate([one.places + row * batch.anchor_count for row, one in enumerate(batch.proposals)])
    return [
        mx.nd.array(places, context, np.int32),
        mx.nd.array(np.concatenate([one.wanted for one in batch.proposals]), context),
        mx.nd.array(np.concatenate([one.targets for one in batch.proposals]), context),
    ]


def build_step(detector: Detector, share: int) -> Step:
    """The function from a context's share of ``share`` images to its losses."""
    if detector.is_retinanet:
        return retinanet_step(detector, share)
    return region_step(detector)


def retinanet_step(detector: Detector, share: int) -> Step:
    """RetinaNet's losses, by their names in torchvision."""
    targets, loss = retinanet.Targets(share), retinanet.Loss(len(detector.category_ids), box_loss_beta(detector))
    for block in (targets, loss):
        block.hybridize()

    def step(given: Share) -> Dict[str, mx.nd.NDArray]:
        logits, offsets, anchors = detector.net(given.images)
        with autograd.pause():
            wanted = targets(anchors, given.boxes, given.classes)
        classification, regression = loss(logits, offsets, *wanted)
        return {"classification": classification, "bbox_regression": regression}

    return step


def box_loss_beta(detector: Detector) -> float:
    """Where smooth L1 of the detector's boxes turns from a square to a line."""
    return float(detector.cell["recipe"]["model"]["box_loss_beta"])


class Regions(NamedTuple):
    """What GluonCV's networks return in training, R regions an image, of which the first P may be objects.

    places [B, P] are those of the P among the R.
    """

    scores: mx.nd.NDArray
    offsets: mx.nd.NDArray
    boxes: mx.nd.NDArray
    samples: mx.nd.NDArray
    matches: mx.nd.NDArray
    anchor_scores: mx.nd.NDArray
    anchor_offsets: mx.nd.NDArray
    anchors: mx.nd.NDArray
    wanted: mx.nd.NDArray
    targets: mx.nd.NDArray
    weights: mx.nd.NDArray
    places: mx.nd.NDArray


def region_step(detector: Detector) -> Step:
    """Faster and Mask R-CNN's losses, by their names in torchvision."""
    of_proposals, of_masks = losses.ProposalLoss(), losses.MaskLoss()
    of_regions = losses.RegionLoss(box_loss_beta(detector))
    for block in (of_proposals, of_regions, of_masks):
        block.hybridize()

    def step(given: Share) -> Dict[str, mx.nd.NDArray]:
        returned = list(detector.net(given.images, given.boxes, given.classes.expand_dims(-1)))
        masks = None if given.masks is None else returned.pop(2)
        regions = Regions(*returned)
        objectness, rpn_box_reg = of_proposals(regions.anchor_scores, regions.anchor_offsets, *given.proposals)
        classifier, box_reg = of_regions(
            regions.scores, regions.offsets, regions.wanted, regions.targets, regions.weights
        )
        found = {
            "loss_classifier": classifier,
            "loss_box_reg": box_reg,
            "loss_objectness": objectness,
            "loss_rpn_box_reg": rpn_box_reg,
        }
        if masks is not None:
            found["loss_mask"] = of_masks(masks, *mask_targets(detector, given, regions))
        return found

    return step


def mask_targets(detector: Detector, given: Share, regions: Regions) -> Sequence[mx.nd.NDArray]:
    """What is wanted of the masks of the P regions, and which of them count: [B, P, K, S, S] each."""

    def of_objects(values: mx.nd.NDArray) -> mx.nd.NDArray:
        return mx.nd.stack(*(mx.nd.take(values[row], regions.places[row]) for row in range(len(values))))

    with autograd.pause():
        boxes, matches, wanted = (of_objects(values) for values in (regions.boxes, regions.matches, regions.wanted))
        return detector.net.mask_target(boxes, given.masks, matches, wanted)
