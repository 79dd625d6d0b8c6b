"""`zoo-bench export`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from zoo_bench.commands.render import content_of
from zoo_bench.document import DocumentOptions
from zoo_bench.errors import EXIT_OK, ConfigError, nearest
from zoo_bench.export.hub import as_model_card, as_model_index
from zoo_bench.export.latex import as_latex
from zoo_bench.export.metafile import as_metafile
from zoo_bench.export.tabular import as_csv, as_json, as_parquet
from zoo_bench.render import Content
from zoo_bench.session import Asked, Session
from zoo_bench.text import printable
from zoo_bench.whole import write_whole


@dataclass(frozen=True)
class Format:
    """What writes a format. `every_figure`: it has all columns, whatever the document shows of them."""

    write: Callable[[Content], str | bytes]
    every_figure: bool = False


FORMATS = {
    "csv": Format(as_csv, every_figure=True),
    "json": Format(as_json, every_figure=True),
    "latex": Format(as_latex),
    "metafile": Format(as_metafile),
    "model-card": Format(as_model_card),
    "model-index": Format(as_model_index),
    "parquet": Format(as_parquet, every_figure=True),
}


def export(asked: Asked, form: str, output: Path | None, options: DocumentOptions) -> int:
    """Write the rows of the document in another format, to a file or stdout."""
    if form not in FORMATS:
        raise ConfigError(f"export {form}: no such format", nearest(form, FORMATS))
    chosen, session = FORMATS[form], Session.open(asked)
    root = session.workspace.root
    shown = replace(options, energy=options.energy or chosen.every_figure)
    content = content_of(session, shown, lambda file: (root / file).is_file(), asked.select)
    made = chosen.write(content)
    if not any(row.sources for row in content.rows.values()):
        session.warn(f"zoo-bench: none of the {len(content.rows)} rows has a figure yet")
    if output is None:
        _print(made, form)
    else:
        _write(output, made)
    return EXIT_OK


def _print(made: str | bytes, form: str) -> None:
    if isinstance(made, bytes):
        if sys.stdout.isatty():
            raise ConfigError(f"export {form} makes a binary file, which no terminal shows", f"-o zoo.{form}")
        sys.stdout.buffer.write(made)
    else:
        sys.stdout.write(printable(made) if sys.stdout.isatty() else made)  # a title may hold what moves cursors


def _write(path: Path, made: str | bytes) -> None:
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a fifo: nothing may stand in its place
            path.write_bytes(made if isinstance(made, bytes) else made.encode())
        else:
            write_whole(path.resolve(), made)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}", "name another file: -o") from None
