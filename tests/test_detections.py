"""Detections files of full size: read in pieces, whatever their layout, and in little memory."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from coco_like import Thing, detections, make_things, write_truth
from pycocotools import mask as reference

from zoo_bench.datasets.compressed import compressed_rle_areas
from zoo_bench.detections import read_detections
from zoo_bench.evaluate import SCORERS, EvaluationError, score
from zoo_bench.ground_truth import read_ground_truth

IMAGES, PER_IMAGE = 450, 100  # several pieces of a file, and several batches of images

# Raised inside pycocotools, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def things() -> list[list[Thing]]:
    return make_things(IMAGES)


@pytest.fixture(scope="module")
def entries(things: list[list[Thing]]) -> list[dict[str, Any]]:
    return [entry for found in detections(things, PER_IMAGE, masks=True) for entry in found]


@pytest.fixture(scope="module")
def truth_file(things: list[list[Thing]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_truth(things, tmp_path_factory.mktemp("truth") / "truth.json")


def lines(entries: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n"


def with_more_keys(entries: list[dict[str, Any]]) -> str:
    """Each has in it what looks like the seam between two."""
    return json.dumps([{"from": [{"model": 1}, {"model": "a}, {b"}], **entry} for entry in entries])


LAYOUTS = {
    "a line each": lines,
    "one line": json.dumps,
    "no spaces": lambda entries: json.dumps(entries, separators=(",", ":")),
    "indented": lambda entries: json.dumps(entries, indent=2),
    "more keys": with_more_keys,
    "not ASCII": lambda entries: json.dumps([{**entry, "of": "Zoë"} for entry in entries], ensure_ascii=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_any_layout_is_read_as_it_is(
    layout: str, entries: list[dict[str, Any]], truth_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "detections.json"
    path.write_text(LAYOUTS[layout](entries), encoding="utf-8")
    found = read_detections(path, read_ground_truth(truth_file))
    assert found.image_ids.tolist() == [entry["image_id"] for entry in entries]
    assert found.category_ids.tolist() == [entry["category_id"] for entry in entries]
    assert found.scores.tolist() == [entry["score"] for entry in entries]
    assert found.boxes.tolist() == [entry["bbox"] for entry in entries]
    assert found.counts.tolist() == [entry["segmentation"]["counts"] for entry in entries]


@pytest.mark.parametrize("order", ["as written", "shuffled"])
def test_both_scorers_give_the_same_on_many_images(
    order: str, entries: list[dict[str, Any]], truth_file: Path, tmp_path: Path
) -> None:
    few = [entry for entry in entries if entry["image_id"] % 7]  # on some images nothing was found
    few = few[::6]
    if order == "shuffled":
        Random(0).shuffle(few)
    path = tmp_path / "detections.json"
    path.write_text(lines(few))
    one, other = (score(truth_file, path, masks=True, scorer=scorer) for scorer in SCORERS)
    assert {**asdict(one), "scorer": ""} == {**asdict(other), "scorer": ""}
    assert one.mask is not None
    assert one.mask.ap_small is not None
    assert 0.1 < one.mask.ap_small < 0.9


def test_a_file_may_hold_boxes_and_masks_of_different_entries(
    entries: list[dict[str, Any]], truth_file: Path, tmp_path: Path
) -> None:
    """A box alone is not scored as a mask, nor a mask alone as a box."""

    def scored(name: str, chosen: list[dict[str, Any]], masks: bool) -> Any:
        path = tmp_path / name
        path.write_text(lines(chosen))
        return score(truth_file, path, masks=masks)

    boxes = [{key: value for key, value in entry.items() if key != "segmentation"} for entry in entries[::2]]
    masks = [{key: value for key, value in entry.items() if key != "bbox"} for entry in entries[1::2]]
    mixed = [entry for pair in zip(boxes, masks, strict=True) for entry in pair]
    both = scored("both", mixed, masks=True)
    assert both.box == scored("boxes", boxes, masks=False).box
    assert both.mask == scored("masks", masks, masks=True).mask


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": float("nan")}, "score nan"),
        ({"image_id": 10**6}, "image_id 1000000"),
        ({"bbox": [0, 0, 1, -1]}, "bbox [0, 0, 1, -1]"),
        ({"segmentation": {"size": [480, 640], "counts": "PY1"}}, "entry 44990"),
    ],
)
def test_a_fault_far_into_a_file_is_named_with_its_place(
    changes: dict[str, Any], said: str, entries: list[dict[str, Any]], truth_file: Path, tmp_path: Path
) -> None:
    place = 44_990
    path = tmp_path / "detections.json"
    path.write_text(lines([*entries[:place], {**entries[place], **changes}, *entries[place + 1 :]]))
    with pytest.raises(EvaluationError) as raised:
        score(truth_file, path, masks=True)
    assert f"entry {place}" in raised.value.message
    assert said in raised.value.message
    assert "of 45000" in raised.value.message


def test_a_file_that_breaks_off_far_in_is_not_scored(
    entries: list[dict[str, Any]], truth_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "detections.json"
    path.write_text(lines(entries)[:-1000])
    with pytest.raises(EvaluationError, match="line 449"):
        score(truth_file, path, masks=True)


def test_reading_takes_little_more_memory_than_what_is_kept(
    entries: list[dict[str, Any]], truth_file: Path, tmp_path: Path
) -> None:
    """Nine tenths of this file are masks, and those are kept as they are."""
    path = tmp_path / "detections.json"
    path.write_text(lines(entries * 3))
    truth = read_ground_truth(truth_file)
    tracemalloc.start()
    found = read_detections(path, truth)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 3 * len(entries)
    assert kept < 1.2 * path.stat().st_size
    assert peak < 2.2 * path.stat().st_size


def test_areas_are_those_of_pycocotools(entries: list[dict[str, Any]]) -> None:
    masks = [entry["segmentation"] for entry in entries[:2000]]
    pixels = [mask["size"][0] * mask["size"][1] for mask in masks]
    areas, faults = compressed_rle_areas([mask["counts"] for mask in masks], pixels)
    assert not faults
    assert areas.tolist() == [int(reference.area({**mask, "counts": mask["counts"].encode()})) for mask in masks]


def test_run_lengths_of_every_kind_of_mask_are_right() -> None:
    """From one run to as many as there are pixels, beginning and ending with the object or not."""
    random = np.random.default_rng(0)
    masks = [random.random((height, 7)) < share for height in range(1, 40) for share in (0, 0.1, 0.5, 0.9, 1)]
    encoded = [reference.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode() for mask in masks]
    areas, faults = compressed_rle_areas(encoded, [mask.size for mask in masks])
    assert not faults
    assert areas.tolist() == [int(mask.sum()) for mask in masks]


def test_faults_of_run_lengths_stay_with_their_mask() -> None:
    good = reference.encode(np.ones((20, 40), np.uint8, order="F"))["counts"].decode()
    strings = [good, "", good, "abc", "é", good, "04", "P" * 50, "PPPPPP0", good, "o", good]
    _, faults = compressed_rle_areas(strings, [800] * len(strings))
    form = "run lengths that are not COCO's compressed form"
    assert faults == {
        **dict.fromkeys((1, 3, 4, 7, 8, 10), form),
        6: "run lengths that add up to 4 pixels, not to 800",
    }
