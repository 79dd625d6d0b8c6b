from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zoo_bench.backends import Backend, find_backend, list_backends, sources_sha256, worker_variables
from zoo_bench.errors import ConfigError
from zoo_bench.workspace import Workspace, bundled_root

SPEC = """\
name: tiny
description: for a test
run: models.tiny.train
offers: {detectors: [retinanet_fpn], backbones: [r18], precisions: [fp32], max_gpus: 1}
default_variant: current
variants:
  current: {about: nothing, python: ">=3.10"}
"""


def workspace_with(root: Path, spec: str = SPEC, name: str = "tiny") -> Workspace:
    folder = root / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    (root / "models" / "__init__.py").touch()
    (folder / "backend.yaml").write_text(spec)
    return Workspace.locate(root)


def test_the_installed_backends_are_found_from_an_empty_folder(tmp_path: Path) -> None:
    workspace = Workspace.locate(tmp_path)
    assert [backend.name for backend in list_backends(workspace)] == ["fake", "gluoncv", "torchvision"]
    torchvision = find_backend("torchvision", workspace)
    assert torchvision.root == bundled_root()
    assert torchvision.spec.run == "models.torchvision.train"
    for variant in torchvision.spec.variants.values():
        lock = torchvision.lock_path(variant)
        assert lock is not None
        assert lock.is_file()


def test_every_module_a_backend_names_exists(tmp_path: Path) -> None:
    for backend in list_backends(Workspace.locate(tmp_path)):
        for module in filter(None, (backend.spec.run, backend.spec.probe)):
            assert (backend.root / (module.replace(".", "/") + ".py")).is_file(), module


def test_a_workspace_backend_wins_over_the_installed_one(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path, SPEC.replace("name: tiny", "name: fake"), "fake")
    assert find_backend("fake", workspace).spec.description == "for a test"
    assert find_backend("torchvision", workspace).root == bundled_root()


def test_an_unknown_backend_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_backend("torchvison", Workspace.locate(tmp_path))
    assert caught.value.hint == "did you mean 'torchvision'?"


def test_what_editors_leave_behind_is_no_source(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path)
    backend = find_backend("tiny", workspace)
    before = sources_sha256(backend)
    (backend.folder / ".#train.py").symlink_to("user@host.1234")
    (backend.folder / "gone.py").symlink_to("nowhere")
    (backend.folder / "folder.py").mkdir()
    (backend.folder / ".ipynb_checkpoints").mkdir()
    (backend.folder / ".ipynb_checkpoints" / "train.py").write_text("1\n")
    assert sources_sha256(backend) == before


def test_an_unknown_variant_is_answered_with_the_nearest(tmp_path: Path) -> None:
    backend = find_backend("torchvision", Workspace.locate(tmp_path))
    with pytest.raises(ConfigError) as caught:
        backend.variant("volt")
    assert caught.value.hint == "did you mean 'volta'?"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (SPEC.replace("run:", "runs:"), "backend.yaml:3: runs: unknown key; did you mean 'run'?"),
        (SPEC.replace("max_gpus: 1", "max_gpus: -1"), "backend.yaml:4: offers.max_gpus:"),
        (SPEC.replace(">=3.10", "3.10"), "backend.yaml:7: variants.current.python:"),
        (SPEC.replace("default_variant: current", "default_variant: curent"), "did you mean 'current'?"),
        (SPEC.replace("name: tiny", "name: other"), "expected 'tiny', the folder's name, found 'other'"),
        ("- a list", "expected a mapping"),
    ],
)
def test_a_broken_specification_names_file_line_and_key(tmp_path: Path, broken: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_backend("tiny", workspace_with(tmp_path, broken))
    assert said in caught.value.message


def test_a_missing_lock_is_an_error(tmp_path: Path) -> None:
    spec = SPEC.replace('">=3.10"', '">=3.10", lock: locks/none.txt')
    backend = find_backend("tiny", workspace_with(tmp_path, spec))
    with pytest.raises(ConfigError, match=r"none\.txt does not exist"):
        backend.lock_path(backend.variant())


def test_models_without_an_init_would_run_the_installed_code(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path)
    (tmp_path / "models" / "__init__.py").unlink()
    with pytest.raises(ConfigError) as caught:
        find_backend("tiny", workspace)
    assert caught.value.hint.startswith("copy it: cp ")


def _copied(tmp_path: Path) -> tuple[Backend, Path]:
    shutil.copytree(bundled_root() / "models", tmp_path / "models", ignore=shutil.ignore_patterns(".*"))
    return find_backend("fake", Workspace.locate(tmp_path)), tmp_path / "models"


def test_the_sources_digest_follows_what_a_worker_runs(tmp_path: Path) -> None:
    backend, models = _copied(tmp_path)
    before = sources_sha256(backend)
    assert before == sources_sha256(find_backend("fake", Workspace.locate(tmp_path / "models")))
    (models / "fake" / "notes.txt").write_text("not run")
    assert sources_sha256(backend) == before
    digests = {before}
    for name in ("worker.py", "coco.py", "fake/train.py", "fake/backend.yaml", "fake/new.py"):
        with (models / name).open("a") as stream:
            stream.write("# changed\n")
        digests.add(sources_sha256(backend))
    assert len(digests) == 6


def test_a_backend_of_its_own_takes_what_all_share_from_the_installation(tmp_path: Path) -> None:
    backend = find_backend("tiny", workspace_with(tmp_path))
    before = sources_sha256(backend)
    (tmp_path / "models" / "worker.py").write_text("# the workspace's own comes first\n")
    assert sources_sha256(backend) != before


def test_worker_variables_do_not_reach_into_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    monkeypatch.setenv("KEPT", "yes")
    variables = worker_variables()
    assert variables["PYTHONPATH"] == str(bundled_root())
    assert "PYTHONHOME" not in variables
    assert variables["KEPT"] == "yes"
