"""Jinja2 for templates that others wrote: they reach nothing of Python, and make no text without end.

jinja2's own sandbox keeps names with an underscore, and what changes values, out of reach, and `range` short. Here all
that a template puts together, by `~`, `+`, `*`, a block or the document itself, counts against one budget; what else
pads, repeats or formats is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import Environment
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from zoo_bench.bounded import LARGEST

# Characters and list items, over the whole document: a thousand times what one holds.
MOST = 2**25
MOST_TEMPLATE_BYTES = 2**20
FILTERS = (
    "abs", "count", "d", "default", "first", "float", "int", "items", "last", "length", "map", "max", "min",
    "reject", "rejectattr", "reverse", "round", "select", "selectattr", "sort", "unique",
)  # fmt: skip
# These make a text of whatever they are given.
TEXT_FILTERS = ("capitalize", "e", "escape", "lower", "string", "title", "trim", "upper")
METHODS = frozenset(
    [
        "capitalize", "casefold", "count", "endswith", "find", "isalnum", "isalpha", "isdigit", "islower", "isspace",
        "isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind", "rpartition", "rsplit",
        "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    ]
)  # fmt: skip


class _Generator(CodeGenerator):
    """Lets the environment join what stands on both sides of `~`."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - the name of jinja2's
        self.write("environment.concat(map(environment.text, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Loader(FileSystemLoader):
    """Leaves files alone that no template is as large as."""

    def get_source(self, environment: Environment, template: str) -> Any:
        for folder in self.searchpath:
            path = Path(folder, template)
            if path.exists() and not path.resolve().is_relative_to(Path(folder).resolve()):
                raise SecurityError(f"{template} is a link out of its folder")
            if path.exists() and not path.is_file():
                raise SecurityError(f"{template} is no file")
            if path.is_file() and path.stat().st_size > MOST_TEMPLATE_BYTES:
                raise SecurityError(f"{template} is larger than {MOST_TEMPLATE_BYTES} bytes")
        return super().get_source(environment, template)


class Sandbox(ImmutableSandboxedEnvironment):
    """What one document is made with. `filters` are further ones, for texts."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, folders: Sequence[Path], **filters: Callable[..., Any]) -> None:
        super().__init__(
            loader=_Loader(folders),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            finalize=self.text,
            autoescape=False,  # Markdown, not HTML: every value goes through the md filter instead
        )
        known = self.filters
        self.filters = {name: known[name] for name in FILTERS}
        of_text = {name: known[name] for name in TEXT_FILTERS} | filters
        self.filters |= {name: self._of_text(function) for name, function in of_text.items()}
        self.filters["join"] = self._join
        self.filters["list"] = self._list
        del self.globals["lipsum"]
        self._left = MOST

    def text(self, value: object) -> str:
        """Write one value. Raises SecurityError for lists and the like: written out, small ones can be endless."""
        if isinstance(value, (list, tuple, dict, set, frozenset)):
            raise SecurityError(f"a {type(value).__name__} is no text; join it, or take one value of it")
        return str(value)

    def _of_text(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda value, *rest, **named: function(self.text(value), *rest, **named)

    def concat(self, parts: Iterable[str]) -> str:
        """Join texts. Raises SecurityError once all of them together are too long."""
        return "".join(self._counted(parts))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `+`, `*`, `**` and `%`. Raises SecurityError where the result is too large."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"{operator} is not for templates")
        lengths = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        if operator == "*" and lengths:
            self._spend(lengths[0] * max(0, int(right if hasattr(left, "__len__") else left)))
        elif operator == "+":
            self._spend(sum(lengths))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and abs(result) > LARGEST:
            raise SecurityError("a number is too large")
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse all methods of texts and numbers but those whose result is no longer than what they are of."""
        plain = isinstance(obj, (str, bytes, int, float))
        return super().is_safe_attribute(obj, attr, value) and (not plain or attr in METHODS)

    def wrap_str_format(self, value: Any) -> Any:
        """Refuse `format` and `format_map`, which pad; newer jinja2 asks here for them before all else."""
        if super().wrap_str_format(value) is not None:
            raise SecurityError("format is not for templates")
        return None

    def _list(self, values: Iterable[Any]) -> list[Any]:
        found = list(values)
        self._spend(len(found))
        return found

    def _join(self, values: Iterable[Any], between: str = "") -> str:
        texts = [self.text(value) for value in values]
        self._spend(len(between) * len(texts))
        return between.join(self._counted(texts))

    def _counted(self, parts: Iterable[str]) -> Iterator[str]:
        for part in parts:
            self._spend(len(part))
            yield part

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise SecurityError(f"the template makes more than {MOST} characters")
