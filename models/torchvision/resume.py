"""Checkpoints in the midst of a training: everything that the iterations to come depend on, read without unpickling."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models import worker
from models.torchvision.ranks import Group

KEPT = 2
PATTERN = "iteration-*.pth"


class Checkpoints:
    """The checkpoints of one training, in one folder; the last two are kept.

    What the iteration's number decides is not in them: the learning rate, and which images come next.
    """

    def __init__(self, folder: Path, group: Group) -> None:
        self._folder = folder
        self._group = group
        self._generators: dict[str, Tensor] | None = None

    def save(self, iteration: int, model: nn.Module, optimizer: Optimizer) -> Path | None:
        """Write the state after an iteration, beside and renamed; rank 0 returns the file.

        To be called on all ranks. ``model`` is the bare one.
        """
        generators = self._group.gather(_generators(self._group.rank.device))
        if not self._group.rank.is_first:
            return None
        state = {
            "iteration": iteration,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generators": generators,
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"iteration-{iteration:08}.pth"
        _write_durably(state, path)
        for old in self._files()[KEPT:]:
            old.unlink()
        return path

    def restore(self, model: nn.Module, optimizer: Optimizer) -> int:
        """Take up the newest state that can be read; return the iterations it has done, 0 where there is none.

        A file that cannot be read is told on stderr and passed over. Raises WorkerError of kind "data" for one that
        is of another model or of other ranks.
        """
        for path in self._files():
            state = _read(path)
            if state is not None:
                self._take_up(state, path, model, optimizer)
                return int(state["iteration"])
        return 0

    def restore_generators(self) -> None:
        """Set the random numbers to where the state that `restore` took up had them; to be called last of all."""
        if self._generators is not None:
            _set_generators(self._generators, self._group.rank.device)

    def _take_up(self, state: dict[str, Any], path: Path, model: nn.Module, optimizer: Optimizer) -> None:
        try:
            generators = state["generators"]
            if len(generators) != self._group.rank.count:
                raise ValueError(f"it is of {len(generators)} ranks, and there are {self._group.rank.count}")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise worker.WorkerError(
                f"training cannot go on from {path}: {_first_line(error)}; to begin anew, use --force", kind="data"
            ) from error
        self._generators = generators[self._group.rank.number]

    def _files(self) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob(PATTERN), reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not isinstance(state.get("iteration"), int):
            raise ValueError("it is no checkpoint of a training")
        return state
    except Exception as error:  # noqa: BLE001 - of a damaged file PyTorch's reader raises whatever its bytes lead to
        sys.stderr.write(f"passed over the checkpoint {path}: {_first_line(error)}\n")
        return None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _write_durably(state: dict[str, Any], path: Path) -> None:
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, path)


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
