"""A Hugging Face model card of a document's models: the results as `model-index`, and the document as its text.

https://huggingface.co/docs/hub/model-cards names the keys. AP stands as a fraction, not rounded. What no record knows
(the licence, the id of the dataset on the Hub) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo_bench.addresses import is_address
from zoo_bench.cell import Cell
from zoo_bench.columns import Column
from zoo_bench.export.metafile import TASKS, dataset_title, model_name, to_yaml
from zoo_bench.figures import figure
from zoo_bench.render import Content, markdown
from zoo_bench.text import one_line

# By column: the Hub's type of the task.
HUB_TASKS: dict[Column, str] = {"box_ap": "object-detection", "mask_ap": "image-segmentation"}


def as_model_index(content: Content) -> str:
    """Return the YAML of `model-index` alone: an entry for each row that has an AP."""
    return to_yaml({"model-index": model_index(content)})


def as_model_card(content: Content) -> str:
    """Return a README.md for a repository on the Hub: YAML between two lines of hyphens, then the document."""
    index = model_index(content)
    cells = content.layout.cells
    tags = dict.fromkeys(word for cell in cells for word in (*_tasks(cell), cell.family, cell.neck, cell.backbone))
    data: dict[str, Any] = {
        "pipeline_tag": HUB_TASKS["box_ap"],
        "tags": [*tags, "zoo-bench"],
        **({"model-index": index} if index else {}),
    }
    return f"---\n{to_yaml(data)}---\n\n{markdown(content)}"


def model_index(content: Content) -> list[dict[str, Any]]:
    """Return the results of every row that has an AP, as the Hub reads them.

    Readers that put all models of a card into one list lose whose a result is; so with several models a metric's name
    says it.
    """
    found = {model_name(content, cell): list(_results(content, cell)) for cell in content.layout.cells}
    scored = {name: results for name, results in found.items() if results}
    if len(scored) > 1:
        for name, results in scored.items():
            for metric in (metric for result in results for metric in result["metrics"]):
                metric["name"] = f"{name}: {metric['name']}"
    return [{"name": name, "results": results} for name, results in scored.items()]


def _results(content: Content, cell: Cell) -> Iterator[dict[str, Any]]:
    row = content.rows[cell.id]
    for column, task in HUB_TASKS.items():
        record = row.sources.get(column)
        value = figure(column, record).value if record is not None else None
        if record is None or value is None:
            continue
        task_title, metric = TASKS[column]
        definition = one_line(record.definitions.get(column, ""))
        log = row.published.log.url if row.published is not None else ""
        yield {
            "task": {"type": task, "name": task_title},
            "dataset": {
                "type": content.matrix.datasets[cell.dataset].label,
                "name": dataset_title(content.matrix, cell),
                "split": "val",
            },
            "metrics": [{"type": column, "value": value, "name": f"{metric} ({definition})" if definition else metric}],
            **({"source": {"name": f"run {record.run_id}", "url": log}} if is_address(log) else {}),
        }


def _tasks(cell: Cell) -> tuple[str, ...]:
    return (HUB_TASKS["box_ap"], HUB_TASKS["mask_ap"]) if cell.masks else (HUB_TASKS["box_ap"],)
