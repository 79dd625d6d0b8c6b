"""The options that verbs share, and what the shell completes them with. Imports of weight are made when called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer


def complete_profiles(incomplete: str) -> list[str]:
    """Profiles of the matrix at hand, for the shell."""
    from zoo_bench.session import Asked, Session

    return _beginning(incomplete, Session.open(Asked()).matrix.profiles)


def complete_cells(incomplete: str) -> list[str]:
    """Ids of all cells of all profiles of the matrix at hand, for the shell."""
    from zoo_bench.cell import expand
    from zoo_bench.session import Asked, Session

    matrix = Session.open(Asked()).matrix
    return _beginning(incomplete, (cell.id for profile in matrix.profiles for cell in expand(matrix, profile)))


def complete_backends(incomplete: str) -> list[str]:
    """Backends that the matrix at hand has cells of, for the shell; after a comma, those that are not named yet."""
    from zoo_bench.cell import expand
    from zoo_bench.session import Asked, Session

    matrix = Session.open(Asked()).matrix
    named, comma, _ = incomplete.rpartition(",")
    backends = (cell.backend for profile in matrix.profiles for cell in expand(matrix, profile))
    words = (f"{named}{comma}{name}" for name in backends if name not in named.split(","))
    return _beginning(incomplete, words)


def complete_cells_and_runs(incomplete: str) -> list[str]:
    """Ids of cells, of runs, and of cells without their backend where no two share what is left, for the shell."""
    from zoo_bench.cell import short_name

    cells = complete_cells("")
    short = Counter(map(short_name, cells))
    return _beginning(incomplete, [*cells, *(name for name, count in short.items() if count == 1), *_runs()])


def complete_sides(incomplete: str) -> list[str]:
    """What can be compared: runs, backends, machines by name, and sources of published figures, for the shell."""
    from zoo_bench.cell import backend_of
    from zoo_bench.published import source_names
    from zoo_bench.session import Asked, Session

    runs = Session.open(Asked()).runs.summaries
    backends = (backend_of(run.cell_id) for run in runs)
    machines = (run.machine[0] for run in runs)
    return _beginning(incomplete, [*_runs(), *backends, *filter(None, machines), *source_names()])


def _runs() -> list[str]:
    from zoo_bench.session import Asked, Session

    return [run.run_id for run in Session.open(Asked()).runs.summaries]


def _export_formats() -> Iterable[str]:
    from zoo_bench.commands.export import FORMATS

    return FORMATS


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete)]


Root = Annotated[
    Path | None,
    typer.Option("--root", help="The workspace. Default: the folder of matrix.yaml.", show_default=False),
]
MatrixFile = Annotated[
    Path | None,
    typer.Option(
        "--matrix",
        help="Default: matrix.yaml here, else the one that came with zoo-bench.",
        show_default=False,
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        autocompletion=complete_profiles,
        help="A profile of the matrix. Default: its default_profile.",
        show_default=False,
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        autocompletion=complete_cells,
        help="Only these cells: globs over ids or key=glob terms, separated by spaces; "
        "'*mask-rcnn*', 'backbone=r50,detector=retinanet*'.",
        show_default=False,
    ),
]
Skip = Annotated[str | None, typer.Option("--skip", help="Not these cells; written like --select.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Run fresh cells again.")]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus",
        min=0,
        max=10**9,
        help="GPUs for each cell, in place of the matrix's; 0: the CPU. Learning rate and schedule are scaled to the "
        "batch, where the recipe says for which it was written.",
    ),
]
Phases = Annotated[
    str | None,
    typer.Option(
        "--phases", help="Some of train,infer,evaluate,publish. Default: what the matrix says.", show_default=False
    ),
]
CheckpointFile = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Measure this model: use with --phases infer,evaluate.", show_default=False),
]


AllowNoisy = Annotated[
    bool, typer.Option("--allow-noisy", help="Keep figures that something else on the machine spoiled, marked.")
]
AcceptedModels = Annotated[
    bool, typer.Option("--accepted", help="Measure the models that were accepted: use with --phases infer,evaluate.")
]
OfMachine = Annotated[
    str | None,
    typer.Option("--machine", help="Runs of this machine: its name, or a part of its CPU or GPU.", show_default=False),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=2**62,
        help="Train with this seed; with --repeat the first of several. Default: the matrix's.",
        show_default=False,
    ),
]
Repeat = Annotated[
    int, typer.Option("--repeat", min=1, max=1000, help="Run every cell so often, each time with another seed.")
]
Backends = Annotated[
    str | None,
    typer.Option(
        "--backend",
        autocompletion=complete_backends,
        help="Whose cells fill the document: torchvision, or several: torchvision,gluoncv. Default: the matrix's "
        "document.backends.",
        show_default=False,
    ),
]
TablesLaidOut = Annotated[
    str | None,
    typer.Option(
        "--tables",
        autocompletion=lambda incomplete: _beginning(incomplete, ("together", "apart")),
        help="Of several backends: together (one table a detector) or apart (each backend its own). Default: the "
        "matrix's document.tables.",
        show_default=False,
    ),
]
MemoryCounted = Annotated[
    str,
    typer.Option(
        "--mem-def",
        autocompletion=lambda incomplete: _beginning(incomplete, ("nvml", "allocated", "reserved")),
        help="Which memory: nvml (NVML's count of the job's processes), or the allocator's allocated or reserved.",
    ),
]
MemoryOverGpus = Annotated[
    str,
    typer.Option(
        "--mem-agg",
        autocompletion=lambda incomplete: _beginning(incomplete, ("max", "rank0", "sum")),
        help="Of the job's GPUs: max (the largest), rank0 (the first process's), or sum.",
    ),
]
EnergyColumn = Annotated[bool, typer.Option("--energy", help="Add the column Energy (J/iter).")]
SpreadOverSeeds = Annotated[
    bool, typer.Option("--spread", help="Show AP of several seeds (run --repeat) as mean and spread: 37.4 ± 0.2.")
]
PlotsFolder = Annotated[
    str | None,
    typer.Option(
        "--plots",
        metavar="FOLDER",
        help="Draw AP against speed, as SVGs in this folder beside the document, and show them in it.",
        show_default=False,
    ),
]
ExportFormat = Annotated[
    str,
    typer.Argument(
        metavar="FORMAT",
        autocompletion=lambda incomplete: _beginning(incomplete, _export_formats()),
        help="csv, json and parquet (figures not rounded), latex (booktabs), metafile (mmdetection's metafile.yml), "
        "model-card or model-index (Hugging Face).",
        show_default=False,
    ),
]
ExportFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Where to. Default: stdout.", show_default=False),
]
NoStaleMarks = Annotated[
    bool,
    typer.Option("--no-stale-marks", help="Do not mark rows whose worker, lock or driver has changed since."),
]
