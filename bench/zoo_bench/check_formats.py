"""The nightly verdicts for machines and pages: Markdown, GitHub annotations, JUnit XML. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from zoo_bench.findings import Told, merged, summary
from zoo_bench.markdown import escape, table
from zoo_bench.text import printable

HEADS = ("cell", "metric", "verdict", "before", "after", "change (95 %)", "since")
QUIET = "unchanged"
LEVELS = {"regressed": "error", "missing": "error", "not comparable": "warning", "improved": "notice"}


def markdown(told: Sequence[Told], title: str) -> str:
    """Return a page for a job's summary or a comment: what changed first, then the rest folded away."""
    loud = [one for one in told if one.verdict != QUIET]
    parts = [f"### {escape(title)}", escape(summary(told))]
    if loud:
        parts.append(_table(loud))
    parts += [_details(one) for one in merged(loud)]
    quiet = [one for one in told if one.verdict == QUIET]
    if quiet:
        parts.append(f"<details><summary>{len(quiet)} unchanged</summary>\n\n{_table(quiet)}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def github(told: Sequence[Told]) -> str:
    """Return workflow commands that GitHub shows as annotations."""
    lines = [
        f"::{LEVELS[one.verdict]} title={_property(f'{one.verdict}: {one.cell}')}::{_data('; '.join(_in_full(one)))}"
        for one in merged(told)
        if one.verdict in LEVELS
    ]
    return "".join(f"{line}\n" for line in lines)


def junit(told: Sequence[Told], title: str) -> str:
    """Return JUnit XML: a case a metric of a cell, failed where it regressed, an error where it is missing."""
    kinds = {"regressed": "failure", "missing": "error", "not comparable": "skipped"}
    counted = {kind: sum(kinds.get(one.verdict) == kind for one in told) for kind in kinds.values()}
    suite = ElementTree.Element(
        "testsuite",
        name=title,
        tests=str(len(told)),
        failures=str(counted["failure"]),
        errors=str(counted["error"]),
        skipped=str(counted["skipped"]),
    )
    for one in told:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(one.cell), name=_xml(one.metric))
        all_of_it = _xml("\n".join(_in_full(one)))
        if one.verdict in kinds:
            ElementTree.SubElement(case, kinds[one.verdict], message=_xml(one.sentence)).text = all_of_it
        else:
            ElementTree.SubElement(case, "system-out").text = all_of_it
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _in_full(one: Told) -> list[str]:
    return [one.sentence, *one.details, ": ".join(one.remedy)]


def _table(told: Sequence[Told]) -> str:
    return table(list(HEADS), [[escape(text) for text in line] for line in lines(told)])


def lines(told: Sequence[Told]) -> list[list[str]]:
    """Return findings as lines under `HEADS`; metrics of a cell of which the same is said stand in one."""
    return [
        [one.cell, one.metric, one.verdict, one.before, one.after, one.change, one.explanation] for one in merged(told)
    ]


def _details(one: Told) -> str:
    changed = ": what changed since the last good run:" if one.details else ""
    listed = ["", *(f"- {escape(text)}" for text in one.details)] if one.details else []
    head = f"**{escape(one.cell)}, {escape(one.metric)}**{changed}"
    purpose, command = one.remedy
    return "\n".join([head, *listed, "", f"{purpose.capitalize()}:", "", f"    {command}"])


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _xml(text: str) -> str:
    """XML cannot hold control characters, not even escaped."""
    return printable(text)
