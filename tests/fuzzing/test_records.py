"""Records of a store: refused with a line that says why, or fit for every verb."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fuzzing import hostile, origins
from zoo_bench.commands.accept import accept
from zoo_bench.commands.check import Outputs, check
from zoo_bench.commands.compare import compare
from zoo_bench.commands.history import history
from zoo_bench.commands.plan import plan
from zoo_bench.commands.render import render
from zoo_bench.commands.report import report
from zoo_bench.commands.show import show
from zoo_bench.commands.status import status
from zoo_bench.document import DocumentOptions
from zoo_bench.errors import ZooBenchError
from zoo_bench.figures import MemoryDefinition
from zoo_bench.session import Asked
from zoo_bench.store import Store, read_record
from zoo_bench.text import printable

OPTIONS = (
    DocumentOptions(energy=True),
    DocumentOptions(memory=MemoryDefinition("reserved", "sum")),
    DocumentOptions(plots="plots"),
)


@cache
def workspace() -> Path:
    """A workspace with one record that is fine; the other cell's is to be put there."""
    root = origins.scratch() / "records"
    shutil.copytree(origins.zoo().root, root)
    (root / origins.record_file().relative_to(origins.zoo().root)).unlink()
    matrix = origins.zoo().matrix
    less = {"profiles": {"quick": matrix["profiles"]["quick"]}, "backbones": {"r50": {"title": "R-50"}}}
    (root / "matrix.yaml").write_text(json.dumps({**matrix, **less}), encoding="utf-8")
    return root


records = st.deferred(lambda: hostile.files(origins.record(), origins.record_file().read_bytes()))


@hostile.examined(60)
@given(records)
def test_a_record_is_refused_or_fit_for_every_verb(content: bytes) -> None:
    root = workspace()
    path = root / "results" / "fake" / "hostile" / "1.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    contents = Store(root / "results", root / ".zoo-bench" / "records.json").load()
    assert all(fit_for_terminal(problem) for problem in contents.problems.values())
    assert len(contents.runs.summaries) + len(contents.problems) == 2
    if not contents.problems:
        assert fit_for_terminal(said_by_every_verb(root, path))


def said_by_every_verb(root: Path, path: Path) -> str:
    """What all verbs print that read the store."""
    asked = Asked(root=root)
    record, other = read_record(path), origins.record(1)["run_id"]
    calls = [
        lambda: status(asked),
        lambda: plan(asked),
        *(lambda options=options: render(asked, options) for options in OPTIONS),
        lambda: show(asked, record.run_id, as_json=False),
        lambda: show(asked, record.run_id, as_json=True),
        lambda: show(asked, record.cell_id, as_json=False),
        lambda: compare(asked, str(path), other, markdown=False),
        lambda: compare(asked, other, record.run_id, markdown=True),
        lambda: accept(asked, why="whatever it is", by="a fuzzer", count=2),
        lambda: check_all(asked),
        lambda: history(asked, record.cell_id, as_json=False),
        lambda: history(asked, record.cell_id, as_json=True),
        lambda: report(asked, root / "site"),
    ]
    return said(calls)


def check_all(asked: Asked) -> int:
    return check(asked, Outputs(annotations=True, every=True), confirm=0, max_age_h=None, ap_only=False, metric=None)


def said(calls: Iterable[Callable[[], object]]) -> str:
    """What calls print; each may end in an error of ours."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        for call in calls:
            try:
                call()
            except ZooBenchError as error:
                out.write(f"{error.message} {error.hint}")
    return out.getvalue()


@cache
def accepted() -> Path:
    """The baseline of a workspace both of whose cells were accepted."""
    root = origins.scratch() / "accepted"
    shutil.copytree(origins.zoo().root, root)
    said([lambda: accept(Asked(root=root), why="a start", by="a fuzzer", count=1)])
    (file,) = (root / "results" / "baselines").glob("*.json")
    return file


baselines = st.deferred(lambda: hostile.files(json.loads(accepted().read_text()), accepted().read_bytes()))


@hostile.examined(60)
@given(baselines)
def test_a_baseline_is_refused_or_compared_with(content: bytes) -> None:
    accepted().write_bytes(content)
    assert fit_for_terminal(said([lambda: check_all(Asked(root=accepted().parents[2]))]))


def fit_for_terminal(text: str) -> bool:
    return printable(text) == text
