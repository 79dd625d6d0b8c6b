"""The files of runs, as they are read and kept."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zoo_bench.bounded import MIB, read_bytes
from zoo_bench.errors import ConfigError

MOST_BYTES = 512 * MIB


@dataclass(frozen=True)
class Source:
    """One file: what it holds on disk, and the text of that."""

    path: Path
    content: bytes

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a file. Raises ConfigError where it cannot be, or is too large."""
        try:
            return cls(path, read_bytes(path, MOST_BYTES))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}", "name a file of the run") from None

    @cached_property
    def text(self) -> str:
        """What it says, also where it is compressed. Raises ConfigError where that is damaged."""
        content = self.content
        if self.path.suffix == ".gz":
            try:
                content = _unpacked(self.content)
            except (OSError, EOFError, zlib.error) as error:
                raise ConfigError(f"{self.path}: cannot be unpacked: {error}", "unpack it first, if you can") from None
        return content.decode("utf-8", errors="replace")

    @property
    def lines(self) -> list[str]:
        """Its lines."""
        return self.text.splitlines()

    @property
    def written_unix_s(self) -> float:
        """When it was last written."""
        return os.path.getmtime(self.path)


def _unpacked(packed: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES // MIB} MiB")
    return content
