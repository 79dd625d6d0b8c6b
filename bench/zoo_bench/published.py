"""Figures that other zoos have published, and how each was measured: read from the YAML files in references/.

Figures stand as they were printed, in the units they were printed in; where a source gives seconds an image or images a
second, its file says so. They are references to hold our own against, never measurements of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field

from zoo_bench.columns import Column
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.figures import OverGpus
from zoo_bench.recipe import Name, Positive, Precision, Strict
from zoo_bench.yamlfile import load_model

FOLDER = Path(__file__).with_name("references")
Number = Annotated[float, Field(gt=0)]
Part = Literal["load", "preprocess", "forward", "postprocess", "encode"]
PUBLISHED_PRECISION: Precision = "fp32"
COMPARED: tuple[Column, ...] = ("memory", "s_per_iter", "fps", "box_ap", "mask_ap")


class Hardware(Strict):
    """What a source measured on. `gpu` is a part of the name that NVML gives such a GPU."""

    gpus: Positive
    gpu: str
    detail: str = ""

    def is_kind_of(self, gpu: str) -> bool:
        """Tell whether a GPU of this name, as NVML gives it, is of the kind that was measured on."""
        return _plain(self.gpu) in _plain(gpu)

    @property
    def text(self) -> str:
        """It, as one writes it."""
        return f"{self.gpus} x {self.gpu}{f' ({self.detail})' if self.detail else ''}"


def _plain(name: str) -> str:
    return name.lower().replace(" ", "")


class InputSize(Strict):
    """Image size in pixels, as a recipe has it."""

    min_size: Positive
    max_size: Positive


class Method(Strict):
    """How a figure was measured, as far as it is not how we do: `differs`, in words."""

    differs: str = ""


class MemoryMethod(Method):
    """Which memory a source shows, of which of its GPUs. nvidia-smi: read from that tool."""

    count: Literal["nvidia-smi", "allocated", "reserved"]
    over_gpus: OverGpus


class InferenceMethod(Method):
    """Which parts of an image's time a source counts into its images a second."""

    parts: tuple[Part, ...] = Field(min_length=1)


class PublishedRow(Strict):
    """One row of a source's table. memory in the source's GB; AP in points."""

    detector: Name
    backbone: Name
    schedule: str
    batch_size: Positive | None = Field(default=None, description="where it is not the source's usual one")
    memory_gb: Number | None = None
    s_per_iter: Number | None = None
    fps: Number | None = None
    box_ap: Number | None = None
    mask_ap: Number | None = None
    note: str = Field(default="", description="how this row's training differs from the source's others")

    def printed(self, column: Column) -> float | None:
        """Return the figure of a column, as it was printed."""
        return {
            "memory": self.memory_gb,
            "s_per_iter": self.s_per_iter,
            "fps": self.fps,
            "box_ap": self.box_ap,
            "mask_ap": self.mask_ap,
        }.get(column)


class Source(Strict):
    """Where figures were published."""

    name: Name
    title: str
    url: str
    version: str = Field(description="commit or date of what was read")
    software: dict[str, str]


class Zoo(Source):
    """Another model zoo's table, all of it in PUBLISHED_PRECISION."""

    hardware: Hardware
    dataset: Name
    input: InputSize
    batch_size: Positive
    memory: MemoryMethod
    s_per_iter: Method
    fps: InferenceMethod
    ap: Method
    note: str = ""
    rows: tuple[PublishedRow, ...] = Field(min_length=1)

    def row(self, detector: str, backbone: str, schedule: str) -> PublishedRow | None:
        """Return the row for a cell; None where the source has none."""
        wanted = (detector, backbone, schedule)
        return next((row for row in self.rows if (row.detector, row.backbone, row.schedule) == wanted), None)


class ThroughputRow(Strict):
    """Images a second in training, over all `gpus`."""

    by: str
    detector: Name
    backbone: Name
    images_per_s: Number
    gpus: Positive
    gpu: str
    precision: str = Field(default="", description="empty where the source does not say")


class Throughput(Source):
    """A comparison of training speeds."""

    differs: str
    rows: tuple[ThroughputRow, ...] = Field(min_length=1)


Model = TypeVar("Model", bound=BaseModel)


def source_names() -> list[str]:
    """Return the names of all sources."""
    return sorted(path.stem for path in FOLDER.glob("*/*.yaml"))


def load_published(name: str | None = None) -> tuple[tuple[Zoo, ...], tuple[Throughput, ...]]:
    """Read every source, or the one called `name`.

    Raises:
        ConfigError: there is no such source.
    """
    if name is not None and name not in source_names():
        raise ConfigError(f"--published {name}: no such source", nearest(name, source_names()))
    return _load("zoos", Zoo, name), _load("throughput", Throughput, name)


def _load(folder: str, model: type[Model], name: str | None) -> tuple[Model, ...]:
    paths = sorted((FOLDER / folder).glob("*.yaml"))
    return tuple(load_model(path, model) for path in paths if name in (None, path.stem))
