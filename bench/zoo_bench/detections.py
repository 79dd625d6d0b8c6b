"""Reading a detections file, a list in COCO's results format, into columns.

Format: https://cocodataset.org/#format-results; a segmentation is run lengths, ``{"size": [h, w], "counts": "..."}``.
The file is read some megabytes at a time, and checked as it is: half a million detections as dicts take gigabytes, and
a look at each of their values takes longer than the scoring. Where anything is not as it should be, `detection_faults`
reads the file again and says where and what.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from zoo_bench.datasets.coco import json_type
from zoo_bench.datasets.compressed import compressed_rle_areas
from zoo_bench.datasets.findings import to_text
from zoo_bench.detection_faults import detection_problems
from zoo_bench.ground_truth import EvaluationError, GroundTruth, read_content

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BLOCK_BYTES = 1 << 23
# The last place where one entry ends and the next begins. Where that is inside of an entry after all, in a key that we
# know nothing of, the pieces are not JSON.
_SEAM = re.compile(rb".*\}(\s*,\s*)\{", re.DOTALL)
_NO_BOX = (np.nan,) * 4


class _Mask(msgspec.Struct, gc=False):
    size: tuple[float, float]
    counts: str


class _Entry(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    score: float
    bbox: tuple[float, float, float, float] = _NO_BOX
    segmentation: _Mask | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True)
class Detections:
    """N detections: image ids, category ids and scores, [N]; boxes [N, 4] as x, y, width and height, NaN where there
    is none; the compressed run lengths of masks, str or None, [N], and the masks' areas in pixels, [N].
    """

    image_ids: Ints
    category_ids: Ints
    scores: Floats
    boxes: Floats
    counts: NDArray[np.object_]
    areas: Ints

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, places: Ints) -> Detections:
        """Those at some places."""
        return Detections(*(getattr(self, column.name)[places] for column in fields(self)))

    def on(self, image_ids: Iterable[int]) -> Detections:
        """Those on some images."""
        return self.at(np.flatnonzero(np.isin(self.image_ids, list(image_ids))))

    def split(self, groups: Iterable[Sequence[int]]) -> Iterator[Detections]:
        """For each group of images those on them. The ids must rise from group to group, and from image to image."""
        places = np.argsort(self.image_ids, kind="stable")
        for group in groups:
            start, stop = np.searchsorted(self.image_ids, [group[0], group[-1] + 1], sorter=places)
            yield self.at(places[start:stop])

    def with_box(self) -> Detections:
        """Those that have a box."""
        return self.at(np.flatnonzero(~np.isnan(self.boxes[:, 0])))

    def with_mask(self) -> Detections:
        """Those that have a mask."""
        return self.at(np.flatnonzero(self.has_mask()))

    def has_mask(self) -> NDArray[np.bool_]:
        """Which of them have a mask, [N]."""
        return np.array([text is not None for text in self.counts], dtype=bool)


def read_detections(path: Path, truth: GroundTruth) -> Detections:
    """The entries of a detections file, all of them fit to be scored. Raises EvaluationError otherwise."""
    try:
        parts = [_columns(entries, truth) for entries in _pieces(path)]
    except (OSError, OverflowError, RecursionError, msgspec.DecodeError, _UnfitError):
        parts = [_columns(_checked(path, truth), truth)]
    columns = ([getattr(part, column.name) for part in parts] for column in fields(Detections))
    return Detections(*map(np.concatenate, columns))


class _UnfitError(Exception):
    """An entry cannot be scored."""


def _pieces(path: Path) -> Iterator[list[_Entry]]:
    if not path.is_file():  # a fifo would be waited for
        raise FileNotFoundError(path)
    decoder = msgspec.json.Decoder(list[_Entry])
    with path.open("rb") as file:
        for block in _blocks(file):
            if not block.isascii():  # msgspec passes over keys it does not know, whatever their text is
                raise _UnfitError
            yield decoder.decode(block)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """A JSON list, in pieces that are lists of some of its entries."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        rest += block
        if seam := _SEAM.match(rest):
            yield rest[: seam.start(1)] + b"]"
            rest = b"[" + rest[seam.end(1) :]
    yield rest


def _columns(entries: Sequence[_Entry], truth: GroundTruth) -> Detections:
    """Raises _UnfitError if not all of the entries can be scored."""
    count = len(entries)
    boxes = np.fromiter(chain.from_iterable(entry.bbox for entry in entries), dtype=np.float64, count=4 * count)
    found = Detections(
        np.fromiter((entry.image_id for entry in entries), dtype=np.int64, count=count),
        np.fromiter((entry.category_id for entry in entries), dtype=np.int64, count=count),
        np.fromiter((entry.score for entry in entries), dtype=np.float64, count=count),
        boxes.reshape(-1, 4),
        np.array([entry.segmentation.counts if entry.segmentation else None for entry in entries], dtype=object),
        _mask_areas(entries, truth),
    )
    if not _is_fit(found, truth):
        raise _UnfitError
    return found


def _is_fit(found: Detections, truth: GroundTruth) -> bool:
    """Whether ids, scores and boxes are such that they can be scored."""
    good_box = np.isfinite(found.boxes).all(axis=1) & (found.boxes[:, 2:] >= 0).all(axis=1)
    no_box = np.isnan(found.boxes).all(axis=1)
    return (
        truth.sizes.keys() >= set(found.image_ids.tolist())
        and truth.categories.keys() >= set(found.category_ids.tolist())
        and bool(np.isfinite(found.scores).all())
        and bool((good_box | (no_box & found.has_mask())).all())
    )


def _mask_areas(entries: Sequence[_Entry], truth: GroundTruth) -> Ints:
    areas = np.zeros(len(entries), dtype=np.int64)
    places = [place for place, entry in enumerate(entries) if entry.segmentation]
    masks = [entry.segmentation for entry in entries if entry.segmentation]
    sizes = [truth.sizes.get(entries[place].image_id) for place in places]
    if any(mask.size != size for mask, size in zip(masks, sizes, strict=True)):
        raise _UnfitError
    pixels = np.array([mask.size[0] * mask.size[1] for mask in masks], dtype=np.int64)
    areas[places], faults = compressed_rle_areas([mask.counts for mask in masks], pixels)
    if faults:
        raise _UnfitError
    return areas


def _checked(path: Path, truth: GroundTruth) -> list[_Entry]:
    content = read_content(path)
    if not isinstance(content, list):
        raise EvaluationError(
            f"{path}: the top level is {json_type(content)}, not a list of detections",
            hint="The worker must write COCO's results format.",
        )
    problems = detection_problems(content, truth)
    if problems:
        raise EvaluationError(
            f"{path}: detections that cannot be scored, of {len(content)}:\n{to_text(problems)}",
            hint="No score is given for such a file: mend what writes it, and evaluate again.",
        )
    return [
        _Entry(
            entry["image_id"],
            entry["category_id"],
            entry["score"],
            tuple(entry.get("bbox", _NO_BOX)),
            _Mask(tuple(mask["size"]), mask["counts"]) if (mask := entry.get("segmentation")) else msgspec.UNSET,
        )
        for entry in content
    ]
