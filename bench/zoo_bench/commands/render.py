"""`zoo-bench render`."""

from __future__ import annotations

import sys

from zoo_bench.errors import EXIT_OK
from zoo_bench.render import render as render_document
from zoo_bench.session import Asked, Session
from zoo_bench.workspace import bundled_root


def render(asked: Asked) -> int:
    """Print the document, and nothing else, to stdout."""
    session = Session.open(asked)
    root = session.workspace.root
    document = render_document(
        session.matrix,
        session.profile,
        session.contents.records,
        [root / "templates", bundled_root() / "templates"],
        lambda file: (root / file).is_file(),
    )
    sys.stdout.write(document)
    return EXIT_OK
