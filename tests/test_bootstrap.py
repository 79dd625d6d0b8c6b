from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from zoo_bench.installer import uv_path

ROOT = Path(__file__).parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "results", "data", "*.egg-info", "__pycache__")
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT, tmp_path / "a checkout", ignore=NOT_SOURCE)
    return tmp_path / "a checkout"


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """A real Python as Debian's is: without pip and ensurepip, and marked as externally managed."""
    prefix = tmp_path / "python"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(Path(sys.base_prefix) / "bin" / VERSION, prefix / "bin" / "python3")
    unwanted = shutil.ignore_patterns("site-packages", "dist-packages", "ensurepip", "test", "__pycache__")
    library = prefix / "lib" / VERSION
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=unwanted)
    (library / "site-packages").mkdir()
    (library / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=ask the distribution\n")
    for shared in (Path(sys.base_prefix) / "lib").glob(f"lib{VERSION}*.so*"):
        shutil.copy2(shared, prefix / "lib")
    return prefix / "bin" / "python3"


def give_pip(python: Path, folder: Path) -> None:
    subprocess.run(
        [uv_path(), "venv", "--quiet", "--seed", "--no-project", "--python", sys.executable, folder], check=True
    )
    # Debian's Python looks in other folders than everybody else's.
    ask = [python, "-c", "import site; print(site.getsitepackages()[0])"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    assert packages.is_relative_to(python.parent.parent)
    shutil.copytree(folder / "lib" / VERSION / "site-packages" / "pip", packages / "pip")


def bootstrap(
    checkout: Path, python: Path, *arguments: str, path: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the bootstrap with nothing on the PATH but `python` and `path`, and an empty home."""
    home = checkout.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "PYENV", "VIRTUAL_ENV", "CONDA", "ZOO_BENCH"))
    }
    cache = subprocess.run([uv_path(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    search = os.pathsep.join(filter(None, (str(python.parent), path)))
    kept.update({"HOME": str(home), "PATH": search, "UV_CACHE_DIR": cache, **variables})
    command = [str(python), str(checkout / "tools" / "bootstrap.py"), *arguments]
    return subprocess.run(command, env=kept, cwd=home, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_externally_managed_python_without_venv_is_enough(checkout: Path, bare_python: Path, tmp_path: Path) -> None:
    give_pip(bare_python, tmp_path / "seeded")
    first = bootstrap(checkout, bare_python)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "installing uv into .zoo-bench/uv" in first.stdout
    command = checkout / ".venv" / "bin" / "zoo-bench"
    assert subprocess.run([command, "--help"], capture_output=True, check=False).returncode == 0

    started = time.monotonic()
    again = bootstrap(checkout, bare_python)
    assert (again.returncode, again.stdout) == (0, "")
    assert time.monotonic() - started < 1

    hint = bootstrap(checkout, bare_python, "--hint")
    assert f'export PATH="{command.parent}:$PATH"' in hint.stdout
    assert "is on your PATH" in bootstrap(checkout, bare_python, "--hint", path=str(command.parent)).stdout

    with (checkout / "setup.py").open("a") as stream:
        stream.write("# changed\n")
    assert "making .venv" in bootstrap(checkout, bare_python).stdout


@pytest.mark.slow
def test_without_pip_and_ensurepip_it_says_what_to_install(checkout: Path, bare_python: Path) -> None:
    done = bootstrap(checkout, bare_python)
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_that_was_named_is_the_only_one_tried(checkout: Path) -> None:
    done = bootstrap(checkout, Path(sys.executable), PYTHON="/nonexistent/python")
    assert done.returncode == 1
    assert "PYTHON=/nonexistent/python does not run; name a Python 3.10 or newer" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_too_old_is_named_with_its_version(checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho '[[3, 6], null]'\n")
    old.chmod(0o755)
    done = bootstrap(checkout, Path(sys.executable), PYTHON=str(old))
    assert f"PYTHON={old} is Python 3.6; name a Python 3.10 or newer" in done.stderr
