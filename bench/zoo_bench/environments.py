"""Worker environments: one code path, through uv, from a lock with hashes to an interpreter.

An environment lies in ``<workspace>/.zoo-bench/envs/<backend>-<variant>-<8 digits of the lock's SHA-256>``,
its log beside it. It is built beside that folder and renamed into place, so a build that was killed is never
taken for a good one, and a uv that outlived its killed parent writes into a folder nobody uses.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from zoo_bench.backends import Backend, Variant
from zoo_bench.errors import EnvironmentBuildError
from zoo_bench.installer import UV_OLDEST_PYTHON, Installer, Progress, uv_path
from zoo_bench.interpreters import Version, find_interpreter, interpreter_version, newest, satisfies
from zoo_bench.machine_config import MachineConfig
from zoo_bench.workspace import Workspace

MARKER = "zoo-bench.json"
BUILDING = ".building-"
Source = Literal["built", "harness", "machine"]


@dataclass(frozen=True)
class EnvironmentStatus:
    """What there is of a worker environment, found without building anything.

    `source`: built from a lock, the harness's own interpreter, or named in the machine configuration.
    `python` is the interpreter to run; it exists when `ready`. `detail` says what it is, or what is missing.
    """

    backend: str
    variant: str
    source: Source
    ready: bool
    python: Path
    detail: str
    lock: Path | None = None
    lock_sha256: str | None = None
    disk_bytes: int = 0


@dataclass(frozen=True)
class WorkerEnvironment:
    """An interpreter that can run a backend's worker. `lock_sha256` is None when no lock made it."""

    python: Path
    variant: str
    source: Source
    lock_sha256: str | None


@dataclass(frozen=True)
class _Place:
    """The paths of one built environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def cache(self) -> Path:
        return self.folder.parent.parent / "uv-cache"

    @property
    def file_lock(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.lock")

    @property
    def beside(self) -> Path:
        """Where this process builds it."""
        return self.folder.with_name(f"{self.folder.name}{BUILDING}{os.getpid()}")


def environment_status(
    backend: Backend, workspace: Workspace, config: MachineConfig, variant_name: str | None = None
) -> EnvironmentStatus:
    """Look at the environment a backend would run in here, without building it.

    `variant_name` None takes the machine configuration's choice, else the backend's default.

    Raises:
        ConfigError: there is no such variant, or its lock is missing.
    """
    choice = config.backend(backend.name)
    name = variant_name or choice.variant or backend.spec.default_variant
    variant = backend.variant(name)
    if choice.python is not None:
        fault = _unfit(interpreter_version(choice.python), variant)
        detail = f"{choice.python}, from {config.source}"
        if fault:
            detail = f"{config.source}: backends.{backend.name}.python: {choice.python} {fault}"
        return EnvironmentStatus(backend.name, name, "machine", not fault, choice.python, detail)
    lock = backend.lock_path(variant)
    if lock is None:
        fault = _unfit(sys.version_info[:2], variant)
        detail = f"zoo-bench's own interpreter, {sys.executable}{fault and f', {fault}'}"
        return EnvironmentStatus(backend.name, name, "harness", not fault, Path(sys.executable), detail)
    digest = lock_sha256(lock)
    place = _place(backend, name, workspace, digest)
    problem = _problem(place, variant)
    detail = problem or str(place.folder)
    return EnvironmentStatus(
        backend.name, name, "built", problem is None, place.python, detail, lock, digest, variant.disk_bytes
    )


def ensure_environment(
    backend: Backend,
    workspace: Workspace,
    config: MachineConfig,
    progress: Progress,
    variant_name: str | None = None,
) -> WorkerEnvironment:
    """Return the environment a backend runs in here; build it first where it is missing or broken.

    `progress` is called with lines for the user while something is built.

    Raises:
        ConfigError: there is no such variant, or its lock is missing.
        EnvironmentBuildError: it could not be built, or the interpreter to be used does not run or is no fitting one.
    """
    status = environment_status(backend, workspace, config, variant_name)
    if not status.ready and status.lock is None:
        raise EnvironmentBuildError(
            status.detail,
            f"name another interpreter, or variant, under backends.{backend.name} in machine.yaml",
        )
    if not status.ready and status.lock is not None:
        place = _place(backend, status.variant, workspace, status.lock_sha256 or "")
        variant = backend.variant(status.variant)
        place.folder.parent.mkdir(parents=True, exist_ok=True)
        with _holding(place, progress):
            if _problem(place, variant) is not None:  # another process may have built it while we waited
                _build(f"{backend.name} ({status.variant})", variant, status.lock, place, progress)
    return WorkerEnvironment(status.python, status.variant, status.source, status.lock_sha256)


def _unfit(version: Version | None, variant: Variant) -> str:
    """Say why an interpreter that exists already cannot run a variant's worker; nothing when it can."""
    if version is None:
        return "does not run"
    if satisfies(version, variant.python):
        return ""
    return f"is Python {version[0]}.{version[1]}, and backend.yaml says {variant.python}"


