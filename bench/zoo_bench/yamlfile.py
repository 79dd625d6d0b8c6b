"""YAML files read into pydantic models, with errors that name file, line, key and the nearest valid name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError

from zoo_bench.bounded import MIB, read_bytes
from zoo_bench.errors import ConfigError, nearest

Loc = tuple[str | int, ...]
# Aliases can make a small file as large as one likes.
MOST_NODES = 100_000
MOST_BYTES = MIB  # ours has 10 KB
TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge"))
Model = TypeVar("Model", bound=BaseModel)


class YamlFileError(ConfigError):
    """One file, all of its problems: each a line ``file:line: key: what was expected``."""

    def __init__(self, problems: list[str], hint: str = "") -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """Safe YAML that holds nothing but what JSON holds too; whatever is wrong with a value is told with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in TAGS:
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(problem=f"a {kind} cannot stand here; quote it", problem_mark=node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:  # PyYAML's, for a tag that does not fit
            raise ConstructorError(problem=f"not a value of its kind: {error}", problem_mark=node.start_mark) from None
        fault = _fault(value)
        if fault:
            raise ConstructorError(problem=fault, problem_mark=node.start_mark)
        return value


def _fault(value: object) -> str:
    """Say why a value could not be written as JSON, or given to the system; nothing when it can."""
    if isinstance(value, str) and any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
        return "expected text without \\0 and without halves of a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    return "expected a number that fits 64 bits" if isinstance(value, int) and abs(value) >= 2**63 else ""


def load_model(path: Path, model: type[Model]) -> Model:
    """Read `path` and validate it as `model`.

    Raises:
        YamlFileError: the file cannot be read, is not YAML, or does not fit `model`; all problems at once.
    """
    data, lines, faults = _read(path)
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        schema = model.model_json_schema()
        problems = [_describe(path, lines, schema, detail) for detail in error.errors()]
        raise YamlFileError(sorted(set(faults + problems), key=_line_of)) from None
    if faults:
        raise YamlFileError(faults)
    return value


def describe_lines(path: Path) -> dict[Loc, int]:
    """Return the line (from 1) of every key of a YAML file that `load_model` has accepted."""
    return _read(path)[1]


def line_of(lines: dict[Loc, int], loc: Loc) -> int:
    """Return the line of `loc`, or of the nearest key above it."""
    return next((lines[loc[:n]] for n in range(len(loc), -1, -1) if loc[:n] in lines), 1)


def _read(path: Path) -> tuple[Any, dict[Loc, int], list[str]]:
    try:
        text = read_bytes(path, MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise YamlFileError([f"{path}: cannot be read: {error}"]) from None
    walk = _Walk(path)
    data = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            walk.visit(node, ())
            data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        what = "" if isinstance(error, ConstructorError) else "not valid YAML: "
        raise YamlFileError([f"{path}{where}: {what}{error.problem}"]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise YamlFileError([f"{path}: not valid YAML: {error}"]) from None
    if not isinstance(data, dict):
        raise YamlFileError([f"{path}:1: expected a mapping of keys to values, found {_kind(data)}"])
    return data, walk.lines, walk.faults


class _Walk:
    """The line of every key, and what is wrong with the keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nodes = 0
        self.lines: dict[Loc, int] = {}
        self.faults: list[str] = []

    def visit(self, node: yaml.Node, loc: Loc) -> None:
        """Look at a node and all that it holds. Raises ValueError when that is too much."""
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise ValueError(f"it holds more than {MOST_NODES} values, with its aliases written out")
        self.lines.setdefault(loc, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                self._key(key, loc, seen)
                self.visit(value, (*loc, str(key.value)))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.visit(value, (*loc, index))

    def _key(self, key: yaml.Node, loc: Loc, seen: set[str]) -> None:
        if not isinstance(key, yaml.ScalarNode):  # and its text could be without end
            raise ConstructorError(problem="a key is text; quote it", problem_mark=key.start_mark)
        name, line = str(key.value), key.start_mark.line + 1
        inner = (*loc, name)
        if name in seen:
            self.faults.append(f"{self._path}:{line}: {dotted(inner)}: the key is given twice")
        if key.tag.rpartition(":")[2] not in ("str", "merge"):
            self.faults.append(f"{self._path}:{line}: {dotted(inner)}: a key is text; quote it")
        seen.add(name)
        self.lines[inner] = line


def _describe(path: Path, lines: dict[Loc, int], schema: dict[str, Any], detail: Any) -> str:
    loc: Loc = tuple(str(part) if not isinstance(part, int) else part for part in detail["loc"])
    kind = detail["type"]
    shown = _in_file(loc, lines)
    if kind == "extra_forbidden":
        what = f"unknown key; {nearest(str(loc[-1]), _known_keys(schema, shown[:-1]))}"
    elif kind == "missing":
        what = "is missing"
    else:
        what = f"{detail['msg'].removeprefix('Value error, ')}{_found(kind, detail['input'])}"
    return f"{path}:{line_of(lines, shown)}: {dotted(shown)}: {what}"


def _in_file(loc: Loc, lines: dict[Loc, int]) -> Loc:
    """Drop the parts that pydantic adds to a location and the file does not have (the tag of a union)."""
    shown: Loc = ()
    for part in loc[:-1]:
        if (*shown, part) in lines:
            shown = (*shown, part)
    return (*shown, *loc[-1:])


def _found(kind: str, value: object) -> str:
    return "" if kind == "value_error" or isinstance(value, (dict, list)) else f", found {value!r}"


def _known_keys(schema: dict[str, Any], loc: Loc) -> list[str]:
    """Follow `loc` through a JSON Schema and return the properties that are known there."""
    frontier = _options(schema, schema)
    for part in loc:
        children = [child for node in frontier for child in _children(node, part)]
        frontier = [option for child in children for option in _options(schema, child)]
    return sorted({key for node in frontier for key in node.get("properties", {})})


def _options(root: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        return _options(root, root["$defs"][name])
    alternatives = node.get("anyOf", []) + node.get("oneOf", []) + node.get("allOf", [])
    return [node] + [option for child in alternatives for option in _options(root, child)]


def _children(node: dict[str, Any], part: str | int) -> list[dict[str, Any]]:
    if isinstance(part, int):
        items = node.get("items")
        return [items] if isinstance(items, dict) else []
    if part in node.get("properties", {}):
        return [node["properties"][part]]
    extra = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    return [child for child in extra if isinstance(child, dict)]


def dotted(loc: Loc) -> str:
    """Write a location as a person would: ``profiles.smoke.overrides[0].set``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _line_of(problem: str) -> int:
    parts = problem.split(":")
    return next((int(part) for part in parts[1:3] if part.strip().isdigit()), 0)
