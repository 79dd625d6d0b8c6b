"""The log of a worker: what it prints, however much that is. The beginning and the end are kept."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO

HEAD_BYTES = 32 * 2**20
# The end is written in pieces in turn, so that it is on disk while it comes, and at most two of them at once.
PIECE_BYTES = 16 * 2**20
CHUNK_BYTES = 2**16
PATIENCE_S = 10.0


class WorkerLog(threading.Thread):
    """Copies a pipe to a file until everyone who writes to the pipe has gone.

    A disk that is full ends the copy, not the worker: what comes after that is read and lost.
    """

    def __init__(
        self, pipe: IO[bytes], path: Path, head_bytes: int = HEAD_BYTES, piece_bytes: int = PIECE_BYTES
    ) -> None:
        super().__init__(name="worker log", daemon=True)
        self._pipe = pipe
        self._path = path
        self._head_left = head_bytes
        self._piece_bytes = piece_bytes
        self._piece: IO[bytes] | None = None
        self._pieces = (path.with_suffix(".end"), path.with_suffix(".before-end"))
        self._left_out = 0
        self.problem = ""

    def run(self) -> None:
        """Copy."""
        with self._pipe, self._path.open("ab", buffering=0) as head:
            while chunk := os.read(self._pipe.fileno(), CHUNK_BYTES):
                try:
                    self._keep(head, chunk)
                except OSError as error:
                    self.problem = self.problem or f"its log cannot be written: {error.strerror}"
            try:
                self._join(head)
            except OSError as error:
                self.problem = self.problem or f"its log cannot be written: {error.strerror}"

    def finish(self) -> None:
        """Wait for the end, which comes soon after the last process of the job has gone."""
        self.join(PATIENCE_S)

    def _keep(self, head: IO[bytes], chunk: bytes) -> None:
        first, rest = chunk[: self._head_left], chunk[self._head_left :]
        if first:
            head.write(first)
            self._head_left -= len(first)
        if rest:
            self._keep_end(rest)

    def _keep_end(self, chunk: bytes) -> None:
        newest, older = self._pieces
        if self._piece is None:
            self._piece = newest.open("wb", buffering=0)
        self._piece.write(chunk)
        if self._piece.tell() >= self._piece_bytes:
            self._piece.close()
            self._left_out += older.stat().st_size if older.exists() else 0
            newest.replace(older)
            self._piece = newest.open("wb", buffering=0)

    def _join(self, head: IO[bytes]) -> None:
        """Put the end behind the beginning, with a line that tells what is not there."""
        if self._piece is None:
            return
        self._piece.close()
        if self._left_out:
            head.write(f"\n[zoo-bench left out {self._left_out} bytes here]\n".encode())
        for piece in reversed(self._pieces):
            if piece.exists():
                with piece.open("rb") as source:
                    while chunk := source.read(CHUNK_BYTES):
                        head.write(chunk)
                piece.unlink()
