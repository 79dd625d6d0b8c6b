"""The twelve lines that COCO's evaluator prints, found in a log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from zoo_bench.adapters import Told
from zoo_bench.evaluate import METRICS

LINE = re.compile(
    r"Average (Precision|Recall)\s+\(A[PR]\) @\[ IoU=(\S+)\s*\| area=\s*(\w+) \| maxDets=\s*(\d+) \] = (-?[\d.]+)"
)
KIND = re.compile(r"\b(bbox|segm)\b", re.IGNORECASE)
AREAS = {"all": "", "small": "_small", "medium": "_medium", "large": "_large"}
BOX, MASK = "box", "mask"
NOT_KNOWN = -1.0  # what COCO's evaluator prints where there is nothing of that size


class CocoSummary:
    """Gathers the lines of each summary; after the twelfth it tells what they say.

    A summary is of boxes unless a line shortly before it says segm; the second of two without an evaluation of anything
    else between them is of masks.
    """

    def __init__(self) -> None:
        self._kind: str | None = None
        self._found: dict[str, float] = {}
        self._box: dict[str, float] | None = None

    def read(self, line: str) -> Iterator[Told]:
        """Take in a line; yield an ``eval_result`` once a summary is whole. That of masks repeats that of boxes."""
        found = LINE.search(line)
        if found is None:
            if "step" in line.lower() or "[Batch " in line:
                self._box = None
            elif kind := KIND.search(line):
                self._kind = MASK if kind[1].lower() == "segm" else BOX
            return
        metric, value = _metric(found), float(found[5])
        if metric == METRICS[0]:
            self._found = {}
        if value != NOT_KNOWN:
            self._found[metric] = value
        if metric != METRICS[-1] or "ap" not in self._found:
            return
        kind_of = self._kind or (MASK if self._box is not None else BOX)
        self._kind = None
        if kind_of == BOX:
            self._box = self._found
            yield "eval_result", {BOX: self._found}
        else:
            yield "eval_result", {**({BOX: self._box} if self._box else {}), MASK: self._found}


def _metric(found: re.Match[str]) -> str:
    precision, iou, area, most = found[1] == "Precision", found[2], AREAS.get(found[3], ""), found[4]
    if not precision:
        return f"ar{area}" if area else f"ar{most}"
    level = {"0.50:0.95": "ap", "0.50": "ap50", "0.75": "ap75"}.get(iou, "ap")
    return f"{level}{area}"
