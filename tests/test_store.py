"""The store: what it says does not depend on the index that spares reading every record."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Zoo

from zoo_bench.store import Store

INDEX = Path(".zoo-bench") / "records.json"


@pytest.fixture
def indexed(finished: Zoo, tmp_path: Path) -> Zoo:
    """A copy of a finished workspace, whose index is made."""
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True)
    zoo = Zoo(tmp_path)
    assert zoo.call("status").returncode == 0
    assert (zoo.root / INDEX).is_file()
    return zoo


def found(zoo: Zoo) -> tuple[object, ...]:
    """What the store says of its runs and its files, by way of the index."""
    contents = Store(zoo.root / "results", zoo.root / INDEX).load()
    return contents.runs.summaries, contents.problems


def record_file(zoo: Zoo, number: int) -> Path:
    """The file of a record, oldest first."""
    record = zoo.records[number]
    return zoo.root / "results" / record.cell_id / f"{record.run_id}.json"


def changed(path: Path, **values: object) -> None:
    """Write a record anew with other values, as a user's editor does."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def longer(path: Path) -> None:
    """Add a line that makes the columns of unequal length."""
    index = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(index | {"run_id": [*index["run_id"], "x"]}), encoding="utf-8")


def older(path: Path) -> None:
    """Make the index one of another version, which knows nothing of the runs."""
    index = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(index | {"made_by": "zoo-bench 0.0.1", "status": ["failed"] * len(index["file"])}))


SPOIL: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\x00{"),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "of another kind": lambda path: path.write_text("[]"),
    "of unequal columns": longer,
    "of another version": older,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("spoil", SPOIL.values(), ids=SPOIL)
def test_a_spoilt_index_changes_nothing(indexed: Zoo, spoil: Callable[[Path], object]) -> None:
    before = found(indexed)
    spoil(indexed.root / INDEX)
    assert found(indexed) == before


def test_a_record_that_was_changed_is_read_anew(indexed: Zoo) -> None:
    path = record_file(indexed, 1)
    changed(path, status="failed", reason="looked at again")
    assert "looked at again" in indexed.call("status").stdout


def test_a_record_that_was_damaged_is_named_each_time(indexed: Zoo) -> None:
    path = record_file(indexed, 1)
    path.write_text("{", encoding="utf-8")
    for _ in range(2):
        status = indexed.call("status")
        assert f"passed over: {path}: not a record" in status.stderr
        assert "never run" in status.stdout


def test_a_record_that_was_taken_away_does_not_count(indexed: Zoo) -> None:
    record_file(indexed, 0).unlink()
    assert indexed.call("status").stdout.count("never run") == 1


def test_a_run_after_the_index_was_made_counts(indexed: Zoo) -> None:
    assert indexed.call("run", "--force").returncode == 0
    assert [line.split()[2] for line in indexed.call("status").stdout.splitlines() if "succeeded" in line] == ["2", "2"]


def test_a_workspace_without_room_for_an_index_is_read_all_the_same(indexed: Zoo) -> None:
    before = indexed.call("status").stdout
    shutil.rmtree(indexed.root / INDEX.parent)
    (indexed.root / INDEX.parent).write_text("in the way", encoding="utf-8")
    status = indexed.call("status")
    assert (status.returncode, status.stdout) == (0, before)


def test_a_copy_of_a_record_is_named_and_does_not_count(indexed: Zoo) -> None:
    path = record_file(indexed, 0)
    copy = path.with_name(f"{path.stem}_old.json")
    shutil.copy(path, copy)
    changed(copy, reason="the copy")
    status = indexed.call("status")
    assert f"passed over: {copy}: its run is that of {path}" in status.stderr
    assert [line.split()[2] for line in status.stdout.splitlines() if "succeeded" in line] == ["1", "1"]


def test_a_record_whose_files_name_is_no_text_is_read(indexed: Zoo) -> None:
    path = record_file(indexed, 0)
    path.rename(os.fsdecode(os.fsencode(path.parent) + b"/\xff.json"))
    status = indexed.call("status")
    assert (status.returncode, status.stdout.count("succeeded")) == (0, 2)
