"""The results store: one JSON file a run, written beside and renamed into place, never changed afterwards."""

from __future__ import annotations

import calendar
import contextlib
import glob
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from zoo_bench.bounded import MIB, fault, read_bytes
from zoo_bench.errors import StoreError
from zoo_bench.record import Record
from zoo_bench.runs import Runs, Summary
from zoo_bench.store_index import Known, read_index, stamp_of, write_index
from zoo_bench.text import each_text, printable
from zoo_bench.whole import write_whole

RUNS = "runs"
CHECKPOINTS = "checkpoints"
FINGERPRINT_DIGITS = 16
LOCKS = "locks"
RUN_ID = re.compile(r"(?!9999)\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{4}")  # behind it there must be room for newer ones
NOT_RECORDS = (RUNS, CHECKPOINTS, LOCKS)
# A record takes some 10 KB; with the AP of a thousand classes 100.
MOST_BYTES = 16 * MIB
# What may stand for a character that a terminal takes for a command; that it does is looked at only then.
MAYBE_UNPRINTABLE = re.compile(rb"\\[bfru]|[^\x00-\x7e]")
UNREADABLE = (OSError, ValueError, RecursionError)


def new_run_id(after: str = "") -> str:
    """Return an id that sorts by time (UTC, milliseconds) and does not collide: ``20261123T223000.123Z-ab12``.

    It sorts behind the id `after`, also where the clock has been set back since: what is newer must count as newer.
    """
    now_s = time.time()
    moment = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now_s))}.{int(now_s % 1 * 1000):03}Z"
    last = after.partition("-")[0]
    if moment <= last:
        moment = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(_began_s(last) + 1))}.000Z"
    return f"{moment}-{secrets.token_hex(2)}"


def _began_s(run_id: str) -> int:
    """Return the Unix second that a run's id begins with. Raises ValueError where there is none like it."""
    return calendar.timegm(time.strptime(run_id[:15], "%Y%m%dT%H%M%S"))


def is_run(name: str) -> bool:
    """Tell whether a name is a run's id; 31 February is none."""
    with contextlib.suppress(ValueError):
        return RUN_ID.fullmatch(name) is not None and _began_s(name) >= 0
    return False


@dataclass(frozen=True)
class Contents:
    """The runs whose records could be read, and what is said of each file that is no record, by its path.

    Paths are relative to the results folder.
    """

    runs: Runs
    problems: Mapping[str, str]


@dataclass(frozen=True)
class Store:
    """The results folder of a workspace. `index`: a file that spares reading every record, where one is kept."""

    root: Path
    index: Path | None = None

    def new_run_id(self) -> str:
        """Return the id of a run that begins now; it sorts behind those of all runs that have left something here."""
        folder = self.root / RUNS
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        names += [Path(name).stem for name in self._names()]
        return new_run_id(next(filter(is_run, sorted(names, reverse=True)), ""))

    def run_folder(self, run_id: str) -> Path:
        """Return the folder for a run's logs, telemetry and weights."""
        return self.root / RUNS / run_id

    def checkpoint_folder(self, cell_id: str, fingerprint: str) -> Path:
        """Return the folder from which an interrupted training is resumed: of the same cell and inputs only."""
        return self.root / CHECKPOINTS / cell_id / fingerprint[:FINGERPRINT_DIGITS]

    def cell_lock(self, cell_id: str) -> Path:
        """Return the lock that whoever runs a cell holds."""
        return self.root / LOCKS / f"{cell_id}.lock"

    def check(self, cell_ids: Iterable[str]) -> None:
        """Raise StoreError when something is in the way of keeping runs of these cells."""
        for folder in (self.root / RUNS, *(self.root / cell_id for cell_id in cell_ids)):
            there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
            if not there.is_dir():
                raise StoreError(f"{there} is no folder, and runs are kept there", "move it away")
            if not os.access(there, os.W_OK | os.X_OK):
                raise StoreError(f"{there} cannot be written, and runs are kept there", "mend its permissions")

    def add(self, record: Record) -> Path:
        """Write a record so that it is wholly there or not at all, also after a power cut.

        Raises:
            StoreError: the folder cannot be written. The record is then printed into the message, not lost.
        """
        path = self.root / record.cell_id / f"{record.run_id}.json"
        text = record.model_dump_json(indent=2) + "\n"
        try:
            write_whole(path, text)
        except OSError as error:
            raise StoreError(
                f"{path}: the record cannot be written: {error.strerror or error}\n{text}",
                "free some space or mend the permissions, and save the record above under that name",
            ) from None
        return path

    def load(self) -> Contents:
        """Find all records. A file that is none is named in `problems` and passed over."""
        known = read_index(self.index) if self.index else {}
        found, problems = self._look(known)
        if self.index and found != known:
            write_index(self.index, found)
        return self._contents(found, problems)

    def _look(self, known: Mapping[str, Known]) -> tuple[dict[str, Known], dict[str, str]]:
        """Return what every file holds, by its name, and what is none; a file that is `known` is not read."""
        found: dict[str, Known] = {}
        problems: dict[str, str] = {}
        for name in sorted(self._names()):
            path, one = self.root / name, known.get(name)
            try:
                stamp = stamp_of(path)
                if one is None or one.stamp != stamp:
                    one = Known(stamp, Summary.of(_read(path)))
                    if not is_run(one.run.run_id):
                        raise ValueError(f"no run can have the id {one.run.run_id}")
                found[name] = one
            except UNREADABLE as error:
                problems[name] = printable(f"{path}: {_first_line(error)}")
        return found, problems

    def _names(self) -> list[str]:
        names = glob.glob("*/*/*.json", root_dir=self.root)
        return [name for name in names if name.partition("/")[0] not in NOT_RECORDS]

    def _contents(self, found: Mapping[str, Known], problems: Mapping[str, str]) -> Contents:
        names: dict[str, str] = {}
        copies = {}
        # Of two files with one run the one that is named after it counts.
        for name, known in sorted(found.items(), key=lambda one: (Path(one[0]).stem != one[1].run.run_id, one[0])):
            if names.setdefault(known.run.run_id, name) != name:
                copies[name] = f"{self.root / name}: its run is that of {self.root / names[known.run.run_id]}"
        read = cache(lambda run_id: read_record(self.root / names[run_id]))
        runs = (known.run for name, known in found.items() if names[known.run.run_id] == name)
        ordered = tuple(sorted(runs, key=lambda run: run.run_id))
        return Contents(Runs(ordered, lambda run: read(run.run_id)), {**problems, **copies})


def read_record(path: Path) -> Record:
    """Read one record from a file of any name.

    Raises:
        StoreError: it cannot be read, or is no record.
    """
    try:
        return _read(path)
    except UNREADABLE as error:
        raise StoreError(f"{path}: {_first_line(error)}", "name a record: a JSON file under results/") from None


def _read(path: Path) -> Record:
    content = read_bytes(path, MOST_BYTES)
    if MAYBE_UNPRINTABLE.search(content):
        content = json.dumps(each_text(json.loads(content), printable)).encode()
    return Record.model_validate_json(content)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail, newest = error.errors()[0], Record.model_fields["schema_version"].default
        if detail["loc"] == ("schema_version",) and isinstance(detail["input"], int) and detail["input"] > newest:
            return f"a newer zoo-bench wrote it: schema {detail['input']}, and this one reads {newest} at most"
    return f"not a record: {fault(error)}"
