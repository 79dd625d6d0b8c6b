"""ImageNet weights of the ResNets: torchvision's files, in torch.hub's cache, for every backend.

So all detectors start from the same numbers. Standard library only and Python 3.6 syntax.
"""

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from models import worker

ADDRESS = "https://download.pytorch.org/models/"
# The first ImageNet weights of each, as in torchvision's detection builders; a name ends with the start of its SHA-256.
FILES = {"r18": "resnet18-f37072fd.pth", "r50": "resnet50-0676ba61.pth", "r101": "resnet101-63fe2227.pth"}
TIMEOUT_S = 30.0


def imagenet_file(backbone: str) -> Path:
    """The weights of a backbone; fetched if they are not there and the network is. Raises WorkerError, kind "data"."""
    path = cache_folder() / FILES[backbone]
    if not path.is_file():
        fetch(ADDRESS + path.name, path)
    return path


def cache_folder() -> Path:
    """Where torch.hub keeps its files."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    torch_home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(os.path.expanduser(torch_home)) / "hub" / "checkpoints"


def fetch(url: str, path: Path) -> None:
    """Download a file whose name ends with the start of its SHA-256, beside and renamed. Raises WorkerError, "data"."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as source, beside.open("wb") as target:
            shutil.copyfileobj(source, target)
        wanted = path.stem.rsplit("-", 1)[-1]
        if not hashlib.sha256(beside.read_bytes()).hexdigest().startswith(wanted):
            raise OSError(f"its SHA-256 does not begin with {wanted}")
        os.replace(str(beside), str(path))
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the answer that was no file
        raise worker.WorkerError(
            f"ImageNet weights {path.name} are not in {path.parent} and could not be fetched ({error}). "
            f"Fetch them where there is a network: curl --location --output {path} {url}",
            kind="data",
        ) from error
    finally:
        if beside.exists():
            beside.unlink()
