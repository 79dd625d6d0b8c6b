"""Asking a worker environment what it is and what it can run on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo_bench.backends import Backend, worker_variables
from zoo_bench.errors import EnvironmentBuildError

TIMEOUT_S = 180.0
LINES_SHOWN = 12


class Probe(BaseModel):
    """What a backend's probe module printed.

    `arch_list` holds the build's targets, such as ``sm_70``; it is empty where they are not known.
    `missing_libraries` names the shared libraries that the framework needs and this machine lacks.
    """

    model_config = ConfigDict(frozen=True)

    versions: dict[str, str | None]
    arch_list: tuple[str, ...] = ()
    cuda_available: bool = False
    missing_libraries: tuple[str, ...] = ()


def probe_backend(backend: Backend, python: Path) -> Probe | None:
    """Run the backend's probe module with `python`; None when the backend has no probe.

    Raises:
        EnvironmentBuildError: the module failed or printed something else than its JSON object.
    """
    module = backend.spec.probe
    if module is None:
        return None
    command = [str(python), "-m", module]
    try:
        done = subprocess.run(
            command,
            cwd=backend.root,
            env=worker_variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentBuildError(f"{backend.name}: {' '.join(command)}: {error}", _advice(backend, python)) from None
    if done.returncode != 0:
        said = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-LINES_SHOWN:])
        raise EnvironmentBuildError(
            f"{backend.name}: the worker environment does not work; in {backend.root},\n"
            f"{' '.join(command)} said:\n{said}",
            _advice(backend, python),
        )
    return _read(backend, python, done.stdout, command)


def _read(backend: Backend, python: Path, printed: str, command: list[str]) -> Probe:
    # Frameworks print on import; the probe's object is the last line.
    last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
    try:
        return Probe.model_validate(json.loads(last))
    except (json.JSONDecodeError, ValidationError):
        raise EnvironmentBuildError(
            f"{backend.name}: {' '.join(command)} printed no JSON object with 'versions': {last[:200]!r}",
            _advice(backend, python),
        ) from None


def _advice(backend: Backend, python: Path) -> str:
    if (python.parent.parent / "zoo-bench.json").is_file():
        return f"remove {python.parent.parent} and zoo-bench builds it again"
    return f"install what the worker of '{backend.name}' needs there, or name another in machine.yaml"
