"""matrix.yaml: what it expands to, and what a person is told who got it wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import MATRIX, REPOSITORY

from zoo_bench.cell import digest, expand, recipe_values
from zoo_bench.errors import ConfigError
from zoo_bench.load import load_matrix
from zoo_bench.matrix import json_schema
from zoo_bench.selector import choose
from zoo_bench.yamlfile import YamlFileError

Broken = Callable[[str, str], list[str]]


def line_with(text: str) -> int:
    lines = MATRIX.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def test_the_seeds_eight_cells_of_both_backends_with_the_published_recipe() -> None:
    cells = expand(load_matrix(MATRIX))
    models = [
        "faster-rcnn_r50_c4",
        "faster-rcnn_r101_c4",
        "faster-rcnn_r50_fpn",
        "faster-rcnn_r101_fpn",
        "mask-rcnn_r50_fpn",
        "mask-rcnn_r101_fpn",
        "retinanet_r50_fpn",
        "retinanet_r101_fpn",
    ]
    expected = [f"{backend}/{model}_1x_coco" for backend in ("torchvision", "gluoncv") for model in models]
    assert [cell.id for cell in cells] == expected
    assert {cell.batch_size for cell in cells} == {16}
    assert {(cell.detector, cell.recipe.optimizer.lr) for cell in cells} == {
        ("faster-rcnn_c4", 0.02), ("faster-rcnn_fpn", 0.02), ("mask-rcnn_fpn", 0.02), ("retinanet_fpn", 0.01)
    }  # fmt: skip
    assert {cell.recipe.lr_schedule.iterations for cell in cells} == {90_000}


def test_each_detectors_own_values_are_those_of_the_baselines() -> None:
    models = {cell.detector: cell.recipe.model for cell in expand(load_matrix(MATRIX))}
    c4, fpn = models["faster-rcnn_c4"], models["faster-rcnn_fpn"]
    assert (c4.rpn_pre_nms.train, c4.rpn_pre_nms.test, c4.box_roi_size) == (12_000, 6_000, 14)
    assert (fpn.rpn_pre_nms.train, fpn.rpn_pre_nms.test, fpn.box_roi_size) == (2_000, 1_000, 7)
    assert {name: model.box_loss_beta for name, model in models.items()} == {
        "faster-rcnn_c4": 1.0, "faster-rcnn_fpn": 1.0, "mask-rcnn_fpn": 1.0, "retinanet_fpn": 0.11
    }  # fmt: skip


def test_profiles_that_only_measure_less_share_the_recipe() -> None:
    matrix = load_matrix(MATRIX)
    full, speed = expand(matrix, "full"), expand(matrix, "speed")
    assert [cell.measure for cell in full] != [cell.measure for cell in speed]
    recipes = [[digest(recipe_values(cell.resolved())) for cell in cells] for cells in (full, speed)]
    assert recipes[0] == recipes[1]


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("min_size: 800", "min_sise: 800", "input: {min_size: 800", "did you mean 'min_size'?"),
        (
            "gpus: 0\n",
            "gpus: none\n",
            "      gpus: 0",
            "profiles.smoke.set.gpus: Input should be a valid integer",
        ),
        ("[faster-rcnn_c4,", "[faster-rcn_c4,", "  detector: [", "did you mean 'faster-rcnn_c4'?"),
        ("default_profile: full", "default_profile: ful", "default_profile", "did you mean 'full'?"),
        ("kind: shapes", "kind: shape", "  shapes:", "'coco', 'shapes'"),
        ("    seed: 0", "    sead: 0", "    seed: 0", "did you mean 'seed'?"),
        ("name: adamw", "name: adam", "name: adamw", "'sgd' or 'adamw'"),
        ("lr: 0.01}", "lr: .nan}", "lr: 0.01}", "finite number"),
        ("axes:", "overrides: [{select: '*_r52_*', set: {seed: 1}}]\naxes:", "axes:", "did you mean 'r50'?"),
        ("version: 1", "version: 1\nversion: 1", "default_profile", "the key is given twice"),
        ("  backends: [torchvision]", "  backends: [torchvison]", "  backends: [", "did you mean 'torchvision'?"),
        ("  backends: [torchvision]", "  backend: torchvision", "  backends: [", "did you mean 'backends'?"),
        ("  tables: together", "  tables: beside", "  tables: together", "'together' or 'apart', found 'beside'"),
        ("    label: shapes", "    label: coco", "    label: shapes", "the label of coco_2017 already"),
        ("    min_side: 64", "    min_side: 65", "    min_side: 64", "larger than max_side, 64"),
        ("train_images: 800", "train_images: 8000000", "train_images: 800", "less than or equal to 1000000"),
        ("iterations: 90000,", "iterations: 90000000000,", "iterations: 90000,", "less than or equal to 1000000000"),
        ("neck: fpn, masks: true", f"neck: {'n' * 65}, masks: true", "neck: fpn, masks: true", "at most 64 characters"),
        ("  backbone: [r50, r101]", "  backbone: []", "  backbone: [r50, r101]", "at least 1 item"),
        ("    min_side: 64", "    min_side: 8", "    min_side: 64", "greater than or equal to 64"),
        ("backbone_weights: imagenet", "backbone_weights: w.pth", "backbone_weights: imagenet", "an absolute path"),
        ("dataset: shapes", "dataset: shaps", "  smoke:", "did you mean 'shapes'?"),
        ("  precision: [fp32]", "  precision: [bf61]", "  precision: [fp32]", "'fp32', 'tf32' or 'bf16'"),
        ("  dataset: coco_2017\n", "  precision: fp32\n", "  dataset: coco_2017", "defaults.precision: unknown key"),
        ("box_loss_beta: 0.11", "box_loss_beta: -1", "model: {box_loss_beta: 0.11", "greater than or equal to 0"),
        ("base_batch_size: 16", "base_batch_size: 0", "    base_batch_size: 16", "greater than or equal to 1"),
        ("base_batch_size: 16", "base_batch_size: true", "    base_batch_size: 16", "valid integer, found True"),
    ],
)
def test_an_error_names_line_key_and_nearest_name(
    broken_matrix: Broken, old: str, new: str, line: str, expected: str
) -> None:
    problems = broken_matrix(old, new)
    assert any(problem.startswith(f"{line_with(line)}:") and expected in problem for problem in problems), problems


def test_several_errors_are_reported_at_once(tmp_path: Path) -> None:
    text = MATRIX.read_text(encoding="utf-8").replace("min_size: 800", "min_sise: 800").replace("lr: 0.01}", "lr: x}")
    path = tmp_path / "matrix.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(YamlFileError) as caught:
        load_matrix(path)
    assert len(caught.value.problems) == 2


def test_a_value_nobody_wrote_down_is_an_error(broken_matrix: Broken) -> None:
    problems = broken_matrix(", warmup_factor: 0.001", "")
    assert all("recipe.lr_schedule.warmup_factor is not set; add it to defaults" in problem for problem in problems)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1" * 400, "expected a number that fits 64 bits"),
        ("1" * 5000, "not a value of its kind: Exceeds the limit"),
        ("!!bool maybe", "not a value of its kind: 'maybe'"),
        ("!!int ''", "not a value of its kind"),
        ("!!timestamp x", "a timestamp cannot stand here; quote it"),
        ("2020-01-01", "a timestamp cannot stand here; quote it"),
        ("!!binary AAAA", "a binary cannot stand here"),
        ("!!set {a, b}", "a set cannot stand here"),
        (r'"\ud800"', "halves of a surrogate pair"),
        (r'"data\0"', r"expected text without \0"),
        ("{1: a, b: c}", "defaults.options.x.1: a key is text; quote it"),
    ],
)
def test_a_value_that_json_cannot_hold_is_named_with_its_line(broken_matrix: Broken, value: str, expected: str) -> None:
    problems = broken_matrix("  options: {}", f"  options: {{x: {value}}}")
    assert any(problem.startswith(f"{line_with('  options: {}')}:") and expected in problem for problem in problems)


def test_a_small_file_cannot_become_a_large_one(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path = tmp_path / "matrix.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(YamlFileError, match="more than 100000 values"):
        load_matrix(path)


@pytest.mark.parametrize("text", ["a: [1", "- 1", "", "\t", "a: !!python/object:os.system x", "é: \x00"])
def test_what_is_no_matrix_is_one_readable_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_matrix(path)
    assert str(path) in caught.value.message


def test_exclude_include_and_two_cells_of_one_name(tmp_path: Path) -> None:
    content = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
    content["exclude"] = ["backbone=r101"]
    content["include"] = [{"backend": "torchvision", "detector": "retinanet_fpn", "backbone": "r18", "schedule": "2x"}]
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    cells = expand(load_matrix(path))
    assert len(cells) == 9
    assert cells[-1].id == "torchvision/retinanet_r18_fpn_2x_coco"
    assert cells[-1].recipe.lr_schedule.milestones == (120_000, 160_000)


def with_precisions(tmp_path: Path, **changes: object) -> Path:
    """The repository's matrix with Mask R-CNN R-50 of torchvision in three precisions."""
    content = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
    content["axes"].update(backend=["torchvision"], detector=["mask-rcnn_fpn"], backbone=["r50"])
    content["axes"]["precision"] = ["fp32", "tf32", "bf16"]
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")
    return path


