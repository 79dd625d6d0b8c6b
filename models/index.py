"""The index of a COCO annotation file: its images and objects as flat arrays, which all processes of a machine share.

COCO's train split is 450 MB of JSON, gigabytes as Python objects, and every rank and every process that loads its
images would have its own. So the file is read once and packed into an index file, which everyone maps into memory:
the pages are the file's, and there is one copy of them. Python 3.6 syntax, as in worker.py.

An index file is one line with the format's version and the CRC-32 of all that follows, one line of JSON (the
annotation file it was made of, where the arrays lie), and the arrays. Version 1 is the first.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np

VERSION = 1
ALIGNMENT = 64
LONGEST_HEADER = 1 << 20
# Of an array: the type of its values, and of those with two dimensions how many columns they have.
FLAT = {np.dtype(kind).str for kind in (np.int64, np.uint8)}
COLUMNS = {"sizes": (2, np.int64), "boxes": (4, np.float32), "points": (2, np.float32)}


class Index(NamedTuple):
    """I images in file order with their N objects. ``*_ends`` say where each one's part of another array ends.

    Images: ``image_ids`` [I], ``sizes`` [I, 2] as width, height; ``name_ends`` [I] in ``names``, UTF-8, and
    ``object_ends`` [I] in what is of objects. Objects: ``boxes`` [N, 4] as x1, y1, x2, y2 in pixels, float32, and
    ``labels`` [N], category ids; ``part_ends`` [N] in what is of polygons, and ``run_ends`` [N] in ``runs``, compressed
    run lengths. Polygons, K of them: ``polygon_ends`` [K] in ``points`` [P, 2], the x, y of their corners, float32.
    ``category_ids`` are those that the file declares, in rising order; ``mask_problem``, UTF-8 and mostly empty, says
    why no masks can be made of it. Whole numbers are int64, bytes uint8.
    """

    image_ids: np.ndarray
    sizes: np.ndarray
    names: np.ndarray
    name_ends: np.ndarray
    object_ends: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    part_ends: np.ndarray
    polygon_ends: np.ndarray
    points: np.ndarray
    run_ends: np.ndarray
    runs: np.ndarray
    category_ids: np.ndarray
    mask_problem: np.ndarray


def span(ends: np.ndarray, first: int, last: int) -> slice:
    """Where the parts lie of all from number ``first`` to before ``last``, each one's part ending at its ``ends``."""
    return slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]) if last else 0)


def source_of(annotations: Path) -> Dict[str, Any]:
    """What an index is known to be made of: a file, its length and when it was changed. Raises OSError."""
    status = annotations.stat()
    return {"path": str(annotations.absolute()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def open_index(source: Dict[str, Any], folder: Path, build: Callable[[], Index]) -> Index:
    """The index of an annotation file, mapped from ``folder``; made with ``build`` where there is no good one yet.

    Its arrays cannot be written to. Of several processes that want it at once, one makes it. Raises OSError where the
    folder cannot be written to, and what ``build`` raises.
    """
    path = folder / (hashlib.sha256(source["path"].encode()).hexdigest()[:16] + ".index")
    found = _read(path, source)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(path.with_suffix(".lock")):
            found = _read(path, source)
            if found is None:
                _write(path, source, build())
                found = _read(path, source)
    if found is None:
        raise OSError(f"{path} is not what was written to it")
    return found


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("wb") as stream:
        # Some network file systems have no locks. Then each makes its own, and the last rename stands.
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write(path: Path, source: Dict[str, Any], index: Index) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            stream.write(_first_line(0))
            checksum = 0
            for piece in _pieces(source, index):
                stream.write(piece)
                checksum = zlib.crc32(piece, checksum)
            stream.seek(0)
            stream.write(_first_line(checksum))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(str(beside), str(path))
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def _first_line(checksum: int) -> bytes:
    return f"zoo-bench index {VERSION} {checksum:08x}\n".encode("ascii")


def _pieces(source: Dict[str, Any], index: Index) -> Iterator[Any]:
    """What follows the first line: the header, then the arrays, each from a multiple of ALIGNMENT on."""
    forms = {name: [array.dtype.str, array.shape] for name, array in index._asdict().items()}
    header = json.dumps({"source": source, "arrays": forms}).encode("ascii")
    yield header + b" " * (-(len(_first_line(0)) + len(header) + 1) % ALIGNMENT) + b"\n"
    for array in index:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        yield flat
        yield bytes(-flat.size % ALIGNMENT)


def _read(path: Path, source: Dict[str, Any]) -> Optional[Index]:
    """The index in a file; None where it is missing, damaged, of another version, or made of something else."""
    try:
        with path.open("rb") as stream:
            first, header = stream.readline(LONGEST_HEADER), stream.readline(LONGEST_HEADER)
        mapped = np.memmap(str(path), np.uint8, "r").view(np.ndarray)
        # All of it is read once, one process after another from the same cached pages.
        if first != _first_line(zlib.crc32(mapped[len(first) :])):
            return None
        content = json.loads(header)
        return _arrays(mapped, len(first) + len(header), content["arrays"]) if content["source"] == source else None
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _arrays(mapped: np.ndarray, begin: int, forms: Dict[str, Tuple[str, Any]]) -> Index:
    arrays = {}
    for name, (dtype, shape) in forms.items():
        if not _fits(name, dtype, shape):
            raise ValueError(f"{name} has a form that it never has")
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        arrays[name] = mapped[begin : begin + size].view(dtype).reshape(shape)
        begin += size + -size % ALIGNMENT
    return Index(**arrays)


def _fits(name: str, dtype: str, shape: Any) -> bool:
    """Whether an array is of a form that ours have: nobody knows what another would make of a file's bytes."""
    if name in COLUMNS:
        columns, kind = COLUMNS[name]
        return dtype == np.dtype(kind).str and len(shape) == 2 and shape[1] == columns
    return dtype in FLAT and len(shape) == 1
