"""matrix.yaml: what the zoo is made of. The schema, its checks, and its export as JSON Schema for editors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zoo_bench.addresses import HUB, Address, InsidePath, Url, is_inside
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.executors.slurm.section import Slurm
from zoo_bench.recipe import Count, Fraction, Name, PartialSchedule, PartialValues, Precision, Seed, Strict

# Of COCO AP as a fraction. An evaluation of one model gives the same but for the order of sums: what differs by more
# has another evaluator, operator or loader.
SAME_MODEL_AP = 0.0005
Side = Annotated[int, Field(ge=64, le=4096, description="pixels")]
Images = Annotated[int, Field(ge=1, le=1_000_000)]


class SplitFiles(Strict):
    """Where one split of a COCO-format dataset lies, relative to the dataset's root."""

    images: InsidePath
    annotations: InsidePath


class CocoDataset(Strict):
    """A folder in COCO format. `root` is relative to the workspace; the machine configuration may say another."""

    kind: Literal["coco"]
    label: Name = Field(description="the name's last part in a cell's id")
    root: str
    train: SplitFiles
    val: SplitFiles


class ShapesDataset(Strict):
    """A generated dataset: the same bytes on every machine for the same values."""

    kind: Literal["shapes"]
    label: Name
    seed: Seed
    train_images: Images
    val_images: Images
    min_side: Side
    max_side: Side
    max_objects: Annotated[int, Field(ge=1, le=8)]


Dataset = Annotated[CocoDataset | ShapesDataset, Field(discriminator="kind")]


class Detector(Strict):
    """A detector: its heading in the document, its family and neck (which make its name), and its own values."""

    title: str
    family: Name
    neck: Name
    masks: bool
    set: PartialValues = {}


class Backbone(Strict):
    """A backbone and how the table writes it."""

    title: str


class Schedule(Strict):
    """A learning-rate schedule, by the name the table shows."""

    set: PartialSchedule


class Override(Strict):
    """Values laid over the cells that `select` matches."""

    select: str
    set: PartialValues


class Axes(Strict):
    """The product that is expanded into cells."""

    backend: tuple[Name, ...] = Field(min_length=1)
    detector: tuple[Name, ...] = Field(min_length=1)
    backbone: tuple[Name, ...] = Field(min_length=1)
    schedule: tuple[Name, ...] = Field(min_length=1)
    precision: tuple[Precision, ...] = Field(default=("fp32",), min_length=1)


class AxesChange(Strict):
    """Axes that a profile replaces; the others stay."""

    backend: tuple[Name, ...] | None = Field(default=None, min_length=1)
    detector: tuple[Name, ...] | None = Field(default=None, min_length=1)
    backbone: tuple[Name, ...] | None = Field(default=None, min_length=1)
    schedule: tuple[Name, ...] | None = Field(default=None, min_length=1)
    precision: tuple[Precision, ...] | None = Field(default=None, min_length=1)


class Include(Strict):
    """One cell beside the product."""

    backend: Name
    detector: Name
    backbone: Name
    schedule: Name
    precision: Precision = "fp32"


class Profile(Strict):
    """A named set of overrides. Nothing but values: no code knows a profile by its name."""

    description: str
    note: str = Field(default="", description="printed at the head of a document made with this profile")
    axes: AxesChange = AxesChange()
    set: PartialValues = {}
    overrides: tuple[Override, ...] = ()


class Publish(Strict):
    """Where models and their logs are uploaded to, and under which address readers find them."""

    address: Address = Field(
        description="a folder of the workspace, or any address that fsspec writes to: s3://, hf://"
    )
    url: Url | None = Field(default=None, description="what the document links, before a file's name")

    @model_validator(mode="after")
    def _readers_find_it(self) -> Publish:
        if self.url is None and not self.address.startswith(HUB) and not is_inside(self.address):
            raise ValueError(f"url: needed, since '{self.address}' does not tell where readers find the files")
        if self.url is not None and is_inside(self.address) and is_inside(self.url) and self.url != self.address:
            raise ValueError(f"url: files in '{self.address}' are not found under '{self.url}'; leave url out")
        return self


Tables = Literal["together", "apart"]
Part = Annotated[Fraction, Field(gt=0)]


class Document(Strict):
    """The document that `render` prints: its title, the backends whose cells fill it, and how these share it."""

    title: str
    backends: tuple[Name, ...] = Field(min_length=1, description="whose cells fill the document, in this order")
    tables: Tables = Field(
        default="together",
        description="of several backends: together in one table a detector, or apart, each under its own heading",
    )


class Target(Strict):
    """The machine the zoo is meant for: shown in the document until records say what was really used."""

    gpus: Count
    gpu: str
    cpu: str
    software: dict[str, str]


class LeastChange(Strict):
    """The smallest change of each metric that is accused, however certain it is.

    Of memory, s/iter and fps as a share of them; of AP, of newly trained models, as a fraction: 0.003 is 0.3 points.
    """

    memory: Part = 0.01
    s_per_iter: Part = 0.015
    fps: Part = 0.015
    box_ap: Part = 0.003
    mask_ap: Part = 0.003


class Check(Strict):
    """What `zoo-bench check` accuses; docs/regression.md explains how it decides."""

    least_change: LeastChange = LeastChange()
    same_model_ap: Part = Field(
        default=SAME_MODEL_AP,
        description="how far the AP of the accepted model, evaluated again, may be off: 0.0005 is 0.05 points",
    )


class Matrix(Strict):
    """A whole matrix.yaml."""

    version: Literal[1]
    default_profile: str
    scorer: Literal["hotcoco", "pycocotools"] = Field(description="computes COCO AP; they agree to 1e-9")
    document: Document
    target: Target
    publish: Publish | None = None
    check: Check = Check()
    slurm: Slurm | None = None
    datasets: dict[Name, Dataset] = Field(min_length=1)
    detectors: dict[Name, Detector] = Field(min_length=1)
    backbones: dict[Name, Backbone] = Field(min_length=1)
    schedules: dict[str, Schedule] = Field(min_length=1)
    axes: Axes
    exclude: tuple[str, ...] = ()
    include: tuple[Include, ...] = ()
    defaults: PartialValues
    overrides: tuple[Override, ...] = ()
    profiles: dict[Name, Profile] = Field(min_length=1)

    def profile(self, name: str | None) -> tuple[str, Profile]:
        """Return the profile called `name`, or the default one, with its name.

        Raises:
            ConfigError: there is no such profile.
        """
        chosen = name or self.default_profile
        if chosen not in self.profiles:
            raise ConfigError(f"--profile {chosen}: no such profile in the matrix", nearest(chosen, self.profiles))
        return chosen, self.profiles[chosen]

    def detector_title(self, name: str) -> str:
        """Return the heading of a detector's table; of one that only an imported run has, its name."""
        return self.detectors[name].title if name in self.detectors else name

    def backbone_title(self, name: str) -> str:
        """Return what a table calls a backbone; one that only an imported run has, by its name."""
        return self.backbones[name].title if name in self.backbones else name


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of matrix.yaml, for editors."""
    schema = Matrix.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "zoo-bench matrix"}
