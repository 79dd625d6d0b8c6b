"""`zoo-bench init`: makes an existing repository a zoo."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from zoo_bench.cell import expand
from zoo_bench.errors import EXIT_OK, ConfigError
from zoo_bench.initial import LOGS, MODELS, Repository, look
from zoo_bench.load import load_matrix
from zoo_bench.machine import MachineInfo, describe_machine, usable_gpus
from zoo_bench.whole import write_whole
from zoo_bench.workspace import MATRIX_NAME, bundled_root

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
    backend = name or re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-.") or "mine"
    machine = describe_machine(None)
    files = _files(found, backend, machine)
    there = [file for file in files if (root / file).exists()]
    if there:
        raise ConfigError(
            f"{root}: there is already {', '.join(there)}, and nothing was written", "move them away first"
        )
    for file, text in files.items():
        write_whole(root / file, text)
        print(f"wrote {file}")
    expand(load_matrix(root / MATRIX_NAME))  # what was written must be a zoo
    print(f"\nThe script is {found.script}; its log is read by the adapter '{found.adapter}': {found.why}.")
    print(
        f"COCO is {f'in {found.coco}' if found.coco else 'not here: name its folder in matrix.yaml, or machine.yaml'}."
    )
    print(f"\nNext: see to `words` in models/{backend}/backend.yaml, then")
    print("  zoo-bench plan    # the cells")
    print("  zoo-bench run     # all of them; each is tried for a minute first")
    return EXIT_OK


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
        r"(?m)^  backends: \[.*?\]": f"  backends: [{backend}]",
        r"(?m)^  backend: \[.*?\]": f"  backend: [{backend}]",
        r"(?m)^# yaml-language-server.*\n": "",
    }
    if found.coco:
        changes[r"(?m)^    root: data/coco\b"] = f"    root: {found.coco}"
    if gpus:
        changes[r"(?m)^  gpus: 8\n  images_per_gpu"] = f"  gpus: {len(gpus)}\n  images_per_gpu"
        changes[r"(?m)^  gpus: 8\n  gpu: .*"] = f"  gpus: {len(gpus)}\n  gpu: {gpus[0].name}"
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement.replace("\\", r"\\"), text)
        if count != 1:
            raise ConfigError(f"the matrix that came with zoo-bench has changed: {pattern} is in it {count} times")
    return text
