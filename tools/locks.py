"""Resolves the locks of the worker environments: models/*/locks/*.txt, each from the .in file beside it.

backend.yaml says for which Pythons. A lock for a range of them is resolved for all from the oldest on, and for every
platform. A lock for one Python is that of an old framework: it is resolved for this Python on Linux alone, from
wheels alone, since many a package's last version for an old Python no longer builds from its sources. Requirements
in ``locks/overrides.in`` take the place of what packages ask for. Arguments go to uv.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from zoo_bench.backends import Backend, Variant, list_backends
from zoo_bench.installer import uv_path
from zoo_bench.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
# Of the oldest system that the old frameworks' own wheels run on, so that all others do.
OLD_PLATFORM = "x86_64-manylinux2014"


def main(arguments: list[str]) -> int:
    """Resolve every lock; return the exit code of the first uv that failed."""
    for backend in list_backends(Workspace.locate(ROOT)):
        for variant in backend.spec.variants.values():
            if variant.lock is not None:
                code = resolve(backend, variant, backend.folder / variant.lock, arguments)
                if code != 0:
                    return code
    return 0


def resolve(backend: Backend, variant: Variant, lock: Path, arguments: list[str]) -> int:
    """Resolve one lock, keeping the pins that still fit; return uv's exit code."""
    source = lock.with_suffix(".in").relative_to(ROOT)
    overrides = backend.folder / "locks" / "overrides.in"
    given = ["--override", str(overrides.relative_to(ROOT))] if overrides.is_file() else []
    print(source, flush=True)
    command = [uv_path(), "pip", "compile", str(source), "--output-file", str(lock.relative_to(ROOT))]
    return subprocess.run([*command, *pythons(variant.python), *given, *arguments], cwd=ROOT, check=False).returncode


def pythons(wanted: str) -> list[str]:
    """Return uv's options for the Pythons of a variant, such as ``==3.8`` or ``>=3.10,<3.14``."""
    only = re.fullmatch(r"\s*==\s*(\d+\.\d+)\s*", wanted)
    if only:
        return ["--python-version", only[1], "--python-platform", OLD_PLATFORM, "--only-binary", ":all:"]
    oldest = re.search(r">=\s*(\d+\.\d+)", wanted)
    if oldest is None:
        raise SystemExit(f"a lock for the Pythons '{wanted}' cannot be resolved; write '==3.8' or '>=3.10,<3.14'")
    return ["--universal", "--python-version", oldest[1]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
