"""stdout and stderr for a program that may run for days: a reader that goes away ends nothing."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from zoo_bench.errors import EXIT_BROKEN_PIPE, ZooBenchError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Lasting(io.FileIO):
    """A descriptor that takes whatever is written to it; `fault` is why some of that reached nobody."""

    fault: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(data)
        except OSError as error:  # the pipe's reader has ended, the terminal was closed, the disk is full
            self.fault = self.fault or error
            written = None
        return memoryview(data).nbytes if written is None else written


def set_up() -> None:
    """Replace stdout and stderr by streams that no write to them can fail on."""
    # What the caller closed (``>&-``) is opened, or the next file would be taken for it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)
    if os.environ.get("COLUMNS") == "0":  # some CI systems: not known. Tables of no width would be empty
        del os.environ["COLUMNS"]


def exit_code(code: int) -> int:
    """Return the exit code of a command whose result is what it printed: 141 when the reader did not take all of it.

    Raises:
        ZooBenchError: it could not be written for another reason.
    """
    fault = _fault()
    if fault is None:
        return code
    if fault.errno == errno.EPIPE:
        return EXIT_BROKEN_PIPE
    raise ZooBenchError(f"stdout cannot be written: {fault.strerror}", "what was printed is not whole")


def heard() -> bool:
    """Tell whether whoever reads stdout is still there, as far as has been noticed."""
    return _fault() is None


def _fault() -> OSError | None:
    """Why some of what was printed so far has reached nobody."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.fault if isinstance(raw, _Lasting) else None


def _stream(descriptor: int, before: TextIO | None) -> TextIO:
    raw = _Lasting(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=raw.isatty() or descriptor == 2,
    )
