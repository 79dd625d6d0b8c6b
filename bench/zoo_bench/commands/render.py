"""`zoo-bench render`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from zoo_bench import plots
from zoo_bench.document import DocumentOptions
from zoo_bench.errors import EXIT_OK
from zoo_bench.layout import lay_out
from zoo_bench.provenance import CurrentInputs
from zoo_bench.render import Content, gather, whole
from zoo_bench.session import Asked, Session
from zoo_bench.text import printable


def render(asked: Asked, options: DocumentOptions) -> int:
    """Print the document, and nothing else, to stdout."""
    session = Session.open(asked)
    root = session.workspace.root
    content = content_of(session, options, lambda file: (root / file).is_file())
    document = whole(content)
    if options.plots:
        rows = list(content.rows.values())
        plots.write(session.matrix, rows, root / options.plots)
        if not all(line in document for line in plots.markdown(rows, options.plots)):
            session.warn(f"zoo-bench: the template shows no pictures; they are in {options.plots}/ all the same")
    sys.stdout.write(printable(document) if sys.stdout.isatty() else document)  # a template may hold what moves cursors
    return EXIT_OK


def render_from(session: Session, options: DocumentOptions, available: Callable[[str], bool]) -> str:
    """Return the document of a workspace; `available` tells which files of a record may be linked."""
    return whole(content_of(session, options, available))


def content_of(
    session: Session, options: DocumentOptions, available: Callable[[str], bool], select: str | None = None
) -> Content:
    """Choose what a document of a workspace shows, whatever its format; `select`: the rows of some cells alone."""
    return gather(
        session.matrix,
        session.runs,
        session.template_folders,
        options,
        available=available,
        current=_current_inputs(session, options),
        select=select,
    )


def _current_inputs(session: Session, options: DocumentOptions) -> dict[str, CurrentInputs]:
    """Return what the workers of a document's backends would be run from now, where staleness is to be marked."""
    backends = lay_out(session.matrix, options, session.runs).backends if options.stale_marks else ()
    current = {backend: session.current(backend) for backend in backends}
    return {backend: inputs for backend, inputs in current.items() if inputs is not None}
