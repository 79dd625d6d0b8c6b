"""What can happen to a job: each kind draws one `Effect`. CONTAMINATIONS spoil its figures; NORMAL ones do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zoo_bench.telemetry import ClocksEvent, Floats

from .curve import Curve
from .jobs import SPARED, Job, whole
from .node import FOREVER, GIB, Process
from .signals import autocorrelated, loguniform, ramp, within


@dataclass(frozen=True)
class Stop:
    """The GPUs stand still from the end of the iteration that runs at `at_s`. `event` announces it; None: data wait."""

    at_s: float
    length_s: float
    event: str | None = None


@dataclass(frozen=True, eq=False)
class Effect:
    """What is added to a job. Arrays over its grid; `clock` and `bits` have one row a GPU.

    `clock` are factors on the plateau, `speed` one on the training, `bits` ClocksEvent bits, `outside_cores` the cores
    that others keep busy. `processes` are those on GPUs, beside the ranks. The span and the GPU say where it is.
    """

    clock: Floats
    bits: NDArray[np.int64]
    speed: Floats
    outside_cores: Floats
    processes: tuple[tuple[int, Process], ...] = ()
    foreign_pids: frozenset[int] = frozenset()
    child_pids: frozenset[int] = frozenset()
    stops: tuple[Stop, ...] = ()
    hidden: bool = False
    gpu: int | None = None
    from_s: float = 0.0
    to_s: float = FOREVER

    def __add__(self, other: Effect) -> Effect:
        """Return both at once; the span stays this one's."""
        return replace(
            self,
            clock=self.clock * other.clock,
            bits=self.bits | other.bits,
            speed=self.speed * other.speed,
            outside_cores=self.outside_cores + other.outside_cores,
            processes=self.processes + other.processes,
            foreign_pids=self.foreign_pids | other.foreign_pids,
            child_pids=self.child_pids | other.child_pids,
            stops=self.stops + other.stops,
            hidden=self.hidden or other.hidden,
        )


def plain(_rng: np.random.Generator, job: Job) -> Effect:
    """Nothing happens."""
    count = len(job.time_s)
    return Effect(
        np.ones((job.gpus, count)), np.zeros((job.gpus, count), dtype=np.int64), np.ones(count), np.zeros(count)
    )


def foreign_process(rng: np.random.Generator, job: Job) -> Effect:
    """Another process on one of the GPUs for 2 seconds or more; one in seven was there before the job."""
    from_s, to_s = job.span(rng, loguniform(rng, 2.0, job.duration_s))
    is_old = rng.random() < 0.15
    if is_old:
        from_s, to_s = -FOREVER, to_s if rng.random() < 0.5 else FOREVER
    gpu, pid = int(rng.integers(job.gpus)), int(rng.integers(40_000, 60_000))
    free = job.model.total_bytes - job.reserved_bytes[gpu].values.max() - SPARED
    size = whole(min(loguniform(rng, 0.3, 20.0) * GIB, 0.9 * free))
    growth_s = float(rng.uniform(0.1, 1.5))
    memory = Curve.constant(size) if is_old else Curve.linear((from_s, 0.2 * size), (from_s + growth_s, size))
    during = within(job.time_s, from_s, to_s)
    return replace(
        plain(rng, job),
        speed=1 - during * rng.uniform(0.0, 0.5),
        outside_cores=during * (rng.uniform(0.2, 1.1) if rng.random() < 0.5 else 0.0),
        processes=((gpu, Process(memory, pid, from_s=from_s, to_s=to_s)),),
        foreign_pids=frozenset([pid]),
        gpu=gpu,
        from_s=from_s,
        to_s=to_s,
    )


def hidden_foreign_process(rng: np.random.Generator, job: Job) -> Effect:
    """A foreign process as a container sees it that hides the host's PIDs, the job's own as well."""
    return replace(foreign_process(rng, job), foreign_pids=frozenset(), hidden=True)


