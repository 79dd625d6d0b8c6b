"""Where things are: the workspace a user works in, and what came with the installation.

A workspace is the folder of ``matrix.yaml`` (``--root`` overrides it). What it does not hold itself (a backend, the
templates, matrix.yaml) is taken from the copy that came with zoo-bench, so an empty folder is a working zoo.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Workspace:
    """The paths of one workspace. `root` is absolute."""

    root: Path
    matrix_file: Path

    @classmethod
    def locate(cls, root: Path | None = None, matrix: Path | None = None) -> Workspace:
        """Find the workspace from ``--root`` and ``--matrix``; either, both or none may be given.

        Raises:
            ConfigError: a folder or file that was named does not exist.
        """
        if root is not None and not root.is_dir():
            raise ConfigError(f"--root {root}: no such folder", "create it, or name the folder of matrix.yaml")
        if matrix is not None:
            if not matrix.is_file():
                raise ConfigError(
                    f"--matrix {matrix}: no such file",
                    "without --matrix the matrix.yaml that came with zoo-bench is used",
                )
            return cls((root or matrix.parent).resolve(), matrix.resolve())
        base = (root or Path.cwd()).resolve()
        own = base / MATRIX_NAME
        return cls(base, own if own.is_file() else bundled_root() / MATRIX_NAME)

    @property
    def results(self) -> Path:
        """Records, one JSON file a run."""
        return self.root / "results"

    @property
    def state(self) -> Path:
        """What can be made again: environments, generated datasets, locks."""
        return self.root / ".zoo-bench"

    @property
    def envs(self) -> Path:
        """Worker environments."""
        return self.state / "envs"
