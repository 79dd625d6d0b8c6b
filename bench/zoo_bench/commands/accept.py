"""`zoo-bench accept`: make runs the reference that `check` compares with."""

from __future__ import annotations

import getpass
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from rich.text import Text

from zoo_bench.baselines import MOST_TEXT, Accepted, Baseline, accept_in
from zoo_bench.cell import Cell
from zoo_bench.display import plain_table, table_console
from zoo_bench.errors import EXIT_OK, ConfigError
from zoo_bench.matrix import Check
from zoo_bench.nights import is_evidence, newest_alike, newest_by_model, of_one_state
from zoo_bench.provenance import MachineKey, machine_text
from zoo_bench.revision import git
from zoo_bench.rules import METRICS, RATES, Metric
from zoo_bench.runs import Summary
from zoo_bench.session import Asked, Session
from zoo_bench.text import printable
from zoo_bench.units import SHORT_HEADS, written

RunsByCell: TypeAlias = Mapping[str, Sequence[Summary]]
"""The runs that might be accepted of each chosen cell, by its id, oldest first."""


def accept(asked: Asked, *, why: str, by: str | None, count: int) -> int:
    """Accept, of every chosen cell and for every metric, the newest `count` runs that can be compared."""
    session = Session.open(asked)
    reason = _text("--why", why)
    name = _user(session.workspace.root) if by is None else _text("--by", by)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    runs = {cell.id: _runs(session, cell) for cell in session.cells}
    machine = _machine(session, runs)
    accepted: list[Accepted] = []
    chosen: dict[str, dict[Metric, list[Summary]]] = {}
    for cell in session.cells:
        here = [run for run in runs[cell.id] if run.machine == machine]
        by_metric = {one: found for one in METRICS if (found := _chosen(cell, here, one, count, session.matrix.check))}
        for metrics, ids in _grouped(by_metric):
            entry = Accepted(
                cell_id=cell.id, profile=session.profile, metrics=metrics, runs=ids, by=name, why=reason, on=today
            )
            accepted.append(entry)
        if by_metric:
            chosen[cell.id] = by_metric
    if machine is None or not accepted:
        raise _nothing_to_accept(session, runs, machine)
    before = session.baseline(machine)
    after = accept_in(session.store.root, machine, accepted)
    session.warn(f"zoo-bench: {len(chosen)} cell{'s' if len(chosen) > 1 else ''} accepted in {after.path}")
    for cell_id, by_metric in chosen.items():
        _warn_of_few(session, cell_id, by_metric, count, before)
    _print(session, runs, chosen, before)
    return EXIT_OK


def _nothing_to_accept(session: Session, runs: RunsByCell, machine: MachineKey | None) -> ConfigError:
    others = {run.machine for mine in runs.values() for run in mine} - {machine}
    named = sorted(shlex.quote(machine_text(one)) for one in others)
    there = f"; others ran some: --machine {' or '.join(named)}" if named else ""
    return ConfigError(
        f"profile {session.profile}: none of these cells has a run that could be accepted",
        f"zoo-bench status shows how they ended; zoo-bench run first{there}",
    )


def _warn_of_few(
    session: Session, cell_id: str, by_metric: Mapping[Metric, Sequence[Summary]], count: int, before: Baseline
) -> None:
    """Say where fewer runs are accepted than were asked for, or than those in whose place they come."""
    timed = [metric for metric in by_metric if metric in RATES]  # a model may be one, however often it was evaluated
    fewest = min(timed or by_metric, key=lambda metric: len(by_metric[metric]))
    now, then = len(by_metric[fewest]), len(before.of_metric(cell_id, session.profile, fewest))
    if now < count:
        session.warn(f"zoo-bench: {cell_id}: {now} of {count} runs accepted: no more of one state could be compared")
    if now < then:
        session.warn(f"zoo-bench: {cell_id}: {now} in place of {then} runs: less is known of what is normal")


