"""The generator of `shapes`: the same bytes everywhere, annotations true to pixels, whole folders."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from zoo_bench.datasets import masks
from zoo_bench.datasets.check import check_dataset
from zoo_bench.datasets.shapes import ShapesSettings, fingerprint, generate, is_current
from zoo_bench.datasets.shapes_draw import CATEGORIES, draw
from zoo_bench.errors import ConfigError, DatasetError

SMALL = ShapesSettings(train_images=40, val_images=20, max_side=96, crowd_permille=200)
# Of all files of SMALL and their names: the same on CPython 3.10 to 3.13 with Pillow 10.0 to 13.0, that is
# libjpeg-turbo 3.0 to 3.2, with and without SIMD. When it changes, raise GENERATOR_VERSION: so do scores.
GOLDEN = "5a85f25b7b3771bcdc6520c6c8ebb3f3b2b2b3ac457f01bd16d827923f89a576"

GENERATE = """
import sys
from pathlib import Path
from zoo_bench.datasets.shapes import ShapesSettings, generate
generate(Path(sys.argv[1]), ShapesSettings(train_images=int(sys.argv[2]), val_images=5))
"""


def tree_sha256(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def content_of(root: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    return content


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "small"
    generate(root, SMALL)
    return root


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "default"
    generate(root, ShapesSettings())
    return root


def test_every_byte_is_the_same_on_every_machine(small: Path) -> None:
    assert tree_sha256(small) == GOLDEN


def test_another_seed_gives_other_images_and_another_fingerprint(tmp_path: Path) -> None:
    first, second = (ShapesSettings(seed=seed, train_images=2, val_images=1) for seed in (1, 2))
    generate(tmp_path / "first", first)
    generate(tmp_path / "second", second)
    assert tree_sha256(tmp_path / "first" / "train") != tree_sha256(tmp_path / "second" / "train")
    assert fingerprint(first) != fingerprint(second)


def test_a_longer_split_begins_with_the_images_of_a_shorter_one(small: Path, tmp_path: Path) -> None:
    longer = ShapesSettings(train_images=45, val_images=20, max_side=96, crowd_permille=200)
    generate(tmp_path / "longer", longer)
    for path in (small / "train").iterdir():
        assert (tmp_path / "longer" / "train" / path.name).read_bytes() == path.read_bytes()
    assert tree_sha256(tmp_path / "longer" / "val") == tree_sha256(small / "val")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_agree_with_pycocotools_to_the_pixel(small: Path, split: str) -> None:
    content = content_of(small, split)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    seen: dict[int, Any] = {number: np.zeros(size, dtype=int) for number, size in sizes.items()}
    kinds = Counter[str]()
    for entry in content["annotations"]:
        encoded = reference.frPyObjects(entry["segmentation"], *sizes[entry["image_id"]])
        if isinstance(encoded, list):
            (encoded,) = encoded
        kinds["polygon" if isinstance(entry["segmentation"], list) else f"rle {entry['iscrowd']}"] += 1
        assert int(reference.area(encoded)) == entry["area"] > 0
        assert reference.toBbox(encoded).tolist() == entry["bbox"]
        seen[entry["image_id"]] += reference.decode(encoded)
    assert all(counts.max() <= 1 for counts in seen.values()), "masks are of what can be seen, so none overlap"
    assert set(kinds) == {"polygon", "rle 0", "rle 1"}


def test_masks_are_those_of_the_drawn_pixels() -> None:
    """An object's pixels lie near its colour; where its mask ends, the colour does too."""
    drawing = draw(key=5, width=96, height=64, max_objects=1, crowd=False)
    (thing,) = drawing.objects
    inside = drawing.pixels[thing.visible].astype(int)
    outside = drawing.pixels[~thing.visible].astype(int)
    typical = np.median(inside, axis=0)
    assert (np.abs(inside - typical).max(axis=1) < 40).mean() > 0.99
    assert (np.abs(outside - typical).max(axis=1) < 40).mean() < 0.01


def test_images_and_objects_are_as_promised(default: Path) -> None:
    for split, images in (("train", 800), ("val", 200)):
        content = content_of(default, split)
        assert len(content["images"]) == images
        assert [category["id"] for category in content["categories"]] == [1, 2, 3, 4]
        assert [category["name"] for category in content["categories"]] == list(CATEGORIES)
        objects = [entry for entry in content["annotations"] if not entry["iscrowd"]]
        per_image = Counter(entry["image_id"] for entry in objects)
        assert len(per_image) == images, "no image without an object"
        assert set(per_image.values()) == set(range(1, 9))
        assert set(Counter(entry["category_id"] for entry in objects)) == {1, 2, 3, 4}
        crowds = {entry["image_id"] for entry in content["annotations"] if entry["iscrowd"]}
        assert 0.01 * images < len(crowds) < 0.08 * images


def test_some_objects_are_hidden_in_part_and_none_nearly_wholly(default: Path) -> None:
    objects = [entry for entry in content_of(default, "train")["annotations"] if not entry["iscrowd"]]
    filled = [
        entry["area"] / (entry["bbox"][2] * entry["bbox"][3])
        for entry in objects
        if entry["category_id"] == CATEGORIES.index("circle") + 1
    ]
    whole_circle = np.pi / 4
    assert 0.05 < np.mean([share < 0.9 * whole_circle for share in filled]) < 0.5
    assert min(entry["area"] for entry in objects) >= 24