def test_precision_is_an_axis_and_all_but_single_precision_stands_in_the_id(tmp_path: Path) -> None:
    included = {"backend": "torchvision", "detector": "retinanet_fpn", "backbone": "r18", "schedule": "2x"}
    path = with_precisions(tmp_path, include=[{**included, "precision": "tf32"}, included])
    cells = expand(load_matrix(path))
    assert [(cell.id, cell.precision) for cell in cells] == [
        ("torchvision/mask-rcnn_r50_fpn_1x_coco", "fp32"),
        ("torchvision/mask-rcnn_r50_fpn_tf32_1x_coco", "tf32"),
        ("torchvision/mask-rcnn_r50_fpn_bf16_1x_coco", "bf16"),
        ("torchvision/retinanet_r18_fpn_tf32_2x_coco", "tf32"),
        ("torchvision/retinanet_r18_fpn_2x_coco", "fp32"),
    ]
    assert {cell.resolved()["precision"] for cell in cells} == {"fp32", "tf32", "bf16"}
    assert len({digest(recipe_values({**cell.resolved(), "id": ""})) for cell in cells[:3]}) == 3


def test_a_selector_knows_precision(tmp_path: Path) -> None:
    slower = {"select": "precision=bf16", "set": {"images_per_gpu": 4}}
    path = with_precisions(tmp_path, exclude=["*_tf32_*"], overrides=[slower])
    assert {cell.precision: cell.images_per_gpu for cell in expand(load_matrix(path))} == {"fp32": 2, "bf16": 4}
    with pytest.raises(ConfigError) as caught:
        choose(expand(load_matrix(path)), "precision=bf61", None)
    assert "'bf16'" in caught.value.hint


