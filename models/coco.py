"""COCO files in and out, for every worker: images with their objects, masks, and the results list.

numpy, pillow and pycocotools, and Python 3.6 syntax, as in worker.py: the frameworks' own types come later.
"""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union, overload

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from models import worker
from models.detections import Detection
from models.index import Index, open_index, source_of, span
from models.pack import pack


class Segmentations(NamedTuple):
    """The segmentations of N objects, in pixels of the image as it is stored.

    An object is the union of its polygons. ``points`` [P, 2] are the x, y of all corners, float32; ``polygon_ends`` [K]
    says where in ``points`` each polygon ends, ``object_ends`` [N] where in ``polygon_ends`` each object ends, both
    int64. An object that came as run lengths has no polygons, but those, compressed, in ``runs`` [N]; empty for the
    others.
    """

    points: np.ndarray
    polygon_ends: np.ndarray
    object_ends: np.ndarray
    runs: Tuple[bytes, ...]

    def polygons(self, number: int) -> List[np.ndarray]:
        """The polygons of one object, each as x, y, x, y and so on."""
        parts = span(self.object_ends, number, number + 1)
        return [self.points[span(self.polygon_ends, part, part + 1)].ravel() for part in range(parts.start, parts.stop)]


class Sample(NamedTuple):
    """One image with its N objects: boxes [N, 4] as x1, y1, x2, y2 in pixels, float32, and category ids [N], int64.

    ``segmentations`` is None where masks are not wanted. None of the arrays can be written to.
    """

    image_id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    segmentations: Optional[Segmentations]


class Samples(Sequence[Sample]):
    """Images of an annotation file as a sequence that makes a `Sample` when it is asked for one.

    A slice is a sequence of the same kind. Processes that are forked share all there is: an index, mapped from a file,
    and the numbers of the images ``chosen`` from it.
    """

    def __init__(self, index: Index, images: Path, masks: bool, chosen: np.ndarray) -> None:
        self._index = index
        self._images = images
        self._masks = masks
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> "Samples": ...

    def __getitem__(self, place: Union[int, slice]) -> Union[Sample, "Samples"]:
        if isinstance(place, slice):
            return Samples(self._index, self._images, self._masks, self._chosen[place])
        number, index = int(self._chosen[place]), self._index
        objects = span(index.object_ends, number, number + 1)
        width, height = index.sizes[number].tolist()
        return Sample(
            image_id=int(index.image_ids[number]),
            path=self._images / _text(index.names[span(index.name_ends, number, number + 1)]),
            width=width,
            height=height,
            boxes=index.boxes[objects],
            labels=index.labels[objects],
            segmentations=_segmentations(index, objects) if self._masks else None,
        )

    def with_objects(self) -> "Samples":
        """Those that have at least one box."""
        counts = np.diff(np.append(0, self._index.object_ends))
        return Samples(self._index, self._images, self._masks, self._chosen[counts[self._chosen] > 0])


def _segmentations(index: Index, objects: slice) -> Segmentations:
    parts = span(index.part_ends, objects.start, objects.stop)
    points = span(index.polygon_ends, parts.start, parts.stop)
    return Segmentations(
        points=index.points[points],
        polygon_ends=index.polygon_ends[parts] - points.start,
        object_ends=index.part_ends[objects] - parts.start,
        runs=tuple(
            index.runs[span(index.run_ends, number, number + 1)].tobytes()
            for number in range(objects.start, objects.stop)
        ),
    )


def _text(letters: np.ndarray) -> str:
    return letters.tobytes().decode("utf-8")


class Split(NamedTuple):
    """One annotation file: its samples in file order, and its category ids in rising order."""

    samples: Samples
    category_ids: Tuple[int, ...]


def read_splits(job: Dict[str, Any]) -> Dict[str, Split]:
    """The annotation files that a job's phases need: train to learn from, val to measure and evaluate on.

    Raises WorkerError of kind "data" as `read_split` does, and for one without images.
    """
    phases, masks = job["phases"], job["cell"]["masks"]
    needed = {"train": "train" in phases, "val": "infer" in phases or "evaluate" in phases}
    splits = {}
    for name in (name for name, is_needed in needed.items() if is_needed):
        folder = job["dataset"][name]
        images, annotations = Path(folder["images"]), Path(folder["annotations"])
        # Only what is trained on needs masks: the harness scores the rest.
        splits[name] = read_split(images, annotations, Path(job["paths"]["index"]), masks and name == "train")
        if not splits[name].samples:
            raise worker.WorkerError(f"{annotations} has no images", kind="data")
    return splits


