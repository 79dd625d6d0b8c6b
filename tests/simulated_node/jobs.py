"""A job on a node as it would go if nothing happened to it, drawn by a seed: the ground that incidents stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo_bench.telemetry import Floats

from .curve import Curve
from .node import GIB
from .signals import jittered_grid, loguniform

ALLOCATION = 2.0 * 2**20
SPARED = 4 * GIB  # for contexts, a child process and what is reserved
WARM_S = 15.0


@dataclass(frozen=True)
class Model:
    """A kind of GPU: what it draws when idle, its limit, its boost clock and the clock it idles at."""

    name: str
    total_bytes: float
    idle_w: float
    limit_w: float
    boost_hz: float
    idle_hz: float
    mem_hz: float


MODELS = (
    Model("NVIDIA H100 80GB HBM3", 79.6 * GIB, 70, 700, 1980e6, 345e6, 2619e6),
    Model("NVIDIA A100-SXM4-40GB", 40.0 * GIB, 50, 400, 1410e6, 210e6, 1215e6),
    Model("Tesla V100-SXM2-16GB", 16.0 * GIB, 42, 300, 1530e6, 135e6, 877e6),
    Model("NVIDIA GeForce RTX 3090", 24.0 * GIB, 25, 350, 1950e6, 210e6, 9751e6),
    Model("Tesla T4", 15.0 * GIB, 10, 70, 1590e6, 300e6, 5001e6),
)


@dataclass(frozen=True, eq=False)
class Job:
    """Times are of the job's own clock, 0 being its launch. `time_s` is the grid that its signals are drawn on.

    Rank i trains on GPU i as the process `pids[i]`, whose allocator holds `reserved_bytes[i]` beside a CUDA context of
    `context_bytes[i]`; `tree_cores` is how many cores the process tree keeps busy when nobody takes them away.
    """

    model: Model
    gpus: int
    cores: int
    tree_cores: float
    mean_s: float
    duration_s: float
    trains_from_s: float
    time_s: Floats
    pids: tuple[int, ...]
    reserved_bytes: tuple[Curve, ...]
    context_bytes: tuple[float, ...]

    @property
    def warm_from_s(self) -> float:
        """From when on incidents happen: after what a steady-state rule cuts."""
        return self.trains_from_s + WARM_S

    def span(self, rng: np.random.Generator, length_s: float) -> tuple[float, float]:
        """Draw where a span of this length lies in the warm part of the training, which may be shorter."""
        room_s = self.duration_s - 1.0 - self.warm_from_s
        from_s = self.warm_from_s + rng.random() * max(0.0, room_s - length_s)
        return from_s, from_s + min(length_s, room_s)

    def share_of_training(self, share: float) -> float:
        """Return the seconds of a share of the training."""
        return share * (self.duration_s - self.trains_from_s)


def drawn_job(rng: np.random.Generator) -> Job:
    """Draw a job: the node, how long it trains, and what it holds."""
    model = MODELS[rng.integers(len(MODELS))]
    gpus = int(rng.choice([1, 2, 4, 8], p=[0.6, 0.2, 0.12, 0.08]))
    cores = int(rng.choice([count for count in (2, 4, 8, 12, 16, 32, 64, 96) if count >= 2 * gpus]))
    loaders = rng.integers(0, 9) * rng.uniform(0.2, 0.5)
    duration_s, trains_from_s = loguniform(rng, 50, 240), float(rng.uniform(3, 12))
    reserved = tuple(_reserved(rng, model, duration_s, trains_from_s) for _ in range(gpus))
    return Job(
        model=model,
        gpus=gpus,
        cores=cores,
        tree_cores=float(min(gpus * rng.uniform(0.8, 1.1) + loaders, 0.85 * cores)),
        mean_s=loguniform(rng, 0.05, 0.6),
        duration_s=duration_s,
        trains_from_s=trains_from_s,
        time_s=jittered_grid(rng, duration_s + 6.0),
        pids=tuple(int(pid) for pid in 100 + rng.choice(30_000, gpus, replace=False)),
        reserved_bytes=reserved,
        context_bytes=tuple(float(whole(rng.uniform(0.3, 0.9) * GIB)) for _ in range(gpus)),
    )


def whole(size: float) -> float:
    """Return the size in whole pages of the driver's."""
    return ALLOCATION * round(size / ALLOCATION)


def _reserved(rng: np.random.Generator, model: Model, duration_s: float, trains_from_s: float) -> Curve:
    """Draw what an allocator holds: weights, growth at first and rarely later; at times its cache is emptied."""
    most = rng.uniform(0.1, 0.8) * (model.total_bytes - SPARED)
    early = sorted(trains_from_s + rng.uniform(0.0, 10.0, int(rng.integers(3, 9))))
    later = sorted(rng.uniform(trains_from_s + 10, duration_s, int(rng.integers(0, 5))))
    times = [0.0, trains_from_s - rng.uniform(0.2, 2.0), *early, *later]
    rising = np.sort(rng.uniform(0.7, 1.0, len(later)))
    shares = [0.0, 0.05, *np.sort(rng.uniform(0.1, 0.7, len(early))), *rising]
    points = [(float(t), whole(share * most)) for t, share in zip(times, shares, strict=True)]
    if rng.random() < 0.2:
        emptied_s = float(rng.uniform(trains_from_s + 10, duration_s))
        held = Curve.stepped(*points).at(emptied_s)
        points = [point for point in points if not emptied_s <= point[0] < emptied_s + 2.0]
        points += [(emptied_s, whole(float(held) * rng.uniform(0.6, 0.9))), (emptied_s + 2.0, float(held))]
    return Curve.stepped(*sorted(points))
