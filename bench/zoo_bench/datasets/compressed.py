"""COCO's compressed run lengths, many masks at once: whether they are right, and the area of each mask.

A string is six bits a character from '0' on: five of a number, the least significant first and the last signed, and
one that says that the number goes on. From the fourth run on a number is the difference to the run two before
(pycocotools `common/maskApi.c`, `rleToString`). Evaluators do not check all of this, and pycocotools reads and writes
past its memory where it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

#: A number has at most 6 characters, which hold 30 bits: more is no run of any image.
_FORM = re.compile("(?:[P-o]{0,5}[0-O])+")
_LONGEST = 6
#: Characters decoded at a time, so that what is made of them stays in the processor's cache.
_AT_A_TIME = 1 << 17


def compressed_rle_areas(counts: Sequence[str], pixels: Sequence[int] | Ints) -> tuple[Ints, dict[int, str]]:
    """The areas of N masks, int64 [N], and by position what is wrong with those that have a fault.

    `pixels` are the pixels of the mask that each string must fill. The area of a mask with a fault has no meaning.
    """
    if not counts:
        return np.zeros(0, dtype=np.int64), {}
    lengths = np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))
    cuts = np.flatnonzero(np.diff(lengths.cumsum() // _AT_A_TIME)) + 1
    bounds = [0, *cuts.tolist(), len(counts)]
    groups = [_measured(counts[start:stop]) for start, stop in pairwise(bounds)]
    areas, totals, well_formed = (np.concatenate(columns) for columns in zip(*groups, strict=True))
    faults = {}
    for place in np.flatnonzero(~well_formed | (totals != pixels)).tolist():
        said = f"run lengths that add up to {totals[place]} pixels, not to {pixels[place]}"
        faults[place] = said if well_formed[place] else "run lengths that are not COCO's compressed form"
    return areas, faults


def _measured(counts: Sequence[str]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """The pixels of each mask, those of mask and background together, and whether the string is well formed."""
    in_form = np.ones(len(counts), dtype=bool)
    decoded = _decoded(counts)
    if decoded is None:
        in_form[:] = [_FORM.fullmatch(text) is not None for text in counts]
        decoded = _decoded([text if fits else "0" for text, fits in zip(counts, in_form, strict=True)])
        assert decoded is not None
    areas, totals, shortest = _summed(*decoded)
    return areas, totals, in_form & (shortest >= 0)


def _decoded(counts: Sequence[str]) -> tuple[Ints, Ints] | None:
    """All numbers of the strings, one after another, and where each string's end; None if a string is malformed."""
    text = "".join(counts)
    ends = np.cumsum([len(each) for each in counts])
    if not text.isascii() or not all(counts):
        return None
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8) - np.uint8(48)  # what is below '0' becomes great
    if codes.max() > 63 or (codes[ends - 1] > 31).any():
        return None
    is_last = codes < 32
    last = np.flatnonzero(is_last)
    more = np.diff(last, prepend=-1) - 1
    if more.max() >= _LONGEST:
        return None
    numbers = ((codes[is_last] ^ 16).astype(np.int64)) - 16  # five bits with a sign
    longer = np.flatnonzero(more > 0)
    for place in range(1, _LONGEST):
        digits = codes[last[longer] - place] & 31
        numbers[longer] = (numbers[longer] << 5) + digits
        longer = longer[more[longer] > place]
    return numbers, np.searchsorted(last, ends)


def _summed(numbers: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """The pixels of each mask, those of mask and background together, and its shortest run.

    Numbers stand in rows of two, so that sums down the two columns turn differences into runs; whether the runs of a
    mask are in the one column or in the other, its background in the other, depends on where its string begins.
    """
    starts = np.concatenate(([0], ends[:-1]))
    first = numbers[starts]
    rows = np.zeros((numbers.size // 2 + 2, 2), dtype=np.int64)
    rows.reshape(-1)[: numbers.size] = numbers
    rows.reshape(-1)[starts] = 0  # no difference is taken to the first run
    np.cumsum(rows, axis=0, out=rows)
    sums, shortest = [], first
    for column, runs in enumerate(rows.T):
        begin, end = (starts + 2 - column) // 2, (ends + 1 - column) // 2
        before = np.where(begin > 0, runs[begin - 1], 0)
        total = np.concatenate(([0], runs.cumsum()))
        sums.append(total[end] - total[begin] - before * (end - begin))
        lowest = np.minimum(shortest, np.minimum.reduceat(runs, begin) - before)
        shortest = np.where(end > begin, lowest, shortest)
    return np.where(starts % 2, sums[0], sums[1]), first + sums[0] + sums[1], shortest
