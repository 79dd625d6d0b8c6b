"""`zoo-bench init`: makes an existing repository a zoo."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from zoo_bench.adapters import NAMES, REGEX
from zoo_bench.backends import find_backend
from zoo_bench.cell import expand
from zoo_bench.errors import EXIT_OK, ConfigError, nearest
from zoo_bench.initial import LOGS, MODELS, Repository, look
from zoo_bench.load import load_matrix
from zoo_bench.machine import MachineInfo, describe_machine, usable_gpus
from zoo_bench.recipe import NAME
from zoo_bench.revision import git
from zoo_bench.whole import write_whole
from zoo_bench.workspace import MATRIX_NAME, Workspace, bundled_root

WORKFLOW = ".github/workflows/zoo-nightly.yml"


def init(root: Path, name: str | None, script: str | None, adapter: str | None) -> int:
    """Write matrix.yaml, models/NAME/backend.yaml and a nightly workflow into `root`; nothing is overwritten."""
    root = root.resolve()
    if not root.is_dir():
        raise ConfigError(f"--root {root}: no such folder", "create it, or name your repository")
    found = look(root, script, adapter)
    if found is None:
        raise ConfigError(f"{root}: no training script was found", "name it: zoo-bench init --script path/to/train.py")
    if not (root / found.script).is_file():
        raise ConfigError(f"--script {found.script}: no such file in {root}", "name it relative to the repository")
    _refuse(root, found, name, adapter)
    backend = name or re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-.") or "mine"
    machine = describe_machine(None)
    files = _files(found, backend, machine)
    there = [file for file in files if _in_the_way(root / file, root)]
    if there:
        raise ConfigError(
            f"{root}: there is already {', '.join(there)}, and nothing was written", "move them away first"
        )
    _check(files)
    for file, text in files.items():
        write_whole(root / file, text)
        print(f"wrote {file}")
    print(f"\nThe script is {found.script}; its log is read by the adapter '{found.adapter}': {found.why}.")
    print(
        f"COCO is {f'in {found.coco}' if found.coco else 'not here: name its folder in matrix.yaml, or machine.yaml'}."
    )
    print(f"\nNext: see to `words` in models/{backend}/backend.yaml, then")
    print("  zoo-bench plan    # the cells")
    print("  zoo-bench run     # all of them; each is tried for a minute first")
    print("  zoo-bench accept --why 'the first'    # what the nightly workflow compares with")
    top = git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        print(f"\nGitHub looks for workflows at the top of a repository: move {WORKFLOW} there.")
    return EXIT_OK


def _refuse(root: Path, found: Repository, name: str | None, adapter: str | None) -> None:
    """Raise ConfigError for names that would make no zoo."""
    if name is not None and re.fullmatch(NAME, name) is None:
        raise ConfigError(f"--backend {name}: no name", "letters, digits, - . and _")
    if adapter is not None and adapter not in (*NAMES, REGEX):
        raise ConfigError(f"--adapter {adapter}: no such adapter", nearest(adapter, [*NAMES, REGEX]))
    if not (root / found.script).resolve().is_relative_to(root):
        raise ConfigError(f"--script {found.script}: it is outside of {root}", "name one of this repository, or --root")
    if not os.access(root, os.W_OK | os.X_OK):
        raise ConfigError(f"{root} cannot be written", "mend its permissions")


def _in_the_way(path: Path, root: Path) -> bool:
    """Tell whether a file is there already, or something else where one of its folders is to be."""
    parents = [folder for folder in path.parents if folder.is_relative_to(root)]
    return path.exists() or any(folder.exists() and not folder.is_dir() for folder in parents)


def _check(files: Mapping[str, str]) -> None:
    """Raise ConfigError where what is to be written would be no zoo: a name may be none."""
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items():
            write_whole(Path(folder, file), text)
        matrix = load_matrix(Path(folder, MATRIX_NAME))
        for name in {cell.backend for cell in expand(matrix)}:
            find_backend(name, Workspace.locate(Path(folder)))


def _files(found: Repository, backend: str, machine: MachineInfo) -> dict[str, str]:
    templates = Environment(
        loader=FileSystemLoader(bundled_root() / "templates" / "init"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # YAML
    )
    values = {
        "name": backend,
        "script": found.script,
        "words": found.words,
        "adapter": found.adapter,
        "log": LOGS.get(found.adapter),
        "model": MODELS.get(found.adapter),
    }
    return {
        MATRIX_NAME: _matrix(found, backend, machine),
        "models/__init__.py": (bundled_root() / "models" / "__init__.py").read_text(encoding="utf-8"),
        f"models/{backend}/backend.yaml": templates.get_template("backend.yaml.j2").render(values),
        WORKFLOW: templates.get_template("nightly.yml.j2").render(values),
    }


def _matrix(found: Repository, backend: str, machine: MachineInfo) -> str:
    """Return the matrix that came with zoo-bench, comments and all, with this repository's names and this machine."""
    text = (bundled_root() / MATRIX_NAME).read_text(encoding="utf-8")
    gpus = usable_gpus(machine)
    changes = {
        r"(?m)^  backends: \[.*?\]": f"  backends: [{json.dumps(backend)}]",
        r"(?m)^  backend: \[.*?\]": f"  backend: [{json.dumps(backend)}]",
        r"(?m)^# yaml-language-server.*\n": "",
    }
    if found.coco:
        changes[r"(?m)^    root: data/coco\b"] = f"    root: {found.coco}"
    target = {
        "gpus": len(gpus) or 8,
        "gpu": gpus[0].name if gpus else "not told yet",
        "cpu": machine.cpu,
        "software": {},
    }
    changes[r"(?m)^target:\n(  .*\n)+"] = "target:\n" + "".join(
        f"  {key}: {json.dumps(value)}\n" for key, value in target.items()
    )
    if gpus:
        changes[r"(?m)^  gpus: 8\n  images_per_gpu"] = f"  gpus: {len(gpus)}\n  images_per_gpu"
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement.replace("\\", r"\\"), text)
        if count != 1:
            raise ConfigError(f"the matrix that came with zoo-bench has changed: {pattern} is in it {count} times")
    return text
