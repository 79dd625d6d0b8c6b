from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
import torch
from conftest import SMALL, cell
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.ops.misc import FrozenBatchNorm2d

from models import worker
from models.imagenet import FILES
from models.torchvision import checkpoint
from models.torchvision.detectors import build_detector


def model_of(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def data_error(model: nn.Module, path: Path) -> str:
    with pytest.raises(worker.WorkerError) as caught:
        checkpoint.load_detector(model, path)
    assert caught.value.kind == "data"
    return str(caught.value)


@pytest.mark.parametrize("wrap", [False, True])
def test_plain_and_wrapped_pytorch_files_load(wrap: bool, tmp_path: Path) -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    state = source.state_dict()
    torch.save({"model": state} if wrap else state, tmp_path / "model.pth")
    checkpoint.load_detector(target, tmp_path / "model.pth")
    assert torch.equal(target.weight, source.weight)


def test_files_with_torchvisions_old_names_load(tmp_path: Path) -> None:
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    old = {
        name.replace(f"conv.{layer}.0.", f"conv.{2 * layer}."): value
        for name, value in model.state_dict().items()
        for layer in [int(name.split("conv.")[1][0]) if name.startswith("head.") and "conv." in name else 0]
    }
    assert "head.regression_head.conv.6.weight" in old
    torch.save(old, tmp_path / "old.pth")
    loaded = build_detector(cell("retinanet_fpn", "r50"), 91)
    checkpoint.load_detector(loaded, tmp_path / "old.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_another_models_file_names_the_first_missing_and_unexpected_weights(tmp_path: Path) -> None:
    checkpoint.save_weights(build_detector(cell("retinanet_fpn", "r18", SMALL), 4), tmp_path / "model.safetensors")
    message = data_error(build_detector(cell("faster-rcnn_c4", "r18", SMALL), 4), tmp_path / "model.safetensors")
    assert "are missing: backbone.conv1.weight" in message
    assert "are not this model's: backbone." in message or "are not this model's: head." in message
    assert len(message) < 800


def test_another_number_of_classes_names_both_shapes(tmp_path: Path) -> None:
    checkpoint.save_weights(nn.Linear(4, 91), tmp_path / "model.safetensors")
    message = data_error(nn.Linear(4, 5), tmp_path / "model.safetensors")
    assert "weight has shape (91, 4) in the file and (5, 4) in the model" in message


class Payload:
    """What a hostile file would run when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, tmp_path / "model.pth")
    assert "neither safetensors nor a PyTorch file of plain weights" in data_error(
        nn.Linear(2, 2), tmp_path / "model.pth"
    )
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_garbage_and_missing_files_are_readable_errors(name: str, tmp_path: Path) -> None:
    assert f"there is no weights file {tmp_path / name}" in data_error(nn.Linear(2, 2), tmp_path / name)
    (tmp_path / name).write_bytes(b"<html>404</html>")
    assert "is neither safetensors nor a PyTorch file" in data_error(nn.Linear(2, 2), tmp_path / name)


def damaged(content: bytes, random: Random) -> bytes:
    """A few bytes replaced, a piece repeated, or the end cut off."""
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(content))
        end = start + random.choice([0, 1, 1, 8, 100])
        piece = random.choice([b"", bytes([random.randrange(256)]), b"\xff" * 8, content[start : start + 20]])
        content = content[:start] if random.random() < 0.1 and start else content[:start] + piece + content[end:]
    return content


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    checkpoint.save_weights(nn.Linear(2, 3), tmp_path / "model.safetensors")
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    content, random = (tmp_path / name).read_bytes(), Random(0)
    for _ in range(500):
        (tmp_path / name).write_bytes(damaged(content, random))
        try:
            checkpoint.read_state(tmp_path / name)
        except worker.WorkerError as error:
            kind = error.kind
            assert kind == "data"


def test_the_published_files_get_an_epsilon_of_zero_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "renamed.safetensors"
    model = model_of(FrozenBatchNorm2d(4))
    checkpoint.save_weights(model, path)
    checkpoint.load_detector(model, path)
    assert model[0].eps == 1e-5
    monkeypatch.setitem(checkpoint.ZERO_EPSILON_FILES, checkpoint.content_hash(path)[:8], "this file")
    checkpoint.load_detector(model, path)
    assert model[0].eps == 0.0


def test_backbone_weights_of_a_classifier_load_without_its_last_layer(tmp_path: Path) -> None:
    source = resnet18()
    path = tmp_path / "resnet18.pth"
    torch.save({k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}, path)
    model = build_detector(cell("retinanet_fpn", "r18", {"model": {"backbone_weights": str(path)}}), 4)
    assert torch.equal(model.backbone.body.conv1.weight, source.conv1.weight)


def test_imagenet_weights_come_from_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = resnet18()
    path = tmp_path / "hub" / "checkpoints" / FILES["r18"]
    path.parent.mkdir(parents=True)
    torch.save(source.state_dict(), path)
    changes = {"model": {"backbone_weights": "imagenet", "batch_norm": "frozen"}}
    model = build_detector(cell("faster-rcnn_c4", "r18", changes), 4)
    assert torch.equal(model.roi_heads.box_head.layer4[0].conv1.weight, source.layer4[0].conv1.weight)


def test_imagenet_weights_that_are_nowhere_say_how_to_fetch_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A proxy that refuses every connection: the machine behaves as if it had no network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(worker.WorkerError) as caught:
        build_detector(cell("retinanet_fpn", "r50", {"model": {"backbone_weights": "imagenet"}}), 4)
    assert caught.value.kind == "data"
    assert f"resnet50-0676ba61.pth are not in {tmp_path / 'hub' / 'checkpoints'}" in str(caught.value)
    assert "curl --location --output" in str(caught.value)
