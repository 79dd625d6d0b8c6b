"""The command line: parses, calls a command, returns its exit code. Commands are imported when they are called."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from zoo_bench import __version__, interrupts, streams
from zoo_bench import cli_options as options
from zoo_bench.cli_options import MatrixFile, ProfileName, Root, Select
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
    "Try it on a laptop, without a GPU and without data: `zoo-bench run --profile smoke --select 'torchvision/*'`, "
    "then `zoo-bench render --profile smoke`.",
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


class _Executor(str, Enum):
    local = "local"
    slurm = "slurm"


@app.command()
def run(
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    skip: options.Skip = None,
    force: options.Force = False,
    gpus: options.Gpus = None,
    phases: options.Phases = None,
    checkpoint: options.CheckpointFile = None,
    allow_noisy: options.AllowNoisy = False,
    accepted: options.AcceptedModels = False,
    seed: options.Seed = None,
    repeat: options.Repeat = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop, like `zoo-bench plan`.")] = False,
    no_trial: Annotated[
        bool, typer.Option("--no-trial", help="Start long cells without trying every cell for 20 iterations first.")
    ] = False,
    executor: Annotated[
        _Executor,
        typer.Option("--executor", help="Where cells run: here, or each as a job of a Slurm cluster."),
    ] = _Executor.local,
    since: Annotated[float | None, typer.Option("--since", hidden=True)] = None,
) -> int:
    """Run every cell that is not fresh, and keep a record of each. Run it again to go on where it stopped.

    Ctrl-C stops the running cell cleanly and leaves its record. A training that was interrupted goes on after its last
    checkpoint. Where one is long, all cells are tried first for a minute, and what would fail is listed.

    With `--executor slurm` each cell is submitted as a job, as `slurm:` in matrix.yaml says. Ctrl-C cancels the jobs;
    SIGTERM, or closing the terminal, leaves them, and the same call follows them again.

    Measure a model you have: `zoo-bench run --phases infer,evaluate --checkpoint model.safetensors --select CELL`.
    """
    from zoo_bench.commands.run import run as command
    from zoo_bench.session import Asked

    chosen = (root, matrix, profile, select, skip, gpus, phases, checkpoint)
    asked = Asked(*chosen, force, allow_noisy, accepted, seed, repeat, since)
    # Its code says how the cells ended, also when nobody reads the table.
    raise typer.Exit(command(asked, dry_run=dry_run, trial=not no_trial, executor=executor.value))


@app.command()
def plan(
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    skip: options.Skip = None,
    force: options.Force = False,
    gpus: options.Gpus = None,
    phases: options.Phases = None,
    checkpoint: options.CheckpointFile = None,
) -> int:
    """Show the cells, which are fresh, which would run, and why. Nothing is started."""
    from zoo_bench.commands.plan import plan as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix, profile, select, skip, gpus, phases, checkpoint, force))


@app.command()
def status(
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
) -> int:
    """Show every cell: whether it runs just now, how its newest run ended and why, its figures, and its log.

    The column `runs` counts the runs so far. `zoo-bench status --watch` beside a `zoo-bench run` follows it.
    """
    from zoo_bench.commands.status import status as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix, profile, select), watch=watch)


@app.command()
def show(
    cell: Annotated[
        str,
        typer.Argument(
            metavar="CELL",
            autocompletion=options.complete_cells_and_runs,
            help="A cell's id, its short name, a glob that matches one cell, or the id of a run.",
            show_default=False,
        ),
    ],
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    json: Annotated[bool, typer.Option("--json", help="Print figures and whole records as JSON.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Draw each metric night by night, and find where its level changed.")
    ] = False,
    machine: options.OfMachine = None,
) -> int:
    """Show where each figure of a row comes from: definition, interval, run, machine, software, log, checkpoint.

    For instance `zoo-bench show mask-rcnn_r50_fpn_1x_coco`, or `zoo-bench show '*retinanet_r50*' --json`.
    """
    from zoo_bench.commands.show import show as command
    from zoo_bench.session import Asked

    if history:
        from zoo_bench.commands.history import history as told

        return told(Asked(root, matrix, profile, machine=machine), cell, as_json=json)
    if machine is not None:
        raise ConfigError(f"--machine {machine}: a row is of the matrix's runs, wherever they were", "add --history")
    return command(Asked(root, matrix, profile), cell, as_json=json)


@app.command()
def render(
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    backend: options.Backends = None,
    tables: options.TablesLaidOut = None,
    mem_def: options.MemoryCounted = "nvml",
    mem_agg: options.MemoryOverGpus = "max",
    energy: options.EnergyColumn = False,
    spread: options.SpreadOverSeeds = False,
    plots: options.PlotsFolder = None,
    no_stale_marks: options.NoStaleMarks = False,
) -> int:
    """Print the zoo's document, Markdown, to stdout: `zoo-bench render > MODEL_ZOO.md`.

    Figures come from the records in results/; a cell without one is blank. Options that change the document are
    kept in its last line, for `zoo-bench verify`.
    """
    from zoo_bench.commands.render import render as command
    from zoo_bench.document import DocumentOptions, chosen_backends, chosen_plots, chosen_tables, memory_definition
    from zoo_bench.session import Asked

    memory = memory_definition(mem_def, mem_agg)
    ours, laid_out = chosen_backends(backend), chosen_tables(tables)
    pictures = chosen_plots(plots)
    chosen = DocumentOptions(profile, memory, energy, spread, not no_stale_marks, ours, laid_out, pictures)
    return command(Asked(root, matrix, profile), chosen)


@app.command()
def export(
    form: options.ExportFormat,
    output: options.ExportFile = None,
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    backend: options.Backends = None,
    tables: options.TablesLaidOut = None,
    mem_def: options.MemoryCounted = "nvml",
    mem_agg: options.MemoryOverGpus = "max",
    energy: options.EnergyColumn = False,
    spread: options.SpreadOverSeeds = False,
    no_stale_marks: options.NoStaleMarks = False,
) -> int:
    """Write the document's rows for other tools: csv, json, latex, metafile, model-card, model-index or parquet.

    They are the rows of `zoo-bench render` with the same options: `zoo-bench export csv -o zoo.csv`, or for a model's
    repository on the Hub `zoo-bench export model-card --select '*retinanet_r50*' -o card/README.md`.
    """
    from zoo_bench.commands.export import export as command
    from zoo_bench.document import DocumentOptions, chosen_backends, chosen_tables, memory_definition
    from zoo_bench.session import Asked

    memory = memory_definition(mem_def, mem_agg)
    ours, laid_out = chosen_backends(backend), chosen_tables(tables)
    chosen = DocumentOptions(profile, memory, energy, spread, not no_stale_marks, ours, laid_out)
    return command(Asked(root, matrix, profile, select), form, output, chosen)


@app.command()
def report(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the site.")] = Path("site"),
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    skip: options.Skip = None,
) -> int:
    """Write a site to look at: trade-offs, a page a cell, history, what is red now, any two runs side by side.

    It opens from disk, asks nothing of any network, and can be published as it is: `zoo-bench report -o site`, then
    open site/index.html. Called again it writes only the pages that have changed.
    """
    from zoo_bench.commands.report import report as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix, profile, select, skip), output)


@app.command()
def accept(
    why: Annotated[
        str, typer.Option("--why", help="The reason; it stands beside the runs, for whoever reviews the diff.")
    ],
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    skip: options.Skip = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Who accepts. Default: git's user.name.", show_default=False)
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", min=1, max=1000, help="So many of the newest runs of each cell, as one reference.")
    ] = 1,
    machine: options.OfMachine = None,
) -> int:
    """Make the newest runs the reference that `zoo-bench check` compares with, on the machine they were made on.

    That is this machine; where it ran none, the one that made the newest; or the one that `--machine` names. What was
    accepted is kept in results/baselines/, one file a machine, to be reviewed and committed:
    `zoo-bench accept --profile speed --why "driver 560"`.
    """
    from zoo_bench.commands.accept import accept as command
    from zoo_bench.session import Asked

    return command(Asked(root, matrix, profile, select, skip, machine=machine), why=why, by=by, count=runs)


@app.command()
def check(
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    select: Select = None,
    skip: options.Skip = None,
    confirm: Annotated[
        int, typer.Option("--confirm", min=0, max=100, help="Run what looks changed so many times more, then judge.")
    ] = 0,
    max_age: Annotated[
        float | None,
        typer.Option(
            "--max-age",
            min=0,
            metavar="HOURS",
            help="A cell whose newest run began longer ago is missing. Default: however long.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="This one only: memory, s_per_iter, fps, box_ap or mask_ap.", show_default=False),
    ] = None,
    ap_only: Annotated[
        bool, typer.Option("--ap-only", help="AP alone, whatever machine it was accepted on: for machines of others.")
    ] = False,
    machine: options.OfMachine = None,
    every: Annotated[bool, typer.Option("--all", help="Show what is unchanged too.")] = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Add the verdicts to this file.", show_default=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write them as JUnit XML.", show_default=False)] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write them as JSON.", show_default=False)] = None,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions too.")] = False,
) -> int:
    """Compare the newest runs with what was accepted and with the nights since; exit 3 when something got worse.

    How much is chance is learnt from the nights themselves. Every night: `zoo-bench check --profile speed --confirm 4`.
    Exit codes: 0 nothing got worse, 1 a cell did not succeed, 3 a regression, 4 nothing to compare with, 5 quarantined.
    """
    from zoo_bench.commands.check import Outputs
    from zoo_bench.commands.check import check as command
    from zoo_bench.session import Asked

    outputs = Outputs(markdown, junit, json, github, every)
    asked = Asked(root, matrix, profile, select, skip, machine=machine)
    code = command(asked, outputs, confirm=confirm, max_age_h=max_age, ap_only=ap_only, metric=metric)
    if code:  # says what got worse, also when nobody reads the table
        raise typer.Exit(code)
    return code


@app.command()
def verify(
    document: Annotated[Path, typer.Argument(help="A document that render made.", show_default=False)],
    root: Root = None,
    matrix: MatrixFile = None,
    links: Annotated[
        bool, typer.Option("--links", help="Fetch every published file that it links, and check its hash.")
    ] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Evaluate every published model again, and compare its AP.")
    ] = False,
    gpus: Annotated[
        int | None,
        typer.Option(min=0, max=10**9, help="GPUs to evaluate on, in place of the matrix's; 0: the CPU."),
    ] = None,
) -> int:
    """Check that a published document still equals the store; when it does not, exit 1 with a diff.

    It names every value that was edited by hand, is stale, or was copied from another row. Logs and models
    need not be there, so it runs in a clean clone: `zoo-bench verify MODEL_ZOO.md`. With --links it also
    fails when a published model or log is gone, forbidden or changed; with --evaluate, when a model has
    another AP.
    """
    from zoo_bench.commands.verify import verify as command
    from zoo_bench.session import Asked

    asked = Asked(root, matrix, gpus=gpus)
    return command(asked, document, with_links=links, with_evaluation=evaluate)


@app.command()
def compare(
    a: Annotated[
        str | None,
        typer.Argument(
            metavar="A",
            autocompletion=options.complete_sides,
            help="A run, a date, a backend, a machine, or a record's file. With --published: a source.",
            show_default=False,
        ),
    ] = None,
    b: Annotated[
        str | None,
        typer.Argument(metavar="B", autocompletion=options.complete_sides, help="What to compare it with."),
    ] = None,
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    published: Annotated[bool, typer.Option("--published", help="Compare with other zoos' published figures.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> int:
    """Put two runs, dates, backends or machines side by side, or this zoo and the published ones.

    A and B are run ids, dates (the newest run of each cell up to then), backends, machines (their name in machine.yaml,
    or a part of their description), or files of records: `zoo-bench compare 2026-11-01 2026-11-20`.

    `zoo-bench compare --published`, or `zoo-bench compare --published detectron2`: our figures beside those of other
    zoos, with what differs in how they were measured.
    """
    from zoo_bench.commands.compare import compare as command
    from zoo_bench.commands.compare import compare_published
    from zoo_bench.errors import ConfigError
    from zoo_bench.session import Asked

    asked = Asked(root, matrix, profile)
    if published:
        if b is not None:
            raise ConfigError("--published takes one source at most", "zoo-bench compare --published detectron2")
        return compare_published(asked, a, markdown=markdown)
    if a is None or b is None:
        raise ConfigError("compare needs A and B", "zoo-bench compare RUN RUN, or zoo-bench compare --published")
    return command(asked, a, b, markdown=markdown)


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


@app.command()
def init(
    root: Annotated[Path, typer.Option(help="The repository.", show_default="this folder")] = Path(),
    backend: Annotated[
        str | None, typer.Option(help="What your trainer is called. Default: the folder's name.", show_default=False)
    ] = None,
    script: Annotated[
        str | None, typer.Option(help="Your training script. Default: looked for.", show_default=False)
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Reads what it logs. Default: told from logs or imports.", show_default=False)
    ] = None,
) -> int:
    """Make an existing repository a zoo: matrix.yaml, a backend that starts your script, a nightly workflow."""
    from zoo_bench.commands.init import init as command

    return command(root, backend, script, adapter)


@app.command("import")
def import_(
    adapter: Annotated[str, typer.Argument(help="gluoncv, mmdet, detectron2, mllog, regex, or metafile.")],
    files: Annotated[list[Path], typer.Argument(help="Logs, each of one run (.gz too); or metafile.yml files.")],
    root: Root = None,
    matrix: MatrixFile = None,
    profile: ProfileName = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="First part of the cells' ids. Default: the adapter's; with -imported where a backend has that name.",
            show_default=False,
        ),
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Where the files do not tell: mask-rcnn_fpn.", show_default=False)
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Where the files do not tell: r50.", show_default=False)] = None,
    schedule: Annotated[str | None, typer.Option(help="Where the files do not tell: 1x.", show_default=False)] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What was trained and evaluated on. Default: the matrix's.", show_default=False)
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="Where the files do not tell: how many.", show_default=False)
    ] = None,
    images_per_gpu: Annotated[
        int | None, typer.Option(min=1, help="Where the files do not tell.", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Of the whole training, where the files do not tell.", show_default=False)
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(help="For regex: EVENT=PATTERN, such as 'step=iter (?P<iteration>\\d+)'.", show_default=False),
    ] = None,
    one_run: Annotated[bool, typer.Option("--one-run", help="All files are parts of one run, in this order.")] = False,
    table: Annotated[
        Path | None,
        typer.Option(help="For metafile: the README to compare with. Default: the one beside it.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be imported, and keep nothing.")] = False,
) -> int:
    """Turn finished runs of other trainers into records, which `render` shows beside your own and marks as imported.

    `zoo-bench import mmdet work_dirs/mask_rcnn/*.log.json`, then `zoo-bench render --backend torchvision,mmdet`.
    """
    from zoo_bench.commands.import_runs import Wanted, import_runs
    from zoo_bench.session import Asked, Session

    told = {
        "detector": detector,
        "backbone": backbone,
        "schedule": schedule,
        "dataset": dataset,
        "gpus": gpus,
        "images_per_gpu": images_per_gpu,
        "recipe.lr_schedule.iterations": iterations,
    }
    facts = {name: value for name, value in told.items() if value is not None}
    wanted = Wanted(adapter, tuple(files), facts, tuple(pattern or ()), backend, one_run, table, dry_run)
    return import_runs(Session.open(Asked(root, matrix, profile)), wanted)


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
