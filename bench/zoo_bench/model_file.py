"""Weights files: their content hash, their name, what a record says of them."""

from __future__ import annotations

import os
from pathlib import Path

from zoo_bench.datasets.coco import file_sha256
from zoo_bench.record import Checkpoint

# Of the SHA-256, in a file's name.
HASH_DIGITS = 8


def describe_model(path: Path, root: Path, *, trained: bool, cell_id: str | None = None) -> Checkpoint:
    """Hash a weights file. With `cell_id` it is one that zoo-bench made, and is renamed to ``<cell>-<hash>``."""
    sha256 = file_sha256(path)
    if cell_id is not None:
        path = path.rename(path.with_name(f"{cell_id.split('/', 1)[1]}-{sha256[:HASH_DIGITS]}{path.suffix}"))
    return Checkpoint(
        file=os.path.relpath(path, root) if path.is_relative_to(root) else path.name,
        sha256=sha256,
        bytes=path.stat().st_size,
        trained=trained,
        given=cell_id is None,
    )
