"""The command line: parses, calls a command, returns its exit code. Commands are imported when they are called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo_bench import __version__, interrupts, streams
from zoo_bench.errors import EXIT_INTERRUPTED, EXIT_USAGE, ConfigError, ZooBenchError


def _exit(code: int, **_options: object) -> None:
    """Turn what a command returns into the process's exit code."""
    raise typer.Exit(streams.exit_code(code))


app = typer.Typer(
    name="zoo-bench",
    no_args_is_help=True,
    rich_markup_mode="rich",
    result_callback=_exit,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Makes a detection model zoo's table the output of a program.\n\n"
    "Declare detectors, backbones and schedules in matrix.yaml; `run` trains, times and evaluates every cell and keeps "
    "a record of each; `render` prints the document.\n\n"
    "Try it on a laptop, without a GPU and without data: `zoo-bench run --profile smoke`, then "
    "`zoo-bench render --profile smoke`.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"zoo-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


data_app = typer.Typer(no_args_is_help=True, help="Make and check datasets.")
app.add_typer(data_app, name="data")


def _complete_profiles(incomplete: str) -> list[str]:
    """Profiles of the matrix at hand, for the shell."""
    from zoo_bench.session import Asked, Session

    return [name for name in Session.open(Asked()).matrix.profiles if name.startswith(incomplete)]


def _complete_cells(incomplete: str) -> list[str]:
    """Ids of all cells of all profiles of the matrix at hand, for the shell."""
    from zoo_bench.cell import expand
    from zoo_bench.session import Asked, Session

    matrix = Session.open(Asked()).matrix
    ids = dict.fromkeys(cell.id for profile in matrix.profiles for cell in expand(matrix, profile))
    return [name for name in ids if name.startswith(incomplete)]


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
        autocompletion=_complete_profiles,
        help="A profile of the matrix. Default: its default_profile.",
        show_default=False,
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        autocompletion=_complete_cells,
        help="Only these cells: globs over ids or key=glob terms, separated by spaces; "
        "'*mask-rcnn*', 'backbone=r50,detector=retinanet*'.",
        show_default=False,
    ),
]
Skip = Annotated[str | None, typer.Option("--skip", help="Not these cells; written like --select.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Run fresh cells again.")]
Gpus = Annotated[
    int | None,
    typer.Option("--gpus", min=0, help="GPUs for each cell, in place of the matrix's; 0: the CPU."),
]
Phases = Annotated[
    str | None,
    typer.Option("--phases", help="Some of train,infer,evaluate. Default: what the matrix says.", show_default=False),
]
CheckpointFile = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Measure this model: use with --phases infer,evaluate.", show_default=False),
]


@app.command()
def run(
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    skip: Skip = None,
    force: Force = False,
    gpus: Gpus = None,
    phases: Phases = None,
    checkpoint: CheckpointFile = None,
    allow_noisy: Annotated[
        bool, typer.Option("--allow-noisy", help="Keep figures that something else on the machine spoiled, marked.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop, like `zoo-bench plan`.")] = False,
) -> int:
    """Run every cell that is not fresh, and keep a record of each. Run it again to go on where it stopped.

    Ctrl-C stops the running cell cleanly and leaves its record.

    Measure a model you have: `zoo-bench run --phases infer,evaluate --checkpoint model.safetensors --select CELL`.
    """
    from zoo_bench.commands.run import run as command
    from zoo_bench.session import Asked

    asked = Asked(root, matrix, profile, select, skip, gpus, phases, checkpoint, force, allow_noisy)
    # Its code says how the cells ended, also when nobody reads the table.
    raise typer.Exit(command(asked, dry_run=dry_run))


@app.command()
def plan(
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    skip: Skip = None,
    force: Force = False,
    gpus: Gpus = None,
    phases: Phases = None,
    checkpoint: CheckpointFile = None,
) -> int:
    """Show the cells, which are fresh, which would run, and why. Nothing is started."""
    from zoo_bench.commands.plan import plan as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix, profile, select, skip, gpus, phases, checkpoint, force))


@app.command()
def status(root: Root = None, matrix: MatrixFile = None, profile: ProfileName = None, select: Select = None) -> int:
    """Show the newest run of every cell: how it ended, its figures, and where its log is."""
    from zoo_bench.commands.status import status as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix, profile, select))


@app.command()
def render(root: Root = None, matrix: MatrixFile = None, profile: ProfileName = None) -> int:
    """Print the zoo's document, Markdown, to stdout: `zoo-bench render > MODEL_ZOO.md`.

    Figures come from the records in results/; a cell without one is blank.
    """
    from zoo_bench.commands.render import render as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix, profile))


@app.command()
def doctor(
    root: Root = None,
    matrix: MatrixFile = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Build missing worker environments and generate datasets.")
    ] = False,
) -> int:
    """Show what this machine has and lacks for every profile, and the command that supplies what is missing."""
    from zoo_bench.commands.doctor import doctor as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix), fix=fix)


@data_app.command("shapes")
def data_shapes(
    root: Root = None,
    matrix: MatrixFile = None,
    name: Annotated[str, typer.Option(help="Which generated dataset of the matrix.")] = "shapes",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to make.", show_default=False)] = None,
) -> int:
    """Generate a declared shapes dataset: images and COCO annotations, the same bytes on every machine."""
    from zoo_bench.commands.data import shapes as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix), name, output)


@data_app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="A dataset of the matrix.")],
    root: Root = None,
    matrix: MatrixFile = None,
) -> int:
    """Check a dataset wholly, every image decoded: one report of all that is wrong with it."""
    from zoo_bench.commands.data import check as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix), name)


@data_app.command("schema")
def data_schema() -> int:
    """Print the JSON Schema of matrix.yaml, for editors."""
    from zoo_bench.commands.data import schema as command

    return command()


def main() -> None:
    """Run the command line; the one place where an error becomes a message and an exit code."""
    streams.set_up()
    interrupts.raise_on_signals()
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except interrupts.Interrupted:
        print("zoo-bench: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:  # of a path that was given: too long, not to be read, gone
        print(f"zoo-bench: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except ZooBenchError as error:
        print(f"zoo-bench: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  -> {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


def _refuse_empty(words: list[str]) -> None:
    """Raise ConfigError for an empty argument: it means nothing anywhere, and taken for a path it is this folder."""
    for index, word in enumerate(words):
        option, separator, value = word.partition("=")
        if not word or (option.startswith("--") and separator and not value):
            where = option or " ".join(["after", *words[max(0, index - 1) : index]])
            raise ConfigError(f"an argument is empty: {where}", "is a variable of the shell not set?")
