"""Weights in and out: safetensors of our own, GluonCV's .params, and torchvision's files for the backbone.

Nothing here unpickles what it does not know. A detector's file names its weights by the blocks they are in, and tells
in its metadata which categories its classes are.
"""

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, Parameter
from mxnet.gluon.parameter import Constant
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from models import worker
from models.gluoncv.torch_file import read_torch_file
from models.misfit import refuse_misfit

SUFFIXES = (".safetensors", ".params", ".pth")
CATEGORIES = "category_ids"
NORM_NAMES = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}


def parameters_of(block: Block) -> Dict[str, Parameter]:
    """Every parameter by the names of the blocks it is in, without constants such as anchors."""
    found = block._collect_params_with_prefix()  # what save_parameters itself calls: there is no public name for it
    return {name: value for name, value in found.items() if not isinstance(value, Constant)}


def save_detector(net: Block, category_ids: Sequence[int], path: Path) -> None:
    """Write the weights as safetensors, beside and renamed.

    Of several contexts, which differ in the statistics of live batch norms, it is their mean, as gluon saves it.
    """
    state = {
        name: np.mean([one.asnumpy() for one in value.list_data()], axis=0, dtype=np.float32)
        for name, value in parameters_of(net).items()
    }
    beside = path.with_name(path.name + ".tmp")
    save_file(state, str(beside), metadata={CATEGORIES: json.dumps(list(category_ids))})
    os.replace(str(beside), str(path))


def read_category_ids(path: Path) -> Optional[Tuple[int, ...]]:
    """The categories that a detector's file says its classes are; None where it does not say.

    Raises WorkerError of kind "data" for a file that cannot be read.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(str(path), "np") as stream:
            metadata = stream.metadata() or {}
        return _category_ids(json.loads(metadata[CATEGORIES])) if CATEGORIES in metadata else None
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _category_ids(found: Any) -> Tuple[int, ...]:
    if not isinstance(found, list) or not found or not all(type(number) is int and number >= 0 for number in found):
        raise ValueError(f"its metadata says that its categories are {found!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"its metadata names a category twice: {found}")
    return tuple(found)


def load_detector(net: Block, path: Path) -> None:
    """Load a whole detector. Raises WorkerError of kind "data" that names what is missing or does not fit."""
    parameters = parameters_of(net)
    constants = net._collect_params_with_prefix().keys() - parameters.keys()  # GluonCV writes them, too
    state = {name: value for name, value in read_state(path).items() if name not in constants}
    load_parameters(parameters, state, path)


def read_state(path: Path) -> Dict[str, np.ndarray]:
    """The named weights of a file: safetensors, GluonCV's .params, or PyTorch's .pth. Raises WorkerError, "data"."""
    if path.suffix not in SUFFIXES:
        raise worker.WorkerError(f"{path}: expected a file that ends with {', '.join(SUFFIXES)}", kind="data")
    if path.suffix == ".pth":
        return read_torch_file(path)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(str(path)))
        if not path.is_file():
            raise FileNotFoundError(f"there is no weights file {path}")
        return {name.split(":", 1)[-1]: value.asnumpy() for name, value in mx.nd.load(str(path)).items()}
    except Exception as error:  # of a damaged file the readers raise whatever its bytes lead to
        raise _unreadable(path, error) from error


def load_parameters(parameters: Mapping[str, Parameter], state: Mapping[str, np.ndarray], path: Path) -> None:
    """Give every parameter its weights. Raises WorkerError of kind "data" that names the first that do not fit."""
    missing = [name for name in parameters if name not in state]
    unknown = [name for name in state if name not in parameters]
    differing = [
        f"{name} has shape {state[name].shape} in the file and {parameter.shape} in the model"
        for name, parameter in parameters.items()
        if name in state and not _fits(state[name].shape, parameter.shape)
    ]
    refuse_misfit(path, (missing, "are missing"), (unknown, "are not this model's"), (differing, "differ"))
    for name, parameter in parameters.items():
        parameter.set_data(mx.nd.array(state[name], dtype=parameter.dtype))


def load_torchvision_resnet(body: Block, path: Path) -> None:
    """Load a ResNet from a file with torchvision's names; its classifier is left out."""
    state = from_torchvision_names(read_state(path))
    parameters = {name: value for name, value in parameters_of(body).items() if not name.startswith("fc.")}
    load_parameters(parameters, {name: value for name, value in state.items() if not name.startswith("fc.")}, path)


def from_torchvision_names(state: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Rename a ResNet's weights: the blocks have the same names in GluonCV, but a batch norm's own weights differ."""
    norms = {name.rsplit(".", 1)[0] for name in state if name.endswith(".running_mean")}
    renamed = {}
    for name, value in state.items():
        block, _, own = name.rpartition(".")
        if own != "num_batches_tracked":
            renamed[f"{block}.{NORM_NAMES.get(own, own)}" if block in norms else name] = value
    return renamed


def _fits(found: Tuple[int, ...], wanted: Optional[Tuple[int, ...]]) -> bool:
    """Whether a shape is that of a parameter, in which 0 stands for what the first input will decide."""
    return wanted is None or (
        len(found) == len(wanted) and all(mine in (0, theirs) for theirs, mine in zip(found, wanted))
    )


def _unreadable(path: Path, error: BaseException) -> worker.WorkerError:
    # The last line: MXNet begins with a traceback of its own.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return worker.WorkerError(
        f"{path} cannot be read as weights: {lines[-1] if lines else type(error).__name__}", kind="data"
    )
