"""The models of a document as mmdetection's metafile.yml lists them, in its keys and units, rounded as the document is.

The schema is that of Papers with Code's model-index (``Collections`` and ``Models``), which mmdetection's
configs/*/metafile.yml follow. A key whose value is not known is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from zoo_bench.cell import Cell, short_name
from zoo_bench.columns import Column
from zoo_bench.figures import figure
from zoo_bench.matrix import Matrix, ShapesDataset
from zoo_bench.provenance import SOFTWARE_NAMES, gpus_used
from zoo_bench.record import Record
from zoo_bench.render import Content, downloads
from zoo_bench.scaling import images_an_iteration
from zoo_bench.table import Row
from zoo_bench.text import one_line
from zoo_bench.units import milliseconds, written

SIZE = ("recipe.input.min_size", "recipe.input.max_size")
# By the label of a dataset: what papers call it.
DATASET_TITLES = {"coco": "COCO"}
TASKS: dict[Column, tuple[str, str]] = {
    "box_ap": ("Object Detection", "box AP"),
    "mask_ap": ("Instance Segmentation", "mask AP"),
}
FRAMEWORKS = ("torch", "mxnet")
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}


def as_metafile(content: Content) -> str:
    """Return the metafile of every row that has a figure, a collection a detector."""
    cells = [cell for cell in content.layout.cells if content.rows[cell.id].sources]
    titles = _titles(content.matrix, cells)
    return to_yaml(
        {
            "Collections": [_collection(content, detector, title, cells) for detector, title in titles.items()],
            "Models": [_model(content, cell, titles[cell.detector]) for cell in cells],
        }
    )


def to_yaml(values: Mapping[str, Any]) -> str:
    """Write YAML, each text on one line."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=float("inf"))


def dataset_title(matrix: Matrix, cell: Cell) -> str:
    """Return what a cell's dataset is called outside of this zoo, where that is known; else its label."""
    label = matrix.dataset_label(cell.dataset)
    return DATASET_TITLES.get(label, label)


def model_name(content: Content, cell: Cell) -> str:
    """Return the name of a row's model; of several backends, whose it is too."""
    return cell.id if len(content.layout.backends) > 1 else short_name(cell.id)


def _titles(matrix: Matrix, cells: Sequence[Cell]) -> dict[str, str]:
    """Return the collections' names by detector: its title, and its key too where two have one title."""
    found = {cell.detector: one_line(matrix.detector_title(cell.detector)) for cell in cells}
    titles = list(found.values())
    return {name: title if titles.count(title) == 1 else f"{title} ({name})" for name, title in found.items()}


def _collection(content: Content, detector: str, title: str, cells: Sequence[Cell]) -> dict[str, Any]:
    mine = [cell for cell in cells if cell.detector == detector]
    data = list(dict.fromkeys(dataset_title(content.matrix, cell) for cell in mine))
    return {"Name": title, "Metadata": {"Training Data": data[0] if len(data) == 1 else data}}


def _model(content: Content, cell: Cell, collection: str) -> dict[str, Any]:
    row = content.rows[cell.id]
    results = [
        {
            "Task": task,
            "Dataset": dataset_title(content.matrix, cell),
            "Metrics": {metric: float(written(column, value))},
        }
        for column, (task, metric) in TASKS.items()
        if column in row.sources and (value := figure(column, row.sources[column]).value) is not None
    ]
    weights = downloads(row, content.available).get("model")
    return {
        "Name": model_name(content, cell),
        "In Collection": collection,
        "Metadata": dict(_metadata(content, cell, row)),
        **({"Results": results} if results else {}),
        **({"Weights": weights} if weights else {}),
    }


def _metadata(content: Content, cell: Cell, row: Row) -> Iterator[tuple[str, Any]]:
    """Say how a model was trained and timed, as the runs of the row were."""
    memory, fps, made = row.sources.get("memory"), row.sources.get("fps"), row.records[0]
    if memory is not None and memory.cell["gpus"] > 0:  # readers would take the host's memory for a GPU's
        value = figure("memory", memory, content.options.memory).value
        if value is not None:
            yield "Training Memory (GB)", float(written("memory", value))
    if _knows(made, "recipe.optimizer.name"):
        yield "Training Techniques", list(_techniques(made.cell))
    if gpus_used(made) or made.origin is None:
        yield "Training Resources", _resources(made)
    if _knows(made, "gpus", "images_per_gpu"):
        yield "Batch Size", images_an_iteration(made.cell)
    if _knows(made, "recipe.lr_schedule.iterations"):
        yield from _length(content.matrix, cell, made)
    speed = figure("fps", fps).value if fps is not None else None
    if fps is not None and speed:
        yield "inference time (ms/im)", [_inference(fps, 1 / speed)]


def _knows(record: Record, *keys: str) -> bool:
    """Tell whether values of a run's cell are its own: of an imported one, the rest are the matrix's."""
    return record.origin is None or set(keys) <= set(record.origin.known)


def _length(matrix: Matrix, cell: Cell, made: Record) -> Iterator[tuple[str, Any]]:
    iterations = int(made.cell["recipe"]["lr_schedule"]["iterations"])
    yield "Iterations", iterations
    dataset = matrix.datasets.get(cell.dataset)
    if isinstance(dataset, ShapesDataset):  # how many images another one has, no record says
        yield "Epochs", round(iterations * images_an_iteration(made.cell) / dataset.train_images, 2)


def _inference(record: Record, seconds: float) -> dict[str, Any]:
    size = record.cell["recipe"]["input"]
    framework = next((SOFTWARE_NAMES[name] for name in FRAMEWORKS if name in record.software), record.cell["backend"])
    return {
        "value": float(milliseconds(seconds)),
        "hardware": next(iter(gpus_used(record)), one_line(str(record.machine.get("cpu", "CPU")))),
        "backend": framework,
        "batch size": 1,
        **({"mode": str(record.cell["precision"]).upper()} if _knows(record, "precision") else {}),
        **({"resolution": f"({size['min_size']}, {size['max_size']})"} if _knows(record, *SIZE) else {}),
    }


def _techniques(cell: Mapping[str, Any]) -> Iterator[str]:
    optimizer = cell["recipe"]["optimizer"]
    name = OPTIMIZERS.get(optimizer.get("name"), str(optimizer.get("name")))
    yield f"{name} with Momentum" if name == "SGD" and optimizer.get("momentum") else name
    if optimizer.get("weight_decay"):
        yield "Weight Decay"
    if optimizer.get("clip_norm"):
        yield "Gradient Clipping"
    if cell["precision"] == "bf16":
        yield "Mixed Precision Training"


def _resources(record: Record) -> str:
    used = gpus_used(record)
    text = ", ".join(f"{used.count(name)}x {name} GPUs" for name in dict.fromkeys(used))
    return one_line(text or str(record.machine.get("cpu", "CPU")))
