"""`zoo-bench data`: datasets, and the schema of matrix.yaml."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from zoo_bench.datasets import shapes as generator
from zoo_bench.datasets.check import check_dataset
from zoo_bench.datasets.locate import locate, prepare, settings
from zoo_bench.display import bar
from zoo_bench.errors import EXIT_CELL_FAILED, EXIT_OK, ConfigError, nearest
from zoo_bench.matrix import Dataset, ShapesDataset, json_schema
from zoo_bench.recipe import PHASES
from zoo_bench.session import Asked, Session


def shapes(asked: Asked, name: str, output: Path | None) -> int:
    """Generate a declared shapes dataset and print its folder."""
    session = Session.open(asked)
    declared = _declared(session, name)
    if not isinstance(declared, ShapesDataset):
        made = [key for key, value in session.matrix.datasets.items() if isinstance(value, ShapesDataset)]
        raise ConfigError(f"dataset '{name}' is not generated", f"generated here: {', '.join(made) or 'none'}")
    paths = locate(name, declared, session.workspace, session.machine.datasets)
    folder = (output or paths.train.images.parent).absolute()
    progress, advance = bar(Console(stderr=True), f"dataset {name}")
    with progress:
        generator.generate(folder, settings(declared), advance)
    print(folder)
    return EXIT_OK


def check(asked: Asked, name: str) -> int:
    """Decode every image and check every annotation; 1 when the dataset cannot be used."""
    session = Session.open(asked)
    declared = _declared(session, name)
    paths = locate(name, declared, session.workspace, session.machine.datasets)
    progress, advance = bar(Console(stderr=True), f"dataset {name}")
    with progress:
        if isinstance(declared, ShapesDataset):
            prepare(declared, paths, PHASES, advance)
        reports = [check_dataset(s.images, s.annotations, progress=advance) for s in (paths.train, paths.val)]
    for report in reports:
        print(report.to_text())
    return EXIT_OK if all(report.ok for report in reports) else EXIT_CELL_FAILED


def schema() -> int:
    """Print the JSON Schema of matrix.yaml."""
    print(json.dumps(json_schema(), indent=2))
    return EXIT_OK


def _declared(session: Session, name: str) -> Dataset:
    datasets = session.matrix.datasets
    if name not in datasets:
        raise ConfigError(f"dataset '{name}' is not declared", nearest(name, datasets))
    return datasets[name]
