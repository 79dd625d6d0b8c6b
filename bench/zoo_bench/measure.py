"""Events and samples -> measurements. Pure functions; seconds, bytes and fractions.

The rules:

- steady state: the first `warmup_iterations` iterations and every iteration during which a checkpoint was written
  are cut; what is left is summarised.
- inference: the warm-up images are cut; the five parts of an image's time are averaged apart. fps is the table's
  definition, 1 / (forward + postprocess), and is told apart by `trained`: an untrained model floods postprocessing.
- memory: the peak over the training, first event to last step; without training, over the whole job.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from zoo_bench.events import Event
from zoo_bench.gpu import Sample
from zoo_bench.recipe import Strict

INFER_PARTS = ("load_s", "preprocess_s", "forward_s", "postprocess_s", "encode_s")


class TrainTiming(Strict):
    """Wall time of an iteration in the steady state, data loading included, at `batch_size` images."""

    iterations_run: int
    iterations_measured: int
    batch_size: int
    mean_s: float
    median_s: float
    p10_s: float
    p90_s: float
    data_share: float
    final_loss: float


class InferTiming(Strict):
    """Mean seconds an image takes in each part, at batch 1 on one device."""

    images: int
    load_s: float
    preprocess_s: float
    forward_s: float
    postprocess_s: float
    encode_s: float
    detections_per_image: float

    @property
    def fps(self) -> float:
        """Images a second, forward + postprocess."""
        return 1.0 / (self.forward_s + self.postprocess_s)


class GpuMemory(Strict):
    """Peaks of one GPU; None where NVML or the allocator did not say."""

    index: int
    nvml_process_bytes: int | None
    nvml_used_bytes: int | None


class AllocatorPeak(Strict):
    """Peaks of one rank's allocator, as the framework counts them."""

    rank: int
    device: str
    allocated_bytes: int
    reserved_bytes: int


class Memory(Strict):
    """Peaks over the training. `host_bytes`: proportional set size of the job's process tree.

    `problem` says why something is missing.
    """

    host_bytes: int | None
    gpus: tuple[GpuMemory, ...]
    allocator: tuple[AllocatorPeak, ...]
    problem: str | None


def train_timing(events: Sequence[Event], warmup_iterations: int) -> TrainTiming | None:
    """Summarise the steady state; None when no iteration is left to measure."""
    steps = [event for event in events if event.name == "step"]
    cut = _iterations_with_checkpoint(events)
    steady = [
        step
        for step in steps
        if step.number("iteration") > warmup_iterations and int(step.number("iteration")) not in cut
    ]
    times = [step.number("iteration_time_s") for step in steady]
    if not times or not all(math.isfinite(value) and value > 0 for value in times):
        return None
    p10, p90 = _quantile(times, 0.1), _quantile(times, 0.9)
    return TrainTiming(
        iterations_run=int(steps[-1].number("iteration")),
        iterations_measured=len(times),
        batch_size=int(steps[-1].number("batch_size")),
        mean_s=statistics.fmean(times),
        median_s=statistics.median(times),
        p10_s=p10,
        p90_s=p90,
        data_share=math.fsum(step.number("data_time_s") for step in steady) / math.fsum(times),
        final_loss=steps[-1].number("loss"),
    )


def _iterations_with_checkpoint(events: Iterable[Event]) -> set[int]:
    """A checkpoint written after iteration n is paid for by iteration n + 1."""
    return {int(event.number("iteration")) + 1 for event in events if event.name == "checkpoint_saved"}


def infer_timing(events: Iterable[Event]) -> InferTiming | None:
    """Average the parts of an image's time; None when no image was timed."""
    steps = [event for event in events if event.name == "infer_step" and not event.fields.get("warmup")]
    if not steps:
        return None
    parts = {part: statistics.fmean(step.number(part) for step in steps) for part in INFER_PARTS}
    if not all(math.isfinite(value) for value in parts.values()) or parts["forward_s"] <= 0:
        return None
    detections = statistics.fmean(step.number("detections") for step in steps)
    return InferTiming(images=len(steps), detections_per_image=detections, **parts)


def memory(events: Sequence[Event], samples: Sequence[Sample], problem: str | None) -> Memory:
    """Take the peaks over the training, or over the whole job where nothing was trained."""
    last_step_s = max((event.time_s for event in events if event.name == "step"), default=math.inf)
    window = [sample for sample in samples if sample.time_s <= last_step_s] or list(samples)
    indices = sorted({gpu.index for sample in window for gpu in sample.gpus})
    return Memory(
        host_bytes=max((sample.host_bytes for sample in window), default=None),
        gpus=tuple(_gpu_peaks(index, window) for index in indices),
        allocator=tuple(
            AllocatorPeak(
                rank=int(event.number("rank")),
                device=str(event.fields.get("device")),
                allocated_bytes=int(event.number("allocated_bytes")),
                reserved_bytes=int(event.number("reserved_bytes")),
            )
            for event in events
            if event.name == "allocator_peak"
        ),
        problem=problem,
    )


def _gpu_peaks(index: int, window: Sequence[Sample]) -> GpuMemory:
    mine = [gpu for sample in window for gpu in sample.gpus if gpu.index == index]
    processes = [gpu.process_bytes for gpu in mine if gpu.process_bytes is not None]
    return GpuMemory(
        index=index,
        nvml_process_bytes=max(processes, default=None),
        nvml_used_bytes=max((gpu.used_bytes for gpu in mine), default=None),
    )


def _quantile(values: Sequence[float], fraction: float) -> float:
    """Return a quantile by linear interpolation between order statistics (the definition NumPy uses)."""
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