def test_a_profile_may_have_precisions_of_its_own(tmp_path: Path) -> None:
    content = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
    content["profiles"]["speed"]["axes"] = {"precision": ["bf16"]}
    content["axes"].pop("precision")
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    matrix = load_matrix(path)
    assert {cell.precision for cell in expand(matrix, "speed")} == {"bf16"}
    assert {cell.precision for cell in expand(matrix, "full")} == {"fp32"}


@pytest.mark.parametrize(
    ("select", "skip", "count"),
    [
        ("*_r50_*", None, 8),
        ("torchvision/mask-rcnn_*", None, 2),
        ("backbone=r50,detector=retinanet*", None, 2),
        ("backend=gluoncv", None, 8),
        ("*mask-rcnn_r50* *retinanet_r50*", None, 4),
        (None, "family=faster-rcnn", 8),
        ("*_r50_*", "neck=c4", 6),
    ],
)
def test_selectors(select: str | None, skip: str | None, count: int) -> None:
    assert len(choose(expand(load_matrix(MATRIX)), select, skip)) == count


@pytest.mark.parametrize(
    ("selector", "advice"),
    [
        ("*_r52_*", "'r50'"),
        ("backbone=r11", "'r101'"),
        ("backbon=r50", "'backbone'"),
        ("*mask-rcn_*", "'mask-rcnn'"),
    ],
)
def test_a_selector_that_matches_nothing_is_an_error_with_advice(selector: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(expand(load_matrix(MATRIX)), selector, None)
    assert advice in caught.value.hint


def test_the_schema_for_editors_is_current() -> None:
    written = json.loads((REPOSITORY / "docs" / "matrix.schema.json").read_text(encoding="utf-8"))
    assert written == json_schema(), "run: zoo-bench data schema > docs/matrix.schema.json"
