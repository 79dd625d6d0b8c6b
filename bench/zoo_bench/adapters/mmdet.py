"""Logs of MMDetection: ``*.log.json`` of versions 1 and 2, ``vis_data/scalars.json`` of version 3."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from zoo_bench.adapters import Told
from zoo_bench.adapters.epochs import numbered
from zoo_bench.adapters.json_lines import json_lines, number, numbers

MIB = 2**20
SIZES = {"": "ap", "_50": "ap50", "_75": "ap75", "_s": "ap_small", "_m": "ap_medium", "_l": "ap_large"}
EPOCHS = re.compile(r"\b(?:max_epochs|total_epochs)\s*=\s*(\d+)")
ITERATIONS = re.compile(r"\bmax_iters\s*=\s*(\d+)")
IMAGES = re.compile(r"\b(?:samples_per_gpu|imgs_per_gpu)\s*=\s*(\d+)")
GPU_IDS = re.compile(r"\bgpu_ids\s*=\s*(?:range\((?:0,\s*)?(\d+)\)|\[([\d,\s]+)\])")
RATE = re.compile(r"\boptimizer\s*=\s*dict\([^)]*?\blr=([\d.e-]+)", re.DOTALL)
DETECTOR = re.compile(r"\bmodel\s*=\s*dict\(\s*type='(\w+)'")
BACKBONE = re.compile(r"\bbackbone=dict\(\s*type='(\w+)'")
DEPTH = re.compile(r"\bdepth=(\d+)")
SIZE = re.compile(r"\bimg_scale=\((\d+),\s*(\d+)\)")
GPU = re.compile(r"^GPU ([\d,]+): (.+)$", re.MULTILINE)
VERSION = re.compile(r"^(PyTorch|TorchVision|MMCV|MMDetection|Python|CuDNN): (\S+)", re.MULTILINE)
DETECTORS = {
    "FasterRCNN": ("faster-rcnn", False),
    "MaskRCNN": ("mask-rcnn", True),
    "RetinaNet": ("retinanet", False),
}


def mmdet(lines: Iterable[str]) -> Iterator[Told]:
    """Read a log. Iterations of versions 1 and 2 are counted within each epoch, those of version 3 throughout."""
    yield from numbered(_told(lines))


def _told(lines: Iterable[str]) -> Iterator[Told]:
    peak, batch = 0.0, 0
    for values in json_lines(lines):
        if "env_info" in values or "config" in values:
            described = _described(str(values.get("env_info", "")), str(values.get("config", "")))
            batch = described.get("images_per_gpu", 0) * described.get("gpus", 0)
            yield "described", described
            continue
        scores = _scores(values)
        if scores:
            yield "eval_result", scores
        elif values.get("mode", "train") == "train" and number(values, "loss") is not None:
            memory = number(values, "memory")
            if memory is not None and memory > peak:
                peak = memory
                yield "memory_peak", {"bytes": int(peak * MIB), "count": "allocated", "over_gpus": "max"}
            yield from _step(values, batch)


def _step(values: dict[str, Any], batch: int) -> Iterator[Told]:
    rate = number(values, "lr", "base_lr")
    told = {
        "loss": number(values, "loss"),
        "lr": rate,
        "iteration_time_s": number(values, "time"),
        "data_time_s": number(values, "data_time"),
        "batch_size": batch or None,
    }
    fields: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    fields["losses"] = numbers(values, "loss_")
    place, epoch = number(values, "step", "iter"), number(values, "epoch")
    if place is None:
        return
    throughout = "step" in values or epoch is None
    yield "step", {**fields, "epoch": 0 if throughout else int(epoch or 1) - 1, "within": int(place)}


def _scores(values: dict[str, Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for kind, name in (("box", "bbox_mAP"), ("mask", "segm_mAP")):
        for prefix in ("", "coco/"):
            scores = {metric: number(values, f"{prefix}{name}{size}") for size, metric in SIZES.items()}
            known = {metric: value for metric, value in scores.items() if value is not None and value >= 0}
            if "ap" in known:
                found[kind] = known
    return found


def _described(environment: str, config: str) -> dict[str, Any]:
    found: dict[str, Any] = {"software": dict(VERSION.findall(environment)), **_model(config)}
    if ids := GPU_IDS.search(config):
        found["gpus"] = int(ids[1]) if ids[1] else len([word for word in ids[2].split(",") if word.strip()])
    if gpu := GPU.search(environment):
        found["gpu"] = gpu[2].strip()
        found.setdefault("gpus", gpu[1].count(",") + 1)
    for pattern, name, kind in (
        (IMAGES, "images_per_gpu", int),
        (RATE, "recipe.optimizer.lr", float),
        (ITERATIONS, "recipe.lr_schedule.iterations", int),
        (EPOCHS, "epochs", int),
    ):
        if match := pattern.search(config):
            found[name] = kind(match[1])
    if "epochs" in found:
        found["schedule"] = f"{found['epochs']}e"
    if size := SIZE.search(config):
        found |= {"recipe.input.min_size": min(map(int, size.groups()))}
        found |= {"recipe.input.max_size": max(map(int, size.groups()))}
    return found


def _model(config: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    kind, backbone, depth = DETECTOR.search(config), BACKBONE.search(config), DEPTH.search(config)
    if kind:
        family, masks = DETECTORS.get(kind[1], (kind[1].lower(), "mask_head" in config))
        neck = "_fpn" if "FPN" in config else ""
        found = {"detector": f"{family}{neck}", "masks": masks}
    if backbone:
        name = f"r{depth[1]}" if backbone[1] == "ResNet" and depth else backbone[1].lower()
        found["backbone"] = name
    return found
