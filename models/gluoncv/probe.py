"""``python -m models.gluoncv.probe``: print one JSON object that says what this environment can run on.

versions           {python, mxnet, gluoncv, numpy, cuda, cudnn, nccl}; null for what the build lacks or does not tell
arch_list          empty: MXNet does not tell which compute capabilities its build has code for
cuda_available     whether MXNet can use a GPU here
missing_libraries  the shared libraries that MXNet needs and this machine lacks; with one missing, it cannot be imported

MXNet's builds for GPUs do not bring CUDA along, so this module imports MXNet only where its libraries are found.
Python 3.6 syntax, as the whole backend.
"""

import ctypes
import glob
import importlib.util
import json
import os
import platform
import subprocess
import sys
from typing import Any, Dict, List, Optional

# Before 2.9.0, which is 20900, NCCL wrote 2.8.4 as 2804.
NCCL_LONG_NUMBERS = 10000


def versions() -> Dict[str, Optional[str]]:
    """Versions a record keeps. Those of CUDA's libraries are known once mxnet is imported, and null before."""
    library = sys.modules["mxnet"].base._LIB if "mxnet" in sys.modules else None
    return {
        "python": platform.python_version(),
        "mxnet": distribution_version("mxnet"),
        "gluoncv": distribution_version("gluoncv"),
        "numpy": distribution_version("numpy"),
        "cuda": _cuda_version(library),
        "cudnn": _cudnn_version(library),
        "nccl": _nccl_version(library),
    }


def distribution_version(package: str) -> Optional[str]:
    """Version of the distribution that installed a package, such as mxnet-cu90 for mxnet; null without one.

    The packages' own word does not do: gluoncv 0.10.5.post0 calls itself 0.11.0. importlib.metadata is of Python 3.8.
    """
    folder = _folder(package)
    if folder is None:
        return None
    beside = os.path.dirname(folder)
    for path in sorted(glob.glob(os.path.join(glob.escape(beside), package + "*.dist-info"))):
        if f"\n{package}/__init__.py," in "\n" + _text(os.path.join(path, "RECORD")):
            lines = _text(os.path.join(path, "METADATA")).splitlines()
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Version:")), None)
    return None


def missing_libraries() -> List[str]:
    """Names of the shared libraries that MXNet needs and the loader does not find here. Does not import mxnet."""
    folder = _folder("mxnet")
    library = os.path.join(folder, "libmxnet.so") if folder else ""
    if not os.path.isfile(library):
        return []  # a build of the user's own, which finds its library elsewhere
    try:
        asked = subprocess.run(
            ["ldd", library], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", check=False
        )
    except OSError:  # no ldd here
        return []
    names = (line.split("=>")[0].strip() for line in asked.stdout.splitlines() if line.endswith("=> not found"))
    return list(dict.fromkeys(names))


def why_mxnet_fails(error: BaseException) -> str:
    """What to tell the user when ``import mxnet`` raised ``error``."""
    missing = missing_libraries()
    if not missing:
        return f"cannot import mxnet with {sys.executable}: {error}"
    return (
        "MXNet {} needs shared libraries that this machine lacks: {}; install them, or name their folder in "
        "LD_LIBRARY_PATH, or choose another variant of gluoncv in machine.yaml"
    ).format(distribution_version("mxnet"), ", ".join(missing))


def _folder(package: str) -> Optional[str]:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return places[0] if places else None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


# What MXNet was linked with answers through its own library. A build that holds a library without showing it (cuDNN in
# the one for CUDA 9.0) does not tell its version.


def _cuda_version(library: Any) -> Optional[str]:
    number = ctypes.c_int()
    ask = getattr(library, "cudaRuntimeGetVersion", None)
    if ask is None or ask(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _cudnn_version(library: Any) -> Optional[str]:
    ask = getattr(library, "cudnnGetVersion", None)
    if ask is None:
        return None
    ask.restype = ctypes.c_size_t
    number = ask()
    # 9.24.0 is 92400; before 9, 8.9.7 was 8907.
    scale = 10000 if number >= 90000 else 1000
    return f"{number // scale}.{number % scale // 100}.{number % 100}"


def _nccl_version(library: Any) -> Optional[str]:
    number = ctypes.c_int()
    ask = getattr(library, "ncclGetVersion", None)
    if ask is None or ask(ctypes.byref(number)) != 0:
        return None
    scale = 10000 if number.value >= NCCL_LONG_NUMBERS else 1000
    return f"{number.value // scale}.{number.value % scale // 100}.{number.value % 100}"


def _can_use_gpus() -> bool:
    import mxnet

    try:
        return bool(mxnet.context.num_gpus() > 0)
    except mxnet.base.MXNetError:  # a build for GPUs, and no driver, or one too old for it
        return False


def probe() -> Dict[str, Any]:
    """The object this module prints."""
    missing = missing_libraries()
    usable = not missing and _can_use_gpus()  # imports mxnet, so that versions() can ask it
    return {
        "versions": versions(),
        "arch_list": [],
        "cuda_available": usable,
        "missing_libraries": missing,
    }


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(probe()) + "\n")
    except (ImportError, OSError) as failure:
        sys.exit(why_mxnet_fails(failure))
