"""Fuzzes whatever reads files that others wrote, each reader for a while; `make fuzz`.

    tools/fuzz.py [--seconds S] [WORD]

Runs the properties of tests/fuzzing, which the tests look at with few examples that are always the same, with fresh
ones until the time is up: rounds of hypothesis, each with another seed. WORD chooses those whose name has it. What
fails is printed, made as small as can be; exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

TESTS = Path(__file__).resolve().parents[1] / "tests"
# What is read, and the property that speaks of it.
PROPERTIES = {
    "matrix.yaml": ("test_configuration", "test_a_matrix_is_read_or_refused"),
    "backend.yaml": ("test_configuration", "test_a_backend_is_read_or_refused"),
    "job.json": ("test_workers", "test_a_job_is_read_or_refused_in_one_line_and_ends_in_an_event"),
    "events": ("test_workers", "test_whatever_events_say_is_shown_timed_and_recorded"),
    "annotations": ("test_workers", "test_annotations_are_checked_and_packed_or_refused"),
    "index": ("test_workers", "test_an_index_that_is_none_is_made_again"),
    "detections": ("test_workers", "test_detections_are_scored_or_refused"),
    "checkpoints": ("test_checkpoints", "test_a_checkpoint_is_plain_weights_or_refused"),
    "records": ("test_records", "test_a_record_is_refused_or_fit_for_every_verb"),
    "baselines": ("test_records", "test_a_baseline_is_refused_or_compared_with"),
    "templates": ("test_documents", "test_a_template_is_filled_or_refused"),
    "markup of a document": ("test_documents", "test_no_value_changes_what_a_document_is_made_of"),
}


@dataclass(frozen=True)
class Fuzzed:
    """What came of one property. `failure`: what hypothesis says of the smallest example that fails; else empty."""

    reader: str
    examples: int
    seconds: float
    failure: str


def main(arguments: list[str]) -> int:
    """Fuzz, print a table and what failed; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzzes what reads files that others wrote.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader (60)")
    parser.add_argument("word", nargs="?", default="", help="only readers with this in their name")
    asked = parser.parse_args(arguments)
    chosen = {reader: place for reader, place in PROPERTIES.items() if asked.word in reader}
    if not chosen:
        parser.error(f"no reader's name has {asked.word!r}; there are: {', '.join(PROPERTIES)}")
    console = Console()
    with tempfile.TemporaryDirectory() as home:
        set_up(Path(home))
        results = list(each(chosen, asked.seconds, console))
    report(results, console)
    return int(any(result.failure for result in results))


def set_up(home: Path) -> None:
    """Make the properties' modules importable, and keep the user's own files out of what they look at."""
    os.environ.update(ZOO_BENCH_FUZZ="1", NO_COLOR="1", COLUMNS="200", XDG_CONFIG_HOME=str(home))
    os.environ.pop("ZOO_BENCH_MACHINE", None)
    sys.path.insert(0, str(TESTS))


def each(chosen: dict[str, tuple[str, str]], seconds: float, console: Console) -> Iterator[Fuzzed]:
    """Fuzz one reader after another, under a bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for reader, (module, name) in chosen.items():
            task = progress.add_task(reader, total=seconds, told="")

            def tell(spent_s: float, examples: int, task: Any = task) -> None:
                progress.update(task, completed=min(spent_s, seconds), told=f"{examples} examples")

            yield fuzz(reader, getattr(importlib.import_module(f"fuzzing.{module}"), name), seconds, tell)


def fuzz(reader: str, test: Any, seconds: float, tell: Callable[[float, int], None]) -> Fuzzed:
    """Run rounds of a property until the time is up, or one fails."""
    inner, started, examples = test.hypothesis.inner_test, time.monotonic(), 0

    def counted(*args: object, **kwargs: object) -> None:
        nonlocal examples
        examples += 1
        tell(time.monotonic() - started, examples)
        inner(*args, **kwargs)

    test.hypothesis.inner_test = counted
    failure = ""
    while not failure and time.monotonic() - started < seconds:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                test()
        except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
            failure = traceback.format_exc()
    return Fuzzed(reader, examples, time.monotonic() - started, failure)


def report(results: list[Fuzzed], console: Console) -> None:
    """Print what failed, then the table."""
    for result in results:
        if result.failure:
            console.rule(result.reader)
            console.print(result.failure, markup=False, highlight=False, soft_wrap=True)
            console.print("Mend it, and keep the example as a test: @example(...) above the property's @given.")
    table = Table("reader", "examples", "s", "verdict")
    for result in results:
        verdict = "FAILED" if result.failure else "nothing found"
        table.add_row(result.reader, f"{result.examples:,}", f"{result.seconds:.0f}", verdict)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