def read_split(images: Path, annotations: Path, index: Path, masks: bool) -> Split:
    """Read a COCO annotation file, or what was made of it before in the folder ``index``; see `models.index`.

    Crowd regions and boxes without an area are left out. Raises WorkerError of kind "data" for a file that cannot be
    read, a folder that cannot be written to, or, where ``masks`` asks for them, an object without a segmentation.
    """
    with _readable(annotations):
        source = source_of(annotations)
    try:
        found = open_index(source, index, lambda: _packed(annotations))
    except OSError as error:
        raise worker.WorkerError(
            f"cannot keep the index of {annotations} in {index}: {error}; free some space or mend the permissions",
            kind="data",
        ) from error
    if masks and found.mask_problem.size:
        raise worker.WorkerError(f"{annotations}: {_text(found.mask_problem)}", kind="data")
    samples = Samples(found, images, masks, np.arange(len(found.image_ids)))
    return Split(samples, tuple(found.category_ids.tolist()))


@contextmanager
def _readable(annotations: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise worker.WorkerError(f"cannot read the annotations {annotations}: {error!r}", kind="data") from error


def _packed(annotations: Path) -> Index:
    with _readable(annotations):
        return pack(annotations)


def with_objects(samples: Samples) -> Samples:
    """The samples a detector can learn from: those with at least one box. Raises WorkerError, "data", for none."""
    found = samples.with_objects()
    if not found:
        raise worker.WorkerError("no training image has an object", kind="data")
    return found


def load_pixels(sample: Sample) -> np.ndarray:
    """The image as uint8 [height, width, 3], RGB. Raises WorkerError of kind "data" where the file is not it."""
    try:
        with Image.open(sample.path) as image:
            pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except OSError as error:
        raise worker.WorkerError(f"cannot read the image {sample.path}: {error}", kind="data") from error
    check_size(sample, *pixels.shape[:2])
    return pixels


def check_size(sample: Sample, height: int, width: int) -> None:
    """Raise WorkerError, "data", where an image file is not as large as its annotation says."""
    if (height, width) != (sample.height, sample.width):
        found = f"{width} x {height}"
        raise worker.WorkerError(
            f"{sample.path} is {found}, its annotation says {sample.width} x {sample.height}", kind="data"
        )


def load_masks(sample: Sample) -> np.ndarray:
    """The objects' masks as uint8 [N, height, width]; the sample is of a split that was read with masks.

    Raises WorkerError of kind "data" for run lengths that are not of the image.
    """
    shapes, size = sample.segmentations, [sample.height, sample.width]
    masks = np.zeros((len(shapes.runs), *size), dtype=np.uint8)
    for number, runs in enumerate(shapes.runs):
        if not runs:
            runs = rle.merge(rle.frPyObjects(shapes.polygons(number), *size))["counts"]
        try:
            masks[number] = decoded(runs, size)
        except ValueError as error:
            raise worker.WorkerError(f"cannot draw the masks of {sample.path}: {error}", kind="data") from error
    return masks


def decoded(runs: bytes, size: Sequence[int]) -> np.ndarray:
    """The mask uint8 [height, width] of compressed run lengths; ``size`` is (height, width)."""
    return rle.decode({"size": list(size), "counts": runs})


def encode(
    image_id: int,
    corners: np.ndarray,
    category_ids: Sequence[int],
    scores: Sequence[float],
    masks: Optional[np.ndarray] = None,
) -> List[Detection]:
    """COCO results of one image: boxes as x, y, width, height, masks as compressed run lengths.

    ``corners`` [N, 4] are x1, y1, x2, y2 in the original image, ``masks`` is boolean [N, height, width].
    """
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    results = [
        {"image_id": image_id, "category_id": int(category_id), "bbox": box, "score": float(score)}
        for box, category_id, score in zip(boxes.tolist(), category_ids, scores)
    ]
    if masks is not None and results:
        planes = np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))
        for result, encoded in zip(results, rle.encode(planes)):
            encoded["counts"] = str(encoded["counts"], "ascii")
            result["segmentation"] = encoded
    return results
