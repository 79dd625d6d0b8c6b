"""The summaries of a store's records in one file, so that a large store is not read record by record each time.

It can be made again from the records, belongs to one workspace, and is never committed. A record's file is known by its
size, times of change and inode: records are immutable, so whatever is written in its place has others. The file is
written column by column, which is read several times as fast as one object a record. It is believed as long as the code
is the same that summaries are made by.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeAlias, get_type_hints

from pydantic import create_model

from zoo_bench import __version__
from zoo_bench.bounded import read_bytes
from zoo_bench.recipe import Strict
from zoo_bench.runs import Summary
from zoo_bench.whole import write_whole

MADE_BY = (
    "cell", "columns", "figures", "measurements", "provenance", "recipe", "record", "runs", "store", "store_index",
)  # fmt: skip
MOST_BYTES = 2**30
Stamp: TypeAlias = tuple[int, int, int, int]


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
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def read_index(path: Path) -> dict[str, Known]:
    """Return what is known, by the file's name; nothing where the index is missing, damaged or of another version."""
    try:
        index = _Index.model_validate_json(read_bytes(path, MOST_BYTES))
        rows = zip(*(getattr(index, name) for name in FIELDS), strict=True)
        known = (Known(stamp, Summary(*row)) for stamp, row in zip(index.stamp, rows, strict=True))
        return dict(zip(index.file, known, strict=True)) if index.made_by == _made_by() else {}
    except (OSError, ValueError):
        return {}


def write_index(path: Path, files: Mapping[str, Known]) -> None:
    """Keep what is known. Where that cannot be written, the store is only slower."""
    columns = {name: [getattr(known.run, name) for known in files.values()] for name in FIELDS}
    stamps = [known.stamp for known in files.values()]
    with contextlib.suppress(OSError, ValueError):  # a full disk; a file whose name is no text
        write_whole(path, _Index(made_by=_made_by(), file=list(files), stamp=stamps, **columns).model_dump_json())


def _made_by() -> str:
    digest = hashlib.sha256(__version__.encode())
    for name in MADE_BY:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()
