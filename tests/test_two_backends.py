"""Two backends in one zoo: rows in one table or apart, whose each line is, and cells of one name told apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Zoo
from records import GIB, machine, memory, on_gpus, runs_of, with_measurements

from zoo_bench.beside import put_beside
from zoo_bench.document import DocumentOptions
from zoo_bench.load import load_matrix
from zoo_bench.provenance import CurrentInputs
from zoo_bench.published import load_published
from zoo_bench.record import Record
from zoo_bench.render import render

MASK = "mask-rcnn_r50_fpn_1x_shapes"
TOGETHER, APART = DocumentOptions(tables="together"), DocumentOptions(tables="apart")
MASK_HEADS = ["Host mem (GB)", "Train time (s/iter)", "Inf time (fps)", "box AP", "mask AP", "Download"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A workspace that two backends have filled; `twin` lacks one cell. Tests must not change it."""
    zoo = Zoo(tmp_path_factory.mktemp("two"))
    with_twin(zoo)
    assert zoo.call("run").returncode == 0
    return zoo


def with_twin(zoo: Zoo) -> None:
    """Add a second backend: the fake worker under another name, which finds another AP."""
    folder = zoo.root / "models" / "twin"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text((REPOSITORY / "models" / "__init__.py").read_text())
    spec = (REPOSITORY / "models" / "fake" / "backend.yaml").read_text()
    (folder / "backend.yaml").write_text(spec.replace("name: fake", "name: twin"))
    better = {"select": "backend=twin", "set": {"options": {"box_ap": 0.391}}}
    zoo.change(
        {
            "document": {"backends": ["fake", "twin"]},
            "axes": {"backend": ["fake", "twin"], "backbone": ["r50", "r101"]},
            "exclude": ["backend=twin,detector=retinanet_fpn,backbone=r101"],
            "profiles": {"quick": {"overrides": [better]}},
        }
    )
    zoo.options(box_ap=0.375, mask_ap=0.341)


def document(zoo: Zoo, options: DocumentOptions = TOGETHER, *records: Record, **how: Any) -> str:
    matrix = load_matrix(how.pop("matrix", zoo.root / "matrix.yaml"))
    return render(matrix, runs_of(records or zoo.records), [REPOSITORY / "templates"], options, **how)


def matrix_with(zoo: Zoo, **twin: Any) -> Path:
    """The workspace's matrix with other values for the cells of `twin`; its path."""
    other = zoo.root / f"{'_'.join(map(str, twin))}.yaml"
    text = (zoo.root / "matrix.yaml").read_text(encoding="utf-8")
    values = ", ".join(f"{key}: {value}" for key, value in twin.items())
    assert text.count("  overrides:\n") >= 1
    head, quick = text.split("  quick:\n")
    changed = quick.replace(
        "    overrides:\n", f"    overrides:\n    - {{select: backend=twin, set: {{{values}}}}}\n", 1
    )
    other.write_text(f"{head}  quick:\n{changed}", encoding="utf-8")
    return other