def thermal_slowdown(rng: np.random.Generator, job: Job) -> Effect:
    """Too hot, or too little power, for 5 % of the training or more; at times off and on."""
    event = ClocksEvent
    bits, deepest, mildest = [
        (event.SW_THERMAL_SLOWDOWN, 0.5, 0.95),
        (event.SW_THERMAL_SLOWDOWN | event.SW_POWER_CAP, 0.5, 0.95),
        (event.HW_THERMAL_SLOWDOWN | event.HW_SLOWDOWN, 0.3, 0.7),
        (event.HW_SLOWDOWN, 0.3, 0.7),
        (event.HW_POWER_BRAKE_SLOWDOWN | event.HW_SLOWDOWN, 0.3, 0.7),
    ][rng.integers(5)]
    duty = float(rng.uniform(0.4, 0.8)) if rng.random() < 0.4 else 1.0
    from_s, to_s = job.span(rng, job.share_of_training(loguniform(rng, 0.055, 0.6)) / duty)
    period_s = rng.uniform(3.0, 8.0)
    slow = within(job.time_s, from_s, to_s) * ((job.time_s - from_s) % period_s < duty * period_s)
    return _slower(rng, job, slow * (1 - rng.uniform(deepest, mildest)), int(bits), from_s, to_s)


def clock_drop(rng: np.random.Generator, job: Job) -> Effect:
    """Clocks 10 to 50 % lower for 5 % of the training or more, with no bit that says why, or an application's wish."""
    from_s, to_s = job.span(rng, job.share_of_training(loguniform(rng, 0.055, 0.6)))
    bits = int(ClocksEvent.APPLICATIONS_CLOCKS_SETTING) if rng.random() < 0.2 else 0
    return _slower(rng, job, within(job.time_s, from_s, to_s) * rng.uniform(0.1, 0.5), bits, from_s, to_s)


def cpu_load(rng: np.random.Generator, job: Job) -> Effect:
    """Others keep 6 % of the machine and half a core or more busy, up to nearly all, for 5 seconds or more.

    The job gets what is left. Less than that is what any machine with many cores does all the time.
    """
    from_s, to_s = job.span(rng, loguniform(rng, 5.0, job.share_of_training(0.6)))
    level = loguniform(rng, max(0.55, 0.06 * job.cores), 0.97 * job.cores)
    noise = 1 + 0.08 * autocorrelated(rng, len(job.time_s), 0.8)
    load = within(job.time_s, from_s, to_s) * np.clip(level * noise, 0.5, 0.98 * job.cores)
    left = np.clip((job.cores - load) / job.tree_cores, 0.25, 1.0)
    return replace(plain(rng, job), speed=left, outside_cores=load, from_s=from_s, to_s=to_s)


def power_cap(rng: np.random.Generator, job: Job) -> Effect:
    """At its power limit, with the bit that says so, clocks wobble by up to 25 %; or they sink once the chip is hot."""
    shape = (job.gpus, len(job.time_s))
    depth = rng.uniform(0.05, 0.25, (job.gpus, 1))
    wobble = 0.5 + 0.5 * np.tanh(autocorrelated(rng, (shape[1], shape[0]), rng.uniform(0.8, 0.98)).T)
    if rng.random() < 0.4:
        from_s = rng.uniform(job.trains_from_s, job.duration_s)
        wobble = (0.6 + 0.4 * wobble) * ramp(job.time_s, from_s, from_s + rng.uniform(0.2, 10.0))
    capped = (depth * wobble > 0.005) & (job.time_s >= job.trains_from_s)
    clock = 1 - depth * wobble * capped
    bits = np.where(capped, int(ClocksEvent.SW_POWER_CAP), 0)
    return replace(plain(rng, job), clock=clock, bits=bits.astype(np.int64), speed=clock.min(axis=0) ** 0.7)


def hidden_pids(rng: np.random.Generator, job: Job) -> Effect:
    """A container hides the host's PIDs: NVML names the ranks by PIDs that do not exist here."""
    return replace(plain(rng, job), hidden=True)


