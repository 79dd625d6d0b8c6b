"""Where the pages of the report are, relative to its folder. Ids of cells and runs are names that files can have."""

from __future__ import annotations

import re

ASSETS = "assets"
ALWAYS = INDEX, RED, COMPARE = "index.html", "regressions.html", "compare.html"
PICTURES = "picture-*.jpg"
_CELL_PAGE = re.compile(r"cells/[A-Za-z0-9][^/]*/[A-Za-z0-9][^/]*/index\.html")


def cell_page(cell_id: str) -> str:
    """Return a cell's page."""
    return f"cells/{cell_id}/index.html"


def run_anchor(run_id: str) -> str:
    """Return the mark of a run on its cell's page."""
    return f"run-{run_id}"


def is_cell_page(path: str) -> bool:
    """Tell whether a path is one that `cell_page` gives."""
    return _CELL_PAGE.fullmatch(path) is not None
