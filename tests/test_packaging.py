from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import Zoo

from zoo_bench.installer import uv_path
from zoo_bench.workspace import bundled_root

ROOT = Path(__file__).parent.parent
LOCKS = sorted([*ROOT.glob("requirements/*.txt"), *ROOT.glob("models/*/locks/*.txt")])
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "results", "data", "*.egg-info", "__pycache__")


def run(*command: str | Path, cwd: Path) -> str:
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ZOO_BENCH"))}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of a copy of the checkout, and the wheel that was built from that."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    (folder / "source" / "models" / "fake" / "__pycache__").mkdir()
    (folder / "source" / "models" / "fake" / "__pycache__" / "train.cpython-310.pyc").touch()
    build = ("--no-build-isolation", "--python", sys.executable, "--out-dir", folder / "dist")
    run(uv_path(), "build", "--quiet", *build, cwd=folder / "source")
    return folder / "dist"


def names_in_wheel(distributions: Path) -> set[str]:
    return set(zipfile.ZipFile(next(distributions.glob("*.whl"))).namelist())


@pytest.mark.slow
def test_the_wheel_carries_all_that_a_zoo_needs(distributions: Path) -> None:
    names = names_in_wheel(distributions)
    files = {
        path.relative_to(ROOT).as_posix()
        for name in ("models", "templates")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts[len(ROOT.parts) :])
    }
    assert {f"zoo_bench/_bundled/{name}" for name in files | {"matrix.yaml"}} <= names
    published = {path.relative_to(ROOT / "bench").as_posix() for path in (ROOT / "bench").rglob("references/*/*.yaml")}
    assert published
    assert published <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("models/", "tests/"))]


@pytest.mark.slow
def test_the_source_distribution_holds_only_sources(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"setup.py", "LICENSE", "README.md", "matrix.yaml", "models/worker.py"} <= names
    assert not [name for name in names if "__pycache__" in name]


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment that has the wheel and what it depends on, at the locked versions."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(uv_path(), "venv", "--quiet", "--no-project", "--python", sys.executable, venv, cwd=venv.parent)
    into = ("--python", venv / "bin" / "python", "--constraint", ROOT / "requirements" / "dev.txt")
    run(uv_path(), "pip", "install", "--quiet", *into, next(distributions.glob("*.whl")), cwd=venv.parent)
    return venv / "bin"


@pytest.mark.slow
def test_the_wheel_alone_gives_a_zoo_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    plan = run(installed / "zoo-bench", "plan", "--profile", "smoke", cwd=tmp_path)
    assert "16 of 16 would run" in plan
    assert "Mask RCNN" in run(installed / "zoo-bench", "render", cwd=tmp_path)
    assert "SimpleDet" in run(installed / "zoo-bench", "compare", "--published", cwd=tmp_path)
    ask = "from zoo_bench.workspace import bundled_root; print(bundled_root())"
    found = Path(run(installed / "python", "-c", ask, cwd=tmp_path).strip())
    assert (found.name, found.parent.name) == ("_bundled", "zoo_bench")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_workers_run_from_the_wheel(installed: Path, zoo: Zoo) -> None:
    run(installed / "zoo-bench", "run", cwd=zoo.root)
    assert [record.status for record in zoo.records] == ["succeeded", "succeeded"]


def test_in_a_checkout_nothing_is_copied() -> None:
    assert bundled_root() == ROOT


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"https?:|file:|index-url|find-links|/(root|home|work)/", text)
    blocks = re.findall(r"^[A-Za-z0-9].*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert blocks
    assert [block for block in blocks if "==" not in block or "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*/locks/*.txt")), ids=lambda path: path.name)
def test_a_lock_holds_what_its_source_asks_for(path: Path) -> None:
    source = path.with_suffix(".in").read_text()
    asked = [line for line in source.splitlines() if line and not line.startswith("#")]
    lock = path.read_text()
    for requirement in asked:
        pinned = requirement if "==" in requirement else f"{re.split('[<>]', requirement)[0]}=="
        assert re.search(rf"^{re.escape(pinned)}", lock, re.MULTILINE), requirement


def test_the_lock_of_the_checkout_holds_every_dependency() -> None:
    setup = (ROOT / "setup.py").read_text()
    names = re.findall(r'^ {8,}"([A-Za-z][A-Za-z0-9-]*)(?:>=[0-9.]+)?",$', setup, re.MULTILINE)
    assert {"torch", "pydantic"} & set(names) == {"pydantic"}
    lock = (ROOT / "requirements" / "dev.txt").read_text()
    assert [name for name in names if not re.search(rf"^{name.lower()}==", lock, re.MULTILINE)] == []
