"""Learning rate and schedule at another batch than the recipe was written for. Pure functions.

The linear rule of Goyal et al. 2017 (arXiv:1706.02677, section 2.1): with k times the images an iteration, k times the
learning rate. Iterations, milestones and warm-up are divided by k, so that the training sees as many images, as in
detectron2's ``DefaultTrainer.auto_scale_workers``. The rule is one for SGD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from zoo_bench.recipe import LrSchedule, Optimizer, Recipe

SCALED = {"optimizer": ("lr",), "lr_schedule": ("iterations", "milestones", "warmup_iterations")}


def scaled(recipe: Recipe, batch_size: int) -> Recipe:
    """Return the recipe for `batch_size` images an iteration; as it is when it is meant for that batch, or for any.

    Counts of iterations are rounded to the nearest, halves up; there is always one iteration at least.
    """
    base = recipe.base_batch_size
    if base is None or base == batch_size:
        return recipe

    def longer(iterations: int) -> int:
        return (2 * iterations * base + batch_size) // (2 * batch_size)

    optimizer, schedule = recipe.optimizer, recipe.lr_schedule
    lr = {"lr": optimizer.lr * batch_size / base}
    lengths = {
        "iterations": max(longer(schedule.iterations), 1),
        "milestones": tuple(map(longer, schedule.milestones)),
        "warmup_iterations": longer(schedule.warmup_iterations),
    }
    return recipe.model_copy(
        update={
            "optimizer": Optimizer.model_validate({**optimizer.model_dump(), **lr}),
            "lr_schedule": LrSchedule.model_validate({**schedule.model_dump(), **lengths}),
        }
    )


def images_an_iteration(cell: dict[str, Any]) -> int:
    """Return the batch of a resolved cell, over all devices."""
    return max(int(cell["gpus"]), 1) * int(cell["images_per_gpu"])


def base_batch_of(cell: dict[str, Any]) -> int | None:
    """Return the batch that a resolved cell's recipe was scaled from; None where nothing was scaled."""
    base: int | None = cell["recipe"].get("base_batch_size")
    return None if base == images_an_iteration(cell) else base


def without_scaling(
    old: dict[str, Any], new: dict[str, Any], also: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two resolved cells without what differs only since their batches do, and then without the keys `also`.

    All of both is left where one is not the other at another batch.
    """
    if not _one_at_two_batches(old, new):
        return old, new
    return _left(old, also), _left(new, also)


def _one_at_two_batches(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Tell whether two cells have one learning rate an image and see as many images, but for rounded iterations."""
    bases = {cell["recipe"].get("base_batch_size") for cell in (old, new)}
    batches = images_an_iteration(old), images_an_iteration(new)
    if len(bases) > 1 or None in bases or batches[0] == batches[1]:
        return False
    rates = [cell["recipe"]["optimizer"]["lr"] / batch for cell, batch in zip((old, new), batches, strict=True)]
    seen = [
        [count * batch for count in _lengths(cell["recipe"]["lr_schedule"])]
        for cell, batch in zip((old, new), batches, strict=True)
    ]
    return (
        math.isclose(*rates)
        and len(seen[0]) == len(seen[1])
        and all(abs(mine - theirs) <= max(batches) for mine, theirs in zip(*seen, strict=True))
    )


def _lengths(schedule: dict[str, Any]) -> list[int]:
    return [schedule["iterations"], schedule["warmup_iterations"], *schedule["milestones"]]


def _left(cell: dict[str, Any], also: Sequence[str]) -> dict[str, Any]:
    recipe = {
        part: {key: value for key, value in values.items() if key not in SCALED[part]} if part in SCALED else values
        for part, values in cell["recipe"].items()
    }
    return {**{key: value for key, value in cell.items() if key not in also}, "recipe": recipe}
