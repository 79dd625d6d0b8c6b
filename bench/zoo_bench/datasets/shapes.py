"""`shapes`: a small detection dataset, made here, the same to the byte on every machine.

Coloured circles, squares, triangles and rings on textured backgrounds, 1 to 8 an image, some hidden in part
by others, with COCO annotations: a polygon where what is visible of an object is one simple polygon, run
lengths where it is not, and in a few images a crowd of tiny shapes. Every image depends on the seed, its
split and its place in the split alone, so a longer split begins with the images of a shorter one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo_bench.errors import ConfigError, DatasetError

#: 1: first version. Raise it with any change that changes a byte of what is generated.
GENERATOR_VERSION = 1
SPLITS = ("train", "val")
Progress = Callable[[int, int], None]

_GENERATOR = "zoo-bench shapes"
_MANIFEST = "manifest.json"
_UNFINISHED = "manifest.json.unfinished"
_MANIFESTS = (_MANIFEST, _UNFINISHED)
_MAX_IMAGES = 1_000_000
_LIMITS = {
    "seed": (0, 2**63 - 1),
    "train_images": (1, _MAX_IMAGES),
    "val_images": (1, _MAX_IMAGES),
    "min_side": (64, 4096),
    "max_side": (64, 4096),
    "max_objects": (1, 8),
    "crowd_permille": (0, 1000),
}


@dataclass(frozen=True)
class ShapesSettings:
    """What to generate: sides in pixels, `crowd_permille` the images of a thousand that hold a crowd.

    Width and height are drawn for each image from ``min_side..max_side``. Raises ConfigError for a value out
    of range.
    """

    seed: int = 0
    train_images: int = 800
    val_images: int = 200
    min_side: int = 64
    max_side: int = 64
    max_objects: int = 8
    crowd_permille: int = 40

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"shapes: {name} is {value}", hint=f"{name} must be from {low} to {high}.")
        if self.min_side > self.max_side:
            raise ConfigError(
                f"shapes: min_side {self.min_side} is larger than max_side {self.max_side}",
                hint="Make min_side the smaller of the two.",
            )


def fingerprint(settings: ShapesSettings) -> str:
    """SHA-256, in hexadecimal, of all that decides the bytes of the dataset."""
    return hashlib.sha256(_manifest(settings).encode()).hexdigest()


def is_current(root: Path, settings: ShapesSettings) -> bool:
    """Whether `root` holds the whole dataset of these settings, made by this version of the generator."""
    try:
        made = (root / _MANIFEST).read_bytes() == _manifest(settings).encode()
        return made and all(
            (root / "annotations" / f"instances_{split}.json").is_file()
            and len(os.listdir(root / split)) >= getattr(settings, f"{split}_images")
            for split in SPLITS
        )
    except OSError:
        return False


def generate(root: Path, settings: ShapesSettings, progress: Progress | None = None) -> None:
    """Make the dataset in the folder `root`, unless it is there already.

    Layout: ``annotations/instances_<split>.json``, ``<split>/<image id>.jpg``, and ``manifest.json``. The
    folder is made beside its place and renamed into it; of several processes one generates and the others
    wait for it. `progress` is called with images done and images in all. Raises DatasetError when `root`
    holds something else, or cannot be written.
    """
    from filelock import FileLock

    root = root.absolute()
    if is_current(root, settings):
        return  # before the lock, which could not be taken beside a shared folder that is read-only
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        lock = root.parent / f".{root.name}.lock"
        lock.touch()  # where that cannot be done, filelock would try for ever
        with FileLock(lock):
            if not is_current(root, settings):
                _replace(root, settings, progress)
    except OSError as error:
        raise DatasetError(
            f"cannot write the shapes dataset to {root}: {error.strerror or error}",
            hint="Choose a folder you may write to, with enough free space.",
        ) from error


def _replace(root: Path, settings: ShapesSettings, progress: Progress | None) -> None:
    """Generate beside `root`, then swap; called with the lock held, so left-overs of a killed run can go."""
    partial, old = (root.parent / f".{root.name}.{suffix}" for suffix in ("partial", "old"))
    for folder in (root, partial, old):
        if not _is_own(folder):
            raise DatasetError(
                f"{folder} exists and was not made by the shapes generator",
                hint="Move it away, or choose another folder for shapes.",
            )
    for left_over in (partial, old):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        _write(partial, settings, progress)
        if root.exists():
            os.replace(root, old)
        os.replace(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Whether `folder` may be removed: the generator made it, whole or in part, or there is nothing in it."""
    if not os.path.lexists(folder):
        return True
    return folder.is_dir() and (not any(folder.iterdir()) or any(map(_is_manifest, map(folder.joinpath, _MANIFESTS))))


def _is_manifest(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("generator") == _GENERATOR


def _write(folder: Path, settings: ShapesSettings, progress: Progress | None) -> None:
    from zoo_bench.datasets.shapes_split import write_split

    folder.mkdir()
    (folder / _UNFINISHED).write_bytes(_manifest(settings).encode())
    total = settings.train_images + settings.val_images
    done = 0
    for index, split in enumerate(SPLITS):
        images = settings.train_images if split == "train" else settings.val_images
        # Ids of the splits do not meet, whatever the number of images: _MAX_IMAGES bounds both.
        first_id = index * _MAX_IMAGES + 1
        for _ in write_split(folder, split, settings, images, first_id):
            done += 1
            if progress is not None:
                progress(done, total)
    os.replace(folder / _UNFINISHED, folder / _MANIFEST)


def _manifest(settings: ShapesSettings) -> str:
    content: dict[str, Any] = {"generator": _GENERATOR, "version": GENERATOR_VERSION}
    content["settings"] = asdict(settings)
    return json.dumps(content, indent=1, sort_keys=True) + "\n"
