"""What a run leaves in the store: one immutable, versioned JSON document.

Schema history: 1, the first. 2 adds intervals, energy, noise and the zoo's revision. 3 adds what was published. 4 adds
the origin of what was imported. What an older one lacks is read as absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from zoo_bench.addresses import Address, InsidePath, Url
from zoo_bench.measurements import Measurements, Whole
from zoo_bench.noise import Noise
from zoo_bench.recipe import LONGEST_ID, NAME, WORKER_PHASES, Count, Name, Phase, Positive, Strict
from zoo_bench.revision import Revision

Status = Literal["succeeded", "failed", "out_of_memory", "timed_out", "hung", "diverged", "interrupted", "quarantined"]


LATEST_UNIX_S = 253_402_300_799  # the last second that has a date of four digits


class Inputs(Strict):
    """Digests (SHA-256, hex) of what a run was made from."""

    sources_sha256: str
    lock_sha256: str | None
    dataset_sha256: str


class Checkpoint(Strict):
    """The weights a run made or was given. `file` is relative to the workspace; of one outside, the bare name.

    `trained`: the whole schedule was run. `given`: the user supplied the file with --checkpoint.
    """

    file: InsidePath
    sha256: str
    bytes: Whole
    trained: bool
    given: bool

    @property
    def usable(self) -> bool:
        """True of a model whose training had finished, here or elsewhere."""
        return self.trained or self.given


class PublishedFile(Strict):
    """A file that readers can fetch. `url` is what documents link: an http(s) address, or a path in the workspace."""

    url: Url
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Count


class Published(Strict):
    """What was uploaded of a cell: its model, and the log of the run that trained it. `address`: of the upload."""

    address: Address
    model: PublishedFile
    log: PublishedFile


class OriginFile(Strict):
    """A file that a record was made from. `name`: without its folder, which is of one machine."""

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Count


class Origin(Strict):
    """Where a record comes from that zoo-bench did not measure: what another program left of its run.

    `known`: the keys of `cell` that the files tell; all others are the matrix's, and may not hold. `remarks`: what a
    reader should know of how the files were read. `weights` and `log`: where their authors publish them.
    """

    adapter: Name
    files: tuple[OriginFile, ...] = Field(min_length=1)
    known: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    weights: Url | None = None
    log: Url | None = None


class _Taken(BaseModel):
    """Values that are checked, and then read where they stand: so none may be of a type that would be converted."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Gpu(_Taken):
    index: Count | None = None
    name: str


class _Machine(_Taken):
    """What readers of records take for granted in `machine`."""

    gpus: Sequence[_Gpu] = ()
    name: str | None = None
    cpu: str = ""
    cores: Count | None = None
    memory_bytes: Whole | None = None
    os: str | None = None
    kernel: str | None = None
    interconnect: str | None = None
    container: str | None = None
    driver: str | None = None
    cuda_driver: str | None = None


class _Measure(_Taken):
    evaluate_images: Count | None
    train_half_width: float | None = None


class _Input(_Taken):
    min_size: Positive
    max_size: Positive


class _Optimizer(_Taken):
    lr: Annotated[float, Field(gt=0)]


class _LrSchedule(_Taken):
    iterations: Count
    milestones: Sequence[Count]
    warmup_iterations: Count


class _Recipe(_Taken):
    base_batch_size: Positive | None = None
    input: _Input
    optimizer: _Optimizer
    lr_schedule: _LrSchedule


class _Cell(_Taken):
    """What readers of records take for granted in `cell`."""

    dataset: str
    gpus: Count
    measure: _Measure
    backend: str
    masks: bool
    precision: str
    images_per_gpu: Positive
    recipe: _Recipe


class _Files(_Taken):
    """What readers of records take for granted in `files`."""

    log: str


def _holding(parts: type[BaseModel]) -> AfterValidator:
    """Check that a mapping has `parts`, and keep it as it is."""

    def check(values: dict[str, Any]) -> dict[str, Any]:
        try:
            parts.model_validate(values)
        except ValidationError as error:
            detail = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None
        return values

    return AfterValidator(check)


class Record(Strict):
    """One run of one cell."""

    schema_version: Literal[1, 2, 3, 4] = 4
    run_id: Name
    cell_id: Annotated[str, Field(pattern=f"^{NAME}/{NAME}$", max_length=LONGEST_ID)]
    profile: str
    cell: Annotated[dict[str, Any], _holding(_Cell)] = Field(
        description="every value of the cell, as the worker got it"
    )
    recipe_sha256: str = Field(description="over all values but those that say how much was measured")
    fingerprint: str = Field(description="over all values and inputs: equal means nothing that matters changed")
    inputs: Inputs
    status: Status
    reason: str
    phases: tuple[Phase, ...] = Field(description="the phases that were asked for")
    phases_done: tuple[Phase, ...]
    started_unix_s: Annotated[float, Field(ge=0, le=LATEST_UNIX_S)]
    duration_s: Annotated[float, Field(ge=0)]
    measurements: Measurements
    noise: tuple[Noise, ...] = Field(default=(), description="what else happened on the machine while it was timed")
    unwatched: tuple[str, ...] = Field(default=(), description="kinds of noise that could not be looked for, and why")
    definitions: dict[str, str] = Field(description="which definition each number used")
    machine: Annotated[dict[str, Any], _holding(_Machine)]
    software: dict[str, str]
    revision: Revision | None = Field(default=None, description="of the zoo's files; None outside of git")
    checkpoint: Checkpoint | None
    published: Published | None = None
    origin: Origin | None = Field(default=None, description="of a run that was imported; None of one of our own")
    files: Annotated[dict[str, InsidePath], _holding(_Files)] = Field(
        description="log, events, samples, detections: relative to the workspace"
    )
    command: tuple[str, ...]
    zoo_bench: str = Field(description="version of zoo-bench that wrote the record")

    @property
    def measured(self) -> bool:
        """False for a run that only published what another had trained."""
        return not set(WORKER_PHASES).isdisjoint(self.phases)

    @property
    def has_model(self) -> bool:
        """True where what it measured is of a model whose training had finished, whether or not that was kept."""
        if self.checkpoint is not None:
            return self.checkpoint.usable
        train = self.measurements.train
        whole = self.origin is not None or (train is not None and train.ended_by == "schedule")
        return whole and "train" in self.phases_done

    @property
    def dataset(self) -> str:
        """Name of the dataset that was trained and evaluated on."""
        return str(self.cell["dataset"])