def _text(option: str, given: str) -> str:
    """Return what stands in the baseline for what was typed. Raises ConfigError for nothing, or too much."""
    text = printable(given.strip())
    if not text or len(text) > MOST_TEXT:
        raise ConfigError(
            f"{option} needs a text, of {MOST_TEXT:,} characters at most", "it stands beside the runs in the diff"
        )
    return text


def _runs(session: Session, cell: Cell) -> list[Summary]:
    return [run for run in session.runs.of(cell.id).summaries if run.profile == session.profile and run.measured]


def _machine(session: Session, by_cell: RunsByCell) -> MachineKey | None:
    """Return the machine that was named, else this one if it ran any of the cells, else the one of the newest run."""
    runs = [run for mine in by_cell.values() for run in mine]
    if session.only_machine or any(run.machine == session.machine_key for run in runs):
        return session.only_machine or session.machine_key
    return max(runs, key=lambda run: run.run_id).machine if runs else None


def _chosen(cell: Cell, runs: Sequence[Summary], metric: Metric, count: int, check: Check) -> list[Summary]:
    """Return the runs to accept for a metric, oldest first: those that can be compared with the newest that counts.

    AP is of models: each counts once, however often it was evaluated.
    """
    fitting = newest_alike([run for run in runs if is_evidence(run, metric, cell, check)], metric)
    return (of_one_state(fitting) if metric in RATES else newest_by_model(fitting))[-count:]


def _grouped(by_metric: Mapping[Metric, Sequence[Summary]]) -> list[tuple[tuple[Metric, ...], tuple[str, ...]]]:
    """Return the ids of runs, with the metrics that each of these sets stands for."""
    found: dict[tuple[str, ...], list[Metric]] = {}
    for metric, runs in by_metric.items():
        found.setdefault(tuple(run.run_id for run in runs), []).append(metric)
    return [(tuple(metrics), ids) for ids, metrics in found.items()]


def _print(
    session: Session, runs: RunsByCell, chosen: Mapping[str, Mapping[Metric, Sequence[Summary]]], before: Baseline
) -> None:
    """Print what is accepted now, and where it is another figure what was."""
    table = plain_table()
    table.add_column("cell", overflow="fold")
    for metric in METRICS:
        table.add_column(SHORT_HEADS[metric], justify="right", no_wrap=True)
    table.add_column("runs", overflow="fold")
    for cell in session.cells:
        by_metric, figures = chosen.get(cell.id, {}), []
        for metric in METRICS:
            then_ids = before.of_metric(cell.id, session.profile, metric)
            then = [run for run in runs[cell.id] if run.run_id in then_ids]
            now, was = _figures(by_metric.get(metric, ()), metric), _figures(then, metric)
            figures.append(f"{now}\nwas {was}" if now and was not in ("", now) else now)
        ids = sorted({run.run_id for mine in by_metric.values() for run in mine})
        named = ", ".join(ids) or _why_none(runs[cell.id], before.machine)
        table.add_row(Text(session.name(cell.id)), *figures, Text(named))
    table_console().print(table)


def _why_none(runs: Sequence[Summary], machine: MachineKey) -> str:
    elsewhere = {machine_text(run.machine) for run in runs if run.machine != machine}
    ran = f"run on {' and '.join(sorted(elsewhere))}: name it with --machine" if elsewhere else "no run to accept"
    return f"none: {ran}"


def _figures(runs: Sequence[Summary], metric: Metric) -> str:
    values = [run.figures[metric] for run in runs if metric in run.figures]
    texts = dict.fromkeys(written(metric, value) for value in (min(values), max(values))) if values else {}
    return " to ".join(texts)


def _user(root: Path) -> str:
    """Return who is at the keyboard, as git knows them, else as the system does."""
    name = printable((git(root, "config", "user.name") or "").strip())[:MOST_TEXT]
    try:
        return name or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
