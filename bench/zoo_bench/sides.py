"""Words a user types -> the runs to compare: one, or of every cell the newest by a date, of a backend, on a machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from zoo_bench.cell import backend_of
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.lookup import find_run, machines_called
from zoo_bench.provenance import MachineKey, machine_line
from zoo_bench.record import Record
from zoo_bench.runs import Runs

DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?)?")


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what it is called, and its runs by cell id.

    `single`: it is one run by name. `of_backend`: it is a backend; beside another one, cells of one model are a pair.
    """

    label: str
    runs: Mapping[str, Record]
    single: bool = False
    of_backend: bool = False


def side_of(run: Record) -> Side:
    """Return one run as a side."""
    status = "" if run.status == "succeeded" else f" ({run.status})"
    return Side(f"run {run.run_id}{status}, {machine_line(run)}", {run.cell_id: run}, single=True)


def find_side(word: str, runs: Runs) -> Side:
    """Find out what `word` means: a run's id, a date, a backend, or a machine.

    Of a date (UTC; a day counts to its end), a backend and a machine, the newest run of every cell that succeeded
    counts.

    Raises:
        ConfigError: it means nothing, no such date, or several machines.
    """
    run = find_run(word, runs.summaries)
    if run is not None:
        return side_of(runs.read(run))
    if DATE.fullmatch(word):
        end = _end_of(word)
        until = runs.only(run for run in runs.summaries if run.started_unix_s < end.timestamp())
        return Side(f"up to {end:%Y-%m-%d %H:%M:%S} UTC", _newest(until))
    if word in _backends(runs):
        ours = runs.only(run for run in runs.summaries if backend_of(run.cell_id) == word)
        return Side(f"backend {word}", _newest(ours), of_backend=True)
    machines = machines_called(word, _lines(runs))
    if len(machines) > 1:
        raise ConfigError(
            f"'{word}' is a part of {len(machines)} machines: {'; '.join(machines.values())}",
            "write more of the one you mean, or give machines names in machine.yaml (name: ...)",
        )
    if not machines:
        raise ConfigError(f"'{word}' is no run, date (2026-11-20), backend, machine or file", _known(word, runs))
    (key,) = machines
    of_machine = runs.only(run for run in runs.summaries if run.machine == key)
    return Side(f"machine {machines[key]}", _newest(of_machine))


def _end_of(word: str) -> datetime:
    try:
        moment = datetime.fromisoformat(word).replace(tzinfo=timezone.utc)
        return moment + (timedelta(days=1) if len(word) == len("2026-11-20") else timedelta())
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"'{word}' is no date: {error}", "write it like 2026-11-20 or 2026-11-20T18:30") from None


def _newest(runs: Runs) -> dict[str, Record]:
    newest = {run.cell_id: run for run in runs.summaries if run.status == "succeeded" and run.measured}
    return {cell_id: runs.read(run) for cell_id, run in newest.items()}


def _backends(runs: Runs) -> set[str]:
    return {backend_of(run.cell_id) for run in runs.summaries}


def _lines(runs: Runs) -> dict[MachineKey, str]:
    """Describe every machine, by the newest run there."""
    newest = {run.machine: run for run in runs.summaries}
    return {key: machine_line(runs.read(run)) for key, run in newest.items()}


def _known(word: str, runs: Runs) -> str:
    names = {run.machine[0] for run in runs.summaries} - {""}
    advice = nearest(word, {*names, *_backends(runs), *(run.run_id for run in runs.summaries)})
    if advice.startswith("did you mean"):
        return advice
    if not runs.summaries:
        return "there is no run in the store"
    machines = dict.fromkeys(_lines(runs).values())
    return f"backends in the store: {', '.join(sorted(_backends(runs)))}; machines: {'; '.join(machines)}"
