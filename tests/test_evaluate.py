"""COCO scores: the published values, hotcoco and pycocotools alike, and files that must not be scored."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference

from zoo_bench.datasets.shapes import ShapesSettings, generate
from zoo_bench.evaluate import METRICS, SCORERS, EvaluationError, MetricSet, score

Entry = dict[str, Any]

# Raised inside pycocotools, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def coco_eval() -> Path:
    folder = os.environ.get("ZOO_BENCH_COCO_EVAL")
    if not folder:
        pytest.skip("ZOO_BENCH_COCO_EVAL is not set: the folder with the 100 images' worth of COCO results")
    return Path(folder)


@pytest.fixture(scope="module")
def truth_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate") / "shapes"
    generate(root, ShapesSettings(train_images=1, val_images=40, max_side=128, crowd_permille=200))
    return root / "annotations" / "instances_val.json"


@pytest.fixture(scope="module")
def found(truth_file: Path) -> list[Entry]:
    """Detections with box and mask: most objects, moved by some pixels, and some of a wrong category."""
    content = json.loads(truth_file.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    random = np.random.default_rng(0)
    entries = []
    for truth in content["annotations"]:
        if random.random() < 0.2:
            continue
        encoded = reference.frPyObjects(truth["segmentation"], *sizes[truth["image_id"]])
        mask = reference.decode(reference.merge(encoded) if isinstance(encoded, list) else encoded)
        moved = np.asfortranarray(np.roll(mask, random.integers(-4, 5, size=2), axis=(0, 1)))
        encoded = reference.encode(moved)
        entries.append(
            {
                "image_id": truth["image_id"],
                "category_id": truth["category_id"] if random.random() < 0.8 else int(random.integers(1, 5)),
                "bbox": reference.toBbox(encoded).tolist(),
                "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
                "score": float(random.random()),
            }
        )
    return entries


def write(path: Path, entries: Any) -> Path:
    path.write_text(json.dumps(entries))
    return path


def values(metrics: MetricSet | None) -> list[float | None]:
    assert metrics is not None
    flat = asdict(metrics)
    return [flat[name] for name in METRICS] + list(flat["per_class"].values())


def assert_alike(one: MetricSet | None, other: MetricSet | None) -> None:
    for left, right in zip(values(one), values(other), strict=True):
        assert left == right or left == pytest.approx(right, abs=1e-9, rel=0)


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_the_values_published_with_the_coco_api(coco_eval: Path, scorer: str) -> None:
    truth = coco_eval / "instances_val2014_100.json"
    boxes = score(truth, coco_eval / "instances_val2014_fakebbox100_results.json", masks=False, scorer=scorer)
    masks = score(truth, coco_eval / "instances_val2014_fakesegm100_results.json", masks=True, scorer=scorer)
    assert boxes.box is not None
    assert masks.mask is not None
    assert boxes.box.ap == 0.5045806987249628
    assert masks.mask.ap == 0.3195452758576433
    assert (boxes.images, boxes.detections, masks.detections) == (100, 734, 734)
    assert (boxes.mask, masks.box) == (None, None), "what a file does not hold is not scored"


def test_both_scorers_agree_on_real_results(coco_eval: Path) -> None:
    truth = coco_eval / "instances_val2014_100.json"
    for kind in ("bbox", "segm"):
        path = coco_eval / f"instances_val2014_fake{kind}100_results.json"
        one, other = (score(truth, path, masks=kind == "segm", scorer=scorer) for scorer in sorted(SCORERS))
        if kind == "bbox":
            assert_alike(one.box, other.box)
        else:
            assert_alike(one.mask, other.mask)


def test_both_scorers_agree_where_there_are_crowds_holes_and_misses(
    truth_file: Path, found: list[Entry], tmp_path: Path
) -> None:
    path = write(tmp_path / "d.json", found)
    one, other = (score(truth_file, path, masks=True, scorer=scorer) for scorer in sorted(SCORERS))
    assert_alike(one.box, other.box)
    assert_alike(one.mask, other.mask)
    assert one.box is not None
    assert 0.1 < (one.box.ap or 0) < 0.9
    assert list(one.box.per_class) == ["circle", "square", "triangle", "ring"]


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_boxes_and_masks_of_one_entry_do_not_disturb_each_other(
    truth_file: Path, found: list[Entry], tmp_path: Path, scorer: str
) -> None:
    """The sizes of an object's box and of its mask differ, and small, medium and large go by them."""
    both = score(truth_file, write(tmp_path / "both.json", found), masks=True, scorer=scorer)
    alone = {
        kept: score(
            truth_file,
            write(
                tmp_path / f"{kept}.json",
                [{k: v for k, v in entry.items() if k != dropped} for entry in found],
            ),
            masks=kept == "segmentation",
            scorer=scorer,
        )
        for kept, dropped in (("bbox", "segmentation"), ("segmentation", "bbox"))
    }
    assert both.box == alone["bbox"].box
    assert both.mask == alone["segmentation"].mask


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_finding_nothing_scores_zero(truth_file: Path, tmp_path: Path, scorer: str) -> None:
    scores = score(truth_file, write(tmp_path / "d.json", []), masks=True, scorer=scorer)
    for metrics in (scores.box, scores.mask):
        assert metrics is not None
        assert metrics.ap == metrics.ar100 == 0
        assert metrics.ap_large is None or metrics.ap_large == 0
        assert set(metrics.per_class.values()) == {0.0}


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_where_there_is_nothing_to_find_there_is_no_number(tmp_path: Path, scorer: str) -> None:
    truth = write(tmp_path / "truth.json", tiny_truth())
    scores = score(truth, write(tmp_path / "d.json", [detection()]), masks=False, scorer=scorer)
    assert scores.box is not None
    assert scores.box.ap == pytest.approx(1)
    assert scores.box.ap_small == pytest.approx(1)
    assert scores.box.ap_large is None
    assert scores.box.per_class == {"cat": pytest.approx(1), "dog": None}


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_only_the_chosen_images_count(truth_file: Path, found: list[Entry], tmp_path: Path, scorer: str) -> None:
    content = json.loads(truth_file.read_text())
    chosen = [image["id"] for image in content["images"]][:10]
    smaller = {
        **content,
        "images": content["images"][:10],
        "annotations": [entry for entry in content["annotations"] if entry["image_id"] in chosen],
    }
    path = write(tmp_path / "d.json", found)
    few = write(tmp_path / "few.json", [entry for entry in found if entry["image_id"] in chosen])
    limited = score(truth_file, path, masks=True, scorer=scorer, image_ids=chosen)
    expected = score(write(tmp_path / "truth.json", smaller), few, masks=True, scorer=scorer)
    assert limited == expected
    assert limited.images == 10
    assert limited != score(truth_file, path, masks=True, scorer=scorer)


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_scoring_prints_nothing(
    truth_file: Path,
    found: list[Entry],
    tmp_path: Path,
    scorer: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    score(truth_file, write(tmp_path / "d.json", found), masks=True, scorer=scorer)
    assert capfd.readouterr() == ("", "")


def tiny_truth() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 20}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [2, 2, 10, 10], "area": 100, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def detection(**changes: Any) -> Entry:
    entry = {"image_id": 7, "category_id": 1, "bbox": [2, 2, 10, 10], "score": 0.5, **changes}
    return {key: value for key, value in entry.items() if value is not None}


