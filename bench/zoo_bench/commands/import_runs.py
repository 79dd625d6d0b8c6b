"""`zoo-bench import`: finished runs of other programs become records."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo_bench.adapters import NAMES, REGEX, find_adapter
from zoo_bench.backends import has_backend
from zoo_bench.bounded import MIB, fault, read_bytes
from zoo_bench.cell import backend_of, expand, short_name
from zoo_bench.columns import Column
from zoo_bench.errors import EXIT_CELL_FAILED, EXIT_OK, ConfigError
from zoo_bench.imports.cells import imported_cell
from zoo_bench.imports.finished import FinishedRun, finished_run
from zoo_bench.imports.metafile import DEFINITIONS, read_metafile
from zoo_bench.imports.records import Import, make_record, origin_files
from zoo_bench.imports.zoo_table import TableRow, compare, read_tables, unmatched
from zoo_bench.record import Origin, Record
from zoo_bench.session import Session
from zoo_bench.store import new_run_id
from zoo_bench.units import SHORT_HEADS, written
from zoo_bench.whole import write_whole

METAFILE = "metafile"
SHOWN: tuple[Column, ...] = ("memory", "s_per_iter", "fps", "box_ap", "mask_ap")
MOST_BYTES = 512 * MIB


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `facts`: what the user says of the runs. `patterns`: by event, those of regex."""

    adapter: str
    files: tuple[Path, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    backend: str | None = None
    joined: bool = False
    table: Path | None = None
    dry_run: bool = False


def import_runs(session: Session, wanted: Wanted) -> int:
    """Read every run, store its record, and say what was read. 1 where a run did not end well, or is cut off."""
    found = _metafile(session, wanted) if wanted.adapter == METAFILE else _logs(session, wanted)
    before = {(run.cell_id, run.fingerprint): run.run_id for run in session.runs.summaries if run.imported}
    records: list[Record] = []
    logs: dict[str, str] = {}
    for one, text, written_s in found:
        run_id = new_run_id(records[-1].run_id if records else session.store.new_run_id())
        file = logs.get(text, f"results/runs/{run_id}/{one.origin.files[-1].name}")
        try:
            record = make_record(one, run_id=run_id, profile=session.profile, written_unix_s=written_s, log=file)
        except ValidationError as error:
            where = ", ".join(one.name for one in one.origin.files)
            raise ConfigError(
                f"{where}: no record can be made of it: {fault(error)}", "say it right with an option"
            ) from None
        earlier = before.get((record.cell_id, record.fingerprint))
        if earlier is not None:
            print(f"{record.cell_id}: imported before, as run {earlier}", file=sys.stderr)
            continue
        logs[text] = file
        records.append(record)
    if not wanted.dry_run:
        _keep(session, records, logs)
    _print(records, wanted)
    return EXIT_OK if all(record.status == "succeeded" for record in records) else EXIT_CELL_FAILED


def _keep(session: Session, records: Sequence[Record], logs: Mapping[str, str]) -> None:
    """Copy the files beside the logs of our own runs, and then store the records, which name them."""
    session.store.check(record.cell_id for record in records)
    for text, file in logs.items():
        write_whole(session.workspace.root / file, text)
    for record in records:
        session.store.add(record)


Found = tuple[Import, str, float]


def _logs(session: Session, wanted: Wanted) -> list[Found]:
    if wanted.table is not None:
        raise ConfigError(
            "--table is compared with a metafile", "zoo-bench import metafile metafile.yml --table README.md"
        )
    adapter = find_adapter(wanted.adapter, _patterns(wanted))
    texts = [_text(path) for path in wanted.files]
    groups = [list(range(len(texts)))] if wanted.joined else [[place] for place in range(len(texts))]
    found: list[Found] = []
    for group in groups:
        paths, lines = [wanted.files[place] for place in group], "".join(_ended(texts[place]) for place in group)
        run = finished_run(adapter(lines.splitlines()))
        where = ", ".join(map(str, paths))
        if not run.steps and not run.scores:
            raise ConfigError(
                f"{where}: the adapter {wanted.adapter} finds no iteration and no evaluation in it", _other(wanted)
            )
        origin = Origin(adapter=wanted.adapter, files=origin_files(paths, [texts[place].encode() for place in group]))
        found.append((_import(session, wanted, origin, run, where), lines, paths[-1].stat().st_mtime))
    return found


def _import(session: Session, wanted: Wanted, origin: Origin, run: FinishedRun, where: str) -> Import:
    """Give a run its cell."""
    facts = {**run.facts, **wanted.facts}
    iterations = run.planned or run.iterations or None
    cell = imported_cell(session.matrix, _backend(session, wanted), facts, iterations, where)
    if cell.cell.id in {one.id for one in expand(session.matrix, session.profile)}:
        raise ConfigError(
            f"{where}: {cell.cell.id} is a cell of the matrix, whose own runs it would stand for",
            "give it another backend: --backend NAME",
        )
    remarks = list(run.remarks)
    if run.steps and not {"gpus", "images_per_gpu"} <= set(cell.known):
        remarks.append(f"its batch is not told: {cell.cell.batch_size} images an iteration are the matrix's")
    known = origin.model_copy(update={"known": cell.known, "remarks": tuple(remarks)})
    return Import(cell, known, run)


def _metafile(session: Session, wanted: Wanted) -> list[Found]:
    found: list[Found] = []
    for path in wanted.files:
        text = _text(path)
        models = read_metafile(path, text)
        table = wanted.table or _beside(path)
        rows = read_tables(_text(table)) if table else ()
        links = {_stem(row.config): row for row in reversed(rows)}
        origin = Origin(adapter=METAFILE, files=origin_files([path], [text.encode()]))
        for model in models:
            one = _import(session, wanted, origin, model.finished(), f"{path}: {model.name}")
            urls = _urls(model.weights, links.get(_stem(model.config)))
            one = Import(one.cell, one.origin.model_copy(update=urls), one.finished, model.fps, DEFINITIONS)
            found.append((one, text, path.stat().st_mtime))
        if table is None:
            print(f"{path}: no table beside it to compare with (--table README.md)", file=sys.stderr)
            continue
        agreed, conflicts = compare(models, rows)
        print(f"{path.name} against {table.name}: {agreed} figures agree, {len(conflicts)} do not", file=sys.stderr)
        for line in (*(conflict.text(table.name) for conflict in conflicts), *unmatched(models, rows)):
            print(f"  {line}", file=sys.stderr)
    return found


def _stem(config: str) -> str:
    return config.rsplit("/", 1)[-1].removesuffix(".py")


def _urls(weights: str, row: TableRow | None) -> dict[str, str]:
    found = {"weights": weights, "log": row.links.get("log", "") if row else ""}
    return {name: url for name, url in found.items() if url.startswith(("https://", "http://"))}


def _beside(path: Path) -> Path | None:
    """Return the README that belongs to a metafile: of the same beginning where it has one."""
    names = [path.name.replace("metafile.yml", "README.md"), "README.md"]
    return next((path.with_name(name) for name in names if name != path.name and path.with_name(name).is_file()), None)


def _backend(session: Session, wanted: Wanted) -> str:
    name = wanted.backend or ("mmdet" if wanted.adapter == METAFILE else wanted.adapter)
    return f"{name}-imported" if wanted.backend is None and has_backend(name, session.workspace) else name


def _patterns(wanted: Wanted) -> dict[str, str]:
    found = {}
    for text in wanted.patterns:
        event, equals, pattern = text.partition("=")
        if not equals:
            raise ConfigError(f"--pattern {text}: expected EVENT=PATTERN", r"--pattern 'step=iter (?P<iteration>\d+)'")
        found[event] = pattern
    return found


def _text(path: Path) -> str:
    """Read a file, also a compressed one."""
    try:
        content = read_bytes(path, MOST_BYTES)
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}", "name a file of the run"
        ) from None
    return content.decode("utf-8", errors="replace")


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _other(wanted: Wanted) -> str:
    others = [name for name in (*NAMES, METAFILE, REGEX) if name != wanted.adapter]
    return f"is it of another trainer? adapters: {', '.join(others)}"


def _print(records: Sequence[Record], wanted: Wanted) -> None:
    """Print a table of what was imported, and what a reader should know of each."""
    from zoo_bench.figures import figure
    from zoo_bench.printers import make_printer

    lines = []
    for record in records:
        train = record.measurements.train
        figures = [written(column, figure(column, record).value) for column in SHOWN]
        status = record.status if record.status != "succeeded" else ""
        lines.append([short_name(record.cell_id), status, str(train.iterations_run) if train else "", *figures])
    if records:
        title = f"Imported as {backend_of(records[0].cell_id)}"
        make_printer(markdown=False).table(
            title, ["cell", "status", "iterations", *(SHORT_HEADS[one] for one in SHOWN)], lines
        )
    said = {
        (record.cell_id, text)
        for record in records
        for text in (record.reason, *(record.origin.remarks if record.origin else ()))
    }
    for cell_id, text in sorted(said):
        if text:
            print(f"{cell_id}: {text}", file=sys.stderr)
    kept = "would be kept; --dry-run keeps none" if wanted.dry_run else "kept in results/"
    print(f"{len(records)} runs {kept}", file=sys.stderr)
