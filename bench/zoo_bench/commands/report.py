"""`zoo-bench report`: a static site from the store, to be opened from disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from zoo_bench.baselines import Baseline, read_all
from zoo_bench.cell import digest
from zoo_bench.check import Scope, check_cells
from zoo_bench.check_formats import QUIET
from zoo_bench.errors import EXIT_OK
from zoo_bench.findings import Told, tell
from zoo_bench.published import load_published
from zoo_bench.remarks import Ground
from zoo_bench.report.cell_page import CellPage
from zoo_bench.report.overview import FIGURES, TRAITS, Line, heads, our_lines, published_lines, trade_offs
from zoo_bench.report.paths import COMPARE, INDEX, RED, cell_page
from zoo_bench.report.sides import sides
from zoo_bench.report.site import Page, Site
from zoo_bench.runs import Summary
from zoo_bench.session import Asked, Session
from zoo_bench.table import Row, build_row
from zoo_bench.workspace import bundled_root

MOST_SIDES = 1500
ALWAYS_SHOWN = ("machine", "status")


def report(asked: Asked, output: Path) -> int:
    """Write the site; of a former one only the pages whose content has changed."""
    session = Session.open(asked)
    site = Site(output, bundled_root() / "templates" / "report")
    shown = _Report(session, output)
    pages = shown.pages()
    site.begin()
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("pages", total=len(pages))
        site.write(pages, lambda: progress.advance(task))
    session.warn(
        f"zoo-bench: {output / INDEX}: {site.written} of {len(pages)} pages written, the others are as they were"
    )
    return EXIT_OK


@dataclass(frozen=True)
class _Report:
    session: Session
    output: Path

    @cached_property
    def baselines(self) -> dict[Any, Baseline]:
        return read_all(self.session.store.root)

    @cached_property
    def rows(self) -> list[Row]:
        return [build_row(cell, self.session.profile, self.session.runs) for cell in self.session.cells]

    @cached_property
    def lines(self) -> list[Line]:
        backends = {cell.backend for cell in self.session.cells}
        current = {name: found for name in backends if (found := self.session.current(name))}
        ground = Ground(drivers=self.session.runs.newest_drivers(), current=current)
        return our_lines(self.session.matrix, self.rows, ground)

    @cached_property
    def published(self) -> list[Line]:
        zoos, _ = load_published()
        return list(published_lines(self.session.matrix, self.rows, zoos))

    @cached_property
    def findings(self) -> list[Told]:
        """What the check says of the newest runs; nothing where nothing was accepted."""
        if not self.baselines:
            return []
        session, scope = self.session, Scope(self.session.profile)
        found = check_cells(
            session.cells, session.runs, self.baselines, session.matrix.check, scope, session.newest_damaged
        )
        return tell(found, session.runs, session.profile, session.name)

    @property
    def _loud(self) -> list[Told]:
        return [one for one in self.findings if one.verdict != QUIET]

    def pages(self) -> list[Page]:
        """Return every page of the site."""
        lines = [asdict(one) for one in (*self.lines, *self.published)]
        matrix, profile = self.session.matrix, self.session.matrix.profile(self.session.asked.profile)
        index = digest([matrix.document.title, profile[0], profile[1].note, lines])
        told = [[one.sentence, *one.details, one.command] for one in self._loud]
        red = digest([bool(self.baselines), len(self.findings), told])
        return [
            Page(INDEX, "index.html.j2", index, self._index),
            Page(RED, "regressions.html.j2", red, self._red),
            Page(COMPARE, "compare.html.j2", digest([run.run_id for run in self._compared]), self._compare),
            *(self._cell(row, line) for row, line in zip(self.rows, self.lines, strict=True)),
        ]

    def _cell(self, row: Row, line: Line) -> Page:
        path = cell_page(row.cell.id)
        made = CellPage(self.session, row, line, self.baselines, (self.output / path).parent, heads([row]))
        return Page(path, "cell.html.j2", made.key(), made.values)

    def _index(self) -> Mapping[str, Any]:
        lines = [*self.lines, *self.published]
        charts = list(trade_offs(lines))
        choices = {trait: sorted({one.traits[trait] for one in self.lines if one.traits[trait]}) for trait in TRAITS}
        return {
            "title": self.session.matrix.document.title,
            "profile": self.session.profile,
            "note": self.session.matrix.profile(self.session.asked.profile)[1].note,
            "lines": lines,
            "choices": {trait: values for trait, values in choices.items() if len(values) > 1},
            "shown": [trait for trait in TRAITS if trait in ALWAYS_SHOWN or len(choices[trait]) > 1],
            "columns": [column for column in FIGURES if any(column in one.figures for one in lines)],
            "heads": heads(self.rows),
            "charts": charts,
            "data": {"charts": [chart.as_json() for chart in charts]},
        }

    def _red(self) -> Mapping[str, Any]:
        told = self._loud
        return {
            "title": "What is red now",
            "told": told,
            "accepted": bool(self.baselines),
            "judged": len(self.findings),
            "page": {one.finding.cell_id: cell_page(one.finding.cell_id) for one in told},
        }

    def _compare(self) -> Mapping[str, Any]:
        found = sides(self.session.runs.read(run) for run in reversed(self._compared))
        data = {"sides": found, "charts": []}
        return {"title": "Compare two runs", "data": data, "heads": heads(self.rows), "each": self._each}

    @property
    def _each(self) -> int:
        return max(1, MOST_SIDES // max(1, len(self.session.cells)))

    @cached_property
    def _compared(self) -> list[Summary]:
        """The runs that can be chosen, by cell, oldest first."""
        return [run for cell in self.session.cells for run in self.session.runs.of(cell.id).summaries[-self._each :]]
