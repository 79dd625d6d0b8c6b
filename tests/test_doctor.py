"""What doctor says of worker environments: those that do not work, lack libraries, or cannot use the GPUs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Zoo

from zoo_bench.backends import find_backend
from zoo_bench.cell import expand
from zoo_bench.commands.doctor import Finding, _environments
from zoo_bench.environments import ensure_environment
from zoo_bench.interpreters import find_interpreter
from zoo_bench.machine import GpuDevice, describe_machine
from zoo_bench.machine_config import load_machine_config
from zoo_bench.preflight import needs_of, shortcomings
from zoo_bench.session import Asked, Session
from zoo_bench.workspace import Workspace

SPEC = """\
name: tiny
description: for a test
run: models.tiny.train
probe: models.tiny.probe
offers: {detectors: [mask-rcnn_fpn, retinanet_fpn], backbones: [r50], precisions: [fp32], max_gpus: 1}
default_variant: new
variants:
  new: {about: a framework for CUDA 11.2, python: ">=3.10"}
  old: {about: a framework for CUDA 9.0, python: ">=3.10"}
"""
V100 = GpuDevice(index=0, name="Tesla V100", uuid="GPU-0", memory_bytes=2**34, compute_capability="7.0")


def give_backend(zoo: Zoo, probe: str) -> None:
    """Let the zoo's cells be those of a backend with this probe.py, and of the fake one."""
    folder = zoo.root / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "backend.yaml").write_text(SPEC)
    (folder / "probe.py").write_text(probe)
    zoo.change({"axes": {"backend": ["tiny", "fake"]}})


def findings(zoo: Zoo, **probed: Any) -> dict[str, Finding]:
    """What doctor finds on a machine with a V100 when the backend's probe prints these values."""
    give_backend(zoo, f"print({json.dumps(probed)!r})")
    machine = describe_machine().model_copy(update={"gpus": (V100,)})
    session = Session.open(Asked(root=zoo.root))
    return {finding.what: finding for finding in _environments(session, machine) if finding.what.startswith("tiny")}


def test_a_probe_that_fails_hides_no_other_finding(zoo: Zoo) -> None:
    give_backend(zoo, "import no_such_framework")
    done = zoo.call("doctor")
    assert done.returncode == 0
    assert "No module named 'no_such_framework'" in done.stdout
    for what in ("tiny (new)", "lacks", "fake (current)", "dataset shapes"):
        assert what in done.stdout
    assert "backend tiny: its worker cannot start, see 'tiny (new)' above" in done.stdout


def test_missing_libraries_are_named_once_and_the_gpus_are_not_blamed(zoo: Zoo) -> None:
    lacking = ["libcudart.so.9.0", "libcublas.so.9.0"]
    found = findings(zoo, versions={"framework": "1.6.0", "cuda": None}, missing_libraries=lacking)
    assert set(found) == {"tiny (new)", "tiny (new) libraries"}
    assert found["tiny (new)"].found == "framework 1.6.0"
    libraries = found["tiny (new) libraries"]
    assert libraries.verdict == "lacks"
    assert libraries.found.startswith("a framework for CUDA 11.2, ")
    assert libraries.found.endswith("this machine lacks: libcudart.so.9.0, libcublas.so.9.0")
    assert "LD_LIBRARY_PATH" in libraries.remedy
    assert libraries.remedy.endswith("machine.yaml: backends: {tiny: {variant: ...}} (old)")


def test_an_unknown_list_of_targets_accuses_no_gpu(zoo: Zoo) -> None:
    found = findings(zoo, versions={"cuda": "9.0"}, arch_list=[], cuda_available=True)
    assert {what: finding.verdict for what, finding in found.items()} == {"tiny (new)": "ok"}


