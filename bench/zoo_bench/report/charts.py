"""Pictures as plotly.js draws them: plain values, made here and drawn in the browser. Pure functions.

Colours are Okabe and Ito's, which people with any colour vision tell apart; symbols differ too. Text and grid take the
page's colours, light or dark, when they are drawn (templates/report/site.js). Reference: https://plotly.com/javascript/reference/
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
DASHES = ("solid", "dash", "dot")
REFERENCE_COLOUR = "#999999"

Trace = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One picture: a heading, its traces, and its axes with their units. `note`: what a reader must know to read it."""

    id: str
    title: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what the browser draws."""
        return {"id": self.id, "traces": list(self.traces), "layout": dict(self.layout)}


@dataclass(frozen=True)
class Axis:
    """One axis. `from_zero`: bars and amounts begin there; places on a line need not."""

    title: str
    from_zero: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plotly's axis."""
        return {"title": {"text": self.title}, "rangemode": "tozero" if self.from_zero else "normal", **self.values}


def safe(text: str) -> str:
    """Return a text such that plotly shows it as it is: it reads some HTML in labels."""
    return html.escape(text, quote=False)


def layout(x: Axis, y: Axis, **values: Any) -> dict[str, Any]:
    """Return the layout of one x axis and one y axis."""
    return {"xaxis": x.as_json(), "yaxis": y.as_json(), **values}


def points(
    name: str, x: Sequence[float | str], y: Sequence[float], labels: Iterable[str], place: int, **values: Any
) -> Trace:
    """Return points with a colour and a symbol of their own; `labels` stand beside the cursor."""
    symbol = SYMBOLS[(place + place // len(PALETTE)) % len(SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": safe(name),
        "x": list(x),
        "y": list(y),
        "text": [safe(label) for label in labels],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": PALETTE[place % len(PALETTE)],
            "symbol": symbol,
            "size": 10,
        },
        **values,
    }


def line(name: str, x: Sequence[float | str | None], y: Sequence[float | None], place: int = 0, **values: Any) -> Trace:
    """Return a line in the colour of a place in the palette."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": safe(name),
        "x": list(x),
        "y": list(y),
        "line": {"color": PALETTE[place % len(PALETTE)], "width": 1.5, "dash": DASHES[place // len(PALETTE) % 3]},
        **values,
    }


def band(start: float, stop: float, label: str = "", *, axis: str = "x") -> dict[str, Any]:
    """Return a shaded stretch of the x axis, over the whole height."""
    return {
        "type": "rect",
        "xref": axis,
        "yref": "paper",
        "x0": start,
        "x1": stop,
        "y0": 0,
        "y1": 1,
        "fillcolor": PALETTE[5],
        "opacity": 0.15,
        "line": {"width": 0},
        "label": {"text": safe(label), "textposition": "top left", "font": {"size": 11}},
    }


def rule(at: float | str, label: str, *, along: str) -> dict[str, Any]:
    """Return a dashed line across the picture: `along` y, at a value; `along` x, at a place."""
    ends = {"x0": 0, "x1": 1, "y0": at, "y1": at} if along == "y" else {"x0": at, "x1": at, "y0": 0, "y1": 1}
    return {
        "type": "line",
        "xref": "paper" if along == "y" else "x",
        "yref": "paper" if along == "x" else "y",
        **ends,
        "line": {"dash": "dash", "width": 1, "color": PALETTE[1]},
        "label": {"text": safe(label), "textposition": "end", "font": {"size": 11}},
    }


def front(places: Iterable[tuple[float, float]], *, smaller_x: bool) -> list[tuple[float, float]]:
    """Return Pareto's front of points (x, y), in the order of x: those that no other one is as good as in both.

    More of y is better; of x too, or less where `smaller_x`.
    """
    best: list[tuple[float, float]] = []
    for x, y in sorted(places, key=lambda one: (one[0] if smaller_x else -one[0], -one[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return sorted(best)
