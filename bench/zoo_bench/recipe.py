"""The values of a cell: what is trained, how it is measured. Frozen, typed, every value with a unit or a source.

Field names are those of matrix.yaml and of job.json. Defaults stand in matrix.yaml, not here: a value that nobody
wrote down is an error, so that a record always says where each one came from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

Phase = Literal["train", "infer", "evaluate", "publish"]
PHASES: tuple[Phase, ...] = get_args(Phase)
# The last one is zoo-bench's own: no worker needs the keys to where models are kept.
WORKER_PHASES: tuple[Phase, ...] = ("train", "infer", "evaluate")
# How a device computes: in single precision; its products of matrices and convolutions with the 10 bits of
# TensorFloat-32; automatic mixed precision with bfloat16, the weights in single precision.
Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# Names become parts of file names, which hold 255 bytes.
NAME = "[A-Za-z0-9][A-Za-z0-9._-]*"
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=64)]
LONGEST_ID = 220  # a cell's: a folder's name and, with a digest, a file's
MOST = 10**9
# Strict: yes and no are no numbers, and nor is text that reads like one.
Positive = Annotated[StrictInt, Field(ge=1, le=MOST)]
Count = Annotated[StrictInt, Field(ge=0, le=MOST)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Fraction = Annotated[StrictFloat, Field(ge=0, le=1)]


def _weights(value: str) -> str:
    if value not in ("imagenet", "none") and not Path(value).is_absolute():
        raise ValueError(f"expected imagenet, none or an absolute path, found '{value}'")
    return value


Weights = Annotated[str, AfterValidator(_weights)]


class Strict(BaseModel):
    """A frozen value that refuses keys it does not know and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Input(Strict):
    """Image size and augmentation: shorter side `min_size`, longer at most `max_size`, in pixels."""

    min_size: Positive
    max_size: Positive
    flip_probability: Fraction


class PerPhase(Strict):
    """A count that differs between training and testing."""

    train: Positive
    test: Positive


class Model(Strict):
    """Widths, sizes and sampling of a detector. Backbone depth and width follow from the backbone's name alone."""

    backbone_weights: Weights = Field(description="imagenet, none, or the absolute path of a weights file")
    batch_norm: Literal["frozen", "live"]
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = Field(description="stem and stages that are not trained")
    fpn_channels: Positive
    box_head_channels: Positive
    mask_head_channels: Positive
    head_norm: Literal["none", "group"] = Field(description="normalisation in RetinaNet's head")
    box_roi_size: Positive
    mask_roi_size: Positive
    anchor_sizes: tuple[Positive, ...] = Field(min_length=1, description="pixels; FPN: one a level")
    rpn_pre_nms: PerPhase
    rpn_post_nms: PerPhase
    rpn_batch_per_image: Positive
    roi_batch_per_image: Positive
    box_loss_beta: Annotated[StrictFloat, Field(ge=0)] = Field(
        description="where smooth L1 of the final boxes turns from a square to a line (RPN: always 1/9); 0: L1"
    )


class Optimizer(Strict):
    """Optimiser and its peak learning rate."""

    name: Literal["sgd", "adamw"]
    lr: Annotated[StrictFloat, Field(gt=0)]
    momentum: Fraction
    weight_decay: Annotated[StrictFloat, Field(ge=0)]
    clip_norm: Annotated[StrictFloat, Field(gt=0)] | None


class LrSchedule(Strict):
    """Learning rate over iterations: linear warm-up, then steps by `gamma` at `milestones`."""

    iterations: Positive
    milestones: tuple[Count, ...]
    gamma: Annotated[StrictFloat, Field(gt=0)]
    warmup_iterations: Count
    warmup_factor: Fraction


class Test(Strict):
    """Which detections are kept."""

    __test__ = False  # pytest would take the name for a test class

    score_threshold: Fraction
    nms_threshold: Fraction
    detections_per_image: Positive


class Recipe(Strict):
    """Everything that decides what a number means, but for the number of iterations measured."""

    base_batch_size: Positive | None = Field(
        description="the images an iteration that lr and lr_schedule are meant for; another batch scales both, so that "
        "a training sees as many images; null: they hold for any batch"
    )
    input: Input
    model: Model
    optimizer: Optimizer
    lr_schedule: LrSchedule
    test: Test


