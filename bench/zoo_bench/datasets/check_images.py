"""Whether the image files of a dataset exist, are whole, and have the size their annotations state."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from zoo_bench.datasets.findings import Findings

Progress = Callable[[int, int], None]

# What Pillow raises for a file that is not an image, is cut short, or is a decompression bomb.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_JPEG_END = b"\xff\xd9"
# Some cameras and editors leave bytes after the end mark.
_END_SEARCH_BYTES = 4096
_BATCH = 512


@dataclass(frozen=True)
class ImageFile:
    """An image file and the size in pixels that it should have."""

    path: Path
    width: int
    height: int


def check(
    folder: Path,
    files: Sequence[ImageFile],
    findings: Findings,
    *,
    decode: bool,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Look at all `files` in threads (Pillow decodes outside the interpreter's lock) and add what is
    wrong.
    """
    if not folder.is_dir():
        if files:
            findings.error("missing image folder", f"{folder} is not a folder")
        return
    with warnings.catch_warnings(), ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")  # Pillow's, about odd metadata: of no use to a detector
        for done, (file, fault) in enumerate(_faults(pool, files, decode), start=1):
            if fault is not None:
                kind, detail = fault
                findings.error(kind, f"{file.path.relative_to(folder)}{detail}")
            if progress is not None:
                progress(done, len(files))


def _faults(
    pool: ThreadPoolExecutor, files: Sequence[ImageFile], decode: bool
) -> Iterator[tuple[ImageFile, tuple[str, str] | None]]:
    """In batches, so that Ctrl-C is answered soon and not after the last of 100,000 images."""
    rest = iter(files)
    while batch := list(islice(rest, _BATCH)):
        yield from zip(batch, pool.map(partial(image_fault, decode=decode), batch), strict=True)


def image_fault(file: ImageFile, decode: bool) -> tuple[str, str] | None:
    """The kind of fault of one file and what to add to its name in the report, or None."""
    try:
        if not file.path.is_file():
            return "missing image", ""
        with Image.open(file.path) as image:
            size = image.size
            fault = _content_fault(image, file.path, decode)
    except _UNREADABLE as error:
        return "unreadable or truncated image", f": {_reason(error)}"
    if fault is not None:
        return "unreadable or truncated image", f": {fault}"
    if size != (file.width, file.height):
        stated = f"{file.width} x {file.height}"
        return "image size differs from its annotation", f": {size[0]} x {size[1]}, annotated as {stated}"
    return None


def _content_fault(image: Any, path: Path, decode: bool) -> str | None:
    if decode:
        # A JPEG is read to its end all the same, but only an eighth of each side is computed: three times as
        # fast.
        image.draft(None, (image.width // 8, image.height // 8))
        image.load()
    if image.format == "JPEG":
        with path.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - _END_SEARCH_BYTES))
            if _JPEG_END not in stream.read():
                return "the end of the JPEG is missing"
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image"
    return str(error)
