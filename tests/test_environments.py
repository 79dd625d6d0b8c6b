from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zoo_bench.backends import Backend, find_backend
from zoo_bench.environments import ensure_environment, environment_status
from zoo_bench.errors import ConfigError, EnvironmentBuildError
from zoo_bench.interpreters import find_interpreter, interpreter_version, newest, satisfies
from zoo_bench.machine_config import BackendChoice, MachineConfig
from zoo_bench.workspace import Workspace

ROOT = Path(__file__).parent.parent
PACKAGE = "iniconfig"
SPEC = """\
name: tiny
description: for a test
run: models.tiny.train
offers: {{detectors: [retinanet_fpn], backbones: [r18], precisions: [fp32], max_gpus: 1}}
default_variant: current
variants:
  current: {{about: one small package, python: "{python}", lock: lock.txt, disk_bytes: {disk_bytes}}}
  plain: {{about: nothing, python: ">=3.10"}}
"""
# A harness of its own: $1 is the workspace, $2 the word in a progress line at which it kills itself.
CHILD = """\
import os, signal, sys
from pathlib import Path
from zoo_bench.backends import find_backend
from zoo_bench.environments import ensure_environment
from zoo_bench.machine_config import MachineConfig
from zoo_bench.workspace import Workspace

def progress(line):
    print(line, flush=True)
    if sys.argv[2] in line:
        os.kill(os.getpid(), signal.SIGKILL)

workspace = Workspace.locate(Path(sys.argv[1]))
print(ensure_environment(find_backend("tiny", workspace), workspace, MachineConfig(), progress).python)
"""


def locked(package: str) -> str:
    """One package of our own lock, with its hashes."""
    text = (ROOT / "requirements" / "dev.txt").read_text()
    found = re.search(rf"^{package}==.*?(?=^\S)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def make_workspace(root: Path, lock: str = "", python: str = ">=3.10", disk_bytes: int = 1) -> Workspace:
    folder = root / "models" / "tiny"
    folder.mkdir(parents=True)
    (root / "models" / "__init__.py").touch()
    (folder / "backend.yaml").write_text(SPEC.format(python=python, disk_bytes=disk_bytes))
    (folder / "lock.txt").write_text(lock or locked(PACKAGE))
    return Workspace.locate(root)


def tiny(workspace: Workspace) -> Backend:
    return find_backend("tiny", workspace)


def imports(python: Path, package: str) -> bool:
    done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False, cwd="/")
    return done.returncode == 0


@pytest.mark.slow
def test_an_environment_is_built_once_and_holds_what_the_lock_says(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    backend = tiny(workspace)
    before = environment_status(backend, workspace, MachineConfig())
    assert (before.ready, before.detail) == (False, "not built yet")
    assert not workspace.envs.exists()

    said: list[str] = []
    environment = ensure_environment(backend, workspace, MachineConfig(), said.append)
    assert environment.python == before.python
    assert environment.lock_sha256 == before.lock_sha256
    assert environment.python.parent.parent.name == f"tiny-current-{before.lock_sha256[:8]}"  # type: ignore[index]
    assert imports(environment.python, PACKAGE)
    assert not imports(environment.python, "pydantic"), "the harness's packages must not be seen"
    assert "one small package" in said[0]
    assert said[-1] == "tiny (current): ready"
    assert environment_status(backend, workspace, MachineConfig()).ready

    said.clear()
    assert ensure_environment(backend, workspace, MachineConfig(), said.append) == environment
    assert said == []


def test_what_a_lock_says_of_itself_does_not_count(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    before = environment_status(tiny(workspace), workspace, MachineConfig())
    lock = tmp_path / "models" / "tiny" / "lock.txt"
    lock.write_text("# made on another day\n" + lock.read_text() + "    # via -r another.in\n")
    assert environment_status(tiny(workspace), workspace, MachineConfig()) == before
    lock.write_text(lock.read_text() + "six==1.17.0\n")
    assert environment_status(tiny(workspace), workspace, MachineConfig()).lock_sha256 != before.lock_sha256


@pytest.mark.slow
def test_a_killed_build_is_not_taken_for_a_good_one(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    killed = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), "Installed"], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(workspace.envs.glob("*.building-*"))
    assert not environment_status(tiny(workspace), workspace, MachineConfig()).ready
    environment = ensure_environment(tiny(workspace), workspace, MachineConfig(), print)
    assert imports(environment.python, PACKAGE)
    assert not list(workspace.envs.glob("*.building-*"))


@pytest.mark.slow
def test_two_harnesses_build_one_environment(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), "no such word"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=60)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert sum("tiny (current): ready" in lines for lines in outputs) == 1


@pytest.mark.slow
def test_a_damaged_environment_is_built_again(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    environment = ensure_environment(tiny(workspace), workspace, MachineConfig(), print)
    marker = environment.python.parent.parent / "zoo-bench.json"
    for damage, said in (
        (lambda: marker.write_text("{}"), "missing or damaged"),
        (environment.python.unlink, "is gone"),
        (lambda: marker.write_text('{"python": [3, 4]}'), "made for Python 3.4"),
    ):
        damage()
        assert said in environment_status(tiny(workspace), workspace, MachineConfig()).detail
        ensure_environment(tiny(workspace), workspace, MachineConfig(), print)
        assert imports(environment.python, PACKAGE)


@pytest.mark.slow
def test_a_file_with_another_hash_is_refused_with_what_uv_said(tmp_path: Path) -> None:
    lock = re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, locked(PACKAGE))
    workspace = make_workspace(tmp_path, lock)
    with pytest.raises(EnvironmentBuildError) as caught:
        ensure_environment(tiny(workspace), workspace, MachineConfig(), print)
    assert "tiny (current)" in caught.value.message
    assert "ash mismatch" in caught.value.message
    log = next(workspace.envs.glob("*.log"))
    assert str(log) in caught.value.message
    assert "pip sync" in log.read_text()
    assert not environment_status(tiny(workspace), workspace, MachineConfig()).ready