RLE = {
    "size": [20, 40],
    "counts": reference.encode(np.ones((20, 40), np.uint8, order="F"))["counts"].decode(),
}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([detection(image_id=8)], "unknown image id: 1\n    entry 0: image_id 8"),
        ([detection(image_id="7")], "image_id '7'"),
        ([detection(category_id=3)], "unknown category id"),
        ([detection(category_id=True)], "category_id True"),
        ([detection(), detection(score=float("nan"))], "entry 1: score nan"),
        ([detection(score=float("inf"))], "score inf"),
        ([detection(score="0.5")], "score '0.5'"),
        ([detection(score=10**400)], "not a finite number"),
        ([{"image_id": 7, "category_id": 1, "bbox": [2, 2, 10, 10]}], "score None"),
        ([detection(bbox=[2, 2, float("nan"), 10])], "not finite"),
        ([detection(bbox=[2, 2, -1, 10])], "negative side"),
        ([detection(bbox=[2, 2, 10])], "malformed box"),
        ([detection(bbox="here")], "malformed box"),
        ([detection(bbox=None)], "neither bbox nor segmentation"),
        ([17], "entry 0 is a number"),
        ([detection(image_id=index) for index in range(100, 120)], "and 15 more"),
        ({"annotations": []}, "an object, not a list"),
        ([detection(segmentation=[[1, 1, 9, 1, 9, 9]])], "malformed segmentation"),
        ([detection(segmentation={**RLE, "size": [40, 20]})], "another size than its image"),
        ([detection(segmentation={**RLE, "counts": "abc"})], "malformed segmentation"),
        ([detection(segmentation={**RLE, "counts": ""})], "malformed segmentation"),
        ([detection(segmentation={**RLE, "counts": "04"})], "add up to 4 pixels, not to 800"),
        ([detection(segmentation={**RLE, "counts": "P" * 50})], "malformed segmentation"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_place(entries: Any, said: str, tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.json", tiny_truth())
    path = write(tmp_path / "detections.json", entries)
    with pytest.raises(EvaluationError) as raised:
        score(truth, path, masks=False)
    assert str(path) in raised.value.message
    assert said in raised.value.message
    assert raised.value.hint


def test_masks_that_are_asked_for_and_missing_are_an_error(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.json", tiny_truth())
    with pytest.raises(EvaluationError, match="no detection has a segmentation"):
        score(truth, write(tmp_path / "d.json", [detection()]), masks=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[{}, ", "line 1, column 6"), ("", "line 1, column 1"), ("[" * 100_000 + "x", "d.json")],
)
def test_a_broken_detections_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.json", tiny_truth())
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=r"d\.json") as raised:
        score(truth, path, masks=False)
    assert said in raised.value.message


def test_missing_and_unfit_arguments_are_errors(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.json", tiny_truth())
    path = write(tmp_path / "d.json", [detection()])
    with pytest.raises(EvaluationError, match="No such file"):
        score(truth, tmp_path / "none.json", masks=False)
    with pytest.raises(EvaluationError, match="'images' is missing"):
        score(write(tmp_path / "odd.json", {"annotations": []}), path, masks=False)
    with pytest.raises(EvaluationError, match="not in it: 8"):
        score(truth, path, masks=False, image_ids=[7, 8])
    with pytest.raises(EvaluationError, match="no image to score"):
        score(truth, path, masks=False, image_ids=[])
    with pytest.raises(EvaluationError) as raised:
        score(truth, path, masks=False, scorer="hotcocoa")
    assert "did you mean 'hotcoco'?" in raised.value.hint
