"""How a document was rendered: the options that change it, and the comment line that keeps them in it.

The line is the call that made the document, ``<!-- zoo-bench render --profile smoke --mem-def allocated -->``, without
what is default; a document made with the defaults has none. `zoo-bench verify` renders with what the line says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from zoo_bench.errors import ConfigError, nearest
from zoo_bench.figures import DEFAULT_MEMORY, MEMORY_COUNTS, OVER_GPUS, MemoryCount, MemoryDefinition, OverGpus

OPENING = "<!-- zoo-bench render"
LINE = re.compile(rf"{re.escape(OPENING)}(?P<words>( [^\s>]+)+) -->")
CHOICES: dict[str, tuple[str, ...]] = {"--mem-def": MEMORY_COUNTS, "--mem-agg": OVER_GPUS}
WITH_VALUE = ("--profile", *CHOICES)
FLAGS = ("--energy", "--no-stale-marks")


@dataclass(frozen=True)
class DocumentOptions:
    """What a caller of `render` may choose. `profile` None is the matrix's default one."""

    profile: str | None = None
    memory: MemoryDefinition = DEFAULT_MEMORY
    energy: bool = False
    stale_marks: bool = True


DEFAULT_OPTIONS = DocumentOptions()


def memory_definition(count: str, over_gpus: str) -> MemoryDefinition:
    """Check the words of --mem-def and --mem-agg.

    Raises:
        ConfigError: a word is not one of those that are known.
    """
    for option, word in (("--mem-def", count), ("--mem-agg", over_gpus)):
        if word not in CHOICES[option]:
            raise ConfigError(f"{option} {word}: expected one of {', '.join(CHOICES[option])}")
    return MemoryDefinition(cast(MemoryCount, count), cast(OverGpus, over_gpus))


def comment(options: DocumentOptions, default_profile: str) -> str:
    """Return the line that a document made with `options` ends with, and its line end; empty for the defaults."""
    words: list[str] = []
    if options.profile not in (None, default_profile):
        words += ["--profile", str(options.profile)]
    if options.memory.count != DEFAULT_MEMORY.count:
        words += ["--mem-def", options.memory.count]
    if options.memory.over_gpus != DEFAULT_MEMORY.over_gpus:
        words += ["--mem-agg", options.memory.over_gpus]
    words += ["--energy"] if options.energy else []
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
        stale_marks="--no-stale-marks" not in given,
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
