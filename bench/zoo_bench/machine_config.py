"""machine.yaml: a machine's name, where its datasets lie, which interpreters its workers use. Optional."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from zoo_bench.errors import ConfigError, nearest
from zoo_bench.recipe import Name, Strict
from zoo_bench.workspace import Workspace, own_file
from zoo_bench.yamlfile import YamlFileError, describe_lines, line_of, load_model

MACHINE_NAME = "machine.yaml"
VARIABLE = "ZOO_BENCH_MACHINE"


def _absolute(path: Path) -> Path:
    expanded = Path(os.path.expanduser(path))  # which leaves the ~ of an unknown user, where Path's own raises
    if not expanded.is_absolute():
        raise ValueError(f"expected an absolute path (~ is allowed), found '{path}'")
    return expanded


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class BackendChoice(Strict):
    """How one backend runs here: a variant other than its default, or an interpreter that exists already."""

    variant: Name | None = None
    python: AbsolutePath | None = Field(
        default=None, description="used as it is (conda, a container): nothing is installed into it"
    )


class MachineFile(Strict):
    """machine.yaml. `name` is what records and `zoo-bench compare` call the machine."""

    name: Name | None = None
    datasets: dict[Name, AbsolutePath] = {}
    backends: dict[Name, BackendChoice] = {}


@dataclass(frozen=True)
class MachineConfig:
    """What a user says about this machine. `source` is the file that says it, None without one."""

    datasets: Mapping[str, Path] = field(default_factory=dict)
    backends: Mapping[str, BackendChoice] = field(default_factory=dict)
    source: Path | None = None
    name: str | None = None

    def backend(self, name: str) -> BackendChoice:
        """Return the choice for one backend; an empty one when the file says nothing about it."""
        return self.backends.get(name, BackendChoice())


def config_paths(workspace: Workspace) -> tuple[Path, ...]:
    """Return the files that are looked for, the first that exists being read, and only that one."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return workspace.root / MACHINE_NAME, Path(os.path.expanduser(base)) / "zoo-bench" / MACHINE_NAME


def load_machine_config(workspace: Workspace) -> MachineConfig:
    """Read the file $ZOO_BENCH_MACHINE names, else the workspace's machine.yaml, else the user's.

    Raises:
        ConfigError: the file is wrong (with every problem, file and line), or the variable names none.
    """
    path = _named() or next(filter(None, map(own_file, config_paths(workspace))), None)
    if path is None:
        return MachineConfig()
    file = load_model(path, MachineFile)
    return MachineConfig(file.datasets, file.backends, path.absolute(), file.name)


def check_names(config: MachineConfig, workspace: Workspace, datasets: Iterable[str], backends: Iterable[str]) -> None:
    """Raise YamlFileError for names in the workspace's machine.yaml that the zoo does not have.

    The user's own file, and one that the variable names, may serve several zoos: they are not checked.
    """
    if config.source is None or config.source != config_paths(workspace)[0]:
        return
    lines = describe_lines(config.source)
    problems = [
        f"{config.source}:{line_of(lines, (key, name))}: {key}.{name}: unknown; {nearest(name, known)}"
        for key, named, known in (("datasets", config.datasets, datasets), ("backends", config.backends, backends))
        for name in named
        if name not in known
    ]
    if problems:
        raise YamlFileError(problems)


def _named() -> Path | None:
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    path = Path(os.path.expanduser(name))
    if not path.is_file():
        raise ConfigError(f"{VARIABLE}={name}: no such file", "correct it, or unset the variable")
    return path
