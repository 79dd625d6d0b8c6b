"""Matrix and records -> the document. The one place where units are converted and numbers rounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from zoo_bench.cell import Cell, expand
from zoo_bench.errors import ConfigError
from zoo_bench.evaluate import MetricSet
from zoo_bench.markdown import Footnotes, escape, link, table
from zoo_bench.matrix import Matrix
from zoo_bench.measurements import Memory
from zoo_bench.record import Record
from zoo_bench.table import Column, Row, build_row

TEMPLATE = "model_zoo.md.j2"
GIB = 2**30
COLUMN_HEADS: dict[Column, str] = {
    "memory": "Mem (GB)",
    "s_per_iter": "Train time (s/iter)",
    "fps": "Inf time (fps)",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "download": "Download",
}
# What people call the software whose versions workers report; anything else stands as it is.
SOFTWARE_NAMES = {
    "python": "Python",
    "torch": "PyTorch",
    "mxnet": "MXNet",
    "gluoncv": "GluonCV",
    "cuda": "CUDA",
    "cudnn": "CUDNN",
    "nccl": "NCCL",
}
HOST_MEMORY_HEAD = "Host mem (GB)"
DEFINITIONS = {
    "gpu": "Largest memory of the job on any one GPU during training, as NVML counts it per process; GB = 2^30 bytes.",
    "host": "No GPU: peak memory (proportional set size) of the job's process tree during training; GB = 2^30 bytes.",
    "s_per_iter": "Mean wall time of an iteration in the steady state, data loading included.",
    "fps": "Images per second at batch 1 on one device, forward and postprocessing.",
}


@dataclass(frozen=True)
class Section:
    """One detector's heading and its table, as Markdown."""

    title: str
    table: str


def render(
    matrix: Matrix,
    profile_name: str | None,
    records: Sequence[Record],
    template_folders: Sequence[Path],
    available: Callable[[str], bool] = lambda _: False,
) -> str:
    """Return the Markdown document for a profile's cells.

    Args:
        template_folders: searched in order for the template and its parts.
        available: tells whether a file that a record names (relative to the workspace) is there to be linked.

    Raises:
        ConfigError: the profile is unknown, or a template is missing or wrong.
    """
    name, profile = matrix.profile(profile_name)
    cells = [cell for cell in expand(matrix, profile_name) if cell.backend == matrix.document.backend]
    rows = [build_row(cell, name, records) for cell in cells]
    used = [record for row in rows for record in row.records]
    notes = Footnotes()
    sections = [
        _section(matrix, detector, [row for row in rows if row.cell.detector == detector], notes, available)
        for detector in dict.fromkeys(cell.detector for cell in cells)
    ]
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(template_folders),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: every value goes through the md filter instead
    )
    environment.filters["md"] = escape
    try:
        return environment.get_template(TEMPLATE).render(
            title=matrix.document.title,
            note=profile.note,
            hardware=_hardware(matrix, used),
            software=_software(matrix, used),
            settings=_settings(cells),
            sections=sections,
            footnotes=notes.lines(),
        )
    except Exception as error:  # noqa: BLE001 - a template can raise anything, and its author must hear where
        line = getattr(error, "lineno", None)
        where = f"{getattr(error, 'name', None) or TEMPLATE}{f':{line}' if line else ''}"
        raise ConfigError(
            f"templates/{where}: {getattr(error, 'message', None) or f'{type(error).__name__}: {error}'}",
            "docs/rendering.md lists what a template can use",
        ) from None


def _section(
    matrix: Matrix,
    detector: str,
    rows: Sequence[Row],
    notes: Footnotes,
    available: Callable[[str], bool],
) -> Section:
    declared = matrix.detectors[detector]
    columns: list[Column] = [column for column in COLUMN_HEADS if column != "mask_ap" or declared.masks]
    filled = {column for row in rows for column in row.sources}
    heads = ["Backbone", "Lr schd", *(_head(column, rows, column in filled, notes) for column in columns)]
    lines = []
    for row in rows:
        figures = [_figure(column, row, available) for column in columns]
        marks = "".join(notes.mark(text) for text in _remarks(row))
        if row.attempt is not None and row.attempt.status != "succeeded" and not row.sources:
            figures[0] = escape(row.attempt.status)
        first = next((index for index, figure in enumerate(figures) if figure), 0)
        figures[first] += marks
        lines.append([escape(matrix.backbones[row.cell.backbone].title), escape(row.cell.schedule), *figures])
    return Section(declared.title, table(heads, lines))


def _head(column: Column, rows: Sequence[Row], filled: bool, notes: Footnotes) -> str:
    on_host = column == "memory" and all(row.cell.gpus == 0 for row in rows)
    text = HOST_MEMORY_HEAD if on_host else COLUMN_HEADS[column]
    definition = DEFINITIONS.get("host" if on_host else "gpu" if column == "memory" else column)
    return text + (notes.mark(definition) if filled and definition else "")


