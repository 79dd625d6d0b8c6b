"""Addresses of published files: what a matrix may name, and what a document may link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

HUB = "hf://"
LONGEST_NAME = 255  # bytes
# Of one letter it is a drive of Windows, which is no path here either.
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def is_address(text: str) -> bool:
    """Tell an address (s3://bucket, https://host) from a path."""
    return SCHEME.match(text) is not None


def is_inside(path: str) -> bool:
    """Tell whether `path` is one of the workspace: no address, and nothing that leaves it."""
    return not is_address(path) and not path.startswith("/") and ".." not in path.split("/")


def _inside(path: str) -> str:
    """Refuse a path that leaves the workspace: a document would link it."""
    if not is_inside(path):
        raise ValueError(f"'{path}' is not in the workspace")
    if any(len(part.encode()) > LONGEST_NAME for part in path.split("/")):
        raise ValueError(f"a name in '{path}' is longer than any file's")
    return path


def _address(value: str) -> str:
    if not value or not value.isprintable() or "%" in value or "::" in value:
        raise ValueError(f"expected a folder or an address like s3://bucket/folder, found {value!r}")
    if not is_address(value):
        if ".." in Path(value).parts or value.startswith("~"):
            raise ValueError(f"'{value}' leaves the workspace; name the whole path of a folder elsewhere")
        return value.rstrip("/") or value
    scheme, _, rest = value.partition("://")
    if not rest:
        raise ValueError(f"expected an address like s3://bucket/folder, found '{value}'")
    value = f"{scheme.lower()}://{rest.rstrip('/')}"
    parts = urlsplit(value)
    # hf://owner/repository@revision has an @, and no user.
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("an address holds no user, password or query; credentials come from the environment")
    return value


def _url(value: str) -> str:
    if not is_address(value):
        if not value.isprintable() or "%" in value:
            raise ValueError(f"expected a path in the workspace, found {value!r}")
        return _inside(value).rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in ("https", "http") or not parts.hostname or not re.fullmatch(r"[!-~]+", value):
        raise ValueError(f"expected an address that browsers open, https://..., found {value!r}")
    if parts.port == 0 or "@" in parts.netloc or parts.query or parts.fragment:  # .port raises for what is none
        raise ValueError("a link holds no user, password or query: everybody reads it")
    return value.rstrip("/")


InsidePath = Annotated[str, Field(max_length=1024), AfterValidator(_inside)]
Address = Annotated[str, Field(max_length=1024), AfterValidator(_address)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
