"""The overview: the zoo's rows as a table that can be sorted, filtered and measured in other units, and trade-offs.

Pure functions. Figures are in base units here; the browser writes them in the unit that is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from zoo_bench.columns import COLUMNS, Column
from zoo_bench.figures import DEFAULT_MEMORY
from zoo_bench.matrix import Matrix
from zoo_bench.provenance import gpu_lines, machine_name
from zoo_bench.published import COMPARED, PUBLISHED_PRECISION, Zoo
from zoo_bench.record import Record
from zoo_bench.remarks import Ground, remarks
from zoo_bench.render import row_figure
from zoo_bench.report.charts import REFERENCE_COLOUR, Axis, Chart, front, layout, line, points
from zoo_bench.report.paths import cell_page, run_anchor
from zoo_bench.scaling import images_an_iteration
from zoo_bench.table import Row
from zoo_bench.units import COLUMN_HEADS, HOST_MEMORY_HEAD, SHORT_HEADS, as_printed, shown, written

FIGURES: tuple[Column, ...] = tuple(column for column in COLUMNS if column != "download")
AXES: Mapping[Column, str] = {
    "fps": "fps: more is better",
    "memory": "memory, GB: less is better",
    "box_ap": "box AP, points",
    "mask_ap": "mask AP, points",
}


@dataclass(frozen=True)
class Shown:
    """A figure in the table. `href`: its run. `interval`: in words, empty where there is none."""

    value: float
    text: str
    interval: str
    href: str


@dataclass(frozen=True)
class Line:
    """A row of the table. `ours` is false for what others have published; `batch`: images an iteration."""

    name: str
    href: str
    traits: Mapping[str, str]
    figures: Mapping[Column, Shown]
    batch: int
    remarks: tuple[str, ...] = ()
    ours: bool = True


TRAITS = ("detector", "backbone", "schedule", "backend", "precision", "machine", "status")


def heads(rows: Iterable[Row]) -> dict[Column, str]:
    """Return the heads of the columns: memory is the host's where no row has a GPU."""
    found = {column: COLUMN_HEADS[column] for column in FIGURES}
    return found | {"memory": HOST_MEMORY_HEAD} if on_host(rows) else found


def on_host(rows: Iterable[Row]) -> bool:
    """Tell whether the column of memory is of the host. A GPU's memory never stands in one with a host's."""
    return all(row.cell.gpus == 0 for row in rows)


def our_lines(matrix: Matrix, rows: Sequence[Row], ground: Ground) -> list[Line]:
    """Return a line a cell."""
    return [_our_line(matrix, row, ground, host=on_host(rows)) for row in rows]


def _our_line(matrix: Matrix, row: Row, ground: Ground, *, host: bool) -> Line:
    cell, first = row.cell, next(iter(row.records), None)
    told = first or row.attempt
    traits = {
        "detector": matrix.detectors[cell.detector].title,
        "backbone": matrix.backbones[cell.backbone].title,
        "schedule": cell.schedule,
        "backend": cell.backend,
        "precision": cell.precision,
        "machine": machine(told) if told else "",
        "status": row.attempt.status.replace("_", " ") if row.attempt else "never run",
    }
    figures = {column: _shown(column, record, host=host) for column, record in row.sources.items() if column in FIGURES}
    return Line(
        cell.id,
        cell_page(cell.id),
        traits,
        {column: one for column, one in figures.items() if one is not None},
        images_an_iteration(cell.resolved()),
        tuple(remarks(row, ground)),
    )


def machine(record: Record) -> str:
    """Name the machine of a run, as a filter shows it."""
    return machine_name(record) or (
        ", ".join(gpu_lines(record)) if record.cell["gpus"] else f"CPU: {record.machine.get('cpu', 'unknown')}"
    )


def _shown(column: Column, record: Record, *, host: bool) -> Shown | None:
    figure = row_figure(column, record, DEFAULT_MEMORY, on_host=host)
    if figure.value is None:
        return None
    interval = ""
    if figure.interval is not None:
        low, high = (written(column, bound, more_digits=1) for bound in (figure.interval.low, figure.interval.high))
        interval = f"95 % interval {low} to {high}, {SHORT_HEADS[column]}"
    href = f"{cell_page(record.cell_id)}#{run_anchor(record.run_id)}"
    return Shown(figure.value, written(column, figure.value), interval, href)