def test_a_requirement_without_a_hash_is_refused(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, f"{PACKAGE}\n")
    with pytest.raises(EnvironmentBuildError, match="hash"):
        ensure_environment(tiny(workspace), workspace, MachineConfig(), print)


@pytest.mark.parametrize(
    ("python", "ways"),
    [
        (">=3.90,<3.91", "pyenv install 3.14, or .*/uv python install 3.14"),
        ("==3.8", "pyenv install 3.8, or .*/uv python install 3.8"),
        ("==3.7", "pyenv install 3.7"),  # which uv does not have any more
    ],
)
def test_no_python_that_fits_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str, ways: str
) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    for variable in ("PATH", "HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    workspace = make_workspace(tmp_path, python=python)
    with pytest.raises(EnvironmentBuildError) as caught:
        ensure_environment(tiny(workspace), workspace, MachineConfig(), print)
    told = rf"install a Python {python} \({ways}\); or name one that has the packages in machine\.yaml"
    assert re.fullmatch(told, caught.value.hint)


def test_pyenv_is_looked_for_where_it_says_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = sys.version_info[:2]
    minor = 11 if own != (3, 11) else 12
    python = tmp_path / "versions" / f"3.{minor}.1" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho 3.{minor}\n")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert find_interpreter(f"==3.{minor}") == python


def test_too_little_disk_is_said_before_anything_is_downloaded(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, disk_bytes=10**18)
    with pytest.raises(EnvironmentBuildError, match=r"needs 1000000000\.0 GB"):
        ensure_environment(tiny(workspace), workspace, MachineConfig(), print)
    assert not list(workspace.envs.glob("*.log"))


def test_a_variant_without_a_lock_runs_in_our_own_interpreter(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    environment = ensure_environment(tiny(workspace), workspace, MachineConfig(), print, "plain")
    assert (environment.python, environment.source) == (Path(sys.executable), "harness")
    assert environment.lock_sha256 is None
    assert not workspace.envs.exists()


def test_the_machine_configuration_chooses_variant_and_interpreter(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    plain = MachineConfig(backends={"tiny": BackendChoice(variant="plain")})
    assert environment_status(tiny(workspace), workspace, plain).source == "harness"
    own = MachineConfig(backends={"tiny": BackendChoice(python=Path(sys.executable))}, source=tmp_path / "m.yaml")
    environment = ensure_environment(tiny(workspace), workspace, own, print)
    assert (environment.python, environment.source) == (Path(sys.executable), "machine")
    wrong = MachineConfig(backends={"tiny": BackendChoice(variant="plane")})
    with pytest.raises(ConfigError, match="no variant 'plane'"):
        environment_status(tiny(workspace), workspace, wrong)


def test_an_interpreter_that_exists_already_must_be_of_a_fitting_version(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, python=">=3.90")
    own = MachineConfig(backends={"tiny": BackendChoice(python=Path(sys.executable))}, source=tmp_path / "m.yaml")
    with pytest.raises(
        EnvironmentBuildError, match=rf"{sys.executable} is Python 3\.\d+, and backend.yaml says >=3.90"
    ):
        ensure_environment(tiny(workspace), workspace, own, print)


def test_an_interpreter_that_does_not_run_is_named_with_file_and_key(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    config = MachineConfig(
        backends={"tiny": BackendChoice(python=Path("/nonexistent/python"))}, source=Path("/x/machine.yaml")
    )
    assert not environment_status(tiny(workspace), workspace, config).ready
    with pytest.raises(EnvironmentBuildError, match=r"/x/machine.yaml: backends\.tiny\.python: /nonexistent"):
        ensure_environment(tiny(workspace), workspace, config, print)


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ((3, 10), ">=3.10,<3.14", True),
        ((3, 13), ">=3.10, <3.14", True),
        ((3, 14), ">=3.10,<3.14", False),
        ((3, 9), ">=3.10", False),
        ((3, 6), "==3.6", True),
        ((3, 7), "!=3.7", False),
        ((3, 8), ">3.8", False),
        ((3, 8), "<=3.8", True),
        ((3, 8), "nonsense", False),
    ],
)
def test_satisfies(version: tuple[int, int], wanted: str, fits: bool) -> None:
    assert satisfies(version, wanted) is fits


def test_our_own_interpreter_comes_first() -> None:
    assert find_interpreter(">=3.10") == Path(sys.executable)
    assert newest(">=3.10,<3.13") == "3.12"


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = sys.version_info[:2]
    minor = 11 if own != (3, 11) else 12
    shim = tmp_path / f"python3.{minor}"
    shim.write_text("#!/bin/sh\necho 'not active' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    assert interpreter_version(shim) is None
    assert find_interpreter(f"==3.{minor}") is None
