"""`verify`: a published document against the store, hand-edited, stale, copied, or in a clean clone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import MATRIX, Zoo
from records import changed, with_measurements

from zoo_bench.document import DEFAULT_OPTIONS, DocumentOptions, comment, memory_definition, options_of
from zoo_bench.errors import ConfigError
from zoo_bench.load import load_matrix
from zoo_bench.store import Store


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Zoo, str]:
    """A workspace with two backbones for Mask R-CNN, and its document."""
    zoo = Zoo(tmp_path_factory.mktemp("published"))
    zoo.change({"axes": {"detector": ["mask-rcnn_fpn"], "backbone": ["r50", "r101"]}})
    zoo.change({"profiles": {"quick": {"overrides": [{"select": "*r101*", "set": {"options": {"box_ap": 0.391}}}]}}})
    zoo.options(box_ap=0.375, mask_ap=0.341)
    assert zoo.call("run").returncode == 0
    return zoo, zoo.call("render").stdout


def copied(zoo: Zoo, target: Path, *, with_runs: bool = True) -> Zoo:
    """A copy of a workspace that a test may change."""
    other = Zoo(target)
    shutil.copy(zoo.root / "matrix.yaml", target)
    ignored = () if with_runs else ("runs",)
    shutil.copytree(zoo.root / "results", target / "results", ignore=shutil.ignore_patterns(*ignored))
    return other


def verified(zoo: Zoo, text: str) -> tuple[int, str]:
    (zoo.root / "MODEL_ZOO.md").write_text(text, encoding="utf-8")
    done = zoo.call("verify", "MODEL_ZOO.md")
    return done.returncode, done.stdout + done.stderr


def test_a_document_that_equals_the_store_is_good(published: tuple[Zoo, str]) -> None:
    zoo, text = published
    assert "[model](results/runs/" in text
    assert verified(zoo, text) == (0, "MODEL_ZOO.md: equals the store\n")


def test_line_ends_and_a_byte_order_mark_are_no_content(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    assert verified(copied(zoo, tmp_path), "\ufeff" + text.replace("\n", "\r\n"))[0] == 0


def test_it_is_good_in_a_clean_clone_that_has_no_logs_and_models(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    clone = copied(zoo, tmp_path, with_runs=False)
    assert not (tmp_path / "results" / "runs").exists()
    assert verified(clone, text)[0] == 0


def test_a_value_edited_by_hand_is_caught_and_named(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    assert text.count(" 37.5 ") == 1
    status, told = verified(copied(zoo, tmp_path), text.replace(" 37.5 ", " 38.8 "))
    assert status == 1
    assert "Mask RCNN, R-50 1x, box AP: the document says 38.8, the store 37.5\n" in told
    assert re.search(r"^-\|.*38\.8", told, re.MULTILINE)
    assert re.search(r"^\+\|.*37\.5", told, re.MULTILINE)


def test_a_value_copied_from_another_row_is_caught_and_its_row_named(
    published: tuple[Zoo, str], tmp_path: Path
) -> None:
    zoo, text = published
    status, told = verified(copied(zoo, tmp_path), text.replace(" 37.5 ", " 39.1 "))
    assert status == 1
    assert "R-50 1x, box AP: the document says 39.1, the store 37.5 (R-101 1x has that value)" in told


def test_a_link_copied_from_another_row_is_caught(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    links = re.findall(r"\[log\]\([^)]*\)", text)
    status, told = verified(copied(zoo, tmp_path), text.replace(links[0], links[1]))
    assert status == 1
    assert "Mask RCNN, R-50 1x, Download: " in told


def test_a_link_that_the_document_lacks_is_caught_where_its_file_is_here(
    published: tuple[Zoo, str], tmp_path: Path
) -> None:
    other = copied(published[0], tmp_path)
    checkpoint = other.records[0].checkpoint
    assert checkpoint is not None
    model = tmp_path / checkpoint.file
    model.rename(tmp_path / "away")
    without = other.call("render").stdout
    # Without the file nobody can tell whether it was there when the document was made.
    assert verified(other, without)[0] == 0
    (tmp_path / "away").rename(model)
    status, told = verified(other, without)
    assert status == 1
    assert re.search(r"R-50 1x, Download: the document says \[log\]\S+, the store \[model\]", told)


def test_a_stale_document_is_caught(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    clone = copied(zoo, tmp_path, with_runs=False)
    record = clone.records[-1]
    assert record.measurements.train is not None
    faster = record.measurements.train.model_copy(update={"mean_s": 0.5})
    Store(tmp_path / "results").add(with_measurements(changed(record), train=faster))
    status, told = verified(clone, text)
    assert status == 1
    assert re.search(r"R-101 1x, Train time \(s/iter\): the document says 0\.\d{3}, the store 0\.500", told)


def test_a_row_or_a_column_that_is_gone_is_told(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    clone = copied(zoo, tmp_path)
    without_row = "\n".join(line for line in text.split("\n") if "R-101" not in line)
    assert "Mask RCNN, R-101 1x, box AP: the document lacks it" in verified(clone, without_row)[1]
    renamed = text.replace("mask AP", "segm AP")
    assert "Mask RCNN, R-50 1x, segm AP: the store's document has no such place" in verified(clone, renamed)[1]


def test_any_other_change_is_in_the_diff(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    clone = copied(zoo, tmp_path)
    status, told = verified(clone, text.replace("No GPU\n", "8 NVIDIA H200 GPUs\n", 1))
    assert status == 1
    assert "-- 8 NVIDIA H200 GPUs" in told
    assert verified(clone, text + "\n")[0] == 1


def test_a_document_made_with_options_says_so_and_is_verified_with_them(published: tuple[Zoo, str]) -> None:
    zoo, text = published
    assert "<!--" not in text
    options = ("--mem-def", "reserved", "--mem-agg", "sum", "--energy", "--no-stale-marks", "--profile", "smoke")
    other = zoo.call("render", *options).stdout
    last = "<!-- zoo-bench render --profile smoke --mem-def reserved --mem-agg sum --energy --no-stale-marks -->"
    assert other.splitlines()[-1] == last
    assert verified(zoo, other)[0] == 0
    assert verified(zoo, other.replace(" --energy", ""))[0] == 1


@pytest.mark.parametrize(
    "options",
    [
        DEFAULT_OPTIONS,
        DocumentOptions("smoke"),
        DocumentOptions(memory=memory_definition("allocated", "max"), energy=True),
        DocumentOptions("photos", memory_definition("nvml", "rank0"), energy=False, stale_marks=False),
        DocumentOptions(backends=("gluoncv", "torchvision"), tables="apart"),
    ],
)
def test_options_come_back_out_of_the_comment(options: DocumentOptions) -> None:
    assert options_of(f"# Zoo\n\n{comment(options, load_matrix(MATRIX))}", "DOC.md") == options


def test_what_the_matrix_says_itself_needs_no_comment() -> None:
    given = DocumentOptions("full", backends=("torchvision",), tables="together")
    assert comment(given, load_matrix(MATRIX)) == ""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("<!-- zoo-bench render --mem-def vram -->", "expected one of nvml, allocated, reserved"),
        ("<!-- zoo-bench render --tables beside -->", "--tables beside: expected one of together, apart"),
        ("<!-- zoo-bench render --backend , -->", "--backend ,: no name"),
        ("<!-- zoo-bench render --profil smoke -->", "did you mean '--profile'"),
        ("<!-- zoo-bench render --profile -->", "--profile lacks its value"),
        ("<!-- zoo-bench render --energy --energy -->", "--energy is given twice"),
        ("<!-- zoo-bench render -->", "expected '<!-- zoo-bench render OPTIONS -->'"),
        ("<!-- zoo-bench render --energy", "expected '<!-- zoo-bench render OPTIONS -->'"),
        ("<!-- zoo-bench render --energy -->\n<!-- zoo-bench render --energy -->", "stands twice"),
    ],
)
def test_a_bad_comment_is_a_readable_error(line: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options_of(f"# Zoo\n{line}\n", "DOC.md")
    assert caught.value.message.startswith("DOC.md:")
    assert told in f"{caught.value.message} {caught.value.hint}"


def test_what_cannot_be_read_is_exit_code_2(published: tuple[Zoo, str], tmp_path: Path) -> None:
    zoo, text = published
    assert zoo.call("verify", "NONE.md").returncode == 2
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe\x00")
    assert zoo.call("verify", str(tmp_path / "binary.md")).returncode == 2
    (tmp_path / "zoo.md").write_text(text + "<!-- zoo-bench render --profile nosuch -->\n")
    done = zoo.call("verify", str(tmp_path / "zoo.md"))
    assert done.returncode == 2
    assert "nosuch" in done.stderr
    assert zoo.call("verify", str(tmp_path / "zoo.md"), "--root", str(tmp_path / "gone")).returncode == 2
