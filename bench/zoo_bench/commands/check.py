"""`zoo-bench check`: did anything get worse since it was accepted?"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from zoo_bench.check import Finding, Scope, check_cell
from zoo_bench.check_formats import HEADS, QUIET, github, junit, line, markdown
from zoo_bench.commands.run import run
from zoo_bench.display import plain_table, table_console
from zoo_bench.errors import EXIT_INTERRUPTED, ConfigError, ZooBenchError, nearest
from zoo_bench.findings import Told, as_json, exit_code, summary, tell
from zoo_bench.rules import METRICS, RATES
from zoo_bench.session import Asked, Session

HOUR_S = 3600.0
STYLE = {"regressed": "red", "missing": "red", "not comparable": "yellow", "improved": "green"}


@dataclass(frozen=True)
class Outputs:
    """Where the verdicts go, beside the terminal. `annotations`: for GitHub, on stdout."""

    markdown: Path | None = None
    junit: Path | None = None
    json: Path | None = None
    annotations: bool = False
    every: bool = False


def check(
    asked: Asked, outputs: Outputs, *, confirm: int, max_age_h: float | None, ap_only: bool, metric: str | None
) -> int:
    """Print the verdicts; 3 when something regressed, 1 when something is missing, 4 when something has no baseline.

    With `confirm`, cells that look changed are first run so many times more.
    """
    session = Session.open(asked)
    begun_after_s = 0.0 if max_age_h is None else time.time() - max_age_h * HOUR_S
    if metric is not None and metric not in METRICS:
        raise ConfigError(f"--metric {metric}: no metric that is checked", nearest(metric, METRICS))
    scope = Scope(session.profile, begun_after_s, ap_only, metric)
    findings = _findings(session, scope)
    interrupted = False
    if confirm:
        try:
            interrupted = _look_again(session, findings, confirm)
        except ZooBenchError as error:  # what was found must be told all the same
            session.warn(f"zoo-bench: nothing could be run again: {error.message}")
        session = Session.open(asked)
        findings = _findings(session, scope)
    told = tell(findings, session.runs, session.profile, session.name)
    title = f"zoo-bench check, profile {session.profile}"
    _write(outputs, told, title)
    _print(told, outputs)
    return EXIT_INTERRUPTED if interrupted else exit_code(findings)


def _findings(session: Session, scope: Scope) -> list[Finding]:
    machines = {run.machine for cell in session.cells for run in session.runs.of(cell.id).summaries}
    baselines = {machine: session.baseline(machine) for machine in machines}
    return [
        finding
        for cell in session.cells
        for finding in check_cell(cell, session.runs, baselines, session.matrix.check, scope)
    ]


def _look_again(session: Session, findings: Sequence[Finding], times: int) -> bool:
    """Run what looks changed `times` times more than once tonight; tell whether Ctrl-C ended that."""
    left: dict[tuple[str, ...], dict[str, int]] = {}
    for one in findings:
        # A second training with the same seed says nothing of AP.
        if one.metric in RATES and one.judged is not None and one.judged.suspicious and one.run is not None:
            cells = left.setdefault(one.run.phases, {})
            cells[one.cell_id] = max(cells.get(one.cell_id, 0), 1 + times - one.tonight)
    for phases, cells in left.items():
        for round_ in range(max(cells.values(), default=0)):
            chosen = [cell for cell, count in cells.items() if count > round_]
            again = replace(
                session.asked,
                profile=session.profile,
                select=" ".join(chosen),
                skip=None,
                phases=",".join(phases),
                accepted="train" not in phases,
                force=True,
            )
            if run(again, dry_run=False, trial=False) == EXIT_INTERRUPTED:
                return True
    return False


def _write(outputs: Outputs, told: Sequence[Told], title: str) -> None:
    if outputs.markdown:
        # A job's summary is a file that every step adds to.
        _keep(outputs.markdown, markdown(told, title), "a")
    if outputs.junit:
        _keep(outputs.junit, junit(told, title), "w")
    if outputs.json:
        _keep(outputs.json, json.dumps([as_json(one) for one in told], indent=2) + "\n", "w")


def _keep(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}", "name a file in a folder") from None


def _print(told: Sequence[Told], outputs: Outputs) -> None:
    if outputs.annotations:
        print(github(told), end="")
    shown = [one for one in told if outputs.every or one.verdict != QUIET]
    console = table_console()
    if shown:
        grid = plain_table()
        for head in HEADS:
            grid.add_column(head, overflow="fold", justify="right" if head in ("before", "after") else "left")
        for one in shown:
            texts = [Text(text) for text in line(one)]
            texts[2].stylize(STYLE.get(one.verdict, ""))
            grid.add_row(*texts)
        console.print(grid)
    _print_details(console, shown)
    console.print(summary(told) or "nothing to check", markup=False, soft_wrap=True)


def _print_details(console: Console, shown: Sequence[Told]) -> None:
    for one in shown:
        if one.verdict in ("regressed", "improved"):
            console.print(Text(f"\n{one.cell}, {one.metric}", style="bold"))
            for text in one.surroundings or ("nothing else that the records hold differs from the last good run",):
                console.print(Text(f"  - {text}"), soft_wrap=True)
            console.print(Text(f"  again: {one.command}"), soft_wrap=True)
