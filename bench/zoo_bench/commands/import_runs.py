"""`zoo-bench import`: finished runs of other programs become records."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo_bench.adapters import NAMES, REGEX, find_adapter
from zoo_bench.backends import has_backend
from zoo_bench.bounded import fault
from zoo_bench.cell import backend_of, expand, short_name
from zoo_bench.columns import Column
from zoo_bench.errors import EXIT_CELL_FAILED, EXIT_OK, ConfigError
from zoo_bench.imports.cells import imported_cell
from zoo_bench.imports.finished import FinishedRun, finished_run
from zoo_bench.imports.metafile import DEFINITIONS, Model, read_metafile
from zoo_bench.imports.records import Import, make_record, origin_files
from zoo_bench.imports.sources import Source
from zoo_bench.imports.zoo_table import TableRow, compare, config_name, read_tables, unmatched
from zoo_bench.record import Origin, Record
from zoo_bench.session import Session
from zoo_bench.store import new_run_id
from zoo_bench.units import SHORT_HEADS, written
from zoo_bench.whole import write_whole

METAFILE = "metafile"
SHOWN: tuple[Column, ...] = ("memory", "s_per_iter", "fps", "box_ap", "mask_ap")


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
    taken = {cell.id for cell in expand(session.matrix, session.profile)}
    read = _metafile if wanted.adapter == METAFILE else _logs
    found = read(session, wanted, taken)
    before = {(run.cell_id, run.fingerprint): run.run_id for run in session.runs.summaries if run.imported}
    others = {run.cell_id: run.run_id for run in session.runs.summaries if run.imported}
    records: list[Record] = []
    copies: dict[str, Source] = {}
    for one, sources in found:
        run_id = new_run_id(records[-1].run_id if records else session.store.new_run_id())
        files = _places(run_id, sources, copies)
        record = _record(session, one, run_id, sources, log=files[-1])
        earlier = before.setdefault((record.cell_id, record.fingerprint), run_id)
        if earlier != run_id:
            print(f"{record.cell_id}: imported before, as run {earlier}", file=sys.stderr)
            continue
        if record.cell_id in others:
            print(
                f"{record.cell_id}: shown in place of what was imported as run {others[record.cell_id]}",
                file=sys.stderr,
            )
        others[record.cell_id] = run_id
        copies |= dict(zip(files, sources, strict=True))
        records.append(record)
    if not wanted.dry_run:
        _keep(session, records, copies)
    _print(records, wanted)
    return EXIT_OK if all(record.status == "succeeded" for record in records) else EXIT_CELL_FAILED


def _places(run_id: str, sources: Sequence[Source], copies: Mapping[str, Source]) -> list[str]:
    """Return where the files of a run are kept: what many models share, as a metafile, once."""
    known = {id(source): file for file, source in copies.items()}
    places: list[str] = []
    for number, source in enumerate(sources):
        name = source.path.name if len(sources) == 1 else f"{number + 1}-{source.path.name}"
        places.append(known.get(id(source), f"results/runs/{run_id}/{name}"))
    return places


def _record(session: Session, one: Import, run_id: str, sources: Sequence[Source], log: str) -> Record:
    written_s = sources[-1].written_unix_s
    try:
        record = make_record(one, run_id=run_id, profile=session.profile, written_unix_s=written_s, log=log)
        return Record.model_validate_json(record.model_dump_json())  # what readers would pass over is not kept
    except ValidationError as error:
        where = ", ".join(str(source.path) for source in sources)
        raise ConfigError(
            f"{where}: no record can be made of it: {fault(error)}", "say it right with an option"
        ) from None


def _keep(session: Session, records: Sequence[Record], copies: Mapping[str, Source]) -> None:
    """Copy the files beside the logs of our own runs, and then store the records, which name them."""
    session.store.check(record.cell_id for record in records)
    for file, source in copies.items():
        write_whole(session.workspace.root / file, source.content)
    for record in records:
        session.store.add(record)


Found = tuple[Import, list[Source]]


def _logs(session: Session, wanted: Wanted, taken: Collection[str]) -> list[Found]:
    if wanted.table is not None:
        raise ConfigError(
            "--table is compared with a metafile", "zoo-bench import metafile metafile.yml --table README.md"
        )
    adapter = find_adapter(wanted.adapter, _patterns(wanted))
    sources = [Source.read(path) for path in wanted.files]
    found: list[Found] = []
    for group in [sources] if wanted.joined else [[source] for source in sources]:
        lines = (line for source in group for line in source.lines)
        run = finished_run(adapter(lines), wanted.facts.get("recipe.lr_schedule.iterations"))
        where = ", ".join(str(source.path) for source in group)
        if not run.steps and not run.scores:
            raise ConfigError(
                f"{where}: the adapter {wanted.adapter} finds no iteration and no evaluation in it", _other(wanted)
            )
        origin = Origin(adapter=wanted.adapter, files=origin_files(group))
        found.append((_import(session, wanted, taken, origin, run, where), group))
    return found


def _import(
    session: Session, wanted: Wanted, taken: Collection[str], origin: Origin, run: FinishedRun, where: str
) -> Import:
    """Give a run its cell. `taken`: the ids of the matrix's own cells."""
    facts = {**run.facts, **wanted.facts}
    iterations = run.planned or run.iterations or None
    cell = imported_cell(session.matrix, _backend(session, wanted), facts, iterations, where)
    if cell.cell.id in taken:
        raise ConfigError(
            f"{where}: {cell.cell.id} is a cell of the matrix, whose own runs it would stand for",
            "give it another backend: --backend NAME",
        )
    remarks = [*run.remarks, *_contradicted(run, wanted)]
    if run.steps and not {"gpus", "images_per_gpu"} <= set(cell.known):
        remarks.append(f"its batch is not told: {cell.cell.batch_size} images an iteration are the matrix's")
    known = origin.model_copy(update={"known": cell.known, "remarks": tuple(remarks)})
    return Import(cell, known, run)


