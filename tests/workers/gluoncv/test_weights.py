from __future__ import annotations

import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from small import DETECTORS, built, small_cell

from models import worker
from models.gluoncv import backbones, torch_file, weights
from models.gluoncv.detectors import Detector
from models.gluoncv.weights import parameters_of

IMAGE = np.random.RandomState(0).normal(size=(1, 3, 64, 80)).astype(np.float32)


def values_of(net: nn.Block) -> dict[str, np.ndarray]:
    return {name: value.data().asnumpy() for name, value in parameters_of(net).items()}


def outputs_of(net: nn.Block) -> list[np.ndarray]:
    return [output.asnumpy() for output in net(mx.nd.array(IMAGE))]


def data_error(function: Any, *arguments: Any) -> str:
    with pytest.raises(worker.WorkerError) as caught:
        function(*arguments)
    assert caught.value.kind == "data"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def dense(outputs: int = 3) -> nn.Dense:
    net = nn.Dense(outputs, in_units=2)
    net.initialize()
    return net


@pytest.fixture(scope="module", params=DETECTORS)
def pair(request: pytest.FixtureRequest) -> tuple[Detector, Detector]:
    """Two of the same, with other weights."""
    return built(small_cell(request.param), seed=1), built(small_cell(request.param), seed=2)


@pytest.mark.parametrize("form", ["safetensors", "params"])
def test_a_detector_comes_back_as_it_was(pair: tuple[Detector, Detector], form: str, tmp_path: Path) -> None:
    source, target = pair
    for value in parameters_of(target.net).values():
        value.set_data(mx.nd.ones(value.shape))
    path = tmp_path / f"model.{form}"
    if form == "params":
        source.net.save_parameters(str(path))
    else:
        weights.save_detector(source.net, source.category_ids, path)
    weights.load_detector(target.net, path)
    expected, found = values_of(source.net), values_of(target.net)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(value, found[name]) for name, value in expected.items())
    assert all(np.array_equal(one, other) for one, other in zip(outputs_of(source.net), outputs_of(target.net)))
    assert weights.read_category_ids(path) == ((1, 3) if form == "safetensors" else None)
    assert list(tmp_path.iterdir()) == [path]


def test_weights_of_several_contexts_are_saved_once_and_loaded_into_each(tmp_path: Path) -> None:
    two = (mx.cpu(0), mx.cpu(1))
    source, target = (built(small_cell("faster-rcnn_fpn"), two, seed=seed) for seed in (1, 2))
    weights.save_detector(source.net, source.category_ids, tmp_path / "model.safetensors")
    weights.load_detector(target.net, tmp_path / "model.safetensors")
    for name, value in parameters_of(target.net).items():
        for context in two:
            assert np.array_equal(value.data(context).asnumpy(), parameters_of(source.net)[name].data(two[0]).asnumpy())


def test_another_models_file_names_the_first_missing_and_unknown_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights.save_detector(built(small_cell("retinanet_fpn")).net, (1, 3), path)
    message = data_error(weights.load_detector, built(small_cell("faster-rcnn_fpn")).net, path)
    assert f"{path} does not fit this model" in message
    assert "weights are missing: features." in message
    assert "weights are not this model's: " in message
    assert " more" in message
    assert len(message) < 800


def test_another_number_of_classes_names_both_shapes_and_loads_nothing(tmp_path: Path) -> None:
    weights.save_detector(dense(91), (1,), tmp_path / "model.safetensors")
    net = dense(5)
    before = values_of(net)
    message = data_error(weights.load_detector, net, tmp_path / "model.safetensors")
    assert "weight has shape (91, 2) in the file and (5, 2) in the model" in message
    assert all(np.array_equal(value, before[name]) for name, value in values_of(net).items())


