"""What others must not read: the folders of a machine, which name its user, and the credentials of its environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

BLANK = "***"
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CONNECTION_STRING|(^|_)(API)?KEYS?(_|$)|(^|_)PAT$",
    re.IGNORECASE,
)
SHORTEST_SECRET = 8
USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#\"'<>]+(?=@)")


def public(text: str, root: Path) -> str:
    """Return `text` as it may be published, of a workspace at `root`."""
    return without_secrets(without_folders(text, root))


def without_folders(text: str, root: Path) -> str:
    """Make paths relative to the workspace, and to home outside of it: records are published."""
    home = Path(os.path.expanduser("~"))
    for folder, pattern, name in ((root, "{}/", ""), (home, r"{}(?![\w-]|\.\w)", "~")):
        if folder.is_absolute() and folder != Path(folder.root):
            text = re.sub(r"(?<![\w.-])" + pattern.format(re.escape(str(folder))), name, text)
    return text


def without_secrets(text: str) -> str:
    """Blank what the environment keeps under a name like HF_TOKEN or AWS_SECRET_ACCESS_KEY, and users in addresses.

    Of a value of several lines each line counts. One of less than eight characters stays: it is no secret, and would
    be found in half of all words. So does the path of a file that is there, which is no secret itself.
    """
    secrets = _secrets(tuple(os.environ.items()))
    return USER_IN_ADDRESS.sub(BLANK, secrets.sub(BLANK, text) if secrets else text)


@cache
def _secrets(environment: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    longest_first = sorted(set(_values(environment)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _values(environment: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, value in environment:
        if SECRET_NAME.search(name) and not _is_file(value):
            yield from (line for line in map(str.strip, value.splitlines()) if len(line) >= SHORTEST_SECRET)


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_absolute() and Path(value).exists()
    except (OSError, ValueError):
        return False