def test_the_splits_share_no_image(default: Path) -> None:
    pixels = {
        split: {
            hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest() for path in (default / split).iterdir()
        }
        for split in ("train", "val")
    }
    assert len(pixels["train"]) == 800
    assert len(pixels["val"]) == 200
    assert not pixels["train"] & pixels["val"]
    ids = [{image["id"] for image in content_of(default, split)["images"]} for split in ("train", "val")]
    assert not ids[0] & ids[1]


def test_images_can_be_as_large_as_those_of_coco(tmp_path: Path) -> None:
    generate(tmp_path / "large", ShapesSettings(train_images=6, val_images=2, min_side=427, max_side=640))
    content = content_of(tmp_path / "large", "train")
    assert all(427 <= image[side] <= 640 for image in content["images"] for side in ("width", "height"))
    assert max(entry["area"] for entry in content["annotations"]) > 96**2, "large in COCO's sense"


@pytest.mark.parametrize("split", ["train", "val"])
def test_it_passes_the_check_that_any_dataset_gets(default: Path, split: str) -> None:
    report = check_dataset(default / split, default / "annotations" / f"instances_{split}.json")
    assert not report.problems, report.to_text()


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    settings = ShapesSettings(train_images=3, val_images=2)
    generate(tmp_path / "s", settings, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    generate(tmp_path / "s", settings, lambda *_: pytest.fail("it was there already"))


def test_other_settings_replace_what_the_generator_made(tmp_path: Path) -> None:
    root, before, after = tmp_path / "s", ShapesSettings(train_images=3), ShapesSettings(train_images=2)
    generate(root, before)
    assert is_current(root, before)
    assert not is_current(root, after)
    generate(root, after)
    assert is_current(root, after)
    assert len(list((root / "train").iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.lock", "s"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match="not made by the shapes generator"):
        generate(tmp_path, ShapesSettings(train_images=1, val_images=1))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["s", ".s.old", ".s.partial"])
def test_a_manifest_of_somebody_else_does_not_make_a_folder_ours(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name / "manifest.json"
    theirs.parent.mkdir()
    theirs.write_text('{"name": "a web application"}')
    with pytest.raises(DatasetError, match="not made by the shapes generator"):
        generate(tmp_path / "s", ShapesSettings(train_images=1, val_images=1))
    assert theirs.exists()


@pytest.mark.parametrize("gone", ["train/000000000001.jpg", "annotations/instances_val.json"])
def test_a_dataset_that_has_lost_a_file_is_made_again(tmp_path: Path, gone: str) -> None:
    settings = ShapesSettings(train_images=2, val_images=1)
    generate(tmp_path / "s", settings)
    (tmp_path / "s" / gone).unlink()
    generate(tmp_path / "s", settings)
    assert (tmp_path / "s" / gone).is_file()


def test_a_place_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file"):
        generate(tmp_path / "file" / "shapes", ShapesSettings(train_images=1, val_images=1))


def test_a_killed_generator_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    root = tmp_path / "s"
    process = start_generating(root, images=100_000)
    partial = tmp_path / ".s.partial" / "train"
    deadline = time.monotonic() + 20
    while not partial.is_dir() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.is_dir()
    assert not root.exists()
    settings = ShapesSettings(train_images=4, val_images=5)
    generate(root, settings)
    assert is_current(root, settings)
    assert not partial.exists()


def test_several_processes_may_generate_at_once(tmp_path: Path) -> None:
    processes = [start_generating(tmp_path / "s", images=150) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert is_current(tmp_path / "s", ShapesSettings(train_images=150, val_images=5))
    assert len(list((tmp_path / "s" / "train").iterdir())) == 150


def start_generating(root: Path, images: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", GENERATE, str(root), str(images)], env=environment)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"min_side": 32}, "min_side"),
        ({"min_side": 128}, "max_side"),
        ({"train_images": 0}, "train_images"),
        ({"max_objects": 9}, "max_objects"),
        ({"crowd_permille": -1}, "crowd_permille"),
    ],
)
def test_a_setting_out_of_range_is_named(values: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ShapesSettings(**values)


HOLE = ["#####", "#...#", "#####"]
CORNER_ONLY = ["##..", "##..", "..##"]
TWO_PARTS = ["#..#", "#..#"]


@pytest.mark.parametrize("rows", [HOLE, CORNER_ONLY, TWO_PARTS])
def test_what_is_not_one_simple_polygon_is_not_written_as_one(rows: list[str]) -> None:
    assert masks.simple_polygon(mask_of(rows)) is None


def test_a_polygon_follows_the_borders_of_pixels() -> None:
    assert masks.simple_polygon(mask_of(["....", ".##.", "...."])) == [1, 1, 3, 1, 3, 2, 1, 2]


def mask_of(rows: list[str]) -> masks.Mask:
    return np.array([[character == "#" for character in row] for row in rows])
