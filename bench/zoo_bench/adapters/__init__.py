"""Adapters: what other trainers write -> events. Each is one function from lines to what they tell, and knows no more.

`zoo-bench import` and the worker that launches a foreign trainer (launch.py) use the same ones. An adapter is given the
lines of one file or stream, in order and as they come, and yields pairs of an event's name and its fields. These are
the protocol's own (models/worker.py), with these differences, which whoever calls it evens out:

- There are no times: a log tells at most when a line was written, as `unix_s` among the fields.
- A `step` may lack what the log does not tell: iterations, lr, loss, data_time_s, batch_size, iteration_time_s. It may
  be the mean of several iterations, the last of which it names: `averaged_over` says of how many; without it, it
  stands for all since the one before.
- ``described`` tells what is known of the run: keys of a cell, with dots where they are nested
  (``recipe.optimizer.lr``), and `software`, `gpu` (a name) and `epochs`.
- ``remark`` has a `text` for whoever reads the record.
- There may be several evaluations; the last one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from zoo_bench.errors import ConfigError, nearest

Told: TypeAlias = tuple[str, dict[str, Any]]
Adapter: TypeAlias = Callable[[Iterable[str]], Iterator[Told]]
# Those whose logs can be read without being told how. The fifth, regex, is made of the user's patterns.
NAMES = ("gluoncv", "mmdet", "detectron2", "mllog")
REGEX = "regex"


def find_adapter(name: str, patterns: Mapping[str, str] | None = None) -> Adapter:
    """Return the adapter of that name; `patterns` are those of `regex`, by event.

    Raises:
        ConfigError: there is none, or a pattern is wrong.
    """
    if name == REGEX:
        from zoo_bench.adapters.regex import regex

        return regex(patterns or {})
    if name not in NAMES:
        raise ConfigError(f"there is no adapter '{name}'", nearest(name, [*NAMES, REGEX, "metafile"]))
    if patterns:
        raise ConfigError(f"the adapter '{name}' takes no patterns", f"patterns are those of the adapter {REGEX}")
    from importlib import import_module  # each is small, and one of them is used

    adapter: Adapter = getattr(import_module(f"zoo_bench.adapters.{name}"), name)
    return adapter


def definitions(name: str) -> dict[str, str]:
    """Return what the figures of that trainer's logs mean, by column; a column it does not have is left out."""
    return dict(_DEFINITIONS.get(name, {}))


_DEFINITIONS: dict[str, dict[str, str]] = {
    "gluoncv": {
        "s_per_iter": "batch size / 'Speed' of GluonCV's script: all GPUs together, data loading included",
    },
    "mmdet": {
        "memory": "torch.cuda.max_memory_allocated, the largest on any GPU, in MiB as MMDetection logs it",
        "s_per_iter": "'time' of MMDetection's log: mean over the interval between two lines, data loading included",
    },
    "detectron2": {
        "s_per_iter": "'time' of detectron2's metrics.json: median of the last 20 iterations, data loading included",
    },
    "mllog": {
        "s_per_iter": "global batch size / throughput of all GPUs, or 'time' where MLPerf's log has it",
    },
    REGEX: {"s_per_iter": "as the user's pattern reads it; where it reads no time, wall time between two lines"},
}
