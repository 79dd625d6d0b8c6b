"""MLPerf training logs: ``:::MLLOG {...}`` lines, as the mlperf_logging package writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from zoo_bench.adapters import Told
from zoo_bench.adapters.json_lines import number, numbers

MARK = ":::MLLOG"
SYSTEM = ":::SYSJSON"
# What the rules of MLPerf Training say of a benchmark; the values of a submission stand in its log.
BENCHMARKS: dict[str, dict[str, Any]] = {
    "maskrcnn": {"detector": "mask-rcnn_fpn", "masks": True, "backbone": "r50"},
    "ssd": {"detector": "retinanet_fpn", "masks": False, "backbone": "x50", "dataset": "openimages"},
}
# Two counts of images are the same when they differ by less than this share.
SAME = 0.1
NAMED = {
    "opt_base_learning_rate": "recipe.optimizer.lr",
    "opt_learning_rate_warmup_steps": "recipe.lr_schedule.warmup_iterations",
    "min_image_size": "recipe.input.min_size",
    "max_image_size": "recipe.input.max_size",
    "seed": "seed",
}


def mllog(lines: Iterable[str]) -> Iterator[Told]:
    """Read a log. Throughput is checked against the time that it was counted over: some log that of one GPU.

    What submissions call by one name differs: a ``step`` is an iteration or an epoch, ``train_samples`` are images or
    iterations.
    """
    reader = _Reader()
    for line in lines:
        if SYSTEM in line:
            reader.system(line.partition(SYSTEM)[2])
        elif MARK in line:
            yield from reader.entry(line.partition(MARK)[2])


class _Reader:
    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._batch = 0
        self._gpus = 0
        self._epoch_began_s: float | None = None
        self._epoch_s: float | None = None
        self._iteration = 0
        self._times: int | None = None

    def system(self, text: str) -> None:
        """Read what a submission says of its machine."""
        try:
            system = json.loads(text)
            self._facts.setdefault("gpu", str(system["accelerator_model_name"]))
            self._gpus = self._gpus or int(system["accelerators_per_node"]) * int(system["number_of_nodes"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return

    def entry(self, text: str) -> Iterator[Told]:
        """Read an entry."""
        try:
            entry = json.loads(text)
            key, value, metadata = str(entry["key"]), entry.get("value"), entry.get("metadata")
            at_s = float(entry["time_ms"]) / 1000
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        metadata = metadata if isinstance(metadata, dict) else {}
        if key == "run_start":
            yield "described", self._described()
            yield "run_start", {"unix_s": at_s}
        elif key in ("epoch_start", "block_start"):
            self._epoch_began_s = at_s
        elif key in ("epoch_stop", "block_stop"):
            self._epoch_s = at_s - self._epoch_began_s if self._epoch_began_s is not None else None
        elif key == "tracked_stats" and isinstance(value, dict):
            yield from self._stats(value, number(metadata, "step"), at_s)
        elif key == "eval_accuracy":
            scores = _scores(value)
            if scores:
                yield "eval_result", {**scores, "unix_s": at_s}
        elif key == "run_stop":
            told = {"status": "success" if metadata.get("status") == "success" else "failed"}
            yield "run_stop", {**told, "unix_s": at_s}
        else:
            self._facts.setdefault(key, value)

    def _described(self) -> dict[str, Any]:
        facts = self._facts
        self._batch = int(number(facts, "global_batch_size") or 0)
        of_one = number(facts, "local_batch_size", "d_batch_size")
        self._gpus = self._gpus or (round(self._batch / of_one) if of_one else 0)
        found: dict[str, Any] = {**BENCHMARKS.get(str(facts.get("submission_benchmark")), {}), "schedule": "mlperf"}
        if self._batch and self._gpus and self._batch % self._gpus == 0:
            found |= {"gpus": self._gpus, "images_per_gpu": self._batch // self._gpus}
        found |= {name: facts[key] for key, name in NAMED.items() if number(facts, key) is not None}
        found |= {"gpu": facts["gpu"]} if facts.get("gpu") else {}
        platform = str(facts.get("submission_platform") or "")
        return {**found, "software": {"MLPerf platform": platform} if platform else {}}

    def _stats(self, value: dict[str, Any], step: float | None, at_s: float) -> Iterator[Told]:
        time_s, images = number(value, "time"), number(value, "throughput")
        told = {"loss": number(value, "loss"), "data_time_s": number(value, "data")}
        fields: dict[str, Any] = {name: found for name, found in told.items() if found is not None}
        fields |= {"losses": numbers(value, "loss_"), "unix_s": at_s}
        fields |= {"batch_size": self._batch} if self._batch else {}
        if time_s and step is not None and step > self._iteration:
            gap, self._iteration = int(step) - self._iteration, int(step)
            yield "step", {"iteration": self._iteration, "averaged_over": gap, "iteration_time_s": time_s, **fields}
        elif images and self._batch and self._epoch_s:
            if self._times is None:
                yield from self._compare(images * self._epoch_s)
            total = images * (self._times or 1)
            gap = max(1, round(total * self._epoch_s / self._batch))
            self._iteration += gap
            timed = {"averaged_over": gap, "iteration_time_s": self._batch / total}
            yield "step", {"iteration": self._iteration, **timed, **fields}

    def _compare(self, counted: float) -> Iterator[Told]:
        """Find out of how many GPUs a throughput is, from the images that it counted in the first epoch."""
        samples = number(self._facts, "train_samples")
        of_epoch = [samples * self._batch, samples] if samples else []
        for times in dict.fromkeys([1, max(self._gpus, 1)]):
            if any(abs(counted * times / images - 1) < SAME for images in of_epoch):
                self._times = times
                if times > 1:
                    yield "remark", {"text": f"its throughput is that of one GPU: it is taken {times} times"}
                return
        self._times = 1
        yield "remark", {"text": "whether its throughput is of one GPU or of all is not told: taken as of all"}


def _scores(value: Any) -> dict[str, dict[str, float]]:
    if isinstance(value, dict):
        found = {"box": number(value, "BBOX"), "mask": number(value, "SEGM")}
        return {kind: {"ap": ap} for kind, ap in found.items() if ap is not None}
    ap = number({"ap": value}, "ap")
    return {} if ap is None else {"box": {"ap": ap}}
