"""Where files are published: a folder, or whatever else fsspec writes to. One file at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from zoo_bench.addresses import HUB, is_address, is_inside
from zoo_bench.datasets.coco import file_sha256
from zoo_bench.errors import ZooBenchError
from zoo_bench.matrix import Publish
from zoo_bench.record import Published, PublishedFile
from zoo_bench.text import printable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Progress = Callable[[str, int, int], None]
"""Told a file's name, how many of its bytes are uploaded, and of how many. It may raise StoppedError."""

# By the protocol of an address: the extra of zoo-bench that brings what it needs.
EXTRAS = {"s3": "s3", "s3a": "s3", "hf": "hf"}
OF_THIS_PROCESS = ("memory", "data", "dir", "reference")
PROBE = ".zoo-bench-probe"


class PublishError(ZooBenchError):
    """A model or a log could not be uploaded."""


class StoppedError(Exception):
    """An upload was broken off. No BaseException: file systems with threads of their own would lose it."""


@dataclass(frozen=True)
class Destination:
    """Where files go: `address` as the matrix has it, `folder` as fsspec takes it, `url` as documents link it."""

    address: str
    folder: str
    url: str | None

    @classmethod
    def of(cls, publish: Publish, root: Path) -> Destination:
        """Return the destination of a workspace."""
        address = publish.address
        folder = address if is_address(address) else str(root / address)
        return cls(address, folder, publish.url or (address if is_inside(address) else None))

    def holds(self, published: Published) -> bool:
        """Tell whether files were published here, and are linked as they would be now."""
        url = published.model.url
        return published.address == self.address and (self.url is None or url.rpartition("/")[0] == self.url)

    def problem(self) -> str:
        """Return why this process could not even try to upload; empty where it could."""
        import fsspec

        kind = self.folder.partition("://")[0] if is_address(self.folder) else "file"
        if kind in OF_THIS_PROCESS:
            return f"{self.address}: what is published there is gone when zoo-bench ends"
        try:
            fsspec.get_filesystem_class(kind)
        except ImportError as error:
            told = self._told(error)
            return f"{told.message} ({told.hint})"
        except ValueError as error:
            return f"{self.address}: {error} (docs/publishing.md says what can be written to)"
        return ""

    def upload(self, path: Path, progress: Progress) -> PublishedFile:
        """Upload a file under its own name.

        Raises:
            PublishError: it could not be, or what arrived is of another size.
            StoppedError: `progress` raised it.
        """
        try:
            system, folder = _open(self.folder)
            remote = f"{folder}/{path.name}"
            progress(path.name, 0, path.stat().st_size)
            system.put_file(str(path), remote, callback=_callback(path, progress, breakable=system.async_impl))
            system.invalidate_cache()
            arrived, size = system.info(remote)["size"], path.stat().st_size
            if arrived != size:
                raise PublishError(f"{self.address}/{path.name}: {arrived} of {size} bytes arrived", "publish it again")
            return PublishedFile(url=self._link(system, remote), sha256=file_sha256(path), bytes=size)
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - fsspec's file systems raise what their own clients do
            raise self._told(error) from None

    def _link(self, system: AbstractFileSystem, remote: str) -> str:
        if self.url is None:
            return str(system.url(remote))
        name = remote.rpartition("/")[2]
        return f"{self.url}/{quote(name) if is_address(self.url) else name}"

    def probe(self) -> str:
        """Return why nothing can be uploaded here, or nothing. A small file is written, and removed where it may be."""
        try:
            system, folder = _open(self.folder)
            if self.address.startswith(HUB):  # where each file that is written stays as a commit
                _ask_hub(system, folder)
                return ""
            remote = f"{folder}/{PROBE}"
            system.pipe_file(remote, b"zoo-bench")
        except Exception as error:  # noqa: BLE001 - as above
            return self._told(error).message
        with contextlib.suppress(Exception):  # who may write need not be allowed to remove
            system.rm_file(remote)
        return ""

    def _told(self, error: Exception) -> PublishError:
        if isinstance(error, PublishError):
            return error
        words = printable(next(iter(str(error).strip().splitlines()), "") or type(error).__name__)
        if isinstance(error, ImportError):
            extra = EXTRAS.get(self.address.partition("://")[0])
            install = f"pip install 'zoo-bench[{extra}]'" if extra else "install it beside zoo-bench"
            return PublishError(f"{self.address}: {words}", install)
        known = {PermissionError: "not allowed", FileNotFoundError: "not found", TimeoutError: "no answer in time"}
        kind = next((text for kinds, text in known.items() if isinstance(error, kinds)), type(error).__name__)
        hint = "docs/publishing.md says where credentials come from" if is_address(self.address) else "mend that folder"
        return PublishError(f"{self.address}: {kind}: {words}", hint)


def _open(folder: str) -> tuple[AbstractFileSystem, str]:
    import fsspec  # takes 0.1 s, which only publishing needs

    options: dict[str, Any] = {} if is_address(folder) else {"auto_mkdir": True}
    system, path = fsspec.core.url_to_fs(folder, **options)
    return system, str(path).rstrip("/")


def _callback(path: Path, progress: Progress, *, breakable: bool) -> Any:
    """Return what fsspec tells its progress. `breakable`: of what is broken off no part stays under the file's name."""
    from fsspec.callbacks import Callback

    def told(size: int | None, value: int, **_more: object) -> None:
        try:
            progress(path.name, value, size or path.stat().st_size)
        except StoppedError:
            if breakable:
                raise

    return Callback(hooks={"progress": told})


def _ask_hub(system: Any, folder: str) -> None:
    from huggingface_hub import HfApi

    place = system.resolve_path(folder)
    HfApi(endpoint=system.endpoint, token=system.token).auth_check(place.repo_id, repo_type=place.repo_type, write=True)
