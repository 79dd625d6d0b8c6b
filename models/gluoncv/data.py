"""Images and targets for training, prepared ahead in processes of their own.

Those processes never call MXNet: what its engine and its OpenMP library hold at a fork is not to be relied on in the
child, and an operator there may wait without end. So they work in numpy and OpenCV alone (which GluonCV's own
transforms call too), and hand over uint8 images; the rest is done on the device.
"""

import multiprocessing
import queue
import signal
import traceback
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
from gluoncv.data.transforms import bbox as box_transforms
from gluoncv.model_zoo.rcnn.rpn.anchor import generate_base_anchors
from gluoncv.model_zoo.rcnn.rpn.rpn_target import RPNTargetSampler
from gluoncv.nn.coder import NumPyNormalizedBoxCenterEncoder
from pycocotools import mask as coco_mask

from models import worker
from models.coco import Sample, load_masks, load_pixels
from models.schedule import EndlessBatches, batch_size

BATCHES_AHEAD = 2  # for each loading process
PATIENCE_S = 300.0
FOREGROUND_IOU, BACKGROUND_IOU, FOREGROUND_SHARE = 0.7, 0.3, 0.5
ENCODER = NumPyNormalizedBoxCenterEncoder(stds=(1.0, 1.0, 1.0, 1.0))


class AnchorLevel(NamedTuple):
    """The anchors of one level: sizes in pixels, heights to widths, pixels between places."""

    stride: int
    sizes: Tuple[int, ...]
    ratios: Tuple[float, ...]


class Wanted(NamedTuple):
    """How images are prepared. ``levels`` is empty for a detector that finds its targets itself."""

    min_size: int
    max_size: int
    masks: bool
    category_ids: Tuple[int, ...]
    levels: Tuple[AnchorLevel, ...]
    anchors_sampled: int


class Prepared(NamedTuple):
    """One training image: uint8 [H, W, 3], boxes [N, 4] as corners, classes [N] from 0, masks uint8 [N, H, W]."""

    pixels: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    masks: Optional[np.ndarray]


class Proposals(NamedTuple):
    """The anchors that an image's region proposals are trained on, S of them.

    ``places`` [S] among all its anchors; ``wanted`` [S]: 1 an object, 0 none, -1 nothing was left to sample;
    ``targets`` [S, 4] the offsets to the objects.
    """

    places: np.ndarray
    wanted: np.ndarray
    targets: np.ndarray


class Batch(NamedTuple):
    """What one iteration trains on; all images will be padded to ``height`` and ``width``."""

    images: List[Prepared]
    proposals: List[Proposals]
    anchor_count: int
    height: int
    width: int

    def part(self, begin: int, end: int) -> "Batch":
        """Some of the images, padded as all are."""
        return self._replace(images=self.images[begin:end], proposals=self.proposals[begin:end])


class Order(NamedTuple):
    """A batch to be prepared: its samples with their flips, and the seed of what is drawn for it."""

    drawn: List[Tuple[Sample, bool]]
    seed: int


