"""Precision as an axis: one cell each, told apart in ids, in the document, and beside published figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import MATRIX, REPOSITORY, Zoo
from records import runs_of

from zoo_bench.beside import put_beside
from zoo_bench.document import DocumentOptions
from zoo_bench.load import load_matrix
from zoo_bench.machine import GpuDevice, MachineInfo
from zoo_bench.preflight import needs_of, shortcomings
from zoo_bench.published import load_published
from zoo_bench.recipe import merge
from zoo_bench.render import render
from zoo_bench.session import Asked, Session

BOTH = {"detector": ["mask-rcnn_fpn"], "precision": ["fp32", "bf16"]}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A workspace with one model in two precisions. Tests must not change it."""
    zoo = Zoo(tmp_path_factory.mktemp("both"))
    half = {"select": "precision=bf16", "set": {"options": {"box_ap": 0.371, "mask_ap": 0.338}}}
    zoo.change({"axes": BOTH, "profiles": {"quick": {"overrides": [half]}}})
    zoo.options(box_ap=0.375, mask_ap=0.341)
    assert zoo.call("run").returncode == 0
    return zoo


def lines(text: str) -> list[list[str]]:
    """The heads and rows of Mask R-CNN's table."""
    table = text.split("### Mask RCNN", 1)[1].split("#", 1)[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return [cells[0], *cells[2:]]


def test_a_row_says_its_precision_and_has_the_figures_of_its_own_run(both: Zoo) -> None:
    heads, *rows = lines(both.call("render").stdout)
    assert heads[:3] == ["Backbone", "Lr schd", "Precision"]
    assert [row[:3] for row in rows] == [["R-50", "1x", "fp32"], ["R-50", "1x", "bf16"]]
    box = next(index for index, head in enumerate(heads) if head.startswith("box AP"))
    assert [row[box : box + 2] for row in rows] == [["37.5", "34.1"], ["37.1", "33.8"]]


def test_status_and_show_tell_it_by_the_id(both: Zoo) -> None:
    assert "mask-rcnn_r50_fpn_bf16_1x_shapes" in both.call("status").stdout
    shown = both.call("show", "mask-rcnn_r50_fpn_bf16_1x_shapes")
    assert shown.returncode == 0
    assert "bf16" in shown.stdout
    assert "2 of 2 would run" in both.call("plan", "--force").stdout
    assert "1 of 1 would run" in both.call("plan", "--force", "--select", "precision=bf16").stdout


def test_a_run_goes_to_the_worker_with_its_precision(both: Zoo) -> None:
    assert {(record.cell_id, record.cell["precision"]) for record in both.records} == {
        ("fake/mask-rcnn_r50_fpn_1x_shapes", "fp32"),
        ("fake/mask-rcnn_r50_fpn_bf16_1x_shapes", "bf16"),
    }


def test_verify_names_the_row_by_its_precision(both: Zoo) -> None:
    document = both.root / "MODEL_ZOO.md"
    text = both.call("render").stdout
    document.write_text(text, encoding="utf-8")
    assert both.call("verify", "MODEL_ZOO.md").returncode == 0
    document.write_text(text.replace("37.1", "38.8"), encoding="utf-8")
    done = both.call("verify", "MODEL_ZOO.md")
    assert done.returncode != 0
    assert "Mask RCNN, R-50 1x bf16, box AP" in done.stdout + done.stderr


@pytest.mark.parametrize(("precisions", "told"), [(["fp32"], False), (["bf16"], True), (["tf32", "fp32"], True)])
def test_the_column_is_there_only_where_a_row_is_not_in_single_precision(
    tmp_path: Path, precisions: list[str], told: bool
) -> None:
    matrix = tmp_path / "matrix.yaml"
    content = merge(yaml.safe_load(MATRIX.read_text(encoding="utf-8")), {"axes": {"precision": precisions}})
    matrix.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    options = DocumentOptions(backends=("gluoncv", "torchvision"), tables="together")
    heads, *rows = lines(render(load_matrix(matrix), runs_of(), [REPOSITORY / "templates"], options))
    assert heads[:4] == ["Backbone", "Lr schd", *(["Precision"] if told else []), "Backend", "Mem (GB)"][:4]
    if told:
        assert [row[:4] for row in rows[:2]] == [["R-50", "1x", precisions[0], name] for name in options.backends or ()]
        assert len(rows) == 2 * 2 * len(precisions)


def test_a_published_row_stands_beside_single_precision_only(both: Zoo) -> None:
    (zoo, *_), _ = load_published("mmdetection-2018")
    for precisions, names in ((["fp32", "bf16"], {"R-50 1x"}), (["bf16"], set())):
        content = merge(both.matrix, {"axes": {"precision": precisions}})
        path = both.root / f"{'_'.join(precisions)}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        tables = list(put_beside(load_matrix(path), None, runs_of(both.records), [zoo]))
        assert {line.cell for table in tables for line in table.lines} == names


def test_a_backend_that_lacks_a_precision_is_refused_before_anything_starts(both: Zoo) -> None:
    path = both.root / "gluoncv.yaml"
    axes = {"backend": ["gluoncv"], "precision": ["bf16"]}
    content = merge(both.matrix, {"axes": axes, "document": {"backends": ["gluoncv"]}})
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    found = lacking(Asked(root=both.root, matrix=path))
    assert any(
        "gluoncv does not offer precision 'bf16', only fp32" in problem
        and "add 'backend=gluoncv,precision=bf16' to exclude" in problem
        for problem in found
    ), found


def lacking(asked: Asked, *capabilities: str) -> list[str]:
    """What a machine with GPUs of these compute capabilities lacks for the cells."""
    gpus = tuple(
        GpuDevice(index=index, name=f"GPU {found}", uuid=f"GPU-{index}", memory_bytes=2**34, compute_capability=found)
        for index, found in enumerate(capabilities)
    )
    session = Session.open(asked)
    machine = MachineInfo.model_construct(gpus=gpus, nvml_problem=None)
    return shortcomings(session, needs_of(session, session.cells), machine)


@pytest.mark.parametrize(
    ("precision", "gpus", "capabilities", "problem"),
    [
        ("fp32", 1, ["7.0"], ""),
        ("bf16", 0, [], ""),
        ("bf16", 2, ["8.0", "9.0"], ""),
        ("tf32", 1, ["10.0", "7.0"], ""),
        ("tf32", 0, ["9.0"], "precision tf32 is one of GPUs; the CPU computes in fp32"),
        ("tf32", 2, ["9.0", "7.5"], "precision tf32 needs GPUs of compute capability 8.0; GPU 1, GPU 7.5, has 7.5"),
        ("bf16", 1, ["7.0"], "precision bf16 needs GPUs of compute capability 8.0; GPU 0, GPU 7.0, has 7.0"),
    ],
)
def test_a_machine_that_would_compute_in_another_precision_is_refused(
    both: Zoo, precision: str, gpus: int, capabilities: list[str], problem: str
) -> None:
    path = both.root / "one.yaml"
    content = merge(both.matrix, {"axes": {"precision": [precision]}})
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    found = lacking(Asked(root=both.root, matrix=path, gpus=gpus), *capabilities)
    assert found == ([problem] if problem else [])
