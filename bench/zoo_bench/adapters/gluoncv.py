"""Logs of GluonCV's training scripts (train_faster_rcnn.py, train_mask_rcnn.py, train_ssd.py, train_yolo3.py)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from zoo_bench.adapters import Told
from zoo_bench.adapters.coco_summary import CocoSummary
from zoo_bench.adapters.epochs import numbered

ARGUMENTS = re.compile(r"Namespace\((.*)\)\s*$")
STEP = re.compile(r"\[Epoch (\d+)\]\[Batch (\d+)\],.*?Speed: ([\d.]+) samples/sec,?\s*(.*)")
RATE = re.compile(r"\[Epoch \d+(?: Iteration \d+)?\] Set learning rate to ([\d.e+-]+)")
COST = re.compile(r"\[Epoch (\d+)\] Training cost: ([\d.]+)")
VALIDATION = re.compile(r"\[Epoch (\d+)\] Validation:")
VALUE = re.compile(r"([A-Za-z_]\w*)=([\d.e+-]+|nan)")
# The scripts print accuracies and mean errors beside the losses that are summed up.
NO_LOSS = re.compile(r"Acc|L1Loss$")
NETWORKS = {"resnet18": "r18", "resnet50": "r50", "resnet101": "r101"}
FAMILIES = {"mask_rcnn": "mask-rcnn", "faster_rcnn": "faster-rcnn", "ssd": "ssd", "yolo3": "yolo3"}
# 'Training cost' is the wall time of an epoch: what 'Speed' says of it should come to nearly the same.
SAME_TIME = 1.25


def gluoncv(lines: Iterable[str]) -> Iterator[Told]:
    """Read a log. A run that was started again in the same file begins with its arguments again."""
    yield from numbered(_told(lines))


def _told(lines: Iterable[str]) -> Iterator[Told]:
    batch, rate, scores = 0, None, CocoSummary()
    epoch_s, said = 0.0, False
    last = -1
    for line in lines:
        yield from scores.read(line)
        if found := ARGUMENTS.search(line):
            arguments = _arguments(found[1])
            batch, rate, last, epoch_s = int(arguments.get("batch_size") or 0), arguments.get("lr"), -1, 0.0
            yield "described", _described(arguments)
        elif found := STEP.search(line):
            epoch, place, speed, values = int(found[1]), int(found[2]), float(found[3]), found[4]
            last = -1 if place < last else last
            time_s = {"iteration_time_s": batch / speed, "batch_size": batch} if batch and speed > 0 else {}
            epoch_s += time_s.get("iteration_time_s", 0.0) * (place - last)
            last = place
            losses = {name: float(value) for name, value in VALUE.findall(values) if not NO_LOSS.search(name)}
            loss = {"loss": sum(losses.values())} if losses else {}
            learning = {"lr": float(rate)} if rate else {}
            yield "step", {"epoch": epoch, "within": place + 1, **loss, "losses": losses, **learning, **time_s}
        elif found := RATE.search(line):
            rate = float(found[1])
        elif found := COST.search(line):
            cost_s = float(found[2])
            if not said and epoch_s and not 1 / SAME_TIME < cost_s / epoch_s < SAME_TIME:
                said = True
                yield "remark", {"text": _disagree(int(found[1]), cost_s, epoch_s)}
            epoch_s, last = 0.0, -1


def _disagree(epoch: int, cost_s: float, epoch_s: float) -> str:
    return (
        f"epoch {epoch} took {cost_s:.0f} s by 'Training cost', and {epoch_s:.0f} s by 'Speed' at the batch size: "
        f"{cost_s / epoch_s:.3g} times as long"
    )


def _arguments(text: str) -> dict[str, Any]:
    """Read the words between the brackets of ``Namespace(batch_size=8, dataset='coco')``; none where they are odd."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        return {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError):
        return {}


def _described(arguments: dict[str, Any]) -> dict[str, Any]:
    gpus = len([word for word in str(arguments.get("gpus", "")).split(",") if word.strip().isdigit()])
    batch, epochs = arguments.get("batch_size"), arguments.get("epochs")
    found = _model(arguments)
    if gpus:
        found["gpus"] = gpus
        found |= {"images_per_gpu": batch // gpus} if isinstance(batch, int) and batch >= gpus else {}
    if isinstance(epochs, int):
        found |= {"epochs": epochs, "schedule": f"{epochs}e"}
    named = {
        "lr": "recipe.optimizer.lr",
        "momentum": "recipe.optimizer.momentum",
        "wd": "recipe.optimizer.weight_decay",
    }
    found |= {key: float(arguments[name]) for name, key in named.items() if _is_number(arguments.get(name))}
    return found | ({"seed": arguments["seed"]} if isinstance(arguments.get("seed"), int) else {})


def _model(arguments: dict[str, Any]) -> dict[str, Any]:
    """Tell detector and backbone from the prefix of the files that the script writes: faster_rcnn_fpn_resnet50_v1b."""
    prefix, network = str(arguments.get("save_prefix") or ""), str(arguments.get("network") or "")
    name = prefix.rsplit("/", 1)[-1]
    family = next((family for word, family in FAMILIES.items() if name.startswith(word)), None)
    backbone = next((short for word, short in NETWORKS.items() if network.startswith(word)), network)
    found: dict[str, Any] = {"backbone": backbone} if backbone else {}
    if family in ("faster-rcnn", "mask-rcnn"):
        neck = "fpn" if "_fpn_" in name or arguments.get("use_fpn") else "c4"
        found |= {"detector": f"{family}_{neck}"}
    elif family:
        found |= {"detector": family}
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
