"""Which state of the zoo's own files a run was made from, as git tells it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from zoo_bench.recipe import Strict

COMMIT_DIGITS = 12
MADE_BY_RUNS = ("results", ".zoo-bench", "nightly-report", "site")


class Revision(Strict):
    """A commit, and whether files of the zoo differed from it. What runs themselves make does not count."""

    commit: str
    dirty: bool


def short_commit(commit: str) -> str:
    """Return a commit as people write it."""
    return commit[:COMMIT_DIGITS]


def revision(root: Path) -> Revision | None:
    """Look at the workspace; None where it is no git checkout, or there is no git."""
    commit = git(root, "rev-parse", "HEAD")
    changed = git(root, "status", "--porcelain", "--", ".", *(f":(exclude){name}" for name in MADE_BY_RUNS))
    if commit is None or changed is None:
        return None
    return Revision(commit=commit.strip(), dirty=bool(changed.strip()))


def git(root: Path, *arguments: str) -> str | None:
    """Return what git prints when it is asked in a folder; None where it cannot say."""
    # Asking must not write: a node may have the checkout read-only, and another process may hold the index.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
