r"""The tables of a document for LaTeX, with booktabs: the same words, digits and footnotes as in Markdown.

What is printed is to be \input into a document; each table has its footnotes beneath it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zoo_bench.cell import Cell
from zoo_bench.markdown import Footnotes, Markup, address
from zoo_bench.render import Content, Tables

OPENING = r"""% Made by zoo-bench export latex. It needs \usepackage{booktabs}; for links \usepackage{hyperref}.
\providecommand{\href}[2]{#2}
"""
# Brackets and stars are taken for arguments after the end of a row; two hyphens, quotation marks or commas for others.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"{}\char96{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # As letters these two would need fonts that small installations lack.
    "±": r"$\pm$",
    "$": r"\char36{}",
    **{mark: f"\\{mark}" for mark in "{}&#%_"},
}
LIGATURE = re.compile(r"([-,'])(?=\1)")


def escape(value: object) -> str:
    """Return `value` as one line of literal LaTeX text, wherever it is put."""
    line = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    return LIGATURE.sub(r"\1{}", "".join(SPECIAL.get(char, char) for char in line))


def link(text: str, target: str) -> str:
    """Return a link; `target` is a relative path or an address."""
    literal = re.sub(r"([#%&_~])", r"\\\1", address(target))
    return rf"\href{{{literal}}}{{{escape(text)}}}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a tabular with centred columns. The strings are LaTeX already."""
    head, *body = (rf"    {' & '.join(cells)} \\" for cells in (headers, *rows))
    lines = [rf"  \begin{{tabular}}{{{'c' * len(headers)}}}", r"    \toprule", head, r"    \midrule", *body]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}"])


LATEX = Markup(escape, link, table, r"\textsuperscript{{{}}}".format, r"\textsuperscript{{{}}} {}\par".format)


def as_latex(content: Content) -> str:
    """Return a table a detector."""
    made = [_float(content, part.backend, *one) for part in content.layout.parts for one in part.tables.items()]
    return "\n".join([OPENING, *made])


def _float(content: Content, backend: str, detector: str, cells: Sequence[Cell]) -> str:
    notes = Footnotes(LATEX)
    section = Tables(content, LATEX, notes).section(detector, cells)
    caption = escape(f"{backend}: {section.title}" if backend else section.title)
    lines = [r"\begin{table}", r"  \centering", rf"  \caption{{{caption}}}", section.table]
    if notes.lines():
        lines += [r"  {\raggedright\footnotesize\smallskip", *(f"    {line}" for line in notes.lines()), "  }"]
    return "\n".join([*lines, r"\end{table}", ""])
