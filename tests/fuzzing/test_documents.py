"""Templates that others wrote, and values that others wrote in documents that readers trust."""

from __future__ import annotations

import contextlib
import copy
import re
import tracemalloc
from functools import cache
from typing import Any

import pytest
from conftest import MATRIX
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import ValidationError
from records import runs_of

from fuzzing import hostile, origins
from zoo_bench.document import DocumentOptions
from zoo_bench.errors import ConfigError
from zoo_bench.load import load_matrix
from zoo_bench.markdown import escape
from zoo_bench.matrix import Matrix
from zoo_bench.record import Record
from zoo_bench.render import render
from zoo_bench.runs import Runs
from zoo_bench.sandbox import MOST

EXPRESSIONS = (
    "title", "note", "hardware", "parts", "footnotes", "'x'", "10", "range(100)", "parts[0].sections",
    "footnotes | length",
    "10**10", "'x' * 10**9", "'x' * 999999999", "[0] * 999999999", "9 * 9", "'%999999999d' % 1",
    "'{:>999999999}'.format(1)",
    "'x'.ljust(999999999)", "'x' | center(999999999)", "('x' * 9999) * 9999", "range(99999999) | list",
    "lipsum(n=9999)",
    "title.__class__", "title | attr('__class__')", "''.__class__.__mro__", "'{0.__class__}'.format(title)", "self",
    "cycler",
    "title.format.__globals__", "self._TemplateReference__context", "[].append(1)", "namespace(x=1)", "caller()",
    "title[0:1]",
    "'x'.join(['y'] * 9999)", "['a', 'b'] | join('-')", "(title ~ title) | md", "-1", "1 / 0", "1 // 0",
    "9.9e307 * 10",
    "title.encode('utf-8')", "(5).to_bytes(999999999)", "title | map('upper') | join", "title is callable", "none",
    "loop.index",
)  # fmt: skip
STATEMENTS = (
    "{% for x in range(50) %}", "{% for part in parts %}", "{% endfor %}", "{% if title %}", "{% else %}",
    "{% endif %}",
    "{% set x = title %}", "{% set x %}", "{% endset %}", "{% macro m(x) %}", "{% endmacro %}", "{{ m(1) }}",
    "{{ x ~ x }}",
    "{% include 'parts/lines.md.j2' %}", "{% include 'model_zoo.md.j2' %}", "{% include '../../matrix.yaml' %}",
    "{% extends 'model_zoo.md.j2' %}", "{% import 'parts/lines.md.j2' as l %}", "{% block b %}", "{% endblock %}",
    "{{", "}}",
    "{% raw %}", "{% endraw %}", "{# ", " #}", "{% filter upper %}", "{% endfilter %}", "{% call m() %}",
    "{% endcall %}",
    "{% set groups = hardware %}", "{% do [].append(1) %}", "{% debug %}", "{% autoescape true %}", "\n", "|",
    "<b>", "[x](y)",
)  # fmt: skip


def put_together() -> st.SearchStrategy[bytes]:
    """Templates of pieces that each mean something."""
    shown = st.sampled_from(EXPRESSIONS).map(lambda expression: f"{{{{ {expression} }}}}")
    return st.lists(shown | st.sampled_from(STATEMENTS), max_size=12).map("".join).map(str.encode)


templates = st.deferred(lambda: put_together() | hostile.damaged((origins.TEMPLATES / "model_zoo.md.j2").read_bytes()))


@cache
def plain_matrix() -> Matrix:
    """The project's matrix."""
    return load_matrix(MATRIX)


def filled(content: bytes) -> str:
    """The document that a template makes."""
    folder = origins.scratch() / "templates"
    folder.mkdir(exist_ok=True)
    (folder / "model_zoo.md.j2").write_bytes(content)
    return render(plain_matrix(), runs_of(), [folder, origins.TEMPLATES])


@hostile.examined(150)
@given(templates)
def test_a_template_is_filled_or_refused(content: bytes) -> None:
    with contextlib.suppress(ConfigError):
        text = filled(content)
        assert len(text) <= MOST
        assert not re.search("<module|<frame|default_profile:", text)


# A small list that is endless where it is written out.
DEEPER = "{%% for i in range(12) %%}{%% set n.a = [n.a] * 10 %%}{%% endfor %%}"
NESTED = "{%% set n = namespace(a=[1] * 10) %%}" + DEEPER + "{{ %s }}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10**10 }}",
        "{{ [0] * 9999999999 }}",
        "{{ 9999999999 * 'x' }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% for x in range(10**9) %}{% endfor %}",
        "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=2) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ 'x'.ljust(9999999999) }}",
        "{{ 'x' | center(9999999999) }}",
        "{{ 'x' | indent(9999999999) }}",
        "{{ [1] | batch(9999999999, 0) | list }}",
        "{{ (['x'] * 99999) | join('x' * 99999) }}",
        "{{ ('x' * 99999).replace('x', 'x' * 99999) }}",
        "{{ lipsum(n=9999999) }}",
        "{{ (1).to_bytes(9999999999) }}",
        NESTED % "(n.a | string)[:1]",
        NESTED % "(n.a | upper)[:1]",
        NESTED % "(n.a | md)[:1]",
        NESTED % "n.a",
        NESTED % "(n.a ~ 1)[:1]",
        NESTED % "([n.a] | join)[:1]",
        "{% set n = namespace(a=[1]) %}{% for i in range(99) %}{% set n.a = [n.a, n.a] | sum(start=[]) %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'model_zoo.md.j2' %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "x" * (2**20 + 1),
        "{{ title.__class__ }}",
        "{{ title | attr('__class__') }}",
        "{{ '{0.__class__}'.format(title) }}",
        "{{ title.join.__globals__ }}",
        "{% include '../../../../../../etc/passwd' %}",
        "{{ hardware.append(1) }}",
    ],
)
def test_what_no_template_needs_is_refused_before_it_is_made(template: str) -> None:
    plain_matrix()
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError):
            filled(template.encode())
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()


