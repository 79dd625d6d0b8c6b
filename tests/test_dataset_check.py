"""The check of a dataset: every kind of damage is found, named, and never becomes a traceback."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from zoo_bench.datasets.check import DatasetReport, check_dataset
from zoo_bench.datasets.coco import dataset_fingerprint
from zoo_bench.datasets.shapes import ShapesSettings, generate
from zoo_bench.errors import DatasetError

Content = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("check") / "shapes"
    generate(root, ShapesSettings(train_images=8, val_images=1, crowd_permille=500))
    return root


@pytest.fixture
def dataset(original: Path, tmp_path: Path) -> Path:
    """A copy to damage: ``train/`` and ``annotations/instances_train.json``."""
    for path in [*original.glob("train/*"), original / "annotations" / "instances_train.json"]:
        copy_of = tmp_path / path.relative_to(original)
        copy_of.parent.mkdir(exist_ok=True)
        copy_of.write_bytes(path.read_bytes())
    return tmp_path


def check(root: Path, **options: Any) -> DatasetReport:
    return check_dataset(root / "train", root / "annotations" / "instances_train.json", **options)


def change(root: Path, edit: Callable[[Content], Any]) -> None:
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def kinds(report: DatasetReport, severity: str = "error") -> dict[str, int]:
    return {problem.kind: problem.count for problem in report.problems if problem.severity == severity}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_annotations_that_are_no_file_are_a_finding(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "instances.json")
    report = check_dataset(tmp_path, tmp_path / "instances.json")
    assert not report.ok
    assert "is not a regular file" in report.to_text()


def test_a_whole_dataset_has_no_problems(dataset: Path) -> None:
    report = check(dataset)
    assert report.ok
    assert report.problems == ()
    assert "8 (decoded)" in report.to_text()
    assert "no problems" in report.to_text()


@pytest.mark.parametrize("split", ["train2017", "val2017"])
@pytest.mark.parametrize("decode", [True, False])
def test_photographs_of_coco_pass(split: str, decode: bool) -> None:
    folder = os.environ.get("ZOO_BENCH_TINY_COCO")
    if not folder:
        pytest.skip("ZOO_BENCH_TINY_COCO is not set: the folder with 50 + 50 images of COCO 2017")
    root = Path(folder)
    report = check_dataset(root / split, root / "annotations" / f"instances_{split}.json", decode=decode)
    assert report.ok, report.to_text()
    assert report.images == 50
    assert report.categories == 80


@pytest.mark.parametrize("decode", [True, False])
def test_missing_truncated_and_foreign_files_are_found(dataset: Path, decode: bool) -> None:
    first, second, third, fourth = sorted((dataset / "train").iterdir())[:4]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-400])
    third.write_text("<html>404</html>")
    fourth.write_bytes(b"")
    report = check(dataset, decode=decode)
    assert not report.ok
    assert kinds(report) == {"missing image": 1, "unreadable or truncated image": 3}
    text = report.to_text()
    assert all(path.name in text for path in (first, second, third, fourth))
    assert "not an image" in text


def test_damage_inside_a_file_is_found_by_decoding_it(dataset: Path) -> None:
    path = sorted((dataset / "train").iterdir())[0]
    Image.open(path).save(path, format="PNG")
    assert check(dataset, decode=True).ok
    content = path.read_bytes()
    path.write_bytes(content[:2000] + bytes(64) + content[2064:])
    assert check(dataset, decode=False).ok
    assert kinds(check(dataset, decode=True)) == {"unreadable or truncated image": 1}


def test_no_image_folder_is_one_problem_and_not_one_for_each_image(dataset: Path) -> None:
    annotations = dataset / "annotations" / "instances_train.json"
    report = check_dataset(dataset / "elsewhere", annotations)
    assert kinds(report) == {"missing image folder": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [\n  {"id": 1,}', "line 2, column"),
        ("", "line 1, column 1"),
        ("[1, 2]", "the top level is a list"),
        ('{"images": [], "annotations": []}', "'categories' is missing"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' is an object"),
        ('{"images": [], "annotations": [], "categories": []}', "'images' is an empty list"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_reported(dataset: Path, text: str, said: str) -> None:
    (dataset / "annotations" / "instances_train.json").write_text(text)
    report = check(dataset)
    assert not report.ok
    assert said in report.to_text()


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "9" * 5000 + "]"])
def test_json_that_python_cannot_hold_is_reported(dataset: Path, text: str) -> None:
    (dataset / "annotations" / "instances_train.json").write_text(text)
    assert not check(dataset).ok


def test_bytes_that_are_no_text_and_a_missing_file_are_reported(dataset: Path) -> None:
    path = dataset / "annotations" / "instances_train.json"
    path.write_bytes(b'{"images": "\xff\xfe\xfd"}')
    assert "not a JSON file" in check(dataset).to_text()
    path.unlink()
    assert "No such file" in check(dataset).to_text()


def set_key(group: str, key: str, value: Any) -> Callable[[Content], Any]:
    return lambda content: content[group][0].__setitem__(key, value)


def drop_key(group: str, key: str) -> Callable[[Content], Any]:
    return lambda content: content[group][0].pop(key)


def repeat(group: str) -> Callable[[Content], Any]:
    return lambda content: content[group].append(copy.deepcopy(content[group][0]))


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (set_key("annotations", "bbox", [60, 60, 30, 30]), "box outside the image"),
        (set_key("annotations", "bbox", [-3, 0, 30, 30]), "box outside the image"),
        (set_key("annotations", "bbox", [5, 5, -2, 4]), "box with a negative side"),
        (
            set_key("annotations", "bbox", [5, float("nan"), 2, 4]),
            "coordinate or area that is not a finite number",
        ),
        (
            set_key("annotations", "bbox", [5, 10**400, 2, 4]),
            "coordinate or area that is not a finite number",
        ),
        (set_key("annotations", "bbox", [5, 5, 2]), "malformed box"),
        (set_key("annotations", "bbox", None), "malformed box"),
        (set_key("annotations", "area", float("inf")), "coordinate or area that is not a finite number"),
        (drop_key("annotations", "area"), "malformed entry"),
        (drop_key("annotations", "iscrowd"), "malformed entry"),
        (set_key("annotations", "iscrowd", 2), "malformed entry"),
        (set_key("annotations", "category_id", 99), "unknown category"),
        (set_key("annotations", "category_id", [1]), "malformed entry"),
        (set_key("annotations", "image_id", 99), "unknown image"),
        (repeat("annotations"), "duplicate annotation id"),
        (repeat("images"), "duplicate image id"),
        (repeat("categories"), "duplicate category id"),
        (set_key("categories", "id", 0), "category id below 1"),
        (set_key("categories", "name", "ring"), "duplicate category name"),
        (set_key("images", "width", 65), "image size differs from its annotation"),
        (set_key("images", "file_name", "../secret.jpg"), "file name leads out of the image folder"),
        (set_key("images", "file_name", "none.jpg"), "missing image"),
        (set_key("images", "file_name", "x" * 5000), "unreadable or truncated image"),
        (set_key("images", "file_name", 5), "malformed entry"),
        (set_key("images", "height", 0), "malformed entry"),
        (lambda content: content["images"].append("odd"), "malformed entry"),
        (set_key("annotations", "segmentation", [[1, 1, 9, 1, 9]]), "malformed segmentation"),
        (set_key("annotations", "segmentation", [[1, 1, 9, 1]]), "malformed segmentation"),
        (set_key("annotations", "segmentation", [[1, 1, 9, 1, 9, float("nan")]]), "malformed segmentation"),
        (set_key("annotations", "segmentation", [[1, 1, 9, 1, 9, "9"]]), "malformed segmentation"),
        (set_key("annotations", "segmentation", "mask"), "malformed segmentation"),
        (
            set_key("annotations", "segmentation", {"size": [64, 64], "counts": [4, 4]}),
            "malformed segmentation",
        ),
        (
            set_key("annotations", "segmentation", {"size": [9, 9], "counts": [80, 1]}),
            "malformed segmentation",
        ),
        (
            set_key("annotations", "segmentation", {"size": [64, 64], "counts": "0~~~"}),
            "malformed segmentation",
        ),
    ],
)
def test_damage_in_the_annotations_is_an_error_of_its_kind(
    dataset: Path, edit: Callable[[Content], Any], kind: str
) -> None:
    change(dataset, edit)
    report = check(dataset)
    assert not report.ok
    assert kind in kinds(report), report.to_text()


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (set_key("annotations", "bbox", [5, 5, 0, 4]), "box without area (not trained on)"),
        (
            set_key("annotations", "segmentation", []),
            "annotation without a segmentation (no use for mask models)",
        ),
    ],
)
def test_what_coco_itself_contains_is_a_warning(dataset: Path, edit: Callable[[Content], Any], kind: str) -> None:
    change(dataset, edit)
    report = check(dataset)
    assert report.ok
    assert kinds(report, "warning") == {kind: 1}


def test_a_box_may_pass_the_border_by_less_than_a_pixel(dataset: Path) -> None:
    change(dataset, set_key("annotations", "bbox", [10.5, 10.5, 54.4, 54.4]))
    assert check(dataset).problems == ()


def test_many_cases_of_a_kind_are_counted_and_the_first_are_shown(dataset: Path) -> None:
    def edit(content: Content) -> None:
        for entry in content["annotations"]:
            entry["category_id"] = 99

    change(dataset, edit)
    report = check(dataset)
    (problem,) = report.problems
    assert problem.count == report.annotations > 5
    assert len(problem.first) == 5
    assert f"and {problem.count - 5} more" in report.to_text()


def test_progress_counts_every_image(dataset: Path) -> None:
    calls: list[tuple[int, int]] = []
    check(dataset, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 8) for done in range(1, 9)]


def test_a_name_that_no_terminal_prints_does_not_stop_the_report(dataset: Path) -> None:
    change(dataset, set_key("images", "file_name", "\ud800.jpg"))
    assert check(dataset).to_text().encode()


def test_the_fingerprint_follows_the_annotations(dataset: Path, original: Path) -> None:
    path = dataset / "annotations" / "instances_train.json"
    before = dataset_fingerprint([original / "annotations" / "instances_train.json"])
    assert dataset_fingerprint([path]) == before, "the place does not matter"
    change(dataset, set_key("annotations", "category_id", 2))
    assert dataset_fingerprint([path]) != before
    with pytest.raises(DatasetError, match="No such file"):
        dataset_fingerprint([dataset / "none.json"])
