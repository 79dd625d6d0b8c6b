"""Command templates: ``{lr}`` in a word of backend.yaml stands for a value of the job. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from zoo_bench.errors import ConfigError, nearest

PLACE = re.compile(r"\{([A-Za-z_][\w.]*)\}")


def values_of(job: Mapping[str, Any], python: str) -> dict[str, str]:
    """Return every value that a template can name, as text, from a job as the worker gets it.

    All values of the cell by their keys (``recipe.optimizer.lr``), and these: python, output, checkpoints, model,
    train.images, train.annotations, val.images, val.annotations, lr, iterations, batch_size, run_id.
    """
    cell = job["cell"]
    found = {key: value for key, value in _flat("", cell).items() if key != "dataset"}
    scheduled = cell["recipe"]["lr_schedule"]["iterations"]
    found |= {
        "python": python,
        "run_id": job["run_id"],
        "dataset": job["dataset"]["name"],
        "lr": cell["recipe"]["optimizer"]["lr"],
        "iterations": min(scheduled, cell["measure"]["train_iterations"] or scheduled),
        "batch_size": max(1, cell["gpus"]) * cell["images_per_gpu"],
        "output": job["paths"]["output"],
        "checkpoints": job["paths"]["checkpoints"],
        "model": job["paths"]["model"],
    }
    for split in ("train", "val"):
        found |= {f"{split}.{part}": path for part, path in job["dataset"][split].items()}
    return {key: _text(value) for key, value in found.items()}


def example_values(cell: Mapping[str, Any]) -> dict[str, str]:
    """Return values for every name that a template of this cell can have, before there is a job."""
    split = {"images": "", "annotations": ""}
    paths = dict.fromkeys(("output", "checkpoints", "model"), "")
    job = {"cell": cell, "run_id": "", "paths": paths, "dataset": {"name": "", "train": split, "val": split}}
    return values_of(job, "")


def misnamed(text: str, values: Mapping[str, str]) -> str:
    """Say which value a template names that there is not; nothing where it names none such."""
    try:
        fill(text, values)
    except ConfigError as error:
        return f"{error.message.removeprefix('backend.yaml: ')}; {error.hint}"
    return ""


def names_in(words: Iterable[str]) -> set[str]:
    """Return the values that words of a template name."""
    return {found[1] for word in words for found in PLACE.finditer(word)}


def fill(word: str, values: Mapping[str, str]) -> str:
    """Put values into a word of a template. What is no name in braces stays as it is.

    Raises:
        ConfigError: it names a value that there is not.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise ConfigError(f"backend.yaml: command: there is no value {{{found[1]}}}", nearest(found[1], values))
        return values[found[1]]

    return PLACE.sub(value, word)


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(f"{prefix}{key}.", value)
        else:
            found[f"{prefix}{key}"] = value
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return "" if value is None else str(value)
