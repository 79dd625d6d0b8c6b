"""Backends, the folders under models/: what each offers, how its worker is started, its environments."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from zoo_bench.adapters import find_adapter
from zoo_bench.addresses import InsidePath
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.recipe import PHASES, Count, Name, Phase, Positive, Precision, Strict
from zoo_bench.workspace import Workspace, bundled_root
from zoo_bench.yamlfile import load_model

SPEC_NAME = "backend.yaml"
LAUNCHER = "zoo_bench.adapters.launch"
Module = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
PythonVersions = Annotated[
    str,
    Field(
        pattern=r"^\s*(>=|<=|>|<|==|!=)\s*\d+\.\d+\s*(,\s*(>=|<=|>|<|==|!=)\s*\d+\.\d+\s*)*$",
        description="which Pythons the lock was made for, such as '>=3.10,<3.14'",
    ),
]


class Offers(Strict):
    """What a backend can train."""

    detectors: tuple[Name, ...] = Field(min_length=1)
    backbones: tuple[Name, ...] = Field(min_length=1)
    precisions: tuple[Precision, ...] = Field(min_length=1)
    max_gpus: Count = Field(description="of one machine; 0: the CPU alone")
    max_nodes: Positive = Field(default=1, description="machines that can share a cell, as jobs of a Slurm cluster")


class Variant(Strict):
    """One locked environment of a backend, for one kind of hardware."""

    about: str = Field(description="one line: what is installed, for which hardware")
    python: PythonVersions
    lock: InsidePath | None = Field(
        default=None,
        description="requirements with hashes, relative to the folder; none: zoo-bench's own interpreter",
    )
    disk_bytes: Annotated[int, Field(ge=0)] = Field(default=0, description="what the environment takes on disk")
    gpus: bool = Field(default=True, description="false: its build of the framework is for CPUs alone")


class CommandSpec(Strict):
    """A trainer that is not ours: how it is started, and how what it prints is read."""

    words: tuple[str, ...] = Field(
        min_length=1,
        description="the command, in which {lr}, {train.annotations} and so on stand for values of the job",
    )
    adapter: Name = Field(description="reads what it prints: gluoncv, mmdet, detectron2, mllog or regex")
    patterns: dict[str, str] = Field(default={}, description="for regex: a regular expression for each event")
    log: str | None = Field(default=None, description="the file it logs to, where that is not what it prints")
    folder: str = Field(default=".", description="where it is started, relative to the workspace")
    model: str | None = Field(default=None, description="the file of weights that it leaves")
    sources: tuple[InsidePath, ...] = Field(
        default=(), description="files of the workspace that it is made of: when one changes, cells are run again"
    )


class BackendSpec(Strict):
    """backend.yaml. What is started is either a worker of zoo-bench's protocol (`run`), or a `command`."""

    name: Name
    description: str
    run: Module | None = Field(default=None, description="the worker, started as python -m MODULE --job JOB")
    command: CommandSpec | None = Field(default=None, description="a trainer that is not ours")
    probe: Module | None = Field(default=None, description="prints what the environment can run on, as JSON")
    offers: Offers
    default_variant: Name
    variants: dict[Name, Variant] = Field(min_length=1)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What it can do. A command trains, and evaluates what it has trained, in one go."""
        return PHASES if self.command is None else ("train", "evaluate", "publish")

    @model_validator(mode="after")
    def _is_started(self) -> BackendSpec:
        if (self.run is None) == (self.command is None):
            raise ValueError("expected either run, a worker's module, or command, a trainer's")
        if self.command is not None:
            try:
                find_adapter(self.command.adapter, self.command.patterns or None)
            except ConfigError as error:
                raise ValueError(f"{error.message}; {error.hint}") from None
        return self

    @model_validator(mode="after")
    def _default_exists(self) -> BackendSpec:
        if self.default_variant not in self.variants:
            advice = nearest(self.default_variant, self.variants)
            raise ValueError(f"default_variant '{self.default_variant}' is not among the variants; {advice}")
        return self


@dataclass(frozen=True)
class Backend:
    """A backend that was found. `root` is the folder that holds models/: a worker's working directory."""

    name: str
    folder: Path
    root: Path
    spec: BackendSpec

    def worker(self, python: Path) -> tuple[str, ...]:
        """Return what a job of this backend is started with, `python` being that of its environment."""
        if self.spec.run is not None:
            return str(python), "-m", self.spec.run
        return sys.executable, "-m", LAUNCHER, "--backend", str(self.folder / SPEC_NAME), "--python", str(python)

    def variant(self, name: str | None = None) -> Variant:
        """Return a variant by name (None: the default one).

        Raises:
            ConfigError: there is no such variant.
        """
        wanted = name or self.spec.default_variant
        if wanted not in self.spec.variants:
            raise ConfigError(f"backend '{self.name}' has no variant '{wanted}'", nearest(wanted, self.spec.variants))
        return self.spec.variants[wanted]

    def variant_advice(self, names: Iterable[str]) -> str:
        """Return how machine.yaml chooses one of these variants."""
        return f"machine.yaml: backends: {{{self.name}: {{variant: ...}}}} ({', '.join(names)})"

    def lock_path(self, variant: Variant) -> Path | None:
        """Return the lock file of a variant, or None when it needs none.

        Raises:
            ConfigError: backend.yaml names a file that is not there.
        """
        if variant.lock is None:
            return None
        path = self.folder / variant.lock
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise ConfigError(f"{self.folder / SPEC_NAME}: lock: {path} {what}", "restore it, or run `make locks`")
        return path


