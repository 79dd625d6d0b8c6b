"""Words a user types -> the runs to compare: one, or of every cell the newest by a date, of a backend, on a machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from zoo_bench.cell import backend_of
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.lookup import find_run
from zoo_bench.provenance import MachineKey, machine_key, machine_line, machine_name
from zoo_bench.record import Record

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


def find_side(word: str, records: Sequence[Record]) -> Side:
    """Find out what `word` means: a run's id, a date, a backend, or a machine. `records` are oldest first.

    Of a date (UTC; a day counts to its end), a backend and a machine, the newest run of every cell that succeeded
    counts.

    Raises:
        ConfigError: it means nothing, no such date, or several machines.
    """
    run = find_run(word, records)
    if run is not None:
        return side_of(run)
    if DATE.fullmatch(word):
        end = _end_of(word)
        return Side(
            f"up to {end:%Y-%m-%d %H:%M:%S} UTC", _newest(r for r in records if r.started_unix_s < end.timestamp())
        )
    if word in _backends(records):
        ours = (record for record in records if backend_of(record.cell_id) == word)
        return Side(f"backend {word}", _newest(ours), of_backend=True)
    machines = _machines(word, records)
    if len(machines) > 1:
        raise ConfigError(
            f"'{word}' is a part of {len(machines)} machines: {'; '.join(machines.values())}",
            "write more of the one you mean, or give machines names in machine.yaml (name: ...)",
        )
    if not machines:
        raise ConfigError(f"'{word}' is no run, date (2026-11-20), backend, machine or file", _known(word, records))
    (key,) = machines
    return Side(f"machine {machines[key]}", _newest(record for record in records if machine_key(record) == key))


def _end_of(word: str) -> datetime:
    try:
        moment = datetime.fromisoformat(word).replace(tzinfo=timezone.utc)
        return moment + (timedelta(days=1) if len(word) == len("2026-11-20") else timedelta())
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"'{word}' is no date: {error}", "write it like 2026-11-20 or 2026-11-20T18:30") from None


def _newest(records: Iterable[Record]) -> dict[str, Record]:
    return {record.cell_id: record for record in records if record.status == "succeeded" and record.measured}


def _backends(records: Iterable[Record]) -> set[str]:
    return {backend_of(record.cell_id) for record in records}


def _machines(word: str, records: Sequence[Record]) -> dict[MachineKey, str]:
    """Return the machines whose name is `word`; without any, those that have it in their description."""
    described = {machine_key(record): machine_line(record) for record in records}
    named = {key: line for key, line in described.items() if key[0] == word}
    return named or {key: line for key, line in described.items() if word.lower() in line.lower()}


def _known(word: str, records: Sequence[Record]) -> str:
    names = {machine_name(record) for record in records} - {""}
    advice = nearest(word, {*names, *_backends(records), *(record.run_id for record in records)})
    if advice.startswith("did you mean"):
        return advice
    machines = dict.fromkeys(machine_line(record) for record in records)
    if not machines:
        return "there is no run in the store"
    return f"backends in the store: {', '.join(sorted(_backends(records)))}; machines: {'; '.join(machines)}"