def lock_sha256(lock: Path) -> str:
    """Return the SHA-256 (hex) of what a lock installs: its lines without the comments, which say whence each came."""
    lines = (line.strip() for line in lock.read_text(encoding="utf-8").splitlines())
    return hashlib.sha256("\n".join(line for line in lines if not line.startswith("#")).encode()).hexdigest()


def _place(backend: Backend, variant: str, workspace: Workspace, digest: str) -> _Place:
    return _Place(workspace.envs / f"{backend.name}-{variant}-{digest[:8]}")


def _problem(place: _Place, variant: Variant) -> str | None:
    """Say why an environment cannot be used; None when it can."""
    if not place.folder.exists():
        return "not built yet"
    if not place.python.exists():
        return "the Python it was made from is gone"
    version = _marked_version(place)
    if version is None:
        return f"not one that zoo-bench built: {MARKER} is missing or damaged"
    if not satisfies(version, variant.python):
        return f"made for Python {version[0]}.{version[1]}, and backend.yaml now says {variant.python}"
    return None


def _marked_version(place: _Place) -> Version | None:
    try:
        major, minor = json.loads((place.folder / MARKER).read_text(encoding="utf-8"))["python"]
        return int(major), int(minor)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _holding(place: _Place, progress: Progress) -> Iterator[None]:
    """Hold the environment's file lock; tell the user when another process has it."""
    place.file_lock.touch()  # where that cannot be done, filelock would try for ever
    lock = FileLock(place.file_lock)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        progress("waiting for another zoo-bench that builds the same environment")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(label: str, variant: Variant, lock: Path, place: _Place, progress: Progress) -> None:
    for leftover in place.folder.parent.glob(f"{place.folder.name}{BUILDING}*"):
        shutil.rmtree(leftover)
    _check_disk(place, variant, label)
    size = f", {variant.disk_bytes / 1e9:.1f} GB on disk" if variant.disk_bytes else ""
    progress(f"{label}: installing {variant.about}{size}; once, log in {place.log}")
    building = _Place(place.beside)
    with place.log.open("w", encoding="utf-8") as log:
        _install(Installer(label, place.cache, place.log, progress, log.write), variant, lock, building)
    version = interpreter_version(building.python)
    if version is None:
        raise EnvironmentBuildError(f"{label}: {building.python} does not run after the build", f"read {place.log}")
    (building.folder / MARKER).write_text(json.dumps({"python": version}) + "\n", encoding="utf-8")
    if place.folder.exists():
        shutil.rmtree(place.folder)
    building.folder.rename(place.folder)
    progress(f"{label}: ready")


def _install(uv: Installer, variant: Variant, lock: Path, building: _Place) -> None:
    python = str(find_interpreter(variant.python) or variant.python.replace(" ", ""))
    # Relocatable, because the folder is renamed when it is complete.
    uv.run(
        ("venv", "--relocatable", "--no-project", "--python", python, str(building.folder)),
        _python_advice(variant.python),
    )
    uv.run(
        ("pip", "sync", "--python", str(building.python), "--require-hashes", str(lock)),
        "if the network failed, run the same command again: what was downloaded is kept",
    )


def _python_advice(wanted: str) -> str:
    """Say how a Python comes onto this machine. Systems' own packages are no way: they have one or two versions."""
    version = newest(wanted)
    ways = [f"pyenv install {version}"]
    if satisfies(UV_OLDEST_PYTHON, f"<={version}"):
        ways.append(f"{uv_path()} python install {version}")
    return f"install a Python {wanted} ({', or '.join(ways)}); or name one that has the packages in machine.yaml"


def _check_disk(place: _Place, variant: Variant, label: str) -> None:
    free = shutil.disk_usage(place.folder.parent).free
    if free < variant.disk_bytes:
        raise EnvironmentBuildError(
            f"{label}: needs {variant.disk_bytes / 1e9:.1f} GB under {place.folder.parent}, "
            f"{free / 1e9:.1f} GB are free",
            "free some, or choose another workspace with --root",
        )
