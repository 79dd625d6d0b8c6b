"""`zoo-bench verify`: does a document still equal what the store says, and what it links what was published?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from zoo_bench import preflight
from zoo_bench.benches import make_runner, make_setting, prepare_benches
from zoo_bench.commands.render import render_from
from zoo_bench.display import Pace, download_bar, make_display
from zoo_bench.document import DocumentOptions, options_of
from zoo_bench.errors import EXIT_DIFFERS, EXIT_INTERRUPTED, EXIT_OK, ConfigError
from zoo_bench.evaluate_again import Again, differing, plan_again, rows_with_ap
from zoo_bench.interrupts import held_back
from zoo_bench.links import FetchError, download_links, fetch, published_files
from zoo_bench.locks import holder, take
from zoo_bench.machine import describe_machine
from zoo_bench.record import PublishedFile
from zoo_bench.session import Asked, Session
from zoo_bench.store import new_run_id
from zoo_bench.verify import Change, changes, diff, links

GOOD_LINKS = "published files are there, and are what was published"
GOOD_AP = "published models have the AP that the store has"


def verify(asked: Asked, document: Path, *, with_links: bool = False, with_evaluation: bool = False) -> int:
    """Render the document once more and compare; 1 when it differs, with every value that does, and a diff.

    `with_links`: every published file that it links is fetched, and its hash checked. `with_evaluation`: every
    published model is evaluated again, on `asked.gpus` where that is said, and its AP compared.
    """
    published = _read(document)
    options = options_of(published, str(document))
    session = Session.open(replace(asked, profile=options.profile))
    good = _equals_store(session, published, options, document)
    if with_links:
        good = _links_hold(session, published, document) and good
    if with_evaluation:
        held = _ap_holds(session, options, document)
        if held is None:
            return EXIT_INTERRUPTED
        good = held and good
    return EXIT_OK if good else EXIT_DIFFERS


def _equals_store(session: Session, published: str, options: DocumentOptions, document: Path) -> bool:
    linked = links(published)
    root = session.workspace.root
    # A clean clone has no logs and models: what the document links is taken as there. What is here must be linked.
    stored = render_from(session, options, lambda file: file in linked or (root / file).is_file())
    if published == stored:
        print(f"{document}: equals the store")
        return True
    for change in changes(published, stored):
        print(_told(change))
    print(f"{document} does not equal the store; lines with - are the document's, with + the store's:\n")
    print("\n".join(diff(published, stored, str(document))))
    return False


def _links_hold(session: Session, published: str, document: Path) -> bool:
    known = published_files(session.runs)
    linked = sorted(download_links(published))
    files = [known[link] for link in linked if link in known]
    lost = [f"{link}: was not published" for link in linked if link not in known]
    lost += _fetched(session, {file.url: (file, None) for file in files}).values()
    if not files:
        lost.append("it links nothing that was published; `zoo-bench run --phases publish` does that")
    return _said(document, lost, f"{len(files)} {GOOD_LINKS}")


def _ap_holds(session: Session, options: DocumentOptions, document: Path) -> bool | None:
    """Tell whether every published model has its AP still; None after Ctrl-C."""
    rows = rows_with_ap(session.matrix, session.runs, options)
    plans = {row.cell.id: plan_again(row, session.dataset_sha256(row.cell), session.asked.gpus) for row in rows}
    lost = [f"{cell_id}: {why}" for cell_id, why in plans.items() if isinstance(why, str)]
    wanted = {cell_id: again for cell_id, again in plans.items() if isinstance(again, Again)}
    if not rows:
        lost.append("it has no AP to compare")
    found = _evaluated(session, wanted) if wanted else []
    return None if found is None else _said(document, lost + found, f"{len(wanted)} {GOOD_AP}")


def _evaluated(session: Session, wanted: Mapping[str, Again]) -> list[str] | None:
    """Fetch and evaluate models, by cell; what is wrong with them, or None after Ctrl-C."""
    console, machine = Console(stderr=True), describe_machine(session.machine.name)
    planned = [again.planned for again in wanted.values()]
    preflight.check(session, [(cell.cell, cell.phases) for cell in planned], machine)
    benches, setting = prepare_benches(session, planned, machine, console), make_setting(session, machine)
    kept = session.workspace.state / "verify"
    lock = take(kept / "verify.lock", "verify --evaluate")
    if lock is None:
        raise ConfigError(f"published models are being evaluated here by {holder(kept / 'verify.lock')}", "wait for it")
    for folder in kept.glob("*/"):  # logs of what an earlier one found
        shutil.rmtree(folder, ignore_errors=True)
    with lock, tempfile.TemporaryDirectory(dir=kept, prefix="models-") as name:
        models = {cell_id: Path(name) / f"{again.model.sha256}.safetensors" for cell_id, again in wanted.items()}
        missed = _fetched(session, {cell_id: (again.model, models[cell_id]) for cell_id, again in wanted.items()})
        lost = [f"{cell_id}: {why}" for cell_id, why in missed.items()]
        here = {cell_id: again for cell_id, again in wanted.items() if cell_id not in missed}
        with make_display(console, Pace(planned, {}), session.name) as display, held_back() as presses:
            for cell_id, again in here.items():
                this, folder = replace(setting, given_model=models[cell_id]), kept / new_run_id()
                record = make_runner(session, benches, this, display).once(again.planned, folder, presses, trial=False)
                if record is None or presses.count:
                    return None
                display.cell_ended(record, again=False)
                wrong = differing(again, record)
                lost += [f"{cell_id}: {what}" for what in wrong]
                if not wrong:  # else its log is of use
                    shutil.rmtree(folder, ignore_errors=True)
    return lost


def _fetched(session: Session, files: Mapping[str, tuple[PublishedFile, Path | None]]) -> dict[str, str]:
    """Fetch files, each to a path where it has one; return what is wrong with those that did not come, by name."""
    lost: dict[str, str] = {}
    with download_bar(Console(stderr=True)) as advance:
        for name, (file, target) in files.items():
            try:
                fetch(file, session.workspace.root, advance, target)
            except FetchError as error:
                lost[name] = f"{file.url}: {error}"
    return lost


def _said(document: Path, lost: list[str], good: str) -> bool:
    for problem in lost:
        print(f"{document}: {problem}")
    if not lost:
        print(f"{document}: {good}")
    return not lost


def _read(document: Path) -> str:
    try:
        # How lines end, and a mark of the encoding, are what git and editors change on some systems: no content.
        return document.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{document}: cannot be read: {reason}", "name a document that render made") from None


def _told(change: Change) -> str:
    if change.published is None or change.stored is None:
        where = "the document lacks it" if change.published is None else "the store's document has no such place"
        return f"{change.place}: {where}"
    said = f"{change.place}: the document says {change.published or 'nothing'}, the store {change.stored or 'nothing'}"
    copied = f" ({', '.join(change.copied_from)} has that value)" if change.copied_from else ""
    return said + copied