class Measure(Strict):
    """How much is measured. `None` is all: the whole schedule, the whole evaluation split."""

    train_iterations: Positive | None
    train_half_width: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = Field(
        description="stop training once the 95 % interval of s/iter is this narrow, relative to it; null: never"
    )
    warmup_iterations: Count = Field(description="iterations cut from the front of the timing statistics, at least")
    infer_images: Positive
    infer_warmup_images: Count
    evaluate_images: Positive | None


class Runtime(Strict):
    """How the job is run: it changes no AP, but s/iter and fps."""

    data_workers: Count
    threads: Positive | None = Field(description="CPU threads of the framework; null: its own choice")
    checkpoint_interval: Positive = Field(description="iterations after which training can be resumed")
    collective_timeout_s: Annotated[StrictFloat, Field(gt=0, le=86400)] = Field(
        description="how long a process waits for the others of its job, before it fails"
    )


class Trust(Strict):
    """How a run is watched, and what becomes of one whose figures something else has spoiled."""

    sample_period_s: Annotated[StrictFloat, Field(ge=0.02, le=10)] = Field(description="between samples of the GPUs")
    process_period_s: Annotated[StrictFloat, Field(ge=0.1, le=10)] = Field(
        description="between lists of their processes"
    )
    on_noise: Literal["quarantine", "mark"] = Field(description="mark: keep the figures, with a footnote")
    hang_timeout_s: Annotated[StrictFloat, Field(gt=0, le=MOST)] | None = Field(
        description="a run that makes no progress for so long has hung, and is ended; null: never"
    )
    time_limit_s: Annotated[StrictFloat, Field(gt=0, le=MOST)] | None = Field(
        description="a run that takes longer than this is ended; null: never"
    )


class Retry(Strict):
    """How often a run that ended like this is tried again at once, by its status. The next `run` always does."""

    quarantined: Count
    hung: Count
    timed_out: Count
    out_of_memory: Count
    diverged: Count
    failed: Count
    smaller_batch: StrictBool = Field(
        default=False,
        description="after out_of_memory, run a further cell with half the images a GPU, which has a name of its own",
    )
    backoff_s: Annotated[StrictFloat, Field(ge=0, le=86400)] = Field(
        description="before the first such try; twice as long before each further one"
    )

    def limit(self, status: str) -> int:
        """Return how often; never for a run that succeeded or that somebody stopped."""
        return int(getattr(self, status, 0))


class CellValues(Strict):
    """Every value of a cell that defaults, overrides and profiles can set."""

    dataset: Name
    gpus: Count = Field(description="0: the CPU")
    images_per_gpu: Positive
    seed: Seed
    phases: tuple[Phase, ...] = Field(min_length=1)
    recipe: Recipe
    measure: Measure
    runtime: Runtime
    trust: Trust
    retry: Retry
    options: dict[str, Any] = Field(description="free values for one backend")

    @property
    def batch_size(self) -> int:
        """Images an iteration, over all devices."""
        return max(self.gpus, 1) * self.images_per_gpu


class PartialOf:
    """Annotation for a mapping that holds any part of `model`: checked as `model` is, kept as a plain dict."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda value: value.model_dump(exclude_unset=True), handler.generate_schema(_partial(self.model))
        )


def _partial(model: type[BaseModel]) -> type[BaseModel]:
    """Return `model` with every field optional, down through the models inside it."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = _partial(kind)
        described = Field(description=field.description)
        annotated = (kind, described, *field.metadata)
        fields[name] = (Annotated[annotated], None)
    return create_model(f"Partial{model.__name__}", __base__=Strict, **fields)


PartialValues = Annotated[dict[str, Any], PartialOf(CellValues)]
PartialSchedule = Annotated[dict[str, Any], PartialOf(LrSchedule)]


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it: mappings merge key by key, anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Say what changed from `old` to `new`, one ``key: old -> new`` a changed leaf."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        a, b, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{name}.")
        elif a != b:
            found.append(f"{name}: {a} -> {b}")
    return found
