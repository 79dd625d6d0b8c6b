"""Pictures for a Markdown document: AP against speed with the Pareto front, an SVG for light and one for dark pages.

The same rows give the same bytes. Text stays text, so that it can be read aloud and searched.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo_bench.columns import SCORES, Column
from zoo_bench.errors import ConfigError
from zoo_bench.figures import figure
from zoo_bench.markdown import escape
from zoo_bench.matrix import Matrix
from zoo_bench.report.charts import PALETTE, front
from zoo_bench.table import Row
from zoo_bench.units import COLUMN_HEADS, shown
from zoo_bench.whole import write_whole

AGAINST: Column = "fps"
INK = {"light": "#1f2328", "dark": "#e6edf3"}  # the colours of GitHub's text
GRID = {"light": "#d1d9e0", "dark": "#3d444d"}
MARKS = ("o", "s", "D", "^", "P", "X", "*")
SIZE = (7.2, 4.2)  # inches, of 72 pixels each


def drawn(rows: Sequence[Row]) -> list[Column]:
    """Return the APs that can be drawn: at least one row has them and a speed."""
    return [metric for metric in SCORES if any(metric in row.sources and AGAINST in row.sources for row in rows)]


def file_of(metric: Column, scheme: str) -> str:
    """Return the name of a picture."""
    return f"{metric}_{AGAINST}-{scheme}.svg".replace("_", "-")


def markdown(rows: Sequence[Row], folder: str) -> list[str]:
    """Return the lines that show the pictures of `folder`, as GitHub chooses between light and dark."""
    return [
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{folder}/{file_of(metric, "dark")}">'
        f'<img alt="{escape(COLUMN_HEADS[metric])} against {escape(COLUMN_HEADS[AGAINST])}, with the Pareto front" '
        f'src="{folder}/{file_of(metric, "light")}"></picture>'
        for metric in drawn(rows)
    ]


def write(matrix: Matrix, rows: Sequence[Row], folder: Path) -> None:
    """Write the pictures. Raises ConfigError where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for metric in drawn(rows):
            for scheme in INK:
                write_whole(folder / file_of(metric, scheme), svg(matrix, rows, metric, scheme))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}", "name another folder") from None


def svg(matrix: Matrix, rows: Sequence[Row], metric: Column, scheme: str) -> str:
    """Draw one picture: AP in points over images a second, which begin at 0; a colour and a mark for each detector."""
    import matplotlib as mpl  # late: only this draws with it
    from matplotlib.figure import Figure

    groups = _places(matrix, rows, metric)
    with mpl.rc_context(mpl.rcParamsDefault):  # whatever a user's own file says
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "zoo-bench", "text.parse_math": False})
        picture = Figure(figsize=SIZE, layout="constrained")
        axes = picture.subplots()
        best = front([place for places in groups.values() for place in places], smaller_x=False)
        axes.plot(
            *zip(*best, strict=True), color=INK[scheme], linestyle=":", linewidth=1, zorder=1, label="Pareto front"
        )
        for number, (name, places) in enumerate(groups.items()):
            x, y = zip(*places, strict=True)
            colour, mark = PALETTE[number % len(PALETTE)], MARKS[(number + number // len(PALETTE)) % len(MARKS)]
            axes.scatter(x, y, s=60, color=colour, marker=mark, edgecolors=INK[scheme], linewidths=0.6, label=name)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{COLUMN_HEADS[AGAINST]}: more is better", color=INK[scheme])
        axes.set_ylabel(f"{COLUMN_HEADS[metric]} (points)", color=INK[scheme])
        axes.tick_params(colors=INK[scheme])
        axes.grid(color=GRID[scheme], linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.patch.set_alpha(0)
        axes.legend(frameon=False, labelcolor=INK[scheme], loc="best")
        written = io.StringIO()
        picture.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return written.getvalue()


def _places(matrix: Matrix, rows: Sequence[Row], metric: Column) -> Mapping[str, list[tuple[float, float]]]:
    """Return (speed, AP) of every row that has both, by detector."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if metric in row.sources and AGAINST in row.sources:
            x, y = (figure(column, row.sources[column]).value for column in (AGAINST, metric))
            if x is not None and y is not None:
                title = matrix.detector_title(row.cell.detector)
                found.setdefault(title, []).append((shown(AGAINST, x), shown(metric, y)))
    return found
