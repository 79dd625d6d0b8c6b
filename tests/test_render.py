"""The document: the seed when nothing was measured, figures with their provenance when something was."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from conftest import MATRIX, REPOSITORY, Zoo

from zoo_bench.load import load_matrix
from zoo_bench.markdown import escape, link, table
from zoo_bench.record import Record
from zoo_bench.render import render


def normal(text: str) -> list[str]:
    """The lines of a document, whatever its white space and the length of its table rules."""
    squeezed = (re.sub(r"\s*\|\s*", "|", re.sub(r"-+", "-", " ".join(line.split()))) for line in text.splitlines())
    return [line for line in squeezed if line]


def document(records: tuple[Record, ...] = (), matrix: Path = MATRIX, templates: Path | None = None) -> str:
    return render(load_matrix(matrix), None, records, [templates or REPOSITORY / "templates"])


def test_with_an_empty_store_it_is_the_seed_but_for_two_misspelt_headings() -> None:
    seed = os.environ.get("ZOO_BENCH_SEED")
    if not seed:
        pytest.skip("ZOO_BENCH_SEED is not set; it names the seed document")
    text = (
        Path(seed).read_text(encoding="utf-8").replace("Benckmark", "Benchmark").replace("Environmnet", "Environment")
    )
    assert normal(document()) == normal(text)


def test_with_an_empty_store_every_cell_has_a_blank_row() -> None:
    lines = normal(document())
    assert [line for line in lines if line.startswith("#")] == [
        "# Benchmark and Model Zoo", "## Environment", "### Hardware", "### Software environment", "## Common setting",
        "### Faster RCNN", "### FPN", "### Mask RCNN", "### RetinaNet",
    ]  # fmt: skip
    assert lines.count("|R-50|1x|||||||") == 1
    assert lines.count("|R-50|1x||||||") == 3
    assert "- 8 NVIDIA Tesla V100 GPUs" in lines
    assert "- All baseline were trained using 8 GPUs with a batch size of 16 (2 images per GPU)." in lines


def test_records_fill_environment_and_tables(finished: Zoo) -> None:
    done = finished.call("render")
    assert done.returncode == 0
    lines = normal(done.stdout)
    row = next(line for line in lines if line.startswith("|R-50|1x|"))
    mask = finished.records[0]
    assert mask.measurements.train is not None
    assert f"|{mask.measurements.train.mean_s:.3f}|" in row
    assert "|37.5|34.1|" in row
    assert mask.checkpoint is not None
    assert f"[model]({mask.checkpoint.file})" in row
    assert "|Backbone|Lr schd|Host mem (GB)[^1]|" in next(line for line in lines if "|mask AP|" in line)
    assert "- All models were trained on 'shapes_train', and tested on the 'shapes_val'." in lines
    assert "V100" not in done.stdout
    assert done.stderr == ""


def changed(record: Record, **values: object) -> Record:
    """A copy of a record that came later."""
    return record.model_copy(update={"run_id": "99999999T000000Z-ffffff", **values})


def cells_of(text: str, heading: str) -> list[str]:
    lines = normal(text.split(f"### {heading}", 1)[1])
    return next(line for line in lines if line.startswith("|R-50|"))[1:-1].split("|")


def test_columns_of_a_row_may_come_from_two_runs_of_one_recipe_and_a_footnote_says_so(finished: Zoo) -> None:
    first = finished.records[0]
    train = first.measurements.train
    assert train is not None
    faster = first.measurements.model_copy(
        update={"train": train.model_copy(update={"mean_s": 0.123}), "scores": None, "infer": None}
    )
    later = changed(first, measurements=faster, checkpoint=None)
    text = document((first, later), finished.root / "matrix.yaml")
    cells = cells_of(text, "Mask RCNN")
    assert cells[3].startswith("0.123")
    assert cells[5].startswith("37.5")
    assert re.search(r"From several runs of one recipe: .*Train time.* from 99999999T000000Z-ffffff; ", text)


def test_another_recipe_never_lends_a_column(finished: Zoo) -> None:
    first = finished.records[0]
    train = first.measurements.train
    assert train is not None
    other = changed(
        first,
        recipe_sha256="0" * 64,
        measurements=first.measurements.model_copy(update={"train": train.model_copy(update={"mean_s": 9.9})}),
    )
    assert "9.9" not in document((first, other), finished.root / "matrix.yaml")


def test_a_recipe_the_matrix_has_left_is_told(finished: Zoo) -> None:
    text = (finished.root / "matrix.yaml").read_text(encoding="utf-8").replace("images_per_gpu: 2", "images_per_gpu: 4")
    other = finished.root / "wider.yaml"
    other.write_text(text, encoding="utf-8")
    assert "other values than the matrix has now: images_per_gpu: 2 -> 4" in document(finished.records, other)


def test_a_trial_of_another_profile_never_stands_in_for_the_published_recipe(finished: Zoo) -> None:
    trial = tuple(
        record.model_copy(update={"profile": "trial", "recipe_sha256": "0" * 64}) for record in finished.records
    )
    assert cells_of(document(trial, finished.root / "matrix.yaml"), "Mask RCNN")[2:] == [""] * 6


def test_a_failed_cell_shows_its_status_and_why(finished: Zoo) -> None:
    failed = changed(
        finished.records[0],
        status="diverged",
        reason="loss is | <b>NaN</b>\n# so",
        phases_done=(),
        checkpoint=None,
    )
    text = document((failed,), finished.root / "matrix.yaml")
    cells = cells_of(text, "Mask RCNN")
    assert cells[2].startswith("diverged[^")
    assert "diverged: loss is \\| &lt;b>NaN&lt;/b> # so" in text


def test_quarantined_runs_are_never_rendered(finished: Zoo) -> None:
    spoilt = tuple(record.model_copy(update={"status": "quarantined"}) for record in finished.records)
    text = document(spoilt, finished.root / "matrix.yaml")
    assert cells_of(text, "Mask RCNN")[2:] == [""] * 6


def test_fps_of_an_unfinished_model_stays_blank_with_a_reason(finished: Zoo) -> None:
    first = finished.records[0]
    assert first.checkpoint is not None
    untrained = changed(first, checkpoint=first.checkpoint.model_copy(update={"trained": False}))
    text = document((untrained,), finished.root / "matrix.yaml")
    assert cells_of(text, "Mask RCNN")[4] == ""
    assert "had not finished its training" in text


def test_a_profiles_note_stands_at_the_head() -> None:
    smoke = render(load_matrix(MATRIX), "smoke", (), [REPOSITORY / "templates"])
    assert "This is a smoke run" in smoke.split("## Environment")[0]
    assert "This is a smoke run" not in document()


@pytest.mark.parametrize(
    "value", ["a|b", "a\nb|\n|c", "<script>x</script>", "[x](y)", "`|`", "\\|", "*b*", "\x1b[31m\u2028|"]
)
def test_no_value_breaks_a_table(value: str) -> None:
    lines = table(["head", "tail"], [[escape(value), escape("end")]]).splitlines()
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3
    assert "<" not in lines[2]
    assert "[x](" not in lines[2]


def test_a_link_cannot_be_left() -> None:
    assert link("log", "a b)|(c].txt") == "[log](a%20b%29%7C%28c%5D.txt)"


@pytest.mark.parametrize(
    "template",
    ["{{ nothing_of_the_kind }}", "{% if %}", "{{ ''.__class__.__mro__ }}", "{% include 'parts/none.j2' %}"],
)
def test_a_wrong_template_is_a_readable_error(zoo: Zoo, template: str) -> None:
    folder = zoo.root / "templates"
    folder.mkdir()
    (folder / "model_zoo.md.j2").write_text(template)
    done = zoo.call("render")
    assert done.returncode == 2
    assert "template" in done.stderr
