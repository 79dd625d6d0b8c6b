"""Runs the tests of the workers, tests/workers/<backend>, each in the worker environment of its backend.

Those in tests/workers/shared hold for every worker, and are run in every environment.

    tools/worker_tests.py [--backend NAME] [arguments for pytest]

The environments are those `zoo-bench run` uses, built by the same code. pytest is not part of them: it is
installed into folders of its own, from requirements/worker-tests.txt, and laid over each environment with
PYTHONPATH, so that testing changes nothing of what a record's fingerprint speaks of.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from zoo_bench.backends import find_backend, worker_variables
from zoo_bench.environments import WorkerEnvironment, ensure_environment
from zoo_bench.errors import ZooBenchError
from zoo_bench.installer import uv_path, uv_variables
from zoo_bench.machine_config import load_machine_config
from zoo_bench.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "worker-tests.txt"
TESTS = ROOT / "tests" / "workers"
SHARED = "shared"
BACKENDS = sorted({path.parent.name for path in TESTS.glob("*/test_*.py")} - {SHARED})
# The backend whose figures others are held against: tests/workers/<backend>/references.py runs in its environment.
PEER = "torchvision"
REFERENCES = "ZOO_BENCH_REFERENCES"
NOTHING_SELECTED = 5  # pytest's exit code; another backend's tests may be meant


def main(arguments: list[str]) -> int:
    """Build what is missing and run the tests; return the first exit code of pytest that is not 0."""
    parser = argparse.ArgumentParser(description="Runs the tests of the workers.", allow_abbrev=False)
    parser.add_argument("--backend", choices=BACKENDS, help="run the tests of this one only; default: all")
    chosen, for_pytest = parser.parse_known_args(arguments)
    codes = []
    for name in [chosen.backend] if chosen.backend else BACKENDS:
        print(f"tests/workers: {SHARED} and {name}, in the environment of {name}:", flush=True)
        codes.append(run_tests(name, for_pytest))
    failed = [code for code in codes if code not in (0, NOTHING_SELECTED)]
    return next(iter(failed), min(codes))


def run_tests(name: str, arguments: list[str]) -> int:
    """Run the tests of one backend's worker in its environment; return pytest's exit code."""
    workspace = Workspace.locate(ROOT)
    try:
        python, variables = prepared(name, workspace)
        references = TESTS / name / "references.py"
        if references.is_file():
            folder = workspace.state / "worker-tests" / f"references-{name}"
            shutil.rmtree(folder, ignore_errors=True)
            peer, its_variables = prepared(PEER, workspace)
            subprocess.run([peer, str(references), str(folder)], cwd=ROOT, env=its_variables, check=True)
            variables[REFERENCES] = str(folder)
    except ZooBenchError as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    command = [python, "-m", "pytest", str(TESTS / SHARED), str(TESTS / name), *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode


def prepared(name: str, workspace: Workspace) -> tuple[str, dict[str, str]]:
    """Return the interpreter of a backend and the variables that its tests start with; build what is missing."""
    backend = find_backend(name, workspace)
    environment = ensure_environment(backend, workspace, load_machine_config(workspace), print)
    overlay = ensure_overlay(environment, workspace)
    variables = worker_variables()
    variables["PYTHONPATH"] = os.pathsep.join([str(overlay), variables["PYTHONPATH"]])
    return str(environment.python), variables


def ensure_overlay(environment: WorkerEnvironment, workspace: Workspace) -> Path:
    """Return the folder that holds pytest for this environment's Python; install it first if need be."""
    made_from = f"{environment.python}\0{LOCK.read_text(encoding='utf-8')}"
    name = hashlib.sha256(made_from.encode()).hexdigest()[:8]
    folder = workspace.state / "worker-tests" / name
    if not folder.is_dir():
        beside = folder.with_name(f"{folder.name}.building-{os.getpid()}")
        install = ["pip", "install", "--quiet", "--require-hashes", "--requirement", str(LOCK)]
        where = ["--python", str(environment.python), "--target", str(beside)]
        subprocess.run([uv_path(), *install, *where], env=uv_variables(workspace.state / "uv-cache"), check=True)
        beside.rename(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
