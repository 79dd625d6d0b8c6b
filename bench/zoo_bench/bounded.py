"""What is read of files that others wrote: regular ones alone, no more than any real one holds, no larger numbers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pydantic import ValidationError

MIB = 2**20
# Seconds that no clock tells from none.
LEAST_S = 1e-9
# No second, byte or pixel is counted so far; what is computed of larger numbers is soon beyond floats.
LARGEST = 2**63 - 1


def read_bytes(path: Path, most: int) -> bytes:
    """Return what a file holds. Raises OSError for one that cannot be read, is no file (a fifo), or holds too much."""
    if path.exists() and not path.is_file():  # a fifo would be waited for, a device never ends
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most // MIB} MiB", str(path))
        return stream.read(most)


def fault(error: Exception) -> str:
    """Say in a line why a file is not what it should be: of pydantic's faults the first, with its place."""
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        return ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"])))
    return str(error).splitlines()[0] if str(error) else type(error).__name__
