"""Where things are: the workspace a user works in, and what came with the installation.

A workspace is the folder of ``matrix.yaml`` (``--root`` overrides it). What it does not hold itself (a backend, the
templates, matrix.yaml) is taken from the copy that came with zoo-bench, so an empty folder is a working zoo.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zoo_bench.errors import ConfigError

MATRIX_NAME = "matrix.yaml"


def bundled_root() -> Path:
    """Return the folder with the models/, templates/ and matrix.yaml that came with this installation.

    In a wheel that is ``zoo_bench/_bundled``; in a checkout (editable installation) it is the checkout.
    """
    packed = Path(__file__).parent / "_bundled"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[2]


def own_file(path: Path) -> Path | None:
    """Return the configuration file `path`, None where there is none.

    Raises:
        ConfigError: what is there is no file, or has a name that is not looked for.
    """
    if path.is_file():
        return path
    if os.path.lexists(path):
        raise ConfigError(f"{path} is there, but is no regular file", "mend it, or move it away")
    misnamed = path.with_suffix(".yml")
    if os.path.lexists(misnamed):
        raise ConfigError(f"{misnamed} would not be read", f"rename it to {path.name}, or move it away")
    return None


@dataclass(frozen=True)
class Workspace:
    """The paths of one workspace. `root` is absolute. `bundled`: it has no matrix, and uses the one that came along."""

    root: Path
    matrix_file: Path
    bundled: bool = False

    @classmethod
    def locate(cls, root: Path | None = None, matrix: Path | None = None) -> Workspace:
        """Find the workspace from ``--root`` and ``--matrix``; either, both or none may be given.

        Raises:
            ConfigError: a folder or file that was named does not exist.
        """
        here = _current_folder()
        if root is not None and not root.is_dir():
            what = "not a folder" if root.exists() else "no such folder"
            raise ConfigError(f"--root {root}: {what}", "create it, or name the folder of matrix.yaml")
        if matrix is not None:
            if not matrix.is_file():
                raise ConfigError(
                    f"--matrix {matrix}: {'not a regular file' if matrix.exists() else 'no such file'}",
                    "without --matrix the matrix.yaml that came with zoo-bench is used",
                )
            return cls((root or matrix.parent).resolve(), matrix.resolve())
        base = (root or here).resolve()
        own = own_file(base / MATRIX_NAME)
        return cls(base, own) if own else cls(base, bundled_root() / MATRIX_NAME, bundled=True)

    @property
    def results(self) -> Path:
        """Records, one JSON file a run."""
        return self.root / "results"

    @property
    def state(self) -> Path:
        """What can be made again: environments, generated datasets, indexes, locks."""
        return self.root / ".zoo-bench"

    @property
    def envs(self) -> Path:
        """Worker environments."""
        return self.state / "envs"

    @property
    def index(self) -> Path:
        """What workers made of annotation files."""
        return self.state / "index"

    @property
    def records_index(self) -> Path:
        """The summaries of all records."""
        return self.state / "records.json"


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(f"the current folder is gone: {error.strerror}", "cd to one that is there") from None
