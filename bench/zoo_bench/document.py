"""How a document was rendered: the options that change it, and the comment line that keeps them in it.

The line is the call that made the document, ``<!-- zoo-bench render --profile smoke --mem-def allocated -->``, without
what is default; a document made with the defaults has none. `zoo-bench verify` renders with what the line says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast, get_args

from zoo_bench.errors import ConfigError, nearest
from zoo_bench.figures import DEFAULT_MEMORY, MEMORY_COUNTS, OVER_GPUS, MemoryCount, MemoryDefinition, OverGpus
from zoo_bench.matrix import Matrix, Tables

OPENING = "<!-- zoo-bench render"
LINE = re.compile(rf"{re.escape(OPENING)}(?P<words>( [^\s>]+)+) -->")
PLOTS = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*/?")
CHOICES: dict[str, tuple[str, ...]] = {
    "--tables": get_args(Tables),
    "--mem-def": MEMORY_COUNTS,
    "--mem-agg": OVER_GPUS,
}
WITH_VALUE = ("--profile", "--backend", "--plots", *CHOICES)
FLAGS = ("--energy", "--spread", "--no-stale-marks")


@dataclass(frozen=True)
class DocumentOptions:
    """What a caller of `render` may choose. None is what the matrix says: its default profile, its document's keys."""

    profile: str | None = None
    memory: MemoryDefinition = DEFAULT_MEMORY
    energy: bool = False
    spread: bool = False
    stale_marks: bool = True
    backends: tuple[str, ...] | None = None
    tables: Tables | None = None
    plots: str | None = None


DEFAULT_OPTIONS = DocumentOptions()


def memory_definition(count: str, over_gpus: str) -> MemoryDefinition:
    """Check the words of --mem-def and --mem-agg.

    Raises:
        ConfigError: a word is not one of those that are known.
    """
    _check("--mem-def", count)
    _check("--mem-agg", over_gpus)
    return MemoryDefinition(cast(MemoryCount, count), cast(OverGpus, over_gpus))


def chosen_backends(text: str | None) -> tuple[str, ...] | None:
    """Read ``--backend torchvision,gluoncv``, each name once. Whether the matrix has them is seen when it is filled.

    Raises:
        ConfigError: there is no name in it.
    """
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"--backend {text}: no name", "name one or several: --backend torchvision,gluoncv")
    return names


def chosen_tables(word: str | None) -> Tables | None:
    """Check the word of --tables.

    Raises:
        ConfigError: it is none of those that are known.
    """
    if word is not None:
        _check("--tables", word)
    return cast(Tables | None, word)


def chosen_plots(folder: str | None) -> str | None:
    """Check the folder of --plots: it stands in the document's addresses, and in its last line.

    Raises:
        ConfigError: it is no path inside of the workspace, or has characters that addresses do not.
    """
    if folder is not None and (PLOTS.fullmatch(folder) is None or ".." in folder.split("/")):
        raise ConfigError(
            f"--plots {folder}: not a folder beside the document", "letters, digits, - . _ and /: --plots plots"
        )
    return folder.rstrip("/") if folder else folder


def _check(option: str, word: str) -> None:
    if word not in CHOICES[option]:
        raise ConfigError(f"{option} {word}: expected one of {', '.join(CHOICES[option])}")


def comment(options: DocumentOptions, matrix: Matrix) -> str:
    """Return the line that a document made with `options` ends with, and its line end; empty for the defaults."""
    words: list[str] = []
    if options.profile not in (None, matrix.default_profile):
        words += ["--profile", str(options.profile)]
    if options.backends is not None and options.backends != matrix.document.backends:
        words += ["--backend", ",".join(options.backends)]
    if options.tables not in (None, matrix.document.tables):
        words += ["--tables", str(options.tables)]
    if options.memory.count != DEFAULT_MEMORY.count:
        words += ["--mem-def", options.memory.count]
    if options.memory.over_gpus != DEFAULT_MEMORY.over_gpus:
        words += ["--mem-agg", options.memory.over_gpus]
    words += ["--energy"] if options.energy else []
    words += ["--spread"] if options.spread else []
    words += ["--plots", options.plots] if options.plots else []
    words += [] if options.stale_marks else ["--no-stale-marks"]
    return f"{OPENING} {' '.join(words)} -->\n" if words else ""


def options_of(text: str, name: str) -> DocumentOptions:
    """Read the comment line of a document; `name` is what errors call the document.

    Raises:
        ConfigError: the line is not one that `comment` writes, or there are several.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.startswith(OPENING)]
    if not lines:
        return DocumentOptions()
    number, line = lines[-1]
    if len(lines) > 1:
        raise ConfigError(f"{name}:{number}: the line '{OPENING} ...' stands twice", "render the document again")
    match = LINE.fullmatch(line.rstrip())
    if match is None:
        raise ConfigError(f"{name}:{number}: expected '{OPENING} OPTIONS -->', found '{line}'", "render it again")
    try:
        return _parse(match["words"].split())
    except ConfigError as error:
        raise ConfigError(f"{name}:{number}: {error.message}", error.hint or "render the document again") from None


def _parse(words: list[str]) -> DocumentOptions:
    given = dict(_pairs(words))
    return DocumentOptions(
        profile=given.get("--profile"),
        memory=memory_definition(
            given.get("--mem-def", DEFAULT_MEMORY.count), given.get("--mem-agg", DEFAULT_MEMORY.over_gpus)
        ),
        energy="--energy" in given,
        spread="--spread" in given,
        stale_marks="--no-stale-marks" not in given,
        backends=chosen_backends(given.get("--backend")),
        tables=chosen_tables(given.get("--tables")),
        plots=chosen_plots(given.get("--plots")),
    )


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    rest, seen = iter(words), set[str]()
    for option in rest:
        if option not in (*WITH_VALUE, *FLAGS):
            raise ConfigError(f"'{option}' is no option of render", nearest(option, (*WITH_VALUE, *FLAGS)))
        if option in seen:
            raise ConfigError(f"{option} is given twice")
        seen.add(option)
        value = next(rest, "") if option in WITH_VALUE else ""
        if option in WITH_VALUE and not value:
            raise ConfigError(f"{option} lacks its value")
        yield option, value
