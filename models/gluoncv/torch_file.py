"""The named tensors of a PyTorch file, read without PyTorch, and without running anything that the file contains.

A file of weights is a pickle in which every tensor stands as a call of ``torch._utils._rebuild_tensor_v2`` on a storage
whose numbers lie beside it: in a zip archive (since PyTorch 1.6), or behind the pickle (before). Only those calls are
understood; everything else that a pickle can name is refused.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Tuple

import numpy as np

from models import worker

DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
MOST_NUMBERED = 10**6
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _Storage:
    """The numbers of one or more tensors; they are filled in when they have been read."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype = np.dtype(dtype)
        self.count = count
        self.values = np.zeros(0, dtype)


class _Tensor:
    """A view of a storage, by offset, sizes and strides, counted in numbers."""

    def __init__(self, storage: _Storage, offset: int, size: Tuple[int, ...], stride: Tuple[int, ...]) -> None:
        self._storage = storage
        self._offset = offset
        self._size = size
        self._stride = stride

    def numpy(self) -> np.ndarray:
        """The tensor, copied. Raises ValueError where it reaches beyond its storage."""
        values = self._storage.values
        last = self._offset + sum((size - 1) * stride for size, stride in zip(self._size, self._stride))
        if min((self._offset, *self._size, *self._stride)) < 0 or (0 not in self._size and last >= len(values)):
            raise ValueError("a tensor reaches beyond its storage")
        if np.prod(self._size, dtype=np.float64) > len(values):  # of no step, a number stands for as many as one likes
            raise ValueError("a tensor is larger than its storage")
        steps = tuple(stride * values.itemsize for stride in self._stride)
        view = np.lib.stride_tricks.as_strided(values[self._offset :], self._size, steps)
        return np.array(view)


def _rebuild_tensor(
    storage: _Storage, offset: int, size: Tuple[int, ...], stride: Tuple[int, ...], *_hooks: Any
) -> _Tensor:
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(tensor: _Tensor, *_hooks: Any) -> _Tensor:
    return tensor


class _Names(pickle.Unpickler):
    """Knows the few names that a file of weights needs."""

    def __init__(self, stream: BinaryIO, storage_of: Callable[[Tuple[Any, ...]], _Storage]) -> None:
        super().__init__(stream)
        self._stream = stream
        self._begin = stream.tell()
        self._storage_of = storage_of

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for. Raises UnpicklingError for one that weights do not need."""
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")

    def load(self) -> Any:
        """What the pickle at this place makes. Raises UnpicklingError where it numbers more than it could hold."""
        for opcode, argument, _ in pickletools.genops(self._stream):
            # The table of what has a number is as long as the largest of them, which is gigabytes for a few bytes.
            if "PUT" in opcode.name and argument > MOST_NUMBERED:
                raise pickle.UnpicklingError(f"it numbers something {argument}")
        self._stream.seek(self._begin)
        return super().load()

    def persistent_load(self, pid: Tuple[Any, ...]) -> _Storage:
        """The storage that an id of the form ("storage", type, key, device, count) stands for."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("it holds something else than storages")
        return self._storage_of(pid)


def read_torch_file(path: Path) -> Dict[str, np.ndarray]:
    """The named tensors of a .pth file, a training checkpoint's from its ``model``.

    Raises WorkerError of kind "data" for a file that holds no table of weights.
    """
    try:
        content = _read_zip(path) if zipfile.is_zipfile(str(path)) else _read_legacy(path)
        if isinstance(content.get("model"), dict):
            content = content["model"]
        return {name: value.numpy() for name, value in content.items()}
    except FileNotFoundError as error:
        raise worker.WorkerError(f"there is no weights file {path}", kind="data") from error
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise worker.WorkerError(f"{path} is no PyTorch file of plain weights: {reason}", kind="data") from error


def _read_zip(path: Path) -> Dict[str, Any]:
    with zipfile.ZipFile(str(path)) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("/data.pkl"))[: -len("data.pkl")]
        storages: Dict[str, _Storage] = {}

        def read(name: str) -> bytes:
            if archive.getinfo(name).file_size > path.stat().st_size:  # PyTorch compresses nothing
                raise ValueError(f"{name} is larger than the file that it is in")
            return archive.read(name)

        def storage_of(pid: Tuple[Any, ...]) -> _Storage:
            _, dtype, key, _, count = pid[:5]
            if key not in storages:
                storages[key] = _Storage(dtype, count)
                storages[key].values = np.frombuffer(read(f"{folder}data/{key}"), dtype)
            return storages[key]

        return dict(_Names(io.BytesIO(read(folder + "data.pkl")), storage_of).load())


def _read_legacy(path: Path) -> Dict[str, Any]:
    storages: Dict[str, _Storage] = {}

    def storage_of(pid: Tuple[Any, ...]) -> _Storage:
        _, dtype, key, _, count = pid[:5]
        return storages.setdefault(key, _Storage(dtype, count))

    with path.open("rb") as stream:
        magic, _protocol, _system, content, keys = (_Names(stream, storage_of).load() for _ in range(5))
        if magic != LEGACY_MAGIC:
            raise pickle.UnpicklingError("it does not begin as PyTorch's files do")
        for key in keys:
            storage = storages[key]
            count = int(np.frombuffer(stream.read(8), np.int64)[0])
            if count != storage.count:
                raise pickle.UnpicklingError(f"storage {key} has {count} numbers, and {storage.count} were announced")
            storage.values = np.frombuffer(stream.read(count * storage.dtype.itemsize), storage.dtype)
    return dict(content)