def _contradicted(run: FinishedRun, wanted: Wanted) -> list[str]:
    """Say where the user said something else than the files."""
    told = {**run.facts, **({"recipe.lr_schedule.iterations": run.iterations} if run.steps else {})}
    return [
        f"{key} {value} is what was said when it was imported; its log tells {told[key]}"
        for key, value in wanted.facts.items()
        if key in told and told[key] != value
    ]


def _metafile(session: Session, wanted: Wanted, taken: Collection[str]) -> list[Found]:
    found: list[Found] = []
    for path in wanted.files:
        source = Source.read(path)
        models = read_metafile(path, source.text)
        table = wanted.table or _beside(path)
        rows = read_tables(Source.read(table).text) if table else ()
        origin = Origin(adapter=METAFILE, files=origin_files([source]))
        links = {row.config: row for row in reversed(rows)}
        for model in models:
            try:
                one = _import(session, wanted, taken, origin, model.finished(), f"{path}: {model.name}")
            except ConfigError as error:
                print(f"passed over: {error.message}", file=sys.stderr)
                continue
            urls = _urls(model.weights, links.get(config_name(model.config)))
            one = Import(one.cell, one.origin.model_copy(update=urls), one.finished, model.fps, DEFINITIONS)
            found.append((one, [source]))
            for problem in model.problems:
                print(f"passed over: {path}: {model.name}: {problem}", file=sys.stderr)
        _compare(path, models, table, rows)
    return found


def _compare(path: Path, models: Sequence[Model], table: Path | None, rows: Sequence[TableRow]) -> None:
    """Say in which figures a metafile and its authors' table differ."""
    if table is None:
        print(f"{path}: no table beside it to compare with (--table README.md)", file=sys.stderr)
        return
    agreed, conflicts = compare(models, rows)
    print(f"{path.name} against {table.name}: {agreed} figures agree, {len(conflicts)} do not", file=sys.stderr)
    for line in (*(conflict.text(table.name) for conflict in conflicts), *unmatched(models, rows)):
        print(f"  {line}", file=sys.stderr)


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
        lines.append([short_name(record.cell_id), record.status, str(train.iterations_run) if train else "", *figures])
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
    print(f"{len(records)} run{'s' if len(records) != 1 else ''} {kept}", file=sys.stderr)
    if records and not wanted.dry_run:
        print(f"  -> zoo-bench render --backend {backend_of(records[0].cell_id)}", file=sys.stderr)
