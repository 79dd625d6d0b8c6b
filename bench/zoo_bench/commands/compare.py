"""`zoo-bench compare`: two sides of our own, or ours and what other zoos have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo_bench.beside import Comparison, put_beside, throughput_beside
from zoo_bench.cell import short_name
from zoo_bench.columns import Column
from zoo_bench.compare import Compared, compare_figures, unlike
from zoo_bench.errors import EXIT_OK, ConfigError
from zoo_bench.figures import Figure
from zoo_bench.printers import Printer, make_printer
from zoo_bench.published import Source, Zoo, load_published
from zoo_bench.record import Record
from zoo_bench.runs import Runs
from zoo_bench.session import Asked, Session
from zoo_bench.sides import Side, find_side, side_of
from zoo_bench.store import read_record
from zoo_bench.units import HOST_MEMORY_HEAD, SHORT_HEADS, percent_change, written


def compare(asked: Asked, a: str, b: str, *, markdown: bool) -> int:
    """Print, cell by cell, the figures of both sides and the change, then what differs in how they came about."""
    session = Session.open(asked)
    if asked.profile is not None:
        session.matrix.profile(asked.profile)
    runs = session.runs.only(run for run in session.runs.summaries if asked.profile in (None, run.profile))
    left, right = _side(a, runs), _side(b, runs)
    pairs = _pairs(left, right)
    printer = make_printer(markdown=markdown)
    printer.text(f"A: {left.label}")
    printer.text(f"B: {right.label}")
    for title, (mine, theirs) in pairs.items():
        on_host = mine.cell["gpus"] == 0 and theirs.cell["gpus"] == 0
        lines = [_line(compared, on_host=on_host) for compared in compare_figures(mine, theirs)]
        printer.table(title, ("", "A", "B", "change", ""), lines or [["no figure", "", "", "", ""]])
    for differences, titles in _grouped({title: unlike(*pair) for title, pair in pairs.items()}).items():
        every = "every cell" if len(titles) == len(pairs) else ", ".join(titles)
        printer.items(f"What differs from A to B, {every}", differences or ("nothing that the records hold",))
    return EXIT_OK


def compare_published(asked: Asked, source: str | None, *, markdown: bool) -> int:
    """Print our figures beside those of other zoos, a table a detector, with a mark where they are not of one kind."""
    session = Session.open(asked)
    zoos, throughput = load_published(source)
    arguments = (session.matrix, asked.profile, session.runs)
    printer = make_printer(markdown=markdown)
    for comparison in (*put_beside(*arguments, zoos), *throughput_beside(*arguments, throughput)):
        _print_comparison(printer, comparison)
    printer.marks()
    printer.items("Sources", [_described(found) for found in (*zoos, *throughput)])
    return EXIT_OK


def _side(word: str, runs: Runs) -> Side:
    path = Path(word)
    return side_of(read_record(path)) if path.is_file() else find_side(word, runs)


def _pairs(a: Side, b: Side) -> dict[str, tuple[Record, Record]]:
    """Return the two runs of every cell that both sides have; of two backends, of every model that both have.

    Of two single runs these, whatever their cells.
    """
    if a.single and b.single:
        (mine,), (theirs,) = a.runs.values(), b.runs.values()
        title = mine.cell_id if mine.cell_id == theirs.cell_id else f"{mine.cell_id} and {theirs.cell_id}"
        return {title: (mine, theirs)}
    name = short_name if a.of_backend and b.of_backend else str
    others = {name(cell): run for cell, run in b.runs.items()}
    pairs = {name(cell): (run, others[name(cell)]) for cell, run in a.runs.items() if name(cell) in others}
    if not pairs:
        raise ConfigError(
            f"no cell has a run on both sides: {a.label} has {_named(a)}; {b.label} has {_named(b)}",
            "only runs that succeeded count; zoo-bench status shows them",
        )
    return pairs


def _named(side: Side) -> str:
    return ", ".join(side.runs) or "none"


def _line(compared: Compared, *, on_host: bool) -> list[str]:
    head = HOST_MEMORY_HEAD if on_host and compared.column == "memory" else SHORT_HEADS[compared.column]
    change = "" if compared.change is None else percent_change(compared.change)
    values = [_with_interval(compared.column, side) for side in (compared.a, compared.b)]
    return [head, *values, change, compared.remark or compared.verdict]


def _with_interval(column: Column, figure: Figure) -> str:
    value = written(column, figure.value, more_digits=1)
    if figure.interval is None:
        return value
    low, high = (written(column, bound, more_digits=1) for bound in (figure.interval.low, figure.interval.high))
    return f"{value} ({low} to {high})"


def _grouped(differences: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], list[str]]:
    """Put the cells together that differ in the same."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for title, found in differences.items():
        groups.setdefault(tuple(found), []).append(title)
    return groups


def _print_comparison(printer: Printer, comparison: Comparison) -> None:
    lines: list[list[str]] = []
    for line in comparison.lines:
        cell = line.cell if not lines or line.whose == "ours" else ""
        entries = [line.entries.get(head) for head in comparison.heads]
        figures = [printer.marked(entry.text, entry.differs) if entry else "" for entry in entries]
        lines.append([cell, line.whose, *figures])
    columns: Mapping[str, str] = {str(column): head for column, head in SHORT_HEADS.items()}
    heads = [columns.get(head, head) for head in comparison.heads]
    printer.table(comparison.title, ("", "", *heads), lines)


def _described(source: Source) -> str:
    hardware = source.hardware.text if isinstance(source, Zoo) else ""
    software = ", ".join(f"{name} {version}" for name, version in source.software.items())
    note = f" {source.note}" if isinstance(source, Zoo) else ""
    surroundings = ", ".join(filter(None, [hardware, software]))
    return f"{source.title} ({source.version}){': ' if surroundings else ''}{surroundings}.{note} {source.url}"
