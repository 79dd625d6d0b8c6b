from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from zoo_bench.backends import Backend, find_backend
from zoo_bench.errors import ConfigError, EnvironmentBuildError
from zoo_bench.machine import cpu_model, describe_limits, describe_machine
from zoo_bench.machine_config import config_paths, load_machine_config
from zoo_bench.probe import probe_backend
from zoo_bench.workspace import Workspace

SPEC = """\
name: tiny
description: for a test
run: models.tiny.train
probe: models.tiny.probe
offers: {detectors: [retinanet_fpn], backbones: [r18], precisions: [fp32], max_gpus: 1}
default_variant: current
variants: {current: {about: nothing, python: ">=3.10"}}
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ZOO_BENCH_MACHINE", raising=False)
    root = tmp_path / "zoo"
    root.mkdir()
    return Workspace.locate(root)


def test_without_a_file_nothing_is_configured(workspace: Workspace) -> None:
    config = load_machine_config(workspace)
    assert (dict(config.datasets), dict(config.backends), config.source) == ({}, {}, None)
    assert config.backend("torchvision").python is None


def test_the_first_file_found_is_the_one_read(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_workspace, of_user = config_paths(workspace)
    assert of_user == tmp_path / "config" / "zoo-bench" / "machine.yaml"
    of_user.parent.mkdir(parents=True)
    of_user.write_text("datasets: {coco_2017: /of/user}\n")
    assert load_machine_config(workspace).datasets == {"coco_2017": Path("/of/user")}
    in_workspace.write_text("datasets: {coco_2017: ~/coco}\n")
    config = load_machine_config(workspace)
    assert config.datasets == {"coco_2017": Path("~/coco").expanduser()}
    assert config.source == in_workspace
    named = tmp_path / "named.yaml"
    named.write_text("backends: {torchvision: {variant: volta, python: /opt/conda/bin/python}}\n")
    monkeypatch.setenv("ZOO_BENCH_MACHINE", str(named))
    choice = load_machine_config(workspace).backend("torchvision")
    assert (choice.variant, choice.python) == ("volta", Path("/opt/conda/bin/python"))


def test_a_named_file_that_is_not_there_is_an_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_BENCH_MACHINE", "/nonexistent.yaml")
    with pytest.raises(ConfigError, match=r"ZOO_BENCH_MACHINE=/nonexistent\.yaml: no such file"):
        load_machine_config(workspace)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: {coco: data/coco}\n", "machine.yaml:1: datasets.coco: expected an absolute path"),
        ("datasets: {}\nbackend: {}\n", "machine.yaml:2: backend: unknown key; did you mean 'backends'?"),
        ("backends:\n  fake: {pyton: /x}\n", "machine.yaml:2: backends.fake.pyton: unknown key; did you mean"),
        ("backends: [\n", "machine.yaml:2:1: not valid YAML"),
    ],
)
def test_a_broken_file_is_named_with_line_and_key(workspace: Workspace, text: str, said: str) -> None:
    config_paths(workspace)[0].write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_machine_config(workspace)
    assert said in caught.value.message


def test_this_machine_is_described_whether_or_not_it_has_a_gpu(tmp_path: Path) -> None:
    machine = describe_machine()
    assert machine.cores >= 1
    assert 1 <= machine.threads <= (os.cpu_count() or 1)
    assert machine.memory_bytes > 2**28
    assert machine.cpu
    assert (machine.driver is None) == (machine.nvml_problem is not None)
    assert not machine.gpus or machine.nvml_problem is None
    limits = describe_limits(tmp_path)
    assert limits.disk_free_bytes > 0
    assert limits.open_files > 0


def test_the_cpu_is_named_as_its_maker_names_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Silver 4114 CPU @ 2.20GHz\n")
    assert cpu_model(cpuinfo) == "Intel(R) Xeon(R) Silver 4114 CPU @ 2.20GHz"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert cpu_model(cpuinfo)


def backend_with_probe(workspace: Workspace, code: str) -> Backend:
    folder = workspace.root / "models" / "tiny"
    folder.mkdir(parents=True)
    (workspace.root / "models" / "__init__.py").touch()
    (folder / "backend.yaml").write_text(SPEC)
    (folder / "probe.py").write_text(code)
    return find_backend("tiny", workspace)


def test_a_probe_may_be_surrounded_by_what_a_framework_prints(workspace: Workspace) -> None:
    code = """print('framework 1.0'); print('{"versions": {"x": "1", "cuda": null}, "arch_list": ["sm_70"]}')"""
    probe = probe_backend(backend_with_probe(workspace, code), Path(sys.executable))
    assert probe is not None
    assert probe.versions == {"x": "1", "cuda": None}
    assert probe.arch_list == ("sm_70",)
    assert not probe.cuda_available


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_framework", "No module named 'no_such_framework'"),
        ("print('hello')", "printed no JSON object"),
        ("print('{}')", "printed no JSON object"),
        ("pass", "printed no JSON object"),
    ],
)
def test_a_probe_that_fails_is_readable(workspace: Workspace, code: str, said: str) -> None:
    with pytest.raises(EnvironmentBuildError, match=said):
        probe_backend(backend_with_probe(workspace, code), Path(sys.executable))


def test_an_interpreter_that_is_not_there_is_readable(workspace: Workspace) -> None:
    with pytest.raises(EnvironmentBuildError, match="No such file"):
        probe_backend(backend_with_probe(workspace, ""), Path("/nonexistent/python"))


def test_a_backend_without_a_probe_has_nothing_to_say(workspace: Workspace) -> None:
    assert probe_backend(find_backend("fake", workspace), Path(sys.executable)) is None
