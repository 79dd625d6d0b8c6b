"""The detections of an evaluation on disk: a COCO results list, written as it comes.

Format: https://cocodataset.org/#format-results, one detection a line, so that files can be joined without being read
as a whole. Standard library only, and Python 3.6 syntax.
"""

import json
import os
from pathlib import Path
from typing import IO, Any, Dict, Iterator, Optional, Sequence

from models import worker

Detection = Dict[str, Any]


class DetectionsWriter:
    """Context that writes detections as they come and keeps none of them.

    The file has its name only once it is complete: a worker that dies leaves the rest of one, ``NAME.tmp``. ``count``
    is the number of detections so far.
    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._beside = path.with_name(path.name + ".tmp")
        self._file: Optional[IO[str]] = None

    def __enter__(self) -> "DetectionsWriter":
        self._file = self._beside.open("w", encoding="ascii", newline="\n")
        self._file.write("[")
        return self

    def __exit__(self, failure: Any, *_: Any) -> None:
        assert self._file is not None
        with self._file:
            self._file.write("\n]\n")
        if failure is None:
            os.replace(str(self._beside), str(self._path))
        else:
            self._beside.unlink()

    def add(self, detections: Sequence[Detection]) -> None:
        """Append detections, of one image or of many."""
        for detection in detections:
            self.add_line(json.dumps(detection))

    def add_line(self, line: str) -> None:
        """Append one detection that is a line of JSON already."""
        assert self._file is not None
        self._file.write(",\n" if self.count else "\n")
        self._file.write(line)
        self.count += 1


def merge_detections(parts: Sequence[Path], path: Path) -> int:
    """Join files that `DetectionsWriter` wrote into one, in their order, and return the number of detections.

    Holds a line at a time. The parts stay. Raises WorkerError where one of them is not complete.
    """
    with DetectionsWriter(path) as joined:
        for part in parts:
            for line in _lines(part):
                joined.add_line(line)
    return joined.count


def _lines(part: Path) -> Iterator[str]:
    """The detections of one file, as JSON."""
    line = ""
    with part.open(encoding="ascii", newline="\n") as file:
        for line in file:
            if line not in ("[\n", "]\n"):
                yield line.rstrip(",\n")
    if line != "]\n":
        raise worker.WorkerError(f"{part} does not end as a complete list of detections does")