def rows(text: str, heading: str) -> list[list[str]]:
    """The table under a heading: its heads, then its rows, without marks of footnotes."""
    section = text.split(f"### {heading}\n", 1)[1].split("#", 1)[0]
    lines = [line for line in re.sub(r"\[\^\d+\]", "", section).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [cells[0], *cells[2:]]


def listed(text: str, heading: str) -> list[str]:
    """The list under a heading."""
    return [line for line in text.split(f"{heading}\n", 1)[1].split("#", 1)[0].splitlines() if line]


def named(records: tuple[Record, ...], cell_id: str) -> Record:
    return next(record for record in records if record.cell_id == cell_id)


def test_together_the_same_backbone_of_both_stands_beneath_each_other(two: Zoo) -> None:
    text = document(two)
    heads, *lines = rows(text, "Mask RCNN")
    assert heads == ["Backbone", "Lr schd", "Backend", *MASK_HEADS]
    assert [(*line[:3], line[6]) for line in lines] == [
        ("R-50", "1x", "fake", "37.5"),
        ("R-50", "1x", "twin", "39.1"),
        ("R-101", "1x", "fake", "37.5"),
        ("R-101", "1x", "twin", "39.1"),
    ]
    assert "## twin" not in text


def test_a_cell_that_only_one_backend_has_gives_the_other_no_row(two: Zoo) -> None:
    assert [line[:3] for line in rows(document(two), "RetinaNet")[1:]] == [
        ["R-50", "1x", "fake"], ["R-50", "1x", "twin"], ["R-101", "1x", "fake"]
    ]  # fmt: skip


def test_apart_each_backend_has_its_tables_under_its_heading(two: Zoo) -> None:
    text = document(two, APART)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[4:] == [
        "## Common setting",
        "## fake", "### Mask RCNN", "### RetinaNet",
        "## twin", "### Mask RCNN", "### RetinaNet",
    ]  # fmt: skip
    fake, twin = text.split("## twin\n")
    assert rows(fake, "Mask RCNN")[0] == ["Backbone", "Lr schd", *MASK_HEADS]
    assert [line[5] for line in rows(fake, "Mask RCNN")[1:]] == ["37.5", "37.5"]
    assert [line[5] for line in rows(twin, "Mask RCNN")[1:]] == ["39.1", "39.1"]
    assert [line[0] for line in rows(twin, "RetinaNet")[1:]] == ["R-50"]


def test_the_order_of_the_backends_is_the_documents(two: Zoo) -> None:
    turned = DocumentOptions(backends=("twin", "fake"))
    assert [line[2] for line in rows(document(two, turned), "Mask RCNN")[1:3]] == ["twin", "fake"]
    text = document(two, DocumentOptions(backends=("twin", "fake"), tables="apart"))
    assert text.index("## twin") < text.index("## fake")


def test_of_one_backend_nothing_says_that_there_are_others(two: Zoo) -> None:
    for tables in (TOGETHER, APART):
        text = document(two, DocumentOptions(backends=("twin",), tables=tables.tables))
        assert rows(text, "Mask RCNN")[0] == ["Backbone", "Lr schd", *MASK_HEADS]
        assert "fake" not in text.split("<!--", maxsplit=1)[0]
        assert "## twin" not in text
        assert listed(text, "### Hardware")[0] == "- No GPU"


def with_frameworks(zoo: Zoo) -> tuple[Record, ...]:
    """The records as if the two backends had been two frameworks, each in its Python."""
    software = {
        "fake": {"python": "3.11.7", "torch": "2.14.1"},
        "twin": {"python": "3.8.18", "mxnet": "1.9.1"},
    }
    return tuple(record.model_copy(update={"software": software[record.cell["backend"]]}) for record in zoo.records)


def test_software_says_whose_it_is_but_for_what_both_share(two: Zoo) -> None:
    records = with_frameworks(two)
    text = document(two, TOGETHER, *records)
    shared = [line for line in listed(text, "### Software environment") if re.match("- (OS|Container) ", line)]
    assert listed(text, "### Software environment") == [
        *shared,
        "- fake", "  - Python 3.11.7", "  - PyTorch 2.14.1",
        "- twin", "  - Python 3.8.18", "  - MXNet 1.9.1",
    ]  # fmt: skip
    assert "Other surroundings" not in text


def test_software_of_the_only_backend_that_has_run_is_not_the_others(two: Zoo) -> None:
    records = [record for record in with_frameworks(two) if record.cell["backend"] == "fake"]
    lines = listed(document(two, TOGETHER, *records), "### Software environment")
    assert lines[:3] == ["- fake", "  - Python 3.11.7", "  - PyTorch 2.14.1"]
    assert "- twin" not in lines


def test_settings_say_whose_they_are_but_for_what_both_share(two: Zoo) -> None:
    text = document(two, matrix=matrix_with(two, images_per_gpu=4))
    assert listed(text, "## Common setting") == [
        "- All models were trained on 'shapes_train', and tested on the 'shapes_val'.",
        "- fake", "  - All baseline were trained on the CPU with a batch size of 2.",
        "- twin", "  - All baseline were trained on the CPU with a batch size of 4.",
    ]  # fmt: skip


def test_one_backend_on_gpus_and_one_on_the_cpu(two: Zoo) -> None:
    matrix = matrix_with(two, gpus=2)
    on_cpu, other = (named(two.records, f"{backend}/{MASK}") for backend in ("fake", "twin"))
    v100 = machine(2, cores=on_cpu.machine["cores"], cpu=on_cpu.machine["cpu"], memory_bytes=64 * GIB)
    on_gpu = on_gpus(other, matrix, machine=v100)
    on_gpu = with_measurements(on_gpu, memory=memory({"nvml_process_bytes": 6 * GIB}, {"nvml_process_bytes": 5 * GIB}))
    text = document(two, TOGETHER, on_cpu, on_gpu, matrix=matrix)
    heads, first, second, *_ = rows(text, "Mask RCNN")
    assert heads[3] == "Mem (GB)"
    assert (first[3], second[3]) == ("", "6.0")
    assert "No Mem (GB): measured on the CPU." in text
    assert "Other surroundings: GPUs 2 NVIDIA Tesla V100-SXM2-16GB GPUs in place of No GPU." in text
    hardware = listed(text, "### Hardware")
    assert hardware[1:3] == ["- fake", "  - No GPU"]
    assert hardware[-3:] == ["- twin", "  - 2 NVIDIA Tesla V100-SXM2-16GB GPUs", "  - 64 GB of host memory"]
    apart = document(two, APART, on_cpu, on_gpu, matrix=matrix)
    fake, twin = apart.split("## twin\n")
    assert (rows(fake, "Mask RCNN")[0][2], rows(twin, "Mask RCNN")[0][2]) == ("Host mem (GB)", "Mem (GB)")
    assert rows(fake, "Mask RCNN")[1][2] != ""


def test_a_backends_new_sources_make_its_rows_stale_and_no_others(two: Zoo) -> None:
    current = {
        backend: CurrentInputs(sources_sha256=digest or record.inputs.sources_sha256, locks_sha256=frozenset())
        for backend, digest in (("fake", ""), ("twin", "0" * 64))
        for record in [named(two.records, f"{backend}/{MASK}")]
    }
    text = document(two, current=current)
    stale = next(line for line in text.splitlines() if "Stale: " in line).split(":")[0]
    marked = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("|") and stale in line]
    assert marked == ["twin"] * 3


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ((), None),
        (("--tables", "apart"), "--tables apart"),
        (("--backend", "twin"), "--backend twin"),
        (("--backend", "twin, fake", "--tables", "apart"), "--backend twin,fake --tables apart"),
        (("--backend", "fake,twin", "--tables", "together"), None),
    ],
)
def test_every_layout_is_verified_with_the_options_it_was_made_with(
    two: Zoo, tmp_path: Path, options: tuple[str, ...], last: str | None
) -> None:
    text = two.call("render", *options).stdout
    line = text.splitlines()[-1]
    assert (line == f"<!-- zoo-bench render {last} -->") if last else not line.startswith("<!--")
    published = tmp_path / "MODEL_ZOO.md"
    published.write_text(text, encoding="utf-8")
    assert two.call("verify", str(published)).returncode == 0
    published.write_text(text.replace(" 39.1 ", " 40.0 ", 1), encoding="utf-8")
    assert two.call("verify", str(published)).returncode == 1


