"""`zoo-bench show`: what stands behind each figure of a row, or behind one run."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from zoo_bench.columns import COLUMNS, HAS, WITH_ENERGY, Column
from zoo_bench.display import format_s
from zoo_bench.errors import EXIT_OK
from zoo_bench.figures import DEFAULT_MEMORY, Figure
from zoo_bench.lookup import FoundCell, find_cell, find_run, newest_of, not_found
from zoo_bench.measurements import InferTiming, Memory, TrainTiming
from zoo_bench.noise import describe
from zoo_bench.provenance import (
    SOFTWARE_NAMES,
    cpu_line,
    gpu_lines,
    machine_name,
    revision_text,
    staleness,
)
from zoo_bench.record import Origin, Published, Record
from zoo_bench.remarks import Ground, remarks
from zoo_bench.render import definition_of, row_figure
from zoo_bench.session import Asked, Session
from zoo_bench.table import build_row
from zoo_bench.units import (
    COLUMN_HEADS,
    HOST_MEMORY_HEAD,
    average,
    gigabytes,
    kilowatt_hours,
    milliseconds,
    percent,
    written,
)

DIGEST_SHOWN = 16
ENDED_BY = {"schedule": "its schedule", "cap": "the profile's cap", "precision": "the interval's precision"}


@dataclass(frozen=True)
class View:
    """What is shown: a title, the run that each figure is of, and what must be known beside them."""

    title: str
    sources: Mapping[Column, Record]
    runs: tuple[Record, ...]
    masks: bool
    remarks: tuple[str, ...]
    published: Published | None = None


def show(asked: Asked, word: str, *, as_json: bool) -> int:
    """Print a row of the document, or one run, with all that its figures come from."""
    session = Session.open(asked)
    view = _view(session, word)
    if as_json:
        print(json.dumps(_as_json(view), indent=2))
        return EXIT_OK
    console = Console(highlight=False)
    console.print(Text(view.title, style="bold"))
    for remark in view.remarks:
        console.print(Text(remark))
    for column, record in view.sources.items():
        _print_figure(console, column, record)
    missing = [COLUMN_HEADS[column] for column in COLUMNS if column not in view.sources]
    missing = [head for head in missing if view.masks or head != COLUMN_HEADS["mask_ap"]]
    if missing:
        console.print(Text(f"\nno figure: {', '.join(missing)}"))
    if view.published is not None:
        console.print(Text(f"\npublished at {view.published.address}", style="bold"))
        for what, file in (("model", view.published.model), ("log", view.published.log)):
            console.print(Padding(Text(f"{what}  {file.url}, SHA-256 {file.sha256}"), (0, 0, 0, 4), expand=False))
    for run in view.runs:
        _print_run(console, session, run)
    return EXIT_OK


def _view(session: Session, word: str) -> View:
    runs, profile = session.runs, session.asked.profile
    run = find_run(word, runs.summaries)
    if run is not None:
        return _view_of_run(session, runs.read(run))
    found = find_cell(word, session.matrix, profile)
    if found is None:
        run = newest_of(word, runs.summaries)
        if run is None:
            raise not_found(word, session.matrix, profile, runs.summaries)
        return _view_of_run(session, runs.read(run))
    row = build_row(found.cell, found.profile, runs, WITH_ENERGY)
    shown = row.records or ((row.attempt,) if row.attempt else ())
    if not shown or shown[0].status == "quarantined":
        newest = newest_of(found.cell.id, runs.summaries)
        return _view_without_runs(found, runs.read(newest) if newest else None)
    current = session.current(found.cell.backend)
    ground = Ground(drivers=runs.newest_drivers(), current={found.cell.backend: current} if current else {})
    said = tuple(remarks(row, ground))
    return View(f"{found.cell.id}, profile {found.profile}", row.sources, shown, found.cell.masks, said, row.published)


def _view_without_runs(found: FoundCell, newest: Record | None) -> View:
    """Return the view of a cell that shows nothing in the document, with its newest run all the same."""
    said = "Never run."
    if newest is not None:
        said = f"No run counts for this row; the newest is {newest.status}, of profile {newest.profile}."
    runs = (newest,) if newest is not None else ()
    return View(f"{found.cell.id}, profile {found.profile}", {}, runs, found.cell.masks, (said,))


def _view_of_run(session: Session, run: Record) -> View:
    sources: dict[Column, Record] = {column: run for column in WITH_ENERGY if HAS[column](run)}
    backend = str(run.cell["backend"])
    changes = staleness(run, session.current(backend), session.runs.newest_drivers())
    said = [f"Stale: changed since the measurement: {', '.join(changes)}."] if changes else []
    return View(
        f"{run.cell_id}, run {run.run_id}", sources, (run,), bool(run.cell["masks"]), tuple(said), run.published
    )


def _figure_of(column: Column, record: Record) -> tuple[str, str, Figure]:
    """Return a figure with its head and the definition that its run was made under."""
    on_host = record.cell["gpus"] == 0
    head = HOST_MEMORY_HEAD if column == "memory" and on_host else COLUMN_HEADS[column]
    definition = definition_of(column, record, DEFAULT_MEMORY, on_host=on_host)
    return head, definition, row_figure(column, record, DEFAULT_MEMORY, on_host=on_host)


def _print_figure(console: Console, column: Column, record: Record) -> None:
    head, definition, figure = _figure_of(column, record)
    if column == "download":
        return  # its files stand with the run
    line = Text(f"\n{head}  ").append(written(column, figure.value, more_digits=1) or "none", style="bold")
    if figure.interval is not None:
        low, high = (written(column, bound, more_digits=1) for bound in (figure.interval.low, figure.interval.high))
        line.append(f"  95 % interval {low} to {high}")
    console.print(line)
    definition = "" if figure.remark.endswith(definition) else definition  # one that was reported says it
    beside = [definition, figure.remark, _detail(column, record), f"run {record.run_id}"]
    for text in filter(None, beside):
        console.print(Padding(Text(text), (0, 0, 0, 4), expand=False))


def _detail(column: Column, record: Record) -> str:
    """Say what else a record has of a figure."""
    measured = record.measurements
    if column == "memory" and measured.memory:
        return _memory_detail(measured.memory)
    if column == "s_per_iter" and measured.train:
        return _train_detail(measured.train)
    if column == "energy" and measured.energy:
        spent = measured.energy
        return f"{kilowatt_hours(spent.kwh)} kWh in all, of {spent.gpus} GPUs, by NVML's {spent.source}"
    if column == "fps" and measured.infer:
        return _infer_detail(measured.infer)
    if column in ("box_ap", "mask_ap") and measured.scores:
        images = f"{measured.scores.images} images, " if measured.scores.images else ""
        return f"{images}scored by {measured.scores.scorer}"
    return ""


def _memory_detail(memory: Memory) -> str:
    counts = [
        (f"GPU {gpu.index} {what}", count)
        for gpu in memory.gpus
        for what, count in (
            ("per process", gpu.nvml_process_bytes),
            ("added to the device", gpu.nvml_delta_bytes),
            ("device in use", gpu.nvml_used_bytes),
        )
    ]
    for peak in memory.allocator:
        counts += [(f"rank {peak.rank} allocated", peak.allocated_bytes), ("reserved", peak.reserved_bytes)]
    told = ", ".join(f"{what} {gigabytes(count, 2)}" for what, count in counts if count is not None)
    return "; ".join(filter(None, [told, *memory.problems]))


def _train_detail(timing: TrainTiming) -> str:
    times_s = (timing.median_s, timing.p10_s, timing.p90_s)
    median, p10, p90 = (written("s_per_iter", time_s, more_digits=1) for time_s in times_s)
    return (
        f"{_measured(timing)} of {timing.iterations_run - timing.resumed_at} iterations"
        f"{f' (resumed after {timing.resumed_at})' if timing.resumed_at else ''}, batch {timing.batch_size}, "
        f"ended by {ENDED_BY[timing.ended_by]}: "
        f"median {median}, p10 {p10}, p90 {p90}{_waiting(timing)}"
    )


def _measured(timing: TrainTiming) -> str:
    count = str(timing.iterations_measured)
    return count if timing.averaged_over == 1 else f"{count} means over {timing.averaged_over}"


def _waiting(timing: TrainTiming) -> str:
    return "" if timing.data_share is None else f"; {percent(timing.data_share)} of the time waiting for data"


def _infer_detail(timing: InferTiming) -> str:
    parts = {
        "load": timing.load_s,
        "preprocess": timing.preprocess_s,
        "forward": timing.forward_s,
        "postprocess": timing.postprocess_s,
        "encode": timing.encode_s,
    }
    split = ", ".join(f"{name} {milliseconds(seconds)}" for name, seconds in parts.items())
    return f"{timing.images} images, ms: {split}; {average(timing.detections_per_image)} detections an image"


def _print_run(console: Console, session: Session, run: Record) -> None:
    console.print(Text(f"\nrun {run.run_id}", style="bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for what, text in (*_facts(run), *_files(session, run)):
        grid.add_row(Text(what), Text(text))
    console.print(Padding(grid, (0, 0, 0, 4), expand=False))


def _facts(run: Record) -> Iterator[tuple[str, str]]:
    """Everything about a run but its figures and files. What a record lacks is left out."""
    if run.origin is not None:
        yield from _origin(run, run.origin)
    else:
        yield "status", f"{run.status} in {format_s(run.duration_s)}, begun {_when(run)}"
    if run.reason:
        yield "reason", run.reason
    if run.noise:
        yield "noise", describe(run.noise)
    for kind in run.unwatched:
        yield "not watched for", kind
    yield "phases", f"{', '.join(run.phases_done) or 'none'} done, of {', '.join(run.phases)}"
    yield "profile", run.profile
    yield from _surroundings(run)
    yield "zoo-bench", run.zoo_bench
    if run.revision is not None:
        yield "revision", revision_text(run.revision)
    if run.origin is None:
        yield "recipe", _digest(run.recipe_sha256)
        yield "sources", _digest(run.inputs.sources_sha256)
        yield "lock", _digest(run.inputs.lock_sha256) if run.inputs.lock_sha256 else "none: not built from a lock"
        yield "dataset", f"{run.dataset}, {_digest(run.inputs.dataset_sha256)}"


def _when(run: Record) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.started_unix_s))


def _origin(run: Record, origin: Origin) -> Iterator[tuple[str, str]]:
    """What is known of a run that was imported: when it was, only where its files tell."""
    yield "status", run.status + (f" in {format_s(run.duration_s)}" if run.duration_s else "")
    for file in origin.files:
        yield "imported from", f"{file.name}, {file.bytes} bytes, {_digest(file.sha256)}, by adapter {origin.adapter}"
    for remark in origin.remarks:
        yield "remark", remark
    yield "known of its cell", ", ".join(origin.known) or "nothing"
    yield (
        "dataset",
        run.dataset + ("" if "dataset" in origin.known else ", as the matrix has it: its files do not tell"),
    )


def _surroundings(run: Record) -> Iterator[tuple[str, str]]:
    machine = run.machine
    yield "machine", ", ".join([*filter(None, [machine_name(run)]), *gpu_lines(run)])
    if cpu_line(run):
        yield "CPU", f"{cpu_line(run)}, {gigabytes(machine.get('memory_bytes', 0))} GB"
        yield "system", ", ".join(str(machine[key]) for key in ("os", "kernel") if machine.get(key))
    for what in ("interconnect", "container"):
        if machine.get(what):
            yield what, str(machine[what])
    if machine.get("driver"):
        yield "GPU driver", f"{machine['driver']}, CUDA up to {machine.get('cuda_driver')}"
    if run.software:
        yield "software", ", ".join(f"{SOFTWARE_NAMES.get(name, name)} {v}" for name, v in run.software.items())


def _digest(sha256: str) -> str:
    return f"SHA-256 {sha256[:DIGEST_SHOWN]}"


def _files(session: Session, run: Record) -> Iterator[tuple[str, str]]:
    files = dict(run.files)
    if run.checkpoint is not None:
        name = "given model" if run.checkpoint.given else "checkpoint"
        files[name] = run.checkpoint.file
    for name, file in files.items():
        yield name, file if (session.workspace.root / file).exists() else f"{file} (not here)"
    yield "command", shlex.join(run.command)


def _as_json(view: View) -> dict[str, Any]:
    """Return figures in base units (bytes, seconds, joules, images a second, fractions), and the whole records."""
    return {
        "title": view.title,
        "remarks": list(view.remarks),
        "figures": _json_figures(view.sources),
        "published": view.published.model_dump(mode="json") if view.published else None,
        "records": [run.model_dump(mode="json") for run in view.runs],
    }


def _json_figures(sources: Mapping[Column, Record]) -> Sequence[dict[str, Any]]:
    figures = []
    for column, record in sources.items():
        if column != "download":
            head, definition, figure = _figure_of(column, record)
            interval = figure.interval.model_dump() if figure.interval else None
            figures.append(
                {
                    "column": column,
                    "head": head,
                    "value": figure.value,
                    "interval": interval,
                    "definition": definition,
                    "remark": figure.remark,
                    "run_id": record.run_id,
                }
            )
    return figures
