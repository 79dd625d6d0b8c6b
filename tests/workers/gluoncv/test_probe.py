"""What the probe tells of this environment, and of libraries that are made for the test."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.gluoncv import probe

ROOT = Path(__file__).resolve().parents[3]
# What a worker imports, in an interpreter that tells of every connection it would make and program it would start.
IMPORTS = """
import sys
WATCHED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system")
sys.addaudithook(lambda event, arguments: print(event, arguments) if event in WATCHED else None)
import models.gluoncv
import mxnet
import gluoncv.model_zoo, gluoncv.utils, gluoncv.data.batchify, gluoncv.data.transforms.presets.rcnn
"""
CUDA = """
int cudaRuntimeGetVersion(int *version) { *version = 9000; return 0; }
unsigned long cudnnGetVersion(void) { return 7605; }
int ncclGetVersion(int *version) { *version = 2708; return 0; }
"""


def shared_library(folder: Path, name: str, code: str, *needs: str) -> Path:
    """Compile a library that the loader knows by its file's name."""
    source, made = folder / f"{name}.c", folder / name
    source.write_text(code)
    linked = [f"-L{folder}", "-Wl,--no-as-needed", *(f"-l:{need}" for need in needs)]
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(made), str(source), *linked]
    subprocess.run(command, check=True, timeout=60)
    return made


def test_the_probe_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "models.gluoncv.probe"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {"versions", "arch_list", "cuda_available", "missing_libraries"}
    assert set(found["versions"]) == {"python", "mxnet", "gluoncv", "numpy", "cuda", "cudnn", "nccl"}
    assert found["versions"]["gluoncv"] == "0.10.5.post0"  # which calls itself 0.11.0
    assert found["missing_libraries"] == []


def test_versions_are_those_of_the_lock() -> None:
    variants = (ROOT / "models" / "gluoncv" / "locks").glob("*.txt")
    found = probe.versions()
    assert any(
        f"=={found['mxnet']} " in lock and f"\nnumpy=={found['numpy']} " in lock
        for lock in (path.read_text() for path in variants)
    )
    assert probe.distribution_version("no_such_package") is None
    assert probe.distribution_version("json") is None


def test_libraries_that_are_missing_are_named_without_importing_mxnet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mxnet"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libzoo_cudart.so.9.0: cannot open shared object file')\n")
    for name in ("libzoo_cudart.so.9.0", "libzoo_cublas.so.9.0"):
        shared_library(package, name, "")
    shared_library(package, "libmxnet.so", "", "libzoo_cudart.so.9.0", "libzoo_cublas.so.9.0")
    monkeypatch.delitem(sys.modules, "mxnet", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "libzoo_cudart.so.9.0").unlink()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(package))
    assert probe.missing_libraries() == ["libzoo_cudart.so.9.0"]
    assert "lacks: libzoo_cudart.so.9.0; install" in probe.why_mxnet_fails(OSError("no"))
    found = probe.probe()
    assert found["missing_libraries"] == ["libzoo_cudart.so.9.0"]
    assert found["cuda_available"] is False
    assert found["versions"]["python"]


def test_an_import_that_fails_otherwise_is_told_as_it_is() -> None:
    told = probe.why_mxnet_fails(ImportError("no such symbol"))
    assert told == f"cannot import mxnet with {sys.executable}: no such symbol"


def test_versions_of_cuda_are_asked_of_what_mxnet_was_linked_with(tmp_path: Path) -> None:
    shared_library(tmp_path, "libzoo_cuda.so", CUDA)
    linked = shared_library(tmp_path, "libmxnet.so", "", "libzoo_cuda.so")
    ctypes.CDLL(str(tmp_path / "libzoo_cuda.so"))  # found by its name from here on
    library = ctypes.CDLL(str(linked))
    assert probe._cuda_version(library) == "9.0"
    assert probe._cudnn_version(library) == "7.6.5"
    assert probe._nccl_version(library) == "2.7.8"
    assert probe._cuda_version(ctypes.CDLL(None)) is None


@pytest.mark.skipif(sys.version_info < (3, 8), reason="audit hooks are of Python 3.8")
def test_importing_the_frameworks_fetches_nothing_and_writes_nothing_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MXNET_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=True)
    told = done.stdout.decode().splitlines()
    assert [line for line in told if "uname" not in line] == []  # platform.processor() of Python 3.8 starts it
    assert list(tmp_path.iterdir()) == []
