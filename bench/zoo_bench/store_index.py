"""The summaries of a store's records in one file, so that a large store is not read record by record each time.

It can be made again from the records, belongs to one workspace, and is never committed. A record's file is known by its
size, time of change and inode: records are immutable, so whatever is written in its place has others. The file is
written column by column, which is read several times as fast as one object a record.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeAlias, get_type_hints

from pydantic import create_model

from zoo_bench import __version__
from zoo_bench.recipe import Strict
from zoo_bench.record import Record
from zoo_bench.runs import Summary

FORMAT = 1  # to be raised when a summary says something else of the same record
Stamp: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Known:
    """A record's file, as it was when it was read, and what it held."""

    stamp: Stamp
    run: Summary


class _Files(Strict):
    made_by: str
    file: list[str]
    stamp: list[Stamp]


FIELDS = tuple(field.name for field in fields(Summary))
# A list a field of the summaries: list[str] for run_id, and so on.
_LISTS: dict[str, Any] = {name: GenericAlias(list, (kind,)) for name, kind in get_type_hints(Summary).items()}
_Index: Any = create_model("_Index", __base__=_Files, **_LISTS)


def stamp_of(path: Path) -> Stamp:
    """Return what tells a file from every other one that has had its name. Raises OSError when it is gone."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def read_index(path: Path) -> dict[str, Known]:
    """Return what is known, by the file's name; nothing where the index is missing, damaged or of another version."""
    try:
        index = _Index.model_validate_json(path.read_bytes())
        rows = zip(*(getattr(index, name) for name in FIELDS), strict=True)
        known = (Known(stamp, Summary(*row)) for stamp, row in zip(index.stamp, rows, strict=True))
        return dict(zip(index.file, known, strict=True)) if index.made_by == _made_by() else {}
    except (OSError, ValueError):
        return {}


def write_index(path: Path, files: Mapping[str, Known]) -> None:
    """Keep what is known. Where that cannot be written, the store is only slower."""
    columns = {name: [getattr(known.run, name) for known in files.values()] for name in FIELDS}
    stamps = [known.stamp for known in files.values()]
    text: str = _Index(made_by=_made_by(), file=list(files), stamp=stamps, **columns).model_dump_json()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as beside:
            try:
                beside.write(text)
                beside.close()
                os.replace(beside.name, path)
            except OSError:
                os.unlink(beside.name)


def _made_by() -> str:
    return f"zoo-bench {__version__}, records {Record.model_fields['schema_version'].default}, format {FORMAT}"