# Links that a document makes of a record's own files.
EXPECTED = re.compile(r"(results|https?://x\.org)[!-~]*")
NOTE = re.compile(r"(?<!\\)\[\^(\d+)\](:?)")


def put(value: Any, path: tuple[Any, ...], text: str) -> Any:
    """A structure with another text at a place."""
    if not path:
        return text
    if isinstance(value, dict):
        return {key: put(inner, path[1:], text) if key == path[0] else inner for key, inner in value.items()}
    return [put(inner, path[1:], text) if number == path[0] else inner for number, inner in enumerate(value)]


def texts_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the texts of a structure are."""
    if isinstance(value, str):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in texts_in(inner, (*path, key))]


@cache
def plain() -> dict[str, Any]:
    """What a document is made of, of benign texts: a matrix, and the records of two cells."""
    matrix = copy.deepcopy(origins.zoo().matrix)
    matrix["profiles"]["quick"]["note"] = "a note"
    noise = {"kind": "cpu_load", "gpu": None, "from_s": 1.0, "to_s": 2.0, "detail": "a detail"}
    first, second = (
        {**origins.record(number), "noise": [noise], "unwatched": ["a kind"], "software": {"torch": "1", "a name": "2"}}
        for number in (0, 1)
    )
    first["machine"] = {**first["machine"], "name": "a machine", "interconnect": "a link", "container": "a container"}
    second = {**second, "status": "failed", "reason": "a reason", "phases_done": [], "checkpoint": None}
    file = {"url": "https://x.org/a", "sha256": "0" * 64, "bytes": 1}
    first["published"] = {"address": "s3://x/y", "model": file, "log": file}
    return {"matrix": matrix, "first": first, "second": second}


@cache
def open_places() -> list[tuple[Any, ...]]:
    """Where any text may stand, in what a document is made of."""
    return [path for path in texts_in(plain()) if made_of(put(plain(), path, "<a|b>\n# [x](y)")) is not None]


def made_of(content: dict[str, Any]) -> tuple[Matrix, Runs] | None:
    """The matrix and the records; None where these texts cannot stand there."""
    try:
        records = [Record.model_validate(content[name]) for name in ("first", "second")]
        return Matrix.model_validate(content["matrix"]), runs_of(records)
    except ValidationError:
        return None


def document(content: dict[str, Any]) -> str | None:
    """The document, where these texts can stand there."""
    made = made_of(content)
    with contextlib.suppress(ConfigError):
        options = DocumentOptions(energy=True)
        return made and render(made[0], made[1], [origins.TEMPLATES], options, available=lambda _: True)
    return None


def tokens(text: str) -> list[Token]:
    """What CommonMark with tables sees in a document; footnotes as items of lists, their marks as text."""
    plain_notes = NOTE.sub(lambda mark: "\n- note " if mark[2] else f"(note {mark[1]})", text)
    found: list[Token] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(plain_notes):
        found += [token, *(token.children or [])]
    return found


def skeleton(text: str) -> list[str]:
    """A document without its texts: its headings, lists, tables, links."""
    return [token.type for token in tokens(text) if token.type not in ("text", "inline", "softbreak", "text_special")]


odd = st.lists(
    st.tuples(
        st.deferred(lambda: st.sampled_from(open_places())), hostile.texts.filter(lambda text: escape(text) != "")
    ),
    min_size=1,
    max_size=4,
    unique_by=(lambda one: one[0], lambda one: escape(one[1])),
)


@hostile.examined(60)
@given(odd)
def test_no_value_changes_what_a_document_is_made_of(places: list[tuple[tuple[Any, ...], str]]) -> None:
    hostile_content, benign = plain(), plain()
    for number, (path, text) in enumerate(places):
        hostile_content, benign = put(hostile_content, path, text), put(benign, path, f"benign {number}")
    text, expected = document(hostile_content), document(benign)
    if text is None or expected is None:
        return
    assert skeleton(text) == skeleton(expected)
    links = [str(token.attrs["href"]) for token in tokens(text) if token.type == "link_open"]
    assert all(EXPECTED.fullmatch(link) for link in links)
    assert text.isprintable() or set(filter(lambda character: not character.isprintable(), text)) == {"\n"}