def _figure(column: Column, row: Row, available: Callable[[str], bool]) -> str:
    record = row.sources.get(column)
    if record is None:
        return ""
    measured = record.measurements
    if column == "memory" and measured.memory:
        peak = peak_bytes(measured.memory, on_gpu=record.cell["gpus"] > 0)
        return f"{peak / GIB:.1f}" if peak is not None else ""
    if column == "s_per_iter" and measured.train:
        return f"{measured.train.mean_s:.3f}"
    if column == "fps" and measured.infer:
        return f"{measured.infer.fps:.1f}"
    if column == "box_ap" and measured.scores:
        return _points(measured.scores.box)
    if column == "mask_ap" and measured.scores:
        return _points(measured.scores.mask)
    return _links(record, available)


def peak_bytes(memory: Memory, *, on_gpu: bool) -> int | None:
    """Return the table's memory: the most on any one GPU; the host's only for a job that had no GPU."""
    if not on_gpu:
        return memory.host_bytes
    known = [gpu.nvml_process_bytes for gpu in memory.gpus if gpu.nvml_process_bytes is not None]
    return max(known, default=None)


def _points(metrics: MetricSet | None) -> str:
    return "" if metrics is None or metrics.ap is None else f"{100 * metrics.ap:.1f}"


def _links(record: Record, available: Callable[[str], bool]) -> str:
    checkpoint = record.checkpoint
    model = checkpoint.file if checkpoint and not checkpoint.given else ""
    files = [("model", model), ("log", record.files.get("log", ""))]
    return " \\| ".join(link(name, file) for name, file in files if file and available(file))


def _remarks(row: Row) -> list[str]:
    """Say what a reader must know about a row: mixed runs, failures, recipes that moved on, given models."""
    remarks = []
    if len(row.records) > 1:
        origins: dict[str, list[str]] = {record.run_id: [] for record in row.records}
        for column, record in row.sources.items():
            origins[record.run_id].append(COLUMN_HEADS[column])
        remarks.append(
            "From several runs of one recipe: "
            + "; ".join(f"{', '.join(heads)} from {escape(run_id)}" for run_id, heads in origins.items())
            + "."
        )
    if row.attempt is not None and row.attempt.status != "succeeded":
        log = row.attempt.files.get("log", "")
        told = f"Run {row.attempt.run_id}: {row.attempt.status.replace('_', ' ')}: {row.attempt.reason} (log: {log})"
        remarks.append(escape(told))
    if row.recipe_changes:
        remarks.append(escape(f"Measured with other values than the matrix has now: {'; '.join(row.recipe_changes)}"))
    if any(record.checkpoint and record.checkpoint.given for record in row.records):
        given = next(r.checkpoint for r in row.records if r.checkpoint and r.checkpoint.given)
        remarks.append(escape(f"A given model: {Path(given.file).name}, SHA-256 {given.sha256[:8]}"))
    if row.timed_untrained:
        remarks.append("No fps: the model that was timed had not finished its training.")
    return remarks


def _hardware(matrix: Matrix, used: Sequence[Record]) -> list[str]:
    target = matrix.target
    if not used:
        return [_gpus(target.gpus, target.gpu), target.cpu]
    lines: list[str] = []
    for record in used:
        gpus = record.machine.get("gpus", [])[: record.cell["gpus"]]
        names = [str(gpu["name"]) for gpu in gpus]
        lines += [_gpus(names.count(name), name) for name in dict.fromkeys(names)] or ["No GPU"]
        lines.append(f"{record.machine.get('cpu', 'unknown CPU')}, {record.machine.get('cores', '?')} cores")
    return list(dict.fromkeys(lines))


def _gpus(count: int, name: str) -> str:
    name = name if name.startswith("NVIDIA") else f"NVIDIA {name}"
    return f"{count} {name} GPU{'s' if count != 1 else ''}"


def _software(matrix: Matrix, used: Sequence[Record]) -> list[str]:
    if not used:
        return [f"{name} {version}" for name, version in matrix.target.software.items()]
    versions: dict[str, dict[str, None]] = {}
    for record in used:
        for name, version in record.software.items():
            versions.setdefault(name, {})[str(version)] = None
    return [f"{SOFTWARE_NAMES.get(name, name)} {', '.join(found)}" for name, found in versions.items()]


def _settings(cells: Sequence[Cell]) -> list[str]:
    trained = dict.fromkeys(_trained_how(cell) for cell in cells)
    data = dict.fromkeys(
        f"All models were trained on '{cell.dataset}_train', and tested on the '{cell.dataset}_val'." for cell in cells
    )
    return [*trained, *data]


def _trained_how(cell: Cell) -> str:
    if cell.gpus == 0:
        return f"All baseline were trained on the CPU with a batch size of {cell.batch_size}."
    devices = f"{cell.gpus} GPU{'s' if cell.gpus > 1 else ''}"
    return (
        f"All baseline were trained using {devices} with a batch size of {cell.batch_size} "
        f"({cell.images_per_gpu} images per GPU)."
    )
