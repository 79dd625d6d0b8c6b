"""Records of a store: refused with a line that says why, or fit for every verb."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fuzzing import hostile, origins
from zoo_bench.commands.compare import compare
from zoo_bench.commands.plan import plan
from zoo_bench.commands.render import render
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
    assert all(fit_for_terminal(problem) for problem in contents.problems)
    assert len(contents.runs.summaries) + len(contents.problems) == 2
    if not contents.problems:
        assert fit_for_terminal(said_by_every_verb(root, path))


def said_by_every_verb(root: Path, path: Path) -> str:
    """What all verbs print that read the store; each may end in an error of ours."""
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
    ]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        for call in calls:
            try:
                call()
            except ZooBenchError as error:
                out.write(f"{error.message} {error.hint}")
    return out.getvalue()


def fit_for_terminal(text: str) -> bool:
    return printable(text) == text
