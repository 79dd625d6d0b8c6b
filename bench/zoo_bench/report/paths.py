"""Where the pages of the report are, relative to its folder. Ids of cells and runs are names that files can have."""

from __future__ import annotations

ASSETS = "assets"
INDEX, RED, COMPARE = "index.html", "regressions.html", "compare.html"


def cell_page(cell_id: str) -> str:
    """Return a cell's page."""
    return f"cells/{cell_id}/index.html"


def run_anchor(run_id: str) -> str:
    """Return the mark of a run on its cell's page."""
    return f"run-{run_id}"
