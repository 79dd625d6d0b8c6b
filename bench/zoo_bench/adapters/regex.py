"""The adapter for any other log: patterns that the user gives, in backend.yaml or with `zoo-bench import --pattern`.

A pattern belongs to an event, and its named groups are that event's fields. A name says the unit, and is converted:

    step        iteration, iterations, epoch, loss, lr, batch_size, iteration_time_s or _ms, data_time_s or _ms,
                images_per_s (needs batch_size), averaged_over
    eval_result box_ap, mask_ap (fractions), box_ap_points, mask_ap_points (0 to 100)
    memory_peak bytes, mib, mb, gib or gb
    run_stop    nothing: that the line is there means that it ended well
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from zoo_bench.adapters import Adapter, Told
from zoo_bench.errors import ConfigError, nearest

BYTES = {"bytes": 1, "mib": 2**20, "mb": 10**6, "gib": 2**30, "gb": 10**9}
WHOLE = ("iteration", "iterations", "batch_size", "averaged_over")
GROUPS: dict[str, tuple[str, ...]] = {
    "step": (
        *WHOLE, "loss", "lr", "iteration_time_s", "iteration_time_ms", "data_time_s", "data_time_ms", "images_per_s",
    ),
    "eval_result": ("box_ap", "mask_ap", "box_ap_points", "mask_ap_points"),
    "memory_peak": tuple(BYTES),
    "run_stop": (),
}  # fmt: skip


def regex(patterns: Mapping[str, str]) -> Adapter:
    """Return the adapter that these patterns make, by event.

    Raises:
        ConfigError: a pattern is no regular expression, or has a group that its event does not.
    """
    compiled = {event: _compiled(event, pattern) for event, pattern in patterns.items()}
    if "step" not in compiled and "eval_result" not in compiled:
        raise ConfigError(
            "the adapter 'regex' needs patterns", r"for instance step: 'iter (?P<iteration>\d+) loss (?P<loss>\S+)'"
        )

    def read(lines: Iterable[str]) -> Iterator[Told]:
        for line in lines:
            for event, pattern in compiled.items():
                found = pattern.search(line)
                told = found and READERS[event]({name: text for name, text in found.groupdict().items() if text})
                if told is not None:
                    yield event, told

    return read


def _compiled(event: str, pattern: str) -> re.Pattern[str]:
    if event not in GROUPS:
        raise ConfigError(f"patterns: {event} is no event that a pattern tells", nearest(event, GROUPS))
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"patterns: {event}: {pattern!r} is no regular expression: {error}") from None
    for name in compiled.groupindex:
        if name not in GROUPS[event]:
            raise ConfigError(f"patterns: {event} has no field {name}", nearest(name, GROUPS[event]))
    if event == "step" and "iteration" not in compiled.groupindex:
        raise ConfigError("patterns: step needs the group iteration", r"(?P<iteration>\d+)")
    return compiled


def _step(texts: Mapping[str, str]) -> dict[str, Any] | None:
    values = _values(texts)
    if "iteration" not in values:
        return None
    for name in ("iteration_time", "data_time"):
        if f"{name}_ms" in values:
            values[f"{name}_s"] = values.pop(f"{name}_ms") / 1000
    images = values.pop("images_per_s", None)
    if images and "batch_size" in values:
        values.setdefault("iteration_time_s", values["batch_size"] / images)
    elif images:
        values["images_per_s"] = images  # whoever knows the batch makes a time of it
    return {name: int(value) if name in WHOLE else value for name, value in values.items()}


def _result(texts: Mapping[str, str]) -> dict[str, Any] | None:
    values = _values(texts)
    found = {}
    for kind in ("box", "mask"):
        if f"{kind}_ap_points" in values:
            found[kind] = {"ap": values[f"{kind}_ap_points"] / 100}
        elif f"{kind}_ap" in values:
            found[kind] = {"ap": values[f"{kind}_ap"]}
    return found or None


def _memory(texts: Mapping[str, str]) -> dict[str, Any] | None:
    for unit, value in _values(texts).items():
        return {"bytes": int(value * BYTES[unit])}
    return None


def _values(texts: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for name, text in texts.items():
        try:
            found[name] = float(text.replace(",", ""))
        except ValueError:
            continue
    return {name: value for name, value in found.items() if value == value and abs(value) < float("inf")}


READERS: dict[str, Callable[[Mapping[str, str]], dict[str, Any] | None]] = {
    "step": _step,
    "eval_result": _result,
    "memory_peak": _memory,
    "run_stop": lambda _: {"status": "success"},
}
