"""Reading COCO annotation files, and what identifies a dataset.

Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from zoo_bench.bounded import LARGEST, read_bytes
from zoo_bench.errors import DatasetError

_CHUNK_BYTES = 1 << 20
# COCO's largest file has 450 MB, those of the largest data sets some GB.
MOST_BYTES = 8 * 2**30
#: Pixels of an image's side.
MOST_SIDE = 1_000_000


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DatasetError with line and column where it is broken."""
    try:
        return json.loads(read_bytes(path, MOST_BYTES))
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}",
            hint="The file may be incomplete: fetch or write it again.",
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: byte {error.start} is not text: not a JSON file", hint="Is this the right file?"
        ) from error
    except (RecursionError, ValueError) as error:
        raise DatasetError(f"{path}: not usable JSON: {error}", hint="Is this the right file?") from error
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror or error}", hint="Check the path of the dataset."
        ) from error


def structure_fault(content: Any) -> str | None:
    """What is wrong with the top level of an annotation file, or None."""
    if not isinstance(content, dict):
        return f"the top level is {json_type(content)}, not an object with images, annotations and categories"
    for key in ("images", "annotations", "categories"):
        if key not in content:
            return f"the key '{key}' is missing; there are: {', '.join(sorted(map(str, content))) or 'none'}"
        if not isinstance(content[key], list):
            return f"'{key}' is {json_type(content[key])}, not a list"
    return None


def json_type(value: Any) -> str:
    """The JSON name of the type of `value`, with its article."""
    if value is None:
        return "null"
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number, NaN and infinity included."""
    return type(value) is float or type(value) is int


def is_finite(value: float) -> bool:
    """Whether a JSON number is neither NaN nor infinite, nor so large that sums and products of it soon are."""
    return abs(value) <= LARGEST


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises DatasetError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror or error}", hint="Check the path of the dataset."
        ) from error
    return digest.hexdigest()


def dataset_fingerprint(annotations: Iterable[Path]) -> str:
    """SHA-256, in hexadecimal, over the contents of annotation files, in the order given.

    Where the files lie does not enter, nor do the images: reading all of COCO at each start would take
    minutes, and `check_dataset` compares images with annotations.
    """
    digests = [file_sha256(path) for path in annotations]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
