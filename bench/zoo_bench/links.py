"""What a document links, fetched as its readers do: without credentials, and held against what was published."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

from zoo_bench import __version__
from zoo_bench.addresses import is_address
from zoo_bench.record import PublishedFile
from zoo_bench.runs import Runs
from zoo_bench.text import printable
from zoo_bench.units import COLUMN_HEADS
from zoo_bench.verify import links, values

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0

Progress = Callable[[str, int, int], None]
"""Told a file's address, how many of its bytes have come, and of how many."""


class FetchError(Exception):
    """A published file is not there, or is not what was published."""


def download_links(document: str) -> frozenset[str]:
    """Return what the Download column of a document links."""
    cells = (text for place, text in values(document) if place.column == COLUMN_HEADS["download"])
    return frozenset().union(*map(links, cells))


def published_files(runs: Runs) -> dict[str, PublishedFile]:
    """Return every file that was published, by its address as `download_links` gives it."""
    published = (run.published for run in runs.summaries if run.published is not None)
    return {unquote(file.url): file for each in published for file in (each.model, each.log)}


def fetch(file: PublishedFile, root: Path, progress: Progress, target: Path | None = None) -> None:
    """Read a published file to its end and check its hash; with `target`, keep it there.

    Raises:
        FetchError: it cannot be fetched (401, 403 and 404 too), or differs.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with _opened(file, root) as source, target.open("wb") if target else io.BytesIO() as copy:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                progress(file.url, size, file.bytes)
                if size > file.bytes:
                    raise FetchError(f"is longer than the {file.bytes} bytes that were published")
                if target:
                    copy.write(chunk)
    except HTTPError as error:
        raise FetchError(printable(f"HTTP {error.code} {error.reason}")) from None
    except (OSError, ValueError, HTTPException) as error:
        said = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise FetchError(printable(f"{said}" or type(error).__name__)) from None
    if size != file.bytes or digest.hexdigest() != file.sha256:
        raise FetchError(
            f"differs from what was published: {size} bytes, SHA-256 {digest.hexdigest()[:16]}...; "
            f"{file.bytes} bytes, {file.sha256[:16]}... were published"
        )


def _opened(file: PublishedFile, root: Path) -> AbstractContextManager[IO[bytes]]:
    if not is_address(file.url):
        path = (root / file.url).resolve()
        if not path.is_relative_to(root.resolve()) or (path.exists() and not path.is_file()):
            raise FetchError("is no file of the workspace")
        return path.open("rb")
    request = Request(file.url, headers={"User-Agent": f"zoo-bench/{__version__}"})
    opened: AbstractContextManager[IO[bytes]] = urlopen(request, timeout=TIMEOUT_S)
    return opened