def late_child(rng: np.random.Generator, job: Job) -> Effect:
    """A process that the job itself starts late opens the GPU too."""
    from_s, to_s = job.span(rng, loguniform(rng, 1.0, 40.0))
    gpu, pid = int(rng.integers(job.gpus)), int(rng.integers(31_000, 39_000))
    process = Process(Curve.constant(whole(rng.uniform(0.3, 1.5) * GIB)), pid, from_s=from_s, to_s=to_s)
    child = frozenset([pid])
    return replace(plain(rng, job), processes=((gpu, process),), child_pids=child, gpu=gpu, from_s=from_s, to_s=to_s)


def checkpoints(rng: np.random.Generator, job: Job) -> Effect:
    """The GPUs wait while a checkpoint is written, several times; the kernel writes it out a little longer."""
    first_s = job.trains_from_s + rng.uniform(8, 25)
    times = np.arange(first_s, job.duration_s - 12, rng.uniform(12, 45))
    length_s = loguniform(rng, 0.8, 8.0)
    stops = tuple(Stop(float(at_s), float(length_s * rng.uniform(0.8, 1.2)), "checkpoint_saved") for at_s in times)
    flushing = np.any([within(job.time_s, at_s, at_s + rng.uniform(1, 4)) > 0 for at_s in times], axis=0)
    return replace(plain(rng, job), stops=stops, outside_cores=rng.uniform(0.02, 0.35) * flushing)


def idle_dips(rng: np.random.Generator, job: Job) -> Effect:
    """The GPUs wait for data now and then."""
    gaps = rng.exponential(rng.uniform(8, 25), 60)
    times = job.trains_from_s + np.cumsum(gaps)
    stops = tuple(Stop(float(t), loguniform(rng, 0.3, 3.0)) for t in times[times < job.duration_s - 4])
    return replace(plain(rng, job), stops=stops)


def cpu_blip(rng: np.random.Generator, job: Job) -> Effect:
    """The system's own housekeeping: under a second of one core or several, up to three times."""
    load = np.zeros(len(job.time_s))
    for slot in rng.permutation(3)[: rng.integers(1, 4)]:
        middle_s = job.trains_from_s + job.share_of_training((slot + rng.uniform(0.2, 0.8)) / 3)
        length_s = rng.uniform(0.2, 0.9)
        load += within(job.time_s, middle_s, middle_s + length_s) * loguniform(rng, 0.5, min(8.0, 0.95 * job.cores))
    return replace(plain(rng, job), outside_cores=load)


def warmup_ramp(rng: np.random.Generator, job: Job) -> Effect:
    """Clocks rise during the first seconds of training, and sink a little as the chip gets hot."""
    lowest = rng.uniform(0.5, 0.8)
    rise = lowest + (1 - lowest) * ramp(job.time_s, job.trains_from_s, job.trains_from_s + rng.uniform(2, 10))
    since = np.maximum(job.time_s - job.trains_from_s, 0)
    factor = rise * (1 - rng.uniform(0.01, 0.04) * (1 - np.exp(-since / rng.uniform(20, 50))))
    return replace(plain(rng, job), clock=np.tile(factor, (job.gpus, 1)), speed=rise)


def _slower(rng: np.random.Generator, job: Job, drop: Floats, bits: int, from_s: float, to_s: float) -> Effect:
    """Return the effect of one GPU's clocks being lower by the fraction `drop` of the grid, with these bits."""
    gpu, effect = int(rng.integers(job.gpus)), plain(rng, job)
    effect.clock[gpu] -= drop
    effect.bits[gpu] |= np.where(drop > 0, bits, 0)
    speed = effect.clock[gpu] ** rng.uniform(0.6, 1.0)
    return replace(effect, speed=speed, gpu=gpu, from_s=from_s, to_s=to_s)


Kind = Callable[[np.random.Generator, Job], Effect]
CONTAMINATIONS: dict[str, Kind] = {
    kind.__name__: kind for kind in (foreign_process, thermal_slowdown, clock_drop, cpu_load)
}
NORMAL: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (power_cap, hidden_pids, late_child, checkpoints, idle_dips, cpu_blip, warmup_ramp, plain)
}
# Beyond what the issue lists: an unattributable PID that is not the job's own. Drawn only by name.
BY_NAME: dict[str, Kind] = {hidden_foreign_process.__name__: hidden_foreign_process}
