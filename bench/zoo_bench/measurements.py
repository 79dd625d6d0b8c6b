"""What a run measured, as its record keeps it. Values only: seconds, bytes, joules, fractions.

What they mean, and how they are come by, is told where they are made: timing.py, memory.py, energy.py,
sampling.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zoo_bench.bounded import LARGEST, LEAST_S
from zoo_bench.evaluate import CocoScores
from zoo_bench.recipe import Strict

EndedBy = Literal["schedule", "cap", "precision"]
EnergySource = Literal["counter", "power"]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]
Bound = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]


class Interval(Strict):
    """A 95 % interval, in the unit of the values."""

    low: Bound
    high: Bound

    @model_validator(mode="after")
    def _in_order(self) -> Interval:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self

    def half_width(self, mean: float) -> float:
        """Return half its width, as a share of `mean`."""
        return (self.high - self.low) / 2.0 / mean


class TrainTiming(Strict):
    """Wall time of an iteration in the steady state, data loading included, at `batch_size` images.

    `interval` (95 %, of the mean) is None where too few iterations were measured. `iterations_cut` were cut as warm-up,
    `pauses_cut` for a checkpoint or an evaluation. `ended_by`: the schedule was done, `measure.train_iterations` was
    reached before that, or the interval was narrow enough. `resumed_at`: the iteration after which an earlier run was
    interrupted, and from which on these figures are. `averaged_over`: what was measured are means of so many iterations
    each, as an imported log has them. Defaults are for records of schema 1, which lack these. `data_share` and
    `final_loss` are None where a log does not tell them.
    """

    iterations_run: Whole
    averaged_over: Annotated[Whole, Field(ge=1)] = 1
    resumed_at: Whole = 0
    iterations_measured: Whole
    iterations_cut: Whole = 0
    pauses_cut: Whole = 0
    batch_size: Annotated[Whole, Field(ge=1)]
    mean_s: Annotated[float, Field(ge=LEAST_S, le=LARGEST)]
    interval: Interval | None = None
    median_s: Amount
    p10_s: Amount
    p90_s: Amount
    data_share: Annotated[float, Field(ge=0)] | None
    final_loss: float | None
    ended_by: EndedBy = "schedule"

    @property
    def half_width(self) -> float | None:
        """Half the interval, as a share of the mean."""
        return None if self.interval is None else self.interval.half_width(self.mean_s)


class InferTiming(Strict):
    """Mean seconds an image takes in each part, at batch 1 on one device.

    `interval` (95 %) is of forward + postprocess; None where too few images were timed.
    """

    images: Annotated[Whole, Field(ge=1)]
    load_s: Amount
    preprocess_s: Amount
    forward_s: Amount
    postprocess_s: Amount
    encode_s: Amount
    detections_per_image: Amount
    interval: Interval | None = None

    @model_validator(mode="after")
    def _takes_time(self) -> InferTiming:
        if self.forward_s + self.postprocess_s < LEAST_S:
            raise ValueError("forward_s and postprocess_s together are no time")
        return self

    @property
    def fps(self) -> float:
        """Images a second, forward + postprocess."""
        return 1.0 / (self.forward_s + self.postprocess_s)


class GpuMemory(Strict):
    """Peaks of one GPU; None where NVML did not say."""

    index: Whole
    nvml_process_bytes: Whole | None
    nvml_delta_bytes: Annotated[int, Field(ge=-LARGEST, le=LARGEST)] | None = None
    nvml_used_bytes: Whole | None


class AllocatorPeak(Strict):
    """Peaks of one rank's allocator, as the framework counts them."""

    rank: Whole
    device: str
    allocated_bytes: Whole
    reserved_bytes: Whole


class Memory(Strict):
    """Peaks over the training. `host_bytes`: proportional set size of the job's process tree.

    `problems` say why something is missing.
    """

    host_bytes: Whole | None
    gpus: tuple[GpuMemory, ...]
    allocator: tuple[AllocatorPeak, ...]
    problems: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def _one_problem(cls, values: Any) -> Any:
        """Records of schema 1 had one `problem` or None."""
        if not isinstance(values, dict) or "problem" not in values:
            return values
        others = {name: value for name, value in values.items() if name != "problem"}
        return {"problems": [values["problem"]] if values["problem"] else [], **others}


class Energy(Strict):
    """Of all GPUs of the job together. `kwh` is of the whole job, `joules_per_iteration` of the steady state.

    `source`: power, where at least one GPU has no counter and its power readings were integrated instead.
    """

    joules_per_iteration: Amount | None
    kwh: Amount
    source: EnergySource
    gpus: Whole


class SamplingPeriod(Strict):
    """Seconds from one sample to the next, whether or not it told everything: the middle one and the largest."""

    median_s: Amount
    largest_s: Amount


class Sampling(Strict):
    """How often the job was looked at from outside; of several GPUs the one that was looked at least.

    None where there were no two samples.
    """

    gpus: SamplingPeriod | None = None
    processes: SamplingPeriod | None = None
    host: SamplingPeriod | None = None


class ReportedMemory(Strict):
    """The peak that a trainer reported of itself. `count` and `over_gpus`: None where it does not say which."""

    bytes: Whole
    count: Literal["allocated", "reserved"] | None = None
    over_gpus: Literal["max", "rank0", "sum"] | None = None


class Reported(Strict):
    """What another program said of its own run, of what zoo-bench measures otherwise. fps: as its definition says."""

    memory: ReportedMemory | None = None
    fps: Annotated[float, Field(gt=0, le=LARGEST)] | None = None


class Measurements(Strict):
    """Everything a run measured; None for what it did not."""

    train: TrainTiming | None = None
    infer: InferTiming | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    sampler_cpu_share: float | None = Field(default=None, description="CPU seconds of sampling per second of the job")
    sampling: Sampling | None = None
    scores: CocoScores | None = None
    reported: Reported | None = None