@pytest.mark.parametrize("form", ["safetensors", "params", "pth"])
def test_missing_and_damaged_files_are_readable_errors(form: str, tmp_path: Path) -> None:
    path, net = tmp_path / f"model.{form}", dense()
    assert str(path) in data_error(weights.load_detector, net, path)
    whole = tmp_path / f"whole.{form}"
    if form == "params":
        net.save_parameters(str(whole))
    elif form == "safetensors":
        weights.save_detector(net, (1,), whole)
    else:
        zipped(whole, {"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float32)})
    weights.load_detector(net, whole)
    content = whole.read_bytes()
    middle = len(content) // 2
    for damaged in (
        b"",
        b"<html>404 not found</html>" * 50,
        content[:7],
        content[:middle],
        content[:-4],
        bytes(byte ^ 255 for byte in content),
    ):
        path.write_bytes(damaged)
        assert str(path) in data_error(weights.load_detector, net, path)
        if form == "safetensors":
            assert str(path) in data_error(weights.read_category_ids, path)
    path.unlink()
    path.mkdir()
    assert str(path) in data_error(weights.load_detector, net, path)


def test_nameless_arrays_of_mxnet_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.params"
    mx.nd.save(str(path), [mx.nd.ones((2, 3))])
    assert "cannot be read as weights" in data_error(weights.load_detector, dense(), path)


def test_categories_that_are_no_numbers_are_a_readable_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for said in ("{", "[1, null]", "5"):
        weights.save_file({"weight": np.zeros(1, np.float32)}, str(path), metadata={weights.CATEGORIES: said})
        assert "cannot be read" in data_error(weights.read_category_ids, path)
    weights.save_file({"weight": np.zeros(1, np.float32)}, str(path))
    assert weights.read_category_ids(path) is None


class Named:
    """Stands in a pickle for what a module calls so, without that module."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Called:
    """A call of something named, as tensors stand in a pickle."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.named, self.arguments = Named(module, name), arguments


class Storage:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class Pickler(pickle._Pickler):
    """Writes what torch.save would, since PyTorch is not here. The pure Python one, whose parts can be replaced."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_named(self, named: Named) -> None:
        self.write(b"c" + f"{named.module}\n{named.name}\n".encode())

    def save_called(self, called: Called) -> None:
        self.save(called.named)
        self.save(called.arguments)
        self.write(pickle.REDUCE)

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Storage):
            return None
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[value.values.dtype.name]
        return ("storage", Named("torch", kind), value.key, "cpu", value.values.size)

    dispatch[Named] = save_named
    dispatch[Called] = save_called


def pickled(path: Path, *contents: Any) -> bytes:
    with path.open("wb") as stream:
        for content in contents:
            Pickler(stream, 2).dump(content)
    content = path.read_bytes()
    path.unlink()
    return content


def tensor(key: str, values: np.ndarray) -> Called:
    strides = tuple(stride // values.itemsize for stride in values.strides)
    nothing = collections.OrderedDict()
    return Called("torch._utils", "_rebuild_tensor_v2", Storage(key, values), 0, values.shape, strides, False, nothing)


def zipped(path: Path, arrays: dict[str, np.ndarray], *, wrap: bool = False, extra: Any = None) -> None:
    """A file as torch.save writes it since 1.6."""
    state: dict[str, Any] = {name: tensor(str(key), values) for key, (name, values) in enumerate(arrays.items())}
    if extra is not None:
        state["extra"] = extra
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("archive/data.pkl", pickled(path.with_suffix(".pkl"), {"model": state} if wrap else state))
        for key, values in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{key}", values.tobytes())


def legacy(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A file as torch.save wrote it before 1.6."""
    state = collections.OrderedDict((name, tensor(name, values)) for name, values in arrays.items())
    head = pickled(path.with_suffix(".pkl"), torch_file.LEGACY_MAGIC, 1001, {}, state, list(arrays))
    storages = b"".join(struct.pack("<q", values.size) + values.tobytes() for values in arrays.values())
    path.write_bytes(head + storages)


ARRAYS = {"weight": np.arange(6, dtype=np.float32).reshape(3, 2), "count": np.array(5), "empty": np.zeros((0, 4), "f4")}


@pytest.mark.parametrize("form", ["zip", "wrapped", "legacy"])
def test_pytorchs_files_are_read_without_pytorch(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    if form == "legacy":
        legacy(path, ARRAYS)
    else:
        zipped(path, ARRAYS, wrap=form == "wrapped")
    found = torch_file.read_torch_file(path)
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "mkdir"), ("builtins", "eval"), ("torch", "load"), ("collections", "namedtuple"), ("torch._utils", "x")],
)
def test_a_pickle_that_names_something_else_is_refused_and_not_run(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pth"
    zipped(path, ARRAYS, extra=Called(module, name, "unpickled"))
    assert f"it names {module}.{name}, which weights do not need" in data_error(torch_file.read_torch_file, path)
    path.write_bytes(pickled(tmp_path / "x", Called(module, name, "unpickled")))
    assert f"it names {module}.{name}, which weights do not need" in data_error(torch_file.read_torch_file, path)
    assert os.listdir(str(tmp_path)) == ["model.pth"]


@pytest.mark.parametrize("write", [zipped, legacy])
def test_every_truncated_pytorch_file_is_refused(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    write(path, {"weight": ARRAYS["weight"]})
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 3):
        path.write_bytes(content[:length])
        assert "is no PyTorch file of plain weights" in data_error(torch_file.read_torch_file, path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    storage = Storage("0", np.zeros(4, np.float32))
    for offset, size, stride in (
        (0, (5,), (1,)),
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (2,), (-1,)),
        (-1, (1,), (1,)),
    ):
        view = Called("torch._utils", "_rebuild_tensor_v2", storage, offset, size, stride, False, {})
        with zipfile.ZipFile(str(path), "w") as archive:
            archive.writestr("archive/data.pkl", pickled(tmp_path / "x", {"weight": view}))
            archive.writestr("archive/data/0", storage.values.tobytes())
        assert "reaches beyond its storage" in data_error(torch_file.read_torch_file, path)


def torchvision_names(body: nn.Block) -> dict[str, np.ndarray]:
    theirs = {own: name for name, own in weights.NORM_NAMES.items()}
    state = {}
    for name, value in values_of(body).items():
        block, _, own = name.rpartition(".")
        state[f"{block}.{theirs.get(own, own)}"] = value
    return state


def backbone_from(path: Path) -> tuple[dict[str, Any], nn.Block]:
    """A cell whose backbone begins with this file, and a backbone to write into it."""
    values = small_cell("retinanet_fpn", {"model": {"batch_norm": "frozen", "backbone_weights": str(path)}})
    body = backbones.build_resnet("r18", values["recipe"]["model"])
    body.initialize(mx.init.Normal(0.3))
    body(mx.nd.array(IMAGE))
    return values, body


def test_backbone_weights_as_gluoncv_saves_them_load_too(tmp_path: Path) -> None:
    path = tmp_path / "resnet18_v1b.params"
    values, body = backbone_from(path)
    body.layer4[1].bn2.gamma.set_data(mx.nd.full((512,), 0.7))
    body.save_parameters(str(path))
    found = built(values, seed=2).net
    assert np.array_equal(found.layer3[0].conv1.weight.data().asnumpy(), body.layer3[0].conv1.weight.data().asnumpy())
    assert np.allclose(found.layer4[1].bn2.gamma.data().asnumpy(), 0.7)


def test_backbone_weights_with_torchvisions_names_load_without_the_classifier(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    values, body = backbone_from(path)
    state = torchvision_names(body)
    assert "layer1.0.bn1.weight" in state
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    zipped(path, {**state, "bn1.num_batches_tracked": np.array(7), "fc.weight": np.zeros((9, 512), np.float32)})
    found = built(values, seed=2).net
    assert np.array_equal(found.stem[0].weight.data().asnumpy(), state["conv1.weight"])
    assert np.array_equal(found.layer4[1].bn2.gamma.data().asnumpy(), state["layer4.1.bn2.weight"])
    del state["layer2.0.conv1.weight"]
    zipped(path, state)
    assert "1 weights are missing: layer2.0.conv1.weight" in data_error(weights.load_torchvision_resnet, body, path)
