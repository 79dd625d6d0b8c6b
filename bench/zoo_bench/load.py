"""Reading a matrix.yaml: the schema's checks first, then those that need every profile expanded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo_bench.cell import CellName, Coordinates, expand
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.matrix import Axes, AxesChange, Include, Matrix, ShapesDataset
from zoo_bench.recipe import PRECISIONS
from zoo_bench.selector import check
from zoo_bench.yamlfile import Loc, YamlFileError, describe_lines, dotted, line_of, load_model

Problem = tuple[Loc, str]
# That the declared names could make, used or not.
MOST_NAMES = 200_000


def load_matrix(path: Path) -> Matrix:
    """Read and check a matrix.yaml, every profile of it.

    Raises:
        YamlFileError: with every problem found, each as ``file:line: key: what was expected``.
    """
    matrix = load_model(path, Matrix)
    lines = describe_lines(path)
    problems = [
        f"{path}:{line_of(lines, loc)}: {dotted(loc)}: {what}"
        for loc, what in [*_undeclared(matrix), *_datasets(matrix), *_too_many(matrix)]
        or _idle_selectors(matrix)
        or _unfit_cells(matrix)
    ]
    if problems:
        raise YamlFileError(problems)
    return matrix


def _undeclared(matrix: Matrix) -> list[Problem]:
    """Names on the axes, in include and as default that the file does not declare."""
    declared: dict[str, Iterable[str]] = {
        "detector": matrix.detectors,
        "backbone": matrix.backbones,
        "schedule": matrix.schedules,
    }
    places: list[tuple[Loc, Axes | AxesChange | Include]] = [(("axes",), matrix.axes)]
    places += [(("profiles", name, "axes"), profile.axes) for name, profile in matrix.profiles.items()]
    places += [(("include", index), cell) for index, cell in enumerate(matrix.include)]
    problems: list[Problem] = [
        ((*loc, axis), f"'{name}' is not declared under {axis}s; {nearest(name, known)}")
        for loc, place in places
        for axis, known in declared.items()
        for name in _names(getattr(place, axis))
        if name not in known
    ]
    backends = _backends(matrix)
    problems += [
        (("document", "backends", index), f"'{name}' is on no axis; {nearest(name, backends)}")
        for index, name in enumerate(matrix.document.backends)
        if name not in backends
    ]
    if matrix.default_profile not in matrix.profiles:
        advice = nearest(matrix.default_profile, matrix.profiles)
        problems.append((("default_profile",), f"'{matrix.default_profile}' is not a profile; {advice}"))
    return problems


def _backends(matrix: Matrix) -> set[str]:
    """Every backend that the axes, a profile or include name."""
    backends = {*matrix.axes.backend, *(cell.backend for cell in matrix.include)}
    for profile in matrix.profiles.values():
        backends.update(profile.axes.backend or ())
    return backends


def _datasets(matrix: Matrix) -> list[Problem]:
    """Labels that two datasets share, which would give their cells one id, and sizes that exclude each other."""
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    for name, dataset in matrix.datasets.items():
        owner = owners.setdefault(dataset.label, name)
        if owner != name:
            problems.append((("datasets", name, "label"), f"'{dataset.label}' is the label of {owner} already"))
        if isinstance(dataset, ShapesDataset) and dataset.min_side > dataset.max_side:
            what = f"{dataset.min_side} is larger than max_side, {dataset.max_side}"
            problems.append((("datasets", name, "min_side"), what))
    return problems


def _too_many(matrix: Matrix) -> list[Problem]:
    """More names than can be looked through."""
    declared = (_backends(matrix), matrix.detectors, matrix.backbones, matrix.schedules, PRECISIONS, matrix.datasets)
    count = math.prod(map(len, declared))
    return [((), f"its names could make {count} cells, and {MOST_NAMES} is the most")] if count > MOST_NAMES else []


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else value


def _idle_selectors(matrix: Matrix) -> list[Problem]:
    """Selectors that no declared name could ever match: a misspelling, most likely."""
    universe = list(_universe(matrix))
    problems: list[Problem] = []
    for loc, selector in _selectors(matrix):
        try:
            check("selector", selector, universe)
        except ConfigError as error:
            problems.append((loc, f"{error.message}; {error.hint}"))
    return problems


def _unfit_cells(matrix: Matrix) -> list[Problem]:
    """Profiles whose cells are none, incomplete, or do not fit the schema once everything is laid over."""
    problems: list[Problem] = []
    for name in matrix.profiles:
        try:
            found = [] if expand(matrix, name) else ["has no cells; every one is excluded"]
        except ConfigError as error:
            found = [f"{error.message}; {error.hint}"]
        except ValidationError as error:
            found = [_detail(detail) for detail in error.errors()]
        problems += [(("profiles", name), what) for what in found]
    return problems


def _detail(detail: Any) -> str:
    key = dotted(tuple(detail["loc"]))
    return f"{key} is not set; add it to defaults" if detail["type"] == "missing" else f"{key}: {detail['msg']}"


def _universe(matrix: Matrix) -> Iterator[CellName]:
    """Every cell that the declared names could make, used or not: what a selector in the file may speak of."""
    everything = itertools.product(
        sorted(_backends(matrix)),
        matrix.detectors.items(),
        matrix.backbones,
        matrix.schedules,
        PRECISIONS,
        matrix.datasets.items(),
    )
    for backend, (detector, declared), backbone, schedule, precision, (name, dataset) in everything:
        at = Coordinates(backend, detector, backbone, schedule, precision)
        yield CellName(
            **at._asdict(), family=declared.family, neck=declared.neck, dataset=name, dataset_label=dataset.label
        )


def _selectors(matrix: Matrix) -> Iterator[tuple[Loc, str]]:
    for index, selector in enumerate(matrix.exclude):
        yield ("exclude", index), selector
    for index, override in enumerate(matrix.overrides):
        yield ("overrides", index, "select"), override.select
    for name, profile in matrix.profiles.items():
        for index, override in enumerate(profile.overrides):
            yield ("profiles", name, "overrides", index, "select"), override.select
