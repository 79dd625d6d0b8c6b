"""`zoo-bench render`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from zoo_bench.document import DocumentOptions
from zoo_bench.errors import EXIT_OK
from zoo_bench.layout import lay_out
from zoo_bench.render import render as render_document
from zoo_bench.session import Asked, Session
from zoo_bench.text import printable


def render(asked: Asked, options: DocumentOptions) -> int:
    """Print the document, and nothing else, to stdout."""
    session = Session.open(asked)
    root = session.workspace.root
    document = render_from(session, options, lambda file: (root / file).is_file())
    sys.stdout.write(printable(document) if sys.stdout.isatty() else document)  # a template may hold what moves cursors
    return EXIT_OK


def render_from(session: Session, options: DocumentOptions, available: Callable[[str], bool]) -> str:
    """Return the document of a workspace; `available` tells which files of a record may be linked."""
    backends = lay_out(session.matrix, options).backends if options.stale_marks else ()
    current = {backend: session.current(backend) for backend in backends}
    return render_document(
        session.matrix,
        session.runs,
        session.template_folders,
        options,
        available=available,
        current={backend: inputs for backend, inputs in current.items() if inputs is not None},
    )