@pytest.mark.parametrize(("built", "verdict"), [("sm_70", "ok"), ("sm_75", "lacks")])
def test_a_known_list_of_targets_is_compared_with_the_gpu(zoo: Zoo, built: str, verdict: str) -> None:
    found = findings(zoo, versions={"cuda": "12.6"}, arch_list=[built], cuda_available=True)
    assert found["tiny on GPU 0"].verdict == verdict
    assert found["tiny on GPU 0"].found == f"sm_70; the build has {built}"


def test_a_build_for_cpus_is_not_blamed_on_the_driver(zoo: Zoo) -> None:
    found = findings(zoo, versions={"cuda": None})
    assert found["tiny on GPUs"].found == "the framework's build is for CPUs alone"
    assert found["tiny on GPUs"].remedy == "machine.yaml: backends: {tiny: {variant: ...}} (old)"


def test_a_build_for_gpus_that_cannot_use_them_is_said(zoo: Zoo) -> None:
    found = findings(zoo, versions={"cuda": "9.0"}, cuda_available=False)
    assert found["tiny on GPUs"].verdict == "lacks"
    assert "driver" in found["tiny on GPUs"].found


def test_a_build_for_cpus_is_refused_for_gpus_before_anything_starts(zoo: Zoo) -> None:
    zoo.change({"axes": {"backend": ["gluoncv"]}, "document": {"backends": ["gluoncv"]}})
    machine = describe_machine().model_copy(update={"gpus": (V100,) * 8, "nvml_problem": ""})

    def refused() -> list[str]:
        session = Session.open(Asked(root=zoo.root))
        found = shortcomings(session, needs_of(session, expand(session.matrix, "full")), machine)
        return [problem for problem in found if problem.startswith("backend")]

    (problem,) = refused()
    assert problem.startswith("backend gluoncv (cpu) is built for CPUs alone, and 8 GPU(s) are asked for; ")
    assert problem.endswith("{gluoncv: {variant: ...}} (cu90, cu112)")
    (zoo.root / "machine.yaml").write_text("backends: {gluoncv: {variant: cu90}}\n")
    assert refused() == []


@pytest.fixture
def cuda_9_zoo(zoo: Zoo) -> Iterator[Zoo]:
    """A workspace of gluoncv's cells, with the environment for CUDA 9.0 built from its lock, on a real Python 3.7."""
    if find_interpreter("==3.7") is None:
        assert "CI" not in os.environ, "CI has to have a Python 3.7"
        pytest.skip("there is no Python 3.7 on this machine (pyenv install 3.7)")
    zoo.change({"axes": {"backend": ["gluoncv"]}, "document": {"backends": ["gluoncv"]}})
    (zoo.root / "machine.yaml").write_text("backends: {gluoncv: {variant: cu90}}\n")
    workspace = Workspace.locate(zoo.root)
    ensure_environment(find_backend("gluoncv", workspace), workspace, load_machine_config(workspace), print)
    yield zoo
    shutil.rmtree(workspace.state)  # more than a gigabyte


@pytest.mark.slow
def test_the_environment_for_cuda_9_says_which_libraries_this_machine_lacks(cuda_9_zoo: Zoo) -> None:
    packages = next(cuda_9_zoo.root.glob(".zoo-bench/envs/gluoncv-cu90-*/lib/python3.7/site-packages"))
    lacking = not_found(packages / "mxnet" / "libmxnet.so")
    assert (packages / "cv2").is_dir()
    assert not list(packages.glob("opencv_python-*")), "the headless one takes its place"
    done = cuda_9_zoo.call("doctor")
    assert done.returncode == 0
    assert "python 3.7." in done.stdout
    assert "mxnet 1.6.0.post0, gluoncv 0.10.5.post0" in done.stdout
    assert ("gluoncv (cu90) libraries" in done.stdout) == bool(lacking)
    assert f"this machine lacks: {', '.join(lacking)}" in done.stdout or not lacking
    assert "profile quick (a second a cell): would not run here" in done.stdout or not lacking


def not_found(library: Path) -> list[str]:
    """What the loader does not find of what a library needs."""
    said = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^\s*(\S+) => not found", said, re.MULTILINE)
