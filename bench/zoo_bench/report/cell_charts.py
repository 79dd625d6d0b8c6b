"""The pictures of a cell's page: its training, its machine over time, its scores, its history. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from zoo_bench.evaluate import CocoScores
from zoo_bench.findings import commit_of
from zoo_bench.history import levels, span, value_of
from zoo_bench.matrix import Check
from zoo_bench.nights import NightRuns
from zoo_bench.report.charts import PALETTE, Axis, Chart, Trace, band, layout, line, points, rule, safe
from zoo_bench.report.series import RunSeries, Training, thinned
from zoo_bench.rules import Metric
from zoo_bench.telemetry import Floats
from zoo_bench.units import GIB, shown, written

BINS = 60
LEAST_MARGIN = 0.02  # of the largest value: a level that has not moved must not look like a range of mountains
MOST_CLASSES = 80
TIME = Axis("seconds since the job began", values={"hoverformat": ".1f"})
ITERATION = Axis("iteration")


def training_charts(training: Training) -> Iterator[Chart]:
    """Loss, learning rate, waiting for data, and how the times of the iterations are spread."""
    for name, title, values, y in (
        ("loss", "Loss", training.loss, Axis("loss, sum of its parts")),
        ("lr", "Learning rate", training.lr, Axis("learning rate", from_zero=True)),
    ):
        x, shown_ = thinned(training.iterations, values)
        yield Chart(name, title, [line(title, _list(x), _list(shown_))], layout(ITERATION, y, showlegend=False))
    times, data = thinned(training.iterations, training.time_s), thinned(training.iterations, training.data_s)
    steady = sorted(training.steady)
    shapes = [band(steady[0], steady[-1], "steady state")] if steady else []
    traces = [
        line(name, _list(x), _list(y), place)
        for place, (name, (x, y)) in enumerate((("iteration", times), ("waiting for data", data)))
    ]
    yield Chart(
        "times",
        "Time of an iteration, and of waiting for data in it",
        traces,
        layout(ITERATION, Axis("seconds", from_zero=True), shapes=shapes),
        "Shaded: from the first to the last iteration that counts (docs/definitions.md).",
    )
    yield _distribution(training)


def _distribution(training: Training) -> Chart:
    counts = np.isin(training.iterations, list(training.steady))
    edges = np.histogram_bin_edges(training.time_s, bins=BINS)
    middles, width = (edges[1:] + edges[:-1]) / 2, float(edges[1] - edges[0])
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": _list(middles),
            "y": np.histogram(training.time_s[which], bins=edges)[0].tolist(),
            "width": width,
            "marker": {"color": colour},
        }
        for name, which, colour in (("steady state", counts, PALETTE[0]), ("cut", ~counts, PALETTE[1]))
        if which.any()
    ]
    return Chart(
        "distribution",
        "How the times of iterations are spread",
        traces,
        layout(Axis("seconds"), Axis("iterations", from_zero=True), barmode="stack"),
    )


def machine_charts(series: RunSeries) -> Iterator[Chart]:
    """Memory, power, temperature and clocks over one time axis, on which the phases are marked."""
    shapes = [band(start, stop, name) for name, start, stop in series.phases]
    wanted = (
        ("memory", "Memory in use", "GB (2^30 bytes)", "used_bytes", 1 / GIB, True),
        ("power", "Power", "W", "power_w", 1.0, True),
        ("temperature", "Temperature", "degrees Celsius", "temperature_c", 1.0, False),
        ("clock", "Clock of the processors", "MHz", "sm_clock_hz", 1e-6, True),
    )
    for name, title, unit, column, scale, from_zero in wanted:
        traces = []
        for place, gpu in enumerate(series.gpus):
            x, y = thinned(gpu.time_s, getattr(gpu, column) * scale)
            traces += [line(f"GPU {gpu.index}", _list(x), _list(y), place)] if len(x) else []
        if traces:
            yield _over_time(f"gpu-{name}", f"{title}, by GPU", traces, Axis(unit, from_zero), shapes)
    x, y = thinned(series.host_time_s, series.host_bytes / GIB)
    if len(x):
        trace = line("host", _list(x), _list(y))
        title = "Memory of the job's processes on the host"
        yield _over_time("host-memory", title, [trace], Axis("GB (2^30 bytes)", True), shapes)


def _over_time(name: str, title: str, traces: Sequence[Trace], y: Axis, shapes: Sequence[Trace]) -> Chart:
    return Chart(name, title, traces, layout(TIME, y, shapes=shapes, meta={"time": True}))


def score_charts(scores: CocoScores, curves: Mapping[str, Mapping[float, Sequence[float | None]]]) -> Iterator[Chart]:
    """AP by class, and precision over recall."""
    kinds = {"box": scores.box, "mask": scores.mask}
    known = {kind: found.per_class for kind, found in kinds.items() if found is not None and found.per_class}
    first = next(iter(known.values()), {})
    names = sorted(first, key=lambda name: -(first[name] or 0.0))[:MOST_CLASSES]
    if names:
        traces = [
            {
                "type": "bar",
                "name": f"{kind} AP",
                "y": [safe(name) for name in reversed(names)],
                "x": [None if (ap := values.get(name)) is None else shown("box_ap", ap) for name in reversed(names)],
                "orientation": "h",
                "marker": {"color": colour},
            }
            for (kind, values), colour in zip(known.items(), PALETTE, strict=False)
        ]
        left = f" The best {MOST_CLASSES} of {len(first)}." if len(first) > len(names) else ""
        axes = layout(
            Axis("AP, points", True, {"range": [0, 100]}), Axis("", values={"automargin": True, "type": "category"})
        )
        height = 160 + 18 * len(names) * len(traces)
        yield Chart("classes", "AP by class", traces, {**axes, "height": height}, f"COCO's AP@[.50:.95].{left}")
    for kind, by_threshold in curves.items():
        recall = [place / 100 for place in range(101)]
        traces = [
            line(f"IoU {threshold:.2f}", recall, list(values), place)
            for place, (threshold, values) in enumerate(by_threshold.items())
        ]
        axes = layout(Axis("recall", values={"range": [0, 1]}), Axis("precision", values={"range": [0, 1.02]}))
        said = "Mean over the classes; 100 detections an image."
        yield Chart(f"{kind}-curve", f"Precision over recall, {kind} AP", traces, axes, said)


def history_chart(
    metric: Metric, nights: Sequence[NightRuns], accepted: float | None, check: Check, head: str
) -> Chart:
    """A metric night by night, with what was accepted, and dashed lines where its level changed."""
    values = [shown(metric, value_of(night, metric)) for night in nights]
    days = [time.strftime("%Y-%m-%d %H:%M", time.gmtime(night.runs[0].started_unix_s)) for night in nights]
    labels = [
        f"{day} UTC: {written(metric, value_of(night, metric), more_digits=1)}, "
        f"{commit_of(night.runs[0]) or 'no commit'}, {_whose(night)}"
        for day, night in zip(days, nights, strict=True)
    ]
    shapes = [] if accepted is None else [rule(shown(metric, accepted), "accepted", along="y")]
    for start in levels(nights, metric, check)[1:-1]:
        between = f"{commit_of(nights[start - 1].runs[-1])}..{commit_of(nights[start].runs[0])}"
        shapes.append(rule(days[start], between, along="x"))
    trace = points("nights", days, values, labels, 0, mode="lines+markers", line={"width": 1})
    shown_ = [*values, *([] if accepted is None else [shown(metric, accepted)])]
    y = Axis(head, values={"range": list(span(shown_, LEAST_MARGIN))})
    axes = layout(Axis("", values={"type": "date"}), y, shapes=shapes, showlegend=False)
    return Chart(f"history-{metric}", f"{head}, night by night", [trace], axes)


def _whose(night: NightRuns) -> str:
    return f"run {night.runs[0].run_id}" if len(night.runs) == 1 else f"median of {len(night.runs)} runs"


def _list(values: Floats) -> list[float | None]:
    """Round to what a screen shows, so that pages stay small; what is no number is left out, as JSON has none."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
