"""A clone of this repository whose zoo is the fake backend's, and a repository for its results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import FAKE, REPOSITORY

from zoo_bench.recipe import merge

CELL = "fake/retinanet_r50_fpn_1x_shapes"
# A fake iteration takes what it is told to, and a busy machine's clock: what is looked for here is three times as much.
ROUGH = {"check": {"least_change": {"memory": 1.0, "s_per_iter": 0.5, "fps": 1.0}}}
QUICK = {"axes": {"detector": ["retinanet_fpn"]}, "profiles": {"quick": {"set": {"options": {"iteration_s": 0.02}}}}}


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A Tester", "-c", "user.email=tester@localhost", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


class Clone:
    """A clone of this repository, whose zoo is the fake backend's, and a repository for its results."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "zoo"
        origin = folder / "results.git"
        copy_of_repository(self.root)
        matrix = yaml.safe_load((self.root / "matrix.yaml").read_text())
        for values in (FAKE, QUICK, ROUGH):
            matrix = merge(matrix, values)
        (self.root / "matrix.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False))
        self.commit("the fake zoo")
        git(folder, "init", "--bare", str(origin))
        self.origin = origin

    def commit(self, message: str) -> str:
        git(self.root, "add", "--all", "--", ".", ":!results")
        git(self.root, "commit", "--allow-empty", "-m", message)
        return git(self.root, "rev-parse", "HEAD")

    def slow_down(self, times: int) -> str:
        """Commit a worker whose iterations take so many times as long."""
        worker = self.root / "models" / "fake" / "train.py"
        text = worker.read_text()
        told = 'options.get("iteration_s", 0.001)'
        assert told in text
        worker.write_text(text.replace(told, f"{times} * {told}"))
        return self.commit("a worker that takes its time")

    def sh(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        hidden = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=self.root,
            env={**hidden, "PATH": path, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def copy_of_repository(to: Path) -> None:
    """What a clone of the working tree would hold: what git knows of, as it is now."""
    names = git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file() and not name.startswith("results/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, to / name)
    git(to, "init")
