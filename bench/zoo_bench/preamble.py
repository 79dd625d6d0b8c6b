"""What stands before the tables: hardware, software and settings, and of which backend each line is. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo_bench.cell import Cell
from zoo_bench.layout import Layout
from zoo_bench.matrix import Matrix
from zoo_bench.provenance import cpu_line, gpu_lines, gpus_text, interconnect, ram_line, versions
from zoo_bench.record import Record

Used = Mapping[str, Sequence[Record]]


@dataclass(frozen=True)
class Lines:
    """Lines of a list. `backend`: whose they are; empty where they hold for all backends of the document."""

    backend: str
    lines: tuple[str, ...]


def hardware(matrix: Matrix, used: Used) -> list[Lines]:
    """Say what the runs of each backend ran on; without any run, what the matrix's target is."""
    if not any(used.values()):
        return [Lines("", (gpus_text(matrix.target.gpus, matrix.target.gpu), matrix.target.cpu))]
    return _grouped({backend: _hardware(records) for backend, records in used.items()})


def software(matrix: Matrix, used: Used) -> list[Lines]:
    """Say what the runs of each backend ran with; without any run, what the matrix's target has."""
    if not any(used.values()):
        return [Lines("", tuple(f"{name} {version}" for name, version in matrix.target.software.items()))]
    return _grouped({backend: _software(records) for backend, records in used.items()})


def settings(layout: Layout) -> list[Lines]:
    """Say how the cells of each backend are trained and on what, as the matrix declares it."""
    return _grouped(
        {name: _settings(layout, [cell for cell in layout.cells if cell.backend == name]) for name in layout.backends}
    )


def _grouped(lines: Mapping[str, Sequence[str]]) -> list[Lines]:
    """Put first what all backends that have lines have in common, then what is of each alone.

    Of a document of several backends, lines that only one of them has are its own, also while the others have none:
    a Python or a batch size must not pass for that of a backend that has not been run.
    """
    if len(lines) == 1:
        return [Lines("", tuple(own)) for own in lines.values()]
    having = [own for own in lines.values() if own]
    common = [line for line in having[0] if all(line in own for own in having)] if len(having) > 1 else []
    groups = [("", common), *((name, [line for line in own if line not in common]) for name, own in lines.items())]
    return [Lines(name, tuple(own)) for name, own in groups if own]


def _hardware(records: Sequence[Record]) -> list[str]:
    lines = (
        line
        for record in records
        for line in (*gpu_lines(record), interconnect(record), cpu_line(record), ram_line(record))
    )
    return list(dict.fromkeys(filter(None, lines)))


def _software(records: Sequence[Record]) -> list[str]:
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for name, version in versions(record).items():
            found.setdefault(name, {})[version] = None
    return [f"{name} {', '.join(all_versions)}" for name, all_versions in found.items()]


def _settings(layout: Layout, cells: Sequence[Cell]) -> list[str]:
    """Of an imported cell it is not known whether the matrix's values are its own: its row says what is known."""
    cells = [cell for cell in cells if cell.id not in layout.imported]
    trained = (_trained_how(cell) for cell in cells)
    data = (
        f"All models were trained on '{cell.dataset}_train', and tested on the '{cell.dataset}_val'." for cell in cells
    )
    return list(dict.fromkeys([*trained, *data]))


def _trained_how(cell: Cell) -> str:
    if cell.gpus == 0:
        return f"All baseline were trained on the CPU with a batch size of {cell.batch_size}."
    devices = f"{cell.gpus} GPU{'s' if cell.gpus > 1 else ''}"
    return (
        f"All baseline were trained using {devices} with a batch size of {cell.batch_size} "
        f"({cell.images_per_gpu} images per GPU)."
    )
