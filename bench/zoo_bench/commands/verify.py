"""`zoo-bench verify`: does a published document still equal what the store says?"""

from __future__ import annotations

from pathlib import Path

from zoo_bench.commands.render import render_from
from zoo_bench.document import options_of
from zoo_bench.errors import EXIT_DIFFERS, EXIT_OK, ConfigError
from zoo_bench.session import Asked, Session
from zoo_bench.verify import Change, changes, diff, links


def verify(asked: Asked, document: Path) -> int:
    """Render the document once more and compare; 1 when it differs, with every value that does, and a diff."""
    published = _read(document)
    options = options_of(published, str(document))
    linked = links(published)
    session = Session.open(asked)
    root = session.workspace.root
    # A clean clone has no logs and models: what the document links is taken as there. What is here must be linked.
    stored = render_from(session, options, lambda file: file in linked or (root / file).is_file())
    if published == stored:
        print(f"{document}: equals the store")
        return EXIT_OK
    for change in changes(published, stored):
        print(_told(change))
    print(f"{document} does not equal the store; lines with - are the document's, with + the store's:\n")
    print("\n".join(diff(published, stored, str(document))))
    return EXIT_DIFFERS


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