class Loaders:
    """Processes that prepare things ahead; with a count of 0, everything is prepared when it is asked for.

    Every process has a pipe and a thread of its own here, and shares nothing with the others: one that is killed, at
    work or not, is an error at once. (In both of the standard library's pools they share locks, and one that dies with
    a lock is waited for without end: tried with Python 3.8.)
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: List[Any] = []
        self._idle: queue.Queue[Connection] = queue.Queue()
        context = multiprocessing.get_context("fork")
        ours: List[Connection] = []
        for _ in range(count):
            mine, its = context.Pipe()
            ours.append(mine)
            self._processes.append(context.Process(target=_serve, args=(its, tuple(ours)), daemon=True))
            self._processes[-1].start()
            its.close()
            self._idle.put(mine)
        self._threads = ThreadPoolExecutor(count) if count else None

    def __enter__(self) -> "Loaders":
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
        if self._threads is not None:
            self._threads.shutdown()  # whatever they waited for has come to its end

    def in_order(self, prepare: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """``prepare`` of every item, in their order; a failure is raised in its turn. ``items`` may be endless."""
        if self._threads is None:
            for item in items:
                yield prepare(item)
            return
        waiting: Deque[Future[Any]] = deque()
        try:
            for item in items:
                waiting.append(self._threads.submit(self._asked, prepare, item))
                if len(waiting) > BATCHES_AHEAD * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _asked(self, prepare: Callable[[Any], Any], item: Any) -> Any:
        connection = self._idle.get()
        try:
            connection.send((prepare, item))
            if not connection.poll(PATIENCE_S):
                raise worker.WorkerError(f"a data-loading process gave nothing for {PATIENCE_S:.0f} s", kind="data")
            answer = connection.recv()
        except (EOFError, OSError) as error:
            raise worker.WorkerError("a data-loading process has died: killed, out of memory?", kind="data") from error
        finally:
            # Even a dead one: whoever is given it next is told so, and does not wait.
            self._idle.put(connection)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Connection, others: Sequence[Connection]) -> None:
    # Ctrl-C reaches the whole process group: the main process ends its loaders, they do not end by themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
    for other in others:
        other.close()  # the main process's own ends: were they open here, its death would go unnoticed
    try:
        while True:
            prepare, item = connection.recv()
            connection.send(_guarded(prepare, item))
    except (EOFError, OSError):
        return


def _guarded(prepare: Callable[[Any], Any], item: Any) -> Any:
    # A failure is an answer too. What the worker understood is one line; the rest shows here where it came from.
    try:
        return prepare(item)
    except worker.WorkerError as error:
        return error
    except Exception as error:  # noqa: BLE001 - raised again in the main process
        traceback.print_exc()
        return error


def training_batches(
    samples: Sequence[Sample], wanted: Wanted, cell: Dict[str, Any], loaders: Loaders
) -> Iterator[Batch]:
    """Prepared batches without end; the same under one seed for any number of loading processes."""
    flip, seed = cell["recipe"]["input"]["flip_probability"], cell["seed"]
    orders = (
        Order([(samples[index], is_flipped) for index, is_flipped in drawn], seed + number)
        for number, drawn in enumerate(EndlessBatches(samples, batch_size(cell), flip, seed))
    )
    return loaders.in_order(partial(prepare_batch, wanted), orders)


def prepare_batch(wanted: Wanted, order: Order) -> Batch:
    """Load a batch and choose the anchors that its region proposals are trained on."""
    np.random.seed(order.seed % 2**32)  # GluonCV's sampler draws from numpy's global generator
    images = [prepare(sample, flip, wanted) for sample, flip in order.drawn]
    height = max(image.pixels.shape[0] for image in images)
    width = max(image.pixels.shape[1] for image in images)
    if not wanted.levels:
        return Batch(images, [], 0, height, width)
    anchors = anchors_of(wanted.levels, height, width)
    sized = by_size(anchors)
    proposals = [propose(image, anchors, sized, wanted.anchors_sampled) for image in images]
    return Batch(images, proposals, len(anchors), height, width)


def prepare(sample: Sample, flip: bool, wanted: Wanted) -> Prepared:
    """Load one image with its objects, in the size it is trained in, mirrored left to right if it is to be."""
    pixels = resized(load_pixels(sample), wanted.min_size, wanted.max_size)
    size = (pixels.shape[1], pixels.shape[0])
    boxes = box_transforms.resize(sample.boxes, (sample.width, sample.height), size)
    boxes = box_transforms.flip(boxes, size, flip_x=flip)
    masks = None
    if wanted.masks:
        masks = np.stack([cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) for mask in load_masks(sample)])
    if flip:
        pixels = pixels[:, ::-1]
        masks = masks if masks is None else masks[:, :, ::-1]
    classes = np.searchsorted(wanted.category_ids, sample.labels)
    return Prepared(np.ascontiguousarray(pixels), boxes.astype(np.float32), classes.astype(np.float32), masks)


def resized(pixels: np.ndarray, min_size: int, max_size: int) -> np.ndarray:
    """The image with its shorter side at ``min_size``, or smaller so that the longer is ``max_size`` at most.

    GluonCV's rule (``resize_short_within``): bilinear, sides rounded to whole pixels.
    """
    height, width = pixels.shape[:2]
    scale = min_size / min(height, width)
    if round(scale * max(height, width)) > max_size:
        scale = max_size / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return pixels if size == (width, height) else cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)


def anchors_of(levels: Sequence[AnchorLevel], height: int, width: int) -> np.ndarray:
    """All anchors of an image of this size, [N, 4] as corners, in the order of GluonCV's RPNAnchorGenerator."""
    return np.concatenate([_level_anchors(level, height, width) for level in levels])


def _level_anchors(level: AnchorLevel, height: int, width: int) -> np.ndarray:
    base = generate_base_anchors(level.stride, level.sizes, level.ratios)
    x, y = np.meshgrid(
        np.arange(-(-width // level.stride)) * level.stride, np.arange(-(-height // level.stride)) * level.stride
    )
    places = np.stack([x.ravel(), y.ravel(), x.ravel(), y.ravel()], axis=1)
    return (places[:, None] + base).reshape((-1, 4)).astype(np.float32)


def propose(image: Prepared, anchors: np.ndarray, sized: np.ndarray, count: int) -> Proposals:
    """Sample anchors with GluonCV's sampler: by overlap with the boxes, none that reaches out of the image.

    ``sized`` is `by_size` of the anchors, which all images of a batch share.
    """
    height, width = image.pixels.shape[:2]
    overlaps = coco_mask.iou(sized, by_size(image.boxes), [0] * len(image.boxes))
    is_outside = (anchors[:, :2] < 0).any(axis=1) | (anchors[:, 2] >= width) | (anchors[:, 3] >= height)
    overlaps[is_outside] = -1
    samples, matches = RPNTargetSampler(count, FOREGROUND_IOU, BACKGROUND_IOU, FOREGROUND_SHARE)(overlaps)
    samples[is_outside] = 0  # where all are outside, each is the best there is, and the sampler takes it
    chosen = np.flatnonzero(samples)
    places, wanted = np.zeros(count, np.int32), np.full(count, -1, np.float32)
    targets = np.zeros((count, 4), np.float32)
    places[: len(chosen)] = chosen
    wanted[: len(chosen)] = samples[chosen] > 0
    found, _ = ENCODER(samples[None, chosen], matches[None, chosen], anchors[None, chosen], image.boxes[None])
    targets[: len(chosen)] = found[0]
    return Proposals(places, wanted, targets)


def by_size(corners: np.ndarray) -> np.ndarray:
    """Corners as x, y, width, height, which pycocotools takes: faster than numpy, and without its great arrays."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float64)