def find_backend(name: str, workspace: Workspace) -> Backend:
    """Return a backend of the workspace, or of the installation where the workspace has no such one.

    Raises:
        ConfigError: there is no such backend, or its backend.yaml is wrong (every problem of it).
    """
    places = _places(workspace)
    if name not in places:
        raise ConfigError(f"there is no backend '{name}' under {workspace.root / 'models'}", nearest(name, places))
    folder = places[name]
    spec = load_model(folder / SPEC_NAME, BackendSpec)
    if spec.name != name:
        raise ConfigError(f"{folder / SPEC_NAME}: name: expected '{name}', the folder's name, found '{spec.name}'")
    if not (folder.parent / "__init__.py").is_file():
        # Without it Python would take the installation's models/ first, and its backend of the same name.
        raise ConfigError(
            f"{folder.parent} lacks __init__.py, so Python would not look for backends there",
            f"copy it: cp {bundled_root() / 'models' / '__init__.py'} {folder.parent}",
        )
    return Backend(name, folder, folder.parent.parent, spec)


def backend_names(workspace: Workspace) -> frozenset[str]:
    """Return the name of every backend of the workspace and the installation."""
    return frozenset(_places(workspace))


def list_backends(workspace: Workspace) -> tuple[Backend, ...]:
    """Return every backend of the workspace and the installation, by name.

    Raises:
        ConfigError: a backend.yaml is wrong.
    """
    return tuple(find_backend(name, workspace) for name in sorted(_places(workspace)))


def has_backend(name: str, workspace: Workspace) -> bool:
    """Tell whether the workspace or the installation has a backend of that name."""
    return name in _places(workspace)


def _places(workspace: Workspace) -> dict[str, Path]:
    """Folder of every backend by name, the workspace's before the installation's."""
    found: dict[str, Path] = {}
    for root in (bundled_root(), workspace.root):
        found.update({path.parent.name: path.parent for path in (root / "models").glob(f"*/{SPEC_NAME}")})
    return found


def sources_sha256(backend: Backend) -> str:
    """Return the SHA-256 (hex) over what a worker runs: *.py and backend.yaml of its folder, and what all share.

    Each file counts with its path below models/ and its content. Locks have a digest of their own.
    """
    files = {f"{backend.name}/{SPEC_NAME}": backend.folder / SPEC_NAME}
    for models in (bundled_root() / "models", backend.folder.parent):  # Python, too, takes the workspace's own first
        files.update({path.name: path for path in models.glob("*.py") if path.is_file()})
    for path in backend.folder.rglob("*.py"):
        inside = path.relative_to(backend.folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):  # editors leave links like .#x.py
            files[f"{backend.name}/{inside.as_posix()}"] = path
    for name in backend.spec.command.sources if backend.spec.command else ():
        if (backend.root / name).is_file():
            files[f"./{name}"] = backend.root / name
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def worker_variables() -> dict[str, str]:
    """Return the environment variables a worker's interpreter starts with.

    They are the user's, without what would reach into another Python's packages. The installed models/ is on
    the path after the working directory, so that a workspace with only a backend of its own finds worker.py.
    """
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    variables["PYTHONPATH"] = str(bundled_root())
    return variables
