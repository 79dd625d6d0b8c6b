"""`zoo-bench check`: did anything get worse since it was accepted?"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from zoo_bench.baselines import Baseline, read_all
from zoo_bench.cell import expand
from zoo_bench.check import Finding, Scope, check_cells
from zoo_bench.check_formats import HEADS, QUIET, github, junit, lines, markdown
from zoo_bench.commands.run import run
from zoo_bench.display import plain_table, table_console
from zoo_bench.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, ConfigError, ZooBenchError, nearest
from zoo_bench.findings import Told, as_json, exit_code, merged, summary, tell
from zoo_bench.interrupts import Interrupted
from zoo_bench.provenance import MachineKey
from zoo_bench.rules import METRICS, RATES, Metric
from zoo_bench.runs import Summary
from zoo_bench.session import Asked, Session

HOUR_S = 3600.0
CUT_SHORT = "interrupted before all was run again that looked changed"
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
    with _unheard(outputs.annotations):
        session = Session.open(asked)
        _refuse(metric, outputs, ap_only=ap_only, confirm=confirm)
        begun_after_s = 0.0 if max_age_h is None else time.time() - max_age_h * HOUR_S
        here = None if max_age_h is None else session.machine_key
        scope = Scope(session.profile, begun_after_s, ap_only, metric, here, session.only_machine)
        baselines = read_all(session.store.root)
        findings = _findings(session, scope, baselines)
        _warn_of_gone(session, baselines)
        _warn_of_later(session)
        interrupted = False
        if confirm:
            interrupted = _confirm(session, findings, confirm)
            session = Session.open(asked)
            findings = _kept(findings, _findings(session, scope, baselines))
        told = tell(findings, session.runs, session.profile, session.name)
        _print(told, every=outputs.every)
    if outputs.annotations:
        print(github(told), end="")
    unwritten = _write(outputs, told, f"zoo-bench check, profile {session.profile}", interrupted=interrupted)
    for problem in unwritten:
        session.warn(f"zoo-bench: {problem}")
    if interrupted:
        session.warn(f"zoo-bench: {CUT_SHORT}")
        return EXIT_INTERRUPTED
    return exit_code(findings) or (EXIT_USAGE if unwritten else EXIT_OK)


def _refuse(metric: str | None, outputs: Outputs, *, ap_only: bool, confirm: int) -> None:
    """Raise ConfigError for what cannot be asked for together, and for reports that could not be written later."""
    if metric is not None and metric not in METRICS:
        raise ConfigError(f"--metric {metric}: no metric that is checked", nearest(metric, METRICS))
    if ap_only and metric in RATES:
        raise ConfigError(f"--ap-only leaves no {metric} to judge", "leave out one of --ap-only and --metric")
    if ap_only and confirm:
        raise ConfigError("--confirm runs nothing for --ap-only: AP is not of chance", "leave out --confirm")
    if confirm == 1:
        raise ConfigError("--confirm 1: of two runs nobody knows which is the odd one", "--confirm 4 is usual")
    paths = [path for path in (outputs.markdown, outputs.junit, outputs.json) if path]
    for path in paths:
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError(f"{path}: cannot be written", "name a file in a folder that is there")
    if len(set(paths)) < len(paths):
        raise ConfigError("two reports are to be written to one file", "give each its own")


def _kept(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """Return what is found after reruns; what they could not confirm since they failed stays accused."""
    accused = {_what(one): one for one in before if one.verdict == "regressed"}
    return [accused.get(_what(one), one) if one.verdict in ("missing", "not_comparable") else one for one in after]


def _what(finding: Finding) -> tuple[str, MachineKey | None, Metric]:
    return finding.cell_id, finding.machine, finding.metric


@contextmanager
def _unheard(on_github: bool) -> Iterator[None]:
    """Let GitHub find no commands in what is printed: workers and records have their words in it."""
    token = secrets.token_hex(16)
    if on_github:
        print(f"::stop-commands::{token}", flush=True)
    try:
        yield
    finally:
        if on_github:
            print(f"::{token}::", flush=True)


def _findings(session: Session, scope: Scope, baselines: Mapping[MachineKey, Baseline]) -> list[Finding]:
    return check_cells(session.cells, session.runs, baselines, session.matrix.check, scope, session.newest_damaged)


def _warn_of_gone(session: Session, baselines: Mapping[MachineKey, Baseline]) -> None:
    """Say which cells were accepted that the matrix has no more: nobody judges them."""
    there = {cell.id for cell in expand(session.matrix, session.profile)}
    entries = [one for baseline in baselines.values() for one in baseline.accepted]
    gone = {one.cell_id for one in entries if one.profile == session.profile} - there
    if gone:
        told = f"accepted once, and not in the matrix now: {', '.join(sorted(gone))}"
        session.warn(f"zoo-bench: {told}; nobody judges them. Their entries in results/baselines/ can be taken out")


def _warn_of_later(session: Session) -> None:
    """Name runs that are newer than now: what is run until then would stand behind them."""
    for cell in session.cells:
        later = [run for run in session.runs.of(cell.id).summaries if run.started_unix_s > time.time() + HOUR_S]
        if later:
            told = f"{cell.id}: run {later[-1].run_id} began in the future, and is its newest until then"
            session.warn(f"zoo-bench: {told}")


def _confirm(session: Session, findings: Sequence[Finding], times: int) -> bool:
    """Run what looks changed again; tell whether that was interrupted. What was found is told whatever happens here."""
    try:
        return _look_again(session, findings, times)
    except Interrupted:
        return True
    except ZooBenchError as error:
        session.warn(f"zoo-bench: nothing could be run again: {error.message}")
        return False


def _look_again(session: Session, findings: Sequence[Finding], times: int) -> bool:
    """Run what looks changed `times` times more than once tonight; tell whether Ctrl-C ended that."""
    left = _left(session, findings, times)
    for phases, cells in left.items():
        for cell_id, count in cells.items():
            mine = [one for one in findings if one.cell_id == cell_id and one.run and one.run.phases == phases]
            changed = ", ".join(one.metric for one in mine if _is_suspicious(one))
            session.warn(f"zoo-bench: {cell_id}: {changed} looks changed: {count} more runs")
    for phases, cells in left.items():
        for round_ in range(max(cells.values())):
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


def _left(session: Session, findings: Sequence[Finding], times: int) -> dict[tuple[str, ...], dict[str, int]]:
    """Return how many more runs of which cells are to be made, by the phases that measure what looks changed."""
    left: dict[tuple[str, ...], dict[str, int]] = {}
    for one in findings:
        if one.run is None or one.judged is None or not _is_suspicious(one):
            continue
        more = 1 + times - one.tonight
        if not _can_be_repeated(session, one.run):
            session.warn(f"zoo-bench: {one.cell_id}: not run again: run {one.run.run_id} was made elsewhere, or before")
        elif more > 0 and ("train" in one.run.phases or one.judged.same_model):  # only what was accepted is measured
            cells = left.setdefault(one.run.phases, {})
            cells[one.cell_id] = max(cells.get(one.cell_id, 0), more)
    return left


def _is_suspicious(finding: Finding) -> bool:
    """Tell whether another run would say more; of AP a second training with the same seed does not."""
    return finding.metric in RATES and finding.judged is not None and finding.judged.suspicious


def _can_be_repeated(session: Session, run: Summary) -> bool:
    """Tell whether a run that is made now would be of the same machine and sources."""
    now = session.current(run.cell_id.partition("/")[0])
    sources = now.sources_sha256 if now else None
    return run.machine == session.machine_key and run.inputs.sources_sha256 == sources


def _write(outputs: Outputs, told: Sequence[Told], title: str, *, interrupted: bool) -> list[str]:
    """Write the reports that were asked for; return what could not be written."""
    problems = []
    if outputs.markdown:
        # A job's summary is a file that every step adds to.
        page = markdown(told, f"{title}: {CUT_SHORT}" if interrupted else title)
        problems.append(_keep(outputs.markdown, page, "a"))
    if outputs.junit:
        problems.append(_keep(outputs.junit, junit(told, title), "w"))
    if outputs.json:
        problems.append(_keep(outputs.json, json.dumps([as_json(one) for one in told], indent=2) + "\n", "w"))
    return [problem for problem in problems if problem]


def _keep(path: Path, text: str, mode: str) -> str:
    """Write to a file; return why that cannot be done, or nothing."""
    try:
        with path.open(mode, encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        return f"{path}: cannot be written: {error.strerror or error}"
    return ""


def _print(told: Sequence[Told], *, every: bool) -> None:
    shown = [one for one in told if every or one.verdict != QUIET]
    console = table_console()
    if shown:
        grid = plain_table()
        heads = HEADS[:-1]  # what is longer stands below, where it has room
        for head in heads:
            grid.add_column(head, overflow="fold", justify="right" if head in ("before", "after") else "left")
        for line in lines(shown):
            texts = [Text(text) for text in line[: len(heads)]]
            texts[2].stylize(STYLE.get(line[2], ""))
            grid.add_row(*texts)
        console.print(grid)
    _print_details(console, shown)
    console.print(summary(told) or "nothing to check", markup=False, soft_wrap=True)


def _print_details(console: Console, shown: Sequence[Told]) -> None:
    for one in merged(shown):
        if one.explanation:
            console.print(Text(f"\n{one.cell}, {one.metric}", style="bold"))
            for text in (one.explanation, *one.details):
                console.print(Text(f"  - {text}"), soft_wrap=True)
        if one.verdict != QUIET:
            console.print(Text(f"  {': '.join(one.remedy)}"), soft_wrap=True)
