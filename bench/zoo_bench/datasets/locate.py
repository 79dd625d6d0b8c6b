"""Where a declared dataset lies on this machine, whether it is there, and what identifies its content."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zoo_bench.datasets import shapes
from zoo_bench.datasets.check import check_dataset
from zoo_bench.datasets.coco import dataset_fingerprint
from zoo_bench.errors import DatasetError
from zoo_bench.job import DatasetPaths, SplitPaths
from zoo_bench.matrix import CocoDataset, Dataset, ShapesDataset
from zoo_bench.recipe import PHASES, Phase
from zoo_bench.workspace import Workspace

Progress = Callable[[int, int], None]


def locate(name: str, dataset: Dataset, workspace: Workspace, roots: Mapping[str, Path]) -> DatasetPaths:
    """Return the paths of a dataset, there or not. `roots` are the folders that the machine configuration names."""
    if isinstance(dataset, ShapesDataset):
        root = workspace.state / "data" / f"{name}-{shapes.fingerprint(settings(dataset))[:8]}"
        return DatasetPaths(
            name,
            *(SplitPaths(root / split, root / "annotations" / f"instances_{split}.json") for split in shapes.SPLITS),
        )
    root = roots.get(name, workspace.root / os.path.expanduser(dataset.root)).absolute()
    return DatasetPaths(
        name,
        *(SplitPaths(root / split.images, root / split.annotations) for split in (dataset.train, dataset.val)),
    )


def settings(dataset: ShapesDataset) -> shapes.ShapesSettings:
    """Return the generator's settings of a declared dataset."""
    return shapes.ShapesSettings(**dataset.model_dump(exclude={"kind", "label"}))


def fingerprint(dataset: Dataset, paths: DatasetPaths) -> str:
    """Return the SHA-256 of what the dataset holds: its settings, or its annotation files, as far as they are there."""
    if isinstance(dataset, ShapesDataset):
        return shapes.fingerprint(settings(dataset))
    return dataset_fingerprint(split.annotations for split in (paths.train, paths.val) if split.annotations.is_file())


def missing(dataset: Dataset, paths: DatasetPaths, phases: Sequence[Phase] = PHASES) -> list[str]:
    """Return what `phases` lack of a dataset on this machine, a line each. A generated dataset lacks nothing."""
    if isinstance(dataset, ShapesDataset):
        return []
    wanted = [path for split in paths.needed(phases) for path in (split.images, split.annotations)]
    absent = [path for path in wanted if not path.exists()]
    if absent and len(absent) == len(wanted):
        return [f"there is no {os.path.commonpath(wanted)}"]
    return [f"{path} does not exist" for path in absent]


def prepare(dataset: Dataset, paths: DatasetPaths, phases: Sequence[Phase], progress: Progress) -> None:
    """Generate what can be generated and check what `phases` read of the rest, without decoding every image.

    Raises:
        DatasetError: with the whole report, when the dataset cannot be used.
    """
    if isinstance(dataset, ShapesDataset):
        shapes.generate(paths.train.images.parent, settings(dataset), progress)
        return
    reports = [
        check_dataset(split.images, split.annotations, decode=False, progress=progress)
        for split in paths.needed(phases)
    ]
    broken = [report.to_text() for report in reports if not report.ok]
    if broken:
        raise DatasetError("\n".join(broken), f"mend the files above, or point to another copy; dataset: {paths.name}")


def declared_kind(dataset: Dataset) -> str:
    """Say in a word what a dataset is, for `doctor`."""
    return "generated" if not isinstance(dataset, CocoDataset) else "COCO format"
