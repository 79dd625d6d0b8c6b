"""What hostile files hold: values, and ways to put them into files that were fine."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

FRESH = "ZOO_BENCH_FUZZ"  # set by tools/fuzz.py
TEXTS = (
    "", " ", "x" * 5000, "é" * 300, "\U0001f600", "0", "nan", "1e999", "true",
    # paths and names that lead elsewhere, and what a shell or a glob would make of them
    "..", "../../../../../../etc/passwd", "/etc/passwd", "a/../../b", "~root", "a\\..\\b", "s3://x", "hf://",
    "//x.org/y",
    "file:///etc/passwd", "javascript:alert(1)", "$(touch x)", "; touch x", "-rf", "*", "[!", "%2e%2e",
    "x" * 300 + "/y",
    # Markdown and HTML
    "a|b", "\\", "\\|", "`", "`|`", "```", "~~~", "# x", "- x", "+ x", "1. x", "1) x", "> x", "---", "- - -", "___",
    "===",
    "*x*", "_x_", "__x__", "~~x~~", "[x](javascript:alert(1))", "![x](https://x.org)", "[^1]", "[^1]: x", "[x]: y",
    "[x]",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!-- x", "-->", "&lt;b&gt;", "&#60;b&#62;",
    "<x@y.org>",
    "https://x.org", "www.x.org", "\n\n# x", "a\n| b |", "    x", ":--", "$x$",
    # what terminals and encodings trip over
    "\x00", "\x1b[2J", "\x1b]0;x\x07", "\x7f", "\x9b2J", "\r", "\t", "\u2028", "\u202ex", "\ufeff", "\ud800",
    "\udfff",
    # templates
    "{{ 7 * 7 }}", "{% raw %}", "{0.__class__}", "%s%n",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**9, 10**18, 10**300, -(10**400), 10**4000)
FRACTIONS = (0.5, -0.5, 1e-320, 1e-9, 1.7e308, -1.7e308, 1e18, -0.0)
# What json.dumps does not write, by the name under which it stands in a structure until it is written.
RAW_JSON = {
    "nan": "NaN",
    "infinite": "-Infinity",
    "beyond floats": "1e999",
    "huge": "1" + "0" * 5000,
    "deep": "[" * 20_000 + "]" * 20_000,
    "rather deep": '{"a":' * 900 + "1" + "}" * 900,
    "nothing": "",
    "twice": '{"a": 1, "a": 2}',
    "half a pair": r'"\ud800"',
    "escape": r'"\u001b]0;x\u0007"',
}
RAW_YAML = {
    **RAW_JSON,
    "call": "!!python/object/apply:os.mkdir [pwned]",
    "name": "!!python/name:os.system",
    "new": "!!python/object/new:type [x]",
    "binary": "!!binary AAAA",
    "bad int": "!!int x",
    "set": "!!set {a, b}",
    "date": "2020-01-01",
    "sixties": "1" + ":59" * 500,
    "recursive": "&r [*r]",
    "recursive mapping": "&m {a: *m}",
    "merged into itself": "&n {<<: *n}",
    "merged": "{<<: [{a: 1}, {b: 2}]}",
    "unknown alias": "*nobody",
    "mapping as key": "{? {a: b} : c}",
    "list as key": "{? [a, b] : c}",
    "null as key": "{~: c}",
    "bomb": "[&a [x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b],"
    "&d [*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d], [*e,*e,*e,*e,*e,*e,*e,*e,*e]]",
}
PIECES = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r\n", b"\t", b"  ", b":", b"- ", b"{",
    b"}", b"[",
    b"]", b'"', b"'", b",", b"#", b"&a ", b"*a", b"!!python/object:os.system ", b"<<: ", b"? ", b"---\n", b"...\n",
    b"%YAML 9\n",
    b"|\n", b">\n", b"\\u0000", b"\\ud800", b"1e999", b"NaN", b"null", b"-", b"0" * 400, b"[" * 2000, b"a" * 5000,
)  # fmt: skip

texts = st.sampled_from(TEXTS) | st.text(max_size=20)
numbers = st.sampled_from(NUMBERS) | st.integers()
fractions = st.sampled_from(FRACTIONS) | st.floats(allow_nan=False, allow_infinity=False)


def examined(examples: int) -> settings:
    """So many examples: always the same in the tests, and fresh ones each time under tools/fuzz.py."""
    return settings(
        max_examples=examples,
        derandomize=FRESH not in os.environ,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def raw(names: dict[str, str]) -> st.SearchStrategy[str]:
    """Stand-ins for what `written` writes as it is."""
    return st.sampled_from([_stand_in(name) for name in names])


def values(raws: dict[str, str]) -> st.SearchStrategy[Any]:
    """Any value of a file: of JSON, or what only stands for itself."""
    return (
        texts
        | numbers
        | fractions
        | raw(raws)
        | st.sampled_from([None, True, False, [], {}, [[]], [{}], {"": None}, [0] * 2000, [None], ["x", 1]])
        | st.lists(texts | numbers, max_size=3)
        | st.dictionaries(texts, texts | numbers, max_size=3)
    )


@st.composite
def mutated(draw: st.DrawFn, original: Any, raws: dict[str, str] = RAW_JSON) -> Any:
    """`original` with a few things in it replaced, left out, renamed, repeated, or put where others were."""
    holder = [copy.deepcopy(original)]
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(holder))
        container, key = places[draw(st.integers(0, len(places) - 1))]
        edit = draw(st.sampled_from(["put", "put", "put", "drop", "rename", "repeat", "move"]))
        if edit == "put":
            container[key] = draw(values(raws))
        elif edit == "move":
            other, its_key = places[draw(st.integers(0, len(places) - 1))]
            container[key] = copy.deepcopy(other[its_key])
        elif container is not holder:
            _reshape(draw, edit, container, key)
    return holder[0]


def _reshape(draw: st.DrawFn, edit: str, container: Any, key: Any) -> None:
    """Leave out, rename or repeat one item."""
    if edit == "repeat":
        if isinstance(container, list):
            container.extend([copy.deepcopy(container[key])] * draw(st.sampled_from([1, 1, 300])))
    elif edit == "rename" and isinstance(container, dict):
        container[draw(texts)] = container.pop(key)
    else:
        del container[key]


@st.composite
def twisted(draw: st.DrawFn, original: Any) -> Any:
    """`original` with a few of its values replaced by others of the same type: what a schema alone does not refuse."""
    changed = copy.deepcopy(original)
    leaves = [(c, k) for c, k in _places([changed]) if not isinstance(c[k], (dict, list))]
    for _ in range(draw(st.integers(1, 5))):
        container, key = leaves[draw(st.integers(0, len(leaves) - 1))]
        container[key] = draw(_like(container[key]))
    return changed


def _like(value: object) -> st.SearchStrategy[Any]:
    if isinstance(value, str):
        return texts
    if value is None:
        return texts | numbers | st.none()
    return st.booleans() if isinstance(value, bool) else numbers if isinstance(value, int) else fractions


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every item of a structure, as its container and its key there."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def written(value: Any, raws: dict[str, str] = RAW_JSON) -> bytes:
    """A structure as JSON, which YAML reads too, with what only stands for itself."""
    text = json.dumps(value, separators=(",", ":"))
    for name, content in raws.items():
        text = text.replace(json.dumps(_stand_in(name)), content)
    return text.encode()


def _stand_in(name: str) -> str:
    return f"@@{name}@@"


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with a few pieces cut out, put in, or repeated elsewhere."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 2, 10, 100, 10_000])))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        edit = draw(st.sampled_from(["put", "put", "repeat", "end"]))
        if edit == "put":
            content = content[:start] + piece + content[end:]
        elif edit == "repeat":
            content = content[:start] + content[start:end] + content[start:]
        else:
            content = content[:start]
    return content


def files(structure: Any, content: bytes, raws: dict[str, str] = RAW_JSON) -> st.SearchStrategy[bytes]:
    """Files that were fine, `structure` and `content`, and are no longer."""
    whole = mutated(structure, raws) | twisted(structure)
    return whole.map(lambda value: written(value, raws)) | damaged(content)
