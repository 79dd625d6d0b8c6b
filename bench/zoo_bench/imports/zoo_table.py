"""The tables of a README that was written by hand, compared with the metafile beside it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zoo_bench.imports.metafile import Model

CELL = re.compile(r"(?<!\\)\|")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
HEADS = {"mem": "Mem (GB)", "inf time": "Inf time (fps)", "box ap": "box AP", "mask ap": "mask AP"}
NOTHING = ("", "-", "\u2013", "\u2014")


@dataclass(frozen=True)
class TableRow:
    """One row: its line, the name of its configuration file, what stands under each known head, its links by name."""

    line: int
    config: str
    printed: dict[str, str]
    links: dict[str, str]


@dataclass(frozen=True)
class Conflict:
    """A figure that the two do not have alike. `line`: of the table."""

    model: str
    head: str
    metafile: str
    table: str
    line: int

    def text(self, table: str) -> str:
        """Say it in a line; `table` is the file's name."""
        theirs = f"'{self.table}'" if self.table in NOTHING else self.table
        return (
            f"{self.model}: {self.head}: {self.metafile or 'nothing'} in the metafile, {theirs} in {table}:{self.line}"
        )


def read_tables(text: str) -> tuple[TableRow, ...]:
    """Return the rows, of all tables of a Markdown document, that link a configuration."""
    heads: list[str] = []
    rows: list[TableRow] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("|"):
            heads = []
            continue
        cells = [cell.strip() for cell in CELL.split(line.strip().strip("|"))]
        if not heads:
            heads = [_head(cell) for cell in cells]
            continue
        links = {name: target for cell in cells for name, target in LINK.findall(cell)}
        config = next((target for target in links.values() if target.endswith(".py")), "")
        if config:
            printed = {head: cell for head, cell in zip(heads, cells, strict=False) if head in HEADS.values()}
            rows.append(TableRow(number, _file(config), printed, links))
    return tuple(rows)


def compare(models: Sequence[Model], rows: Sequence[TableRow]) -> tuple[int, tuple[Conflict, ...]]:
    """Return how many figures agree, at the digits of the table, and those that do not."""
    by_config = {_file(model.config): model for model in models}
    agreed, conflicts = 0, []
    for row in rows:
        model = by_config.get(row.config)
        for head, printed in row.printed.items() if model else ():
            mine = _value(model, head) if model else None
            if mine is None and printed in NOTHING:
                continue
            if mine is not None and printed not in NOTHING and _same(mine, printed):
                agreed += 1
            elif model:
                conflicts.append(Conflict(model.name, head, _written(mine, printed), printed, row.line))
    return agreed, tuple(conflicts)


def unmatched(models: Sequence[Model], rows: Sequence[TableRow]) -> Iterator[str]:
    """Name the models that no row is of, and the rows that no model is of."""
    mine, theirs = {_file(model.config): model.name for model in models}, {row.config: row.line for row in rows}
    yield from (f"{name} stands in no table" for config, name in mine.items() if config not in theirs)
    yield from (
        f"line {line}: {config} is not in the metafile" for config, line in theirs.items() if config not in mine
    )


def _head(text: str) -> str:
    lowered = text.lower()
    return next((head for word, head in HEADS.items() if lowered.startswith(word)), text)


def _file(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".py")


def _value(model: Model, head: str) -> float | None:
    return {"Mem (GB)": model.memory_gb, "Inf time (fps)": model.fps, "box AP": model.box_ap, "mask AP": model.mask_ap}[
        head
    ]


def _same(value: float, printed: str) -> bool:
    return _written(value, printed) == printed.strip("* ")


def _written(value: float | None, printed: str) -> str:
    """Write a number with as many digits as the table has."""
    if value is None:
        return ""
    digits = len(printed.partition(".")[2].strip("* ")) if "." in printed else (0 if printed.isdigit() else 1)
    return f"{value:.{digits}f}"