@pytest.mark.parametrize(
    ("tables", "value", "place"),
    [
        ("together", "37.5", "Mask RCNN, R-50 1x twin, box AP"),
        ("apart", "40.0", "twin, Mask RCNN, R-50 1x, box AP"),
    ],
)
def test_verify_names_the_backend_of_a_wrong_value(
    two: Zoo, tmp_path: Path, tables: str, value: str, place: str
) -> None:
    published = tmp_path / "MODEL_ZOO.md"
    published.write_text(
        two.call("render", "--tables", tables).stdout.replace(" 39.1 ", f" {value} ", 1), encoding="utf-8"
    )
    told = two.call("verify", str(published)).stdout
    copied = " (R-50 1x fake, R-101 1x fake has that value)" if tables == "together" else ""
    assert f"{place}: the document says {value}, the store 39.1{copied}\n" in told
    assert told.count("the document says") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--backend", "twn"), "--backend twn: profile quick has no cell of it\n  -> did you mean 'twin'?"),
        (("--backend", "fake,torchvision"), "--backend torchvision: profile quick has no cell of it"),
        (("--backend", ","), "--backend ,: no name"),
        (("--tables", "beside"), "--tables beside: expected one of together, apart"),
    ],
)
def test_unknown_backends_and_layouts_are_readable_errors(two: Zoo, options: tuple[str, ...], told: str) -> None:
    done = two.call("render", *options)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_profile_without_any_cell_of_the_document_is_a_readable_error(zoo: Zoo) -> None:
    zoo.change({"profiles": {"quick": {"axes": {"backend": ["torchvision"]}}}})
    done = zoo.call("render")
    assert done.returncode == 2
    assert "profile quick has no cell of fake, which document.backends in the matrix names" in done.stderr
    assert "zoo-bench render --backend torchvision" in done.stderr


