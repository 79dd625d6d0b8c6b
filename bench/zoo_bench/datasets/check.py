"""Check a dataset in COCO format before hours are spent on it: one report, never a traceback.

Errors are what makes a loader fail, or a score mean something else than it says. Warnings are what COCO
itself contains and every trainer copes with: a few boxes without area, images that appear twice, annotations
without masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from zoo_bench.datasets.check_segmentation import segmentation_fault
from zoo_bench.datasets.coco import MOST_SIDE, is_finite, is_number, json_type, read_json, structure_fault
from zoo_bench.datasets.findings import Findings, Problem, to_text
from zoo_bench.errors import DatasetError

# COCO's own boxes were computed from polygons in floating point and may reach past the border, by less than a
# pixel.
_BORDER_TOLERANCE_PX = 1.0

_INTEGER = "an integer"
_IMAGE_KEYS = {"id": _INTEGER, "file_name": "a string", "width": _INTEGER, "height": _INTEGER}
_ANNOTATION_KEYS = {"id": _INTEGER, "image_id": _INTEGER, "category_id": _INTEGER, "iscrowd": _INTEGER}
_CATEGORY_KEYS = {"id": _INTEGER, "name": "a string"}


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DatasetReport:
    """The result of `check_dataset`; `decoded` says whether the images were decoded, or only looked at."""

    image_folder: Path
    annotation_file: Path
    images: int
    annotations: int
    categories: int
    decoded: bool
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the dataset can be used; there may be warnings."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_text(self) -> str:
        """The report for people: counts, then each kind of problem with its first cases."""
        kinds = Counter(problem.severity for problem in self.problems)
        verdict = "no problems"
        if kinds:
            verdict = f"kinds of error: {kinds['error']}, of warning: {kinds['warning']}"
        head = (
            f"{self.annotation_file}\n  images in {self.image_folder}: {self.images}"
            f" ({'decoded' if self.decoded else 'not decoded'}), annotations: {self.annotations},"
            f" categories: {self.categories}; {verdict}"
        )
        return "\n".join([head, to_text(self.problems)]) if self.problems else head


def check_dataset(
    images: Path,
    annotations: Path,
    *,
    decode: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DatasetReport:
    """Check the annotation file `annotations` and the images it names in the folder `images`.

    `decode` reads every image to its end; without it only headers and end marks are looked at, which takes
    seconds for all of COCO. `workers` is the number of threads (default: one a CPU). `progress` is called
    with images done and images in all. Never raises for what is wrong with the data.
    """
    from zoo_bench.datasets import check_images  # and with it Pillow, only where it is needed

    findings = Findings()
    content = _read(annotations, findings)
    known_images = _check_images(content["images"], findings)
    categories = _check_categories(content["categories"], findings)
    _check_annotations(content["annotations"], known_images, categories, findings)
    files = [check_images.ImageFile(images / name, *size) for name, size in known_images.values()]
    check_images.check(images, files, findings, decode=decode, workers=workers, progress=progress)
    return DatasetReport(
        image_folder=images,
        annotation_file=annotations,
        images=len(content["images"]),
        annotations=len(content["annotations"]),
        categories=len(content["categories"]),
        decoded=decode,
        problems=findings.problems(),
    )


# Known images: id -> (file name, (width, height))
_Images = dict[int, tuple[str, tuple[int, int]]]


def _read(path: Path, findings: Findings) -> dict[str, list[Any]]:
    """The annotation file; when it cannot be used, an empty one and an error among the findings."""
    empty: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    try:
        content = read_json(path)
    except DatasetError as error:
        findings.error("annotation file cannot be read", error.message)
        return empty
    fault = structure_fault(content)
    if fault is not None:
        findings.error("not a COCO annotation file", f"{path}: {fault}")
        return empty
    for key in ("images", "annotations", "categories"):
        if not content[key]:
            findings.error("nothing to work with", f"'{key}' is an empty list")
    return {key: content[key] for key in empty}


def _check_images(entries: list[Any], findings: Findings) -> _Images:
    known: _Images = {}
    names: dict[str, int] = {}
    for position, entry in enumerate(entries):
        if not _well_formed(entry, _IMAGE_KEYS, f"images[{position}]", findings):
            continue
        number, name, size = entry["id"], entry["file_name"], (entry["width"], entry["height"])
        if number in known:
            findings.error("duplicate image id", f"image {number}: {known[number][0]} and {name}")
            continue
        if min(size) < 1:
            findings.error("malformed entry", f"images[{position}]: its size is {size[0]} x {size[1]}")
            continue
        if max(size) > MOST_SIDE:
            findings.error("malformed entry", f"images[{position}]: a side of it is longer than {MOST_SIDE} pixels")
            continue
        if not _stays_inside(name):
            findings.error("file name leads out of the image folder", f"image {number}: {name!r}")
            continue
        if name in names:
            findings.warning("file named by several images", f"{name}: images {names[name]} and {number}")
        names.setdefault(name, number)
        known[number] = (name, size)
    return known


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _check_categories(entries: list[Any], findings: Findings) -> frozenset[int]:
    known: dict[int, str] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        if not _well_formed(entry, _CATEGORY_KEYS, f"categories[{position}]", findings):
            continue
        number, name = entry["id"], entry["name"]
        if number < 1:
            findings.error("category id below 1", f"{name!r} has id {number}; 0 stands for the background")
        if number in known:
            findings.error("duplicate category id", f"{number}: {known[number]!r} and {name!r}")
        elif name in names:
            findings.error("duplicate category name", f"{name!r} has id {number} and an earlier one")
        names.add(known.setdefault(number, name))
    return frozenset(known)


def _check_annotations(entries: list[Any], images: _Images, categories: frozenset[int], findings: Findings) -> None:
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        if not _well_formed(entry, _ANNOTATION_KEYS, f"annotations[{position}]", findings):
            continue
        where = f"annotation {entry['id']} (image {entry['image_id']})"
        if entry["id"] in seen:
            findings.error("duplicate annotation id", where)
        seen.add(entry["id"])
        if entry["iscrowd"] not in (0, 1):
            findings.error("malformed entry", f"{where}: iscrowd is {entry['iscrowd']}, not 0 or 1")
        if entry["category_id"] not in categories:
            findings.error("unknown category", f"{where}: category {entry['category_id']}")
        image = images.get(entry["image_id"])
        if image is None:
            findings.error("unknown image", where)
        size = image[1] if image is not None else None
        _check_area(entry, where, findings)
        _check_box(entry, size, where, findings)
        _check_segmentation(entry, size, where, findings)


def _check_area(entry: dict[str, Any], where: str, findings: Findings) -> None:
    area = entry.get("area")
    if not is_number(area):
        findings.error("malformed entry", f"{where}: area is {_shown(entry, 'area')}, not a number")
    elif not is_finite(area) or area < 0:
        findings.error("coordinate or area that is not a finite number", f"{where}: area {area}")


def _check_box(entry: dict[str, Any], size: tuple[int, int] | None, where: str, findings: Findings) -> None:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        findings.error("malformed box", f"{where}: bbox is {_shown(entry, 'bbox')}, not [x, y, width, height]")
        return
    x, y, width, height = box
    if not all(map(is_finite, box)):
        findings.error("coordinate or area that is not a finite number", f"{where}: bbox {box}")
    elif width < 0 or height < 0:
        findings.error("box with a negative side", f"{where}: bbox {box}")
    elif width == 0 or height == 0:
        findings.warning("box without area (not trained on)", f"{where}: bbox {box}")
    elif size is not None:
        beyond = max(-x, -y, x + width - size[0], y + height - size[1])
        if beyond >= _BORDER_TOLERANCE_PX:
            case = f"{where}: bbox {box} reaches {beyond:.6g} px past the border of {size[0]} x {size[1]}"
            findings.error("box outside the image", case)


def _check_segmentation(entry: dict[str, Any], size: tuple[int, int] | None, where: str, findings: Findings) -> None:
    segmentation = entry.get("segmentation")
    if segmentation is None or segmentation == []:
        findings.warning("annotation without a segmentation (no use for mask models)", where)
        return
    fault = segmentation_fault(segmentation, size)
    if fault is not None:
        findings.error("malformed segmentation", f"{where}: {fault}")


def _well_formed(entry: Any, keys: dict[str, str], where: str, findings: Findings) -> bool:
    """Whether `entry` is an object in which each of `keys` has a value of its type; what is not becomes a
    finding.
    """
    if not isinstance(entry, dict):
        findings.error("malformed entry", f"{where} is {json_type(entry)}, not an object")
        return False
    for key, expected in keys.items():
        value = entry.get(key)
        wanted: type = int if expected == _INTEGER else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            findings.error("malformed entry", f"{where}: {key} is {_shown(entry, key)}, not {expected}")
            return False
    return True


def _shown(entry: dict[str, Any], key: str) -> str:
    """The value of a key for a message: short, and 'missing' when there is none."""
    if key not in entry:
        return "missing"
    text = repr(entry[key])
    return text if len(text) <= 60 else text[:57] + "..."
