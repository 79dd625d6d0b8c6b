"""Addresses of published files: what a matrix may name, and what a document may link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*://")


def is_inside(path: str) -> bool:
    """Tell whether `path` is one of the workspace: no address, and nothing that leaves it."""
    return not PROTOCOL.match(path) and not Path(path).is_absolute() and ".." not in Path(path).parts


def _inside(path: str) -> str:
    """Refuse a path that leaves the workspace: a document would link it."""
    if not is_inside(path):
        raise ValueError(f"'{path}' is not in the workspace")
    return path


def _address(value: str) -> str:
    if not value or not value.isprintable() or "::" in value:
        raise ValueError(f"expected a folder or an address like s3://bucket/folder, found {value!r}")
    if not PROTOCOL.match(value):
        if ".." in Path(value).parts:
            raise ValueError(f"'{value}' leaves the workspace; name the whole path of a folder elsewhere")
    elif _has_secrets(value):
        raise ValueError("an address holds no user, password or query; credentials come from the environment")
    return value.rstrip("/") or value


def _url(value: str) -> str:
    if PROTOCOL.match(value):
        if not value.startswith(("https://", "http://")) or not urlsplit(value).hostname:
            raise ValueError(f"expected an address that browsers open, https://..., found '{value}'")
        if _has_secrets(value):
            raise ValueError("a link holds no user, password or query: everybody reads it")
        return value.rstrip("/")
    return _inside(value).rstrip("/")


def _has_secrets(address: str) -> bool:
    parts = urlsplit(address)
    # hf://owner/repository@revision has an @, and no user.
    return bool(parts.query or parts.fragment or (":" in parts.netloc and "@" in parts.netloc))


InsidePath = Annotated[str, AfterValidator(_inside)]
Address = Annotated[str, Field(max_length=1024), AfterValidator(_address)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