def published_lines(matrix: Matrix, rows: Iterable[Row], zoos: Sequence[Zoo]) -> Iterator[Line]:
    """Return what other zoos have published for these cells, as they printed it."""
    seen = set()
    for row in rows:
        cell = row.cell
        for zoo in zoos:
            found = zoo.row(cell.detector, cell.backbone, cell.schedule)
            key = (zoo.name, cell.detector, cell.backbone, cell.schedule)
            if found is None or key in seen:
                continue
            seen.add(key)
            printed = {column: found.printed(column) for column in COMPARED}
            figures = {
                column: Shown(value / shown(column, 1.0), as_printed(column, value), "", zoo.url)
                for column, value in printed.items()
                if value is not None
            }
            traits = {
                "detector": matrix.detectors[cell.detector].title,
                "backbone": matrix.backbones[cell.backbone].title,
                "schedule": cell.schedule,
                "backend": "published",
                "precision": PUBLISHED_PRECISION,
                "machine": f"{zoo.hardware.gpus} x {zoo.hardware.gpu}",
                "status": "not ours",
            }
            yield Line(zoo.title, zoo.url, traits, figures, found.batch_size or zoo.batch_size, ours=False)


def trade_offs(lines: Sequence[Line]) -> Iterator[Chart]:
    """AP against speed and against memory, with the front that no other cell of ours is better than in both."""
    for metric in ("box_ap", "mask_ap"):
        for against in ("fps", "memory"):
            chart = trade_off(lines, metric, against)
            if chart is not None:
                yield chart


def trade_off(lines: Sequence[Line], metric: Column, against: Column) -> Chart | None:
    """One of them; None where no cell of ours has both figures."""
    fitting = [one for one in lines if metric in one.figures and against in one.figures]
    ours = [one for one in fitting if one.ours]
    if not ours:
        return None
    # A detector looks the same in every chart, also where others have no figures.
    detectors = dict.fromkeys(one.traits["detector"] for one in lines if one.ours)
    groups = {name: [one for one in ours if one.traits["detector"] == name] for name in detectors}
    traces = [_points(name, mine, metric, against, place) for place, (name, mine) in enumerate(groups.items()) if mine]
    theirs = [one for one in fitting if not one.ours]
    if theirs:
        open_marks = {"marker": {"color": REFERENCE_COLOUR, "symbol": "circle-open", "size": 10}}
        traces.append(
            {
                **_points("published by others", theirs, metric, against, 0),
                **open_marks,
                "visible": False,
                "meta": "published",
            }
        )
    best = front([_place(one, metric, against) for one in ours], smaller_x=against == "memory")
    traces.append(
        line("Pareto front", [x for x, _ in best], [y for _, y in best], hoverinfo="skip")
        | {"line": {"color": REFERENCE_COLOUR, "dash": "dot", "width": 1.5}}
    )
    title = f"{COLUMN_HEADS[metric]} against {'speed' if against == 'fps' else 'memory'}"
    axes = layout(Axis(AXES[against], from_zero=True), Axis(AXES[metric]))
    machines = {one.traits["machine"] for one in ours}
    note = f"Measured on {len(machines)} machines: no fair race." if len(machines) > 1 else ""
    return Chart(f"{metric}-{against}".replace("_", "-"), title, traces, axes, note)


def _place(one: Line, metric: Column, against: Column) -> tuple[float, float]:
    return shown(against, one.figures[against].value), shown(metric, one.figures[metric].value)


def _points(name: str, lines: Sequence[Line], metric: Column, against: Column, place: int) -> dict[str, object]:
    places = [_place(one, metric, against) for one in lines]
    labels = [
        f"{_called(one)}: {COLUMN_HEADS[metric]} {one.figures[metric].text}, "
        f"{COLUMN_HEADS[against]} {one.figures[against].text}"
        for one in lines
    ]
    hrefs = [one.href for one in lines]
    return points(name, [x for x, _ in places], [y for _, y in places], labels, place, customdata=hrefs)


def _called(one: Line) -> str:
    if one.ours:
        return one.name
    return f"{one.name}, {' '.join(one.traits[trait] for trait in ('detector', 'backbone', 'schedule'))}"