@pytest.mark.parametrize("verb", ["status", "plan"])
def test_tables_of_cells_say_whose_they_are_also_when_one_backend_is_chosen(two: Zoo, verb: str) -> None:
    told = two.call(verb, "--select", "backend=twin").stdout
    assert re.search(rf"^twin/{MASK} ", told, re.MULTILINE)


def test_run_says_whose_cells_it_ran(zoo: Zoo) -> None:
    with_twin(zoo)
    done = zoo.call("run", "--select", f"twin/{MASK}")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^twin/{MASK} +succeeded", done.stdout, re.MULTILINE)


def test_a_name_that_two_backends_have_asks_which(two: Zoo) -> None:
    done = two.call("show", MASK)
    assert done.returncode == 2
    assert f"name one of them: fake/{MASK}, twin/{MASK}" in done.stderr
    assert two.call("show", f"twin/{MASK}").stdout.startswith(f"twin/{MASK}, profile quick\n")


def test_a_name_that_two_backends_had_asks_which(zoo: Zoo) -> None:
    with_twin(zoo)
    zoo.call("run", "--select", f"*{MASK}")
    zoo.change({"axes": {"detector": ["retinanet_fpn"]}})
    done = zoo.call("show", MASK)
    assert done.returncode == 2
    assert f"name one of them: fake/{MASK}, twin/{MASK}" in done.stderr
    assert f"twin/{MASK}, run " in zoo.call("show", f"twin/{MASK}").stdout


def test_two_backends_are_compared_model_by_model(two: Zoo) -> None:
    done = two.call("compare", "fake", "twin")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("A: backend fake\nB: backend twin\n")
    blocks = done.stdout.split("\n\n")
    mask = next(block for block in blocks if block.startswith(f"{MASK}\n"))
    assert re.search(r"box AP +37\.50 +39\.10 +\+4\.3%", mask)
    assert "retinanet_r101_fpn_1x_shapes" not in done.stdout
    differs = next(block for block in blocks if block.startswith("What differs from A to B, every cell:"))
    assert "recipe: backend: fake -> twin" in differs
    assert "recipe: options.box_ap: 0.375 -> 0.391" in differs
    assert "recipe: id" not in differs


def test_a_backend_is_compared_with_its_own_earlier_runs(two: Zoo) -> None:
    done = two.call("compare", "twin", "2090-01-01")
    assert re.search(rf"^twin/{MASK}$", done.stdout, re.MULTILINE)
    assert "fake/" not in done.stdout


def test_published_figures_stand_beside_those_of_each_backend(two: Zoo) -> None:
    zoos, _ = load_published("detectron2")
    table, *_ = put_beside(load_matrix(two.root / "matrix.yaml"), None, runs_of(two.records), zoos)
    ours = [(line.cell, line.entries["box_ap"].text) for line in table.lines if line.whose == "ours"]
    assert ours[:2] == [("R-50 1x fake", "37.5"), ("R-50 1x twin", "39.1")]


def test_what_one_backend_lacks_leaves_the_other_to_run(zoo: Zoo) -> None:
    with_twin(zoo)
    spec = zoo.root / "models" / "twin" / "backend.yaml"
    spec.write_text(spec.read_text().replace("mask-rcnn_fpn, ", ""))
    done = zoo.call("run")
    assert done.returncode == 2
    assert "add 'backend=twin,detector=mask-rcnn_fpn' to exclude in matrix.yaml" in done.stderr
    assert "zoo-bench run --profile quick --select 'backend=fake'" in done.stderr
    assert "  with --select 'backend=fake' it would\n" in zoo.call("doctor").stdout
    zoo.change({"exclude": ["backend=twin,detector=mask-rcnn_fpn"]})
    assert "6 of 6 would run" in zoo.call("run", "--dry-run").stdout
