from __future__ import annotations

import pytest
import torch
from torchvision.models import ResNet18_Weights, ResNet50_Weights, ResNet101_Weights

from models.imagenet import ADDRESS, FILES, cache_folder


def test_the_files_are_those_of_torchvisions_builders() -> None:
    published = {"r18": ResNet18_Weights, "r50": ResNet50_Weights, "r101": ResNet101_Weights}
    assert {name: ADDRESS + file for name, file in FILES.items()} == {
        name: weights.IMAGENET1K_V1.url for name, weights in published.items()
    }


@pytest.mark.parametrize("variables", [{}, {"TORCH_HOME": "/data/torch"}, {"XDG_CACHE_HOME": "/data/cache"}])
def test_the_cache_is_torch_hubs(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == f"{torch.hub.get_dir()}/checkpoints"
