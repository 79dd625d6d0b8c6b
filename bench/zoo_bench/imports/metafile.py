"""metafile.yml, as MMDetection and its relatives keep one beside each method's table (the model-index format)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zoo_bench.adapters.text import read_number
from zoo_bench.errors import ConfigError
from zoo_bench.imports.finished import FinishedRun
from zoo_bench.measurements import ReportedMemory
from zoo_bench.units import GIB

MEMORY, INFERENCE = "Training Memory (GB)", "inference time (ms/im)"
BOX, MASK = "box AP", "mask AP"
DEFINITIONS = {
    "memory": "torch.cuda.max_memory_allocated, the largest on any GPU, in GB of 2^30 bytes, one digit",
    "fps": "1000 / 'inference time (ms/im)': forward and postprocessing at batch 1, one GPU",
}
BACKBONE = re.compile(r"^(?:r|x|hrnet|regnet|swin|res)[\w]*\d")
SCHEDULE = re.compile(r"^\d+[xe]$")
NECKS = ("fpn", "c4", "dc5", "pafpn", "bifpn")
RESOURCES = re.compile(r"(\d+)x\s+(.+?)\s+GPUs?")
DATASETS = ("coco",)
MOST = 1e9


@dataclass(frozen=True)
class Model:
    """One entry. AP in points, as it stands there; memory in GB of 2^30 bytes; None for what it lacks.

    `problems`: values that are no numbers. `mode`: the precision that its inference was timed in.
    """

    name: str
    config: str
    memory_gb: float | None
    ms_per_image: float | None
    box_ap: float | None
    mask_ap: float | None
    weights: str
    facts: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    mode: str = ""

    @property
    def fps(self) -> float | None:
        """Images a second."""
        return 1000 / self.ms_per_image if self.ms_per_image else None

    def finished(self) -> FinishedRun:
        """Return it as a run that has ended: there is nothing of how it went."""
        scores = {"box": self.box_ap, "mask": self.mask_ap}
        memory = (
            ReportedMemory(bytes=round(self.memory_gb * GIB), count="allocated", over_gpus="max")
            if self.memory_gb
            else None
        )
        return FinishedRun(
            facts=self.facts,
            steps=(),
            scores={kind: {"ap": ap / 100} for kind, ap in scores.items() if ap is not None},
            memory=memory,
            planned=None,
            status="succeeded",
            reason="",
            phases_done=("train", "evaluate") if any(ap is not None for ap in scores.values()) else ("train",),
            began_unix_s=None,
            duration_s=0.0,
            remarks=(f"its inference was timed in {self.mode}",) if self.mode not in ("", "FP32") else (),
        )


def read_metafile(path: Path, text: str) -> tuple[Model, ...]:
    """Read the models of a metafile.

    Raises:
        ConfigError: it is no YAML, or has no list of models.
    """
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]}", "name a metafile.yml") from None
    entries = content if isinstance(content, list) else _get(content, "Models")
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: expected a list under Models", "name a metafile.yml, as MMDetection has them")
    collections = {str(_get(one, "Name")): _get(one, "Metadata") for one in _list(_get(content, "Collections"))}
    models = []
    for place, entry in enumerate(entries, 1):
        if not isinstance(_get(entry, "Name"), str):
            raise ConfigError(f"{path}: Models: the entry {place} has no Name", "each model needs one")
        models.append(_model(entry, collections.get(str(_get(entry, "In Collection")))))
    return tuple(models)


def _model(entry: Mapping[str, Any], collection: Any) -> Model:
    metadata = _get(entry, "Metadata") or {}
    name = str(entry["Name"])
    metrics: dict[str, Any] = {}
    for result in _list(_get(entry, "Results")):
        found = _get(result, "Metrics")
        metrics |= found if isinstance(found, dict) else {}
    timings = _list(_get(metadata, INFERENCE))
    timed = [_number(_get(one, "value")) for one in timings]
    given = {MEMORY: _get(metadata, MEMORY), BOX: metrics.get(BOX), MASK: metrics.get(MASK)}
    problems = [
        f"{key}: {value!r} is no number" for key, value in given.items() if value is not None and _number(value) is None
    ]
    facts = {**_axes(name), **_resources(metadata, collection), "masks": MASK in metrics, "name": name}
    iterations = _number(_get(metadata, "Iterations"))
    if iterations:
        facts["recipe.lr_schedule.iterations"] = int(iterations)
    return Model(
        name=name,
        config=str(_get(entry, "Config") or ""),
        memory_gb=_number(_get(metadata, MEMORY)),
        ms_per_image=next((value for value in timed if value), None),
        box_ap=_number(metrics.get(BOX)),
        mask_ap=_number(metrics.get(MASK)),
        weights=str(_get(entry, "Weights") or ""),
        facts=facts,
        problems=tuple(problems),
        mode=next((str(_get(one, "mode") or "") for one in timings), ""),
    )


def _axes(name: str) -> dict[str, Any]:
    """Tell the axes from a name such as faster-rcnn_r50-caffe-c4_1x_coco: what is on none joins the backbone."""
    words = [word for word in name.split("_") if word]
    first = next((place for place, word in enumerate(words) if BACKBONE.match(word)), 1)
    family, rest = "-".join(words[:first]), words[first:]
    parts = [part for word in rest for part in word.split("-")]
    neck = next((part for part in parts if part in NECKS), "")
    schedule = next((part for part in parts if SCHEDULE.match(part)), "unknown")
    backbone = "-".join(part for part in parts if part not in (neck, schedule, *DATASETS))
    return {"detector": f"{family}_{neck}" if neck else family, "backbone": backbone, "schedule": schedule}


def _resources(metadata: Any, collection: Any) -> dict[str, Any]:
    for place in (metadata, collection):
        found = RESOURCES.search(str(_get(place, "Training Resources") or ""))
        if found:
            return {"gpus": int(found[1]), "gpu": found[2]}
    return {}


def _get(values: Any, key: str) -> Any:
    return values.get(key) if isinstance(values, dict) else None


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values] if values is not None else []


def _number(value: Any) -> float | None:
    """Return a number that can be one: none of these figures is negative, or endless."""
    found = None if isinstance(value, str) else read_number(value)
    return found if found is not None and 0 <= found < MOST else None
