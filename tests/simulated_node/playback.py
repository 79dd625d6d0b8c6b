"""A job and what happens to it, played: its training, then what its GPUs, their memory and the host show of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zoo_bench.telemetry import ClocksEvent, Floats, HostSeries, floats

from .curve import Curve
from .jobs import WARM_S, Job
from .kinds import Effect
from .node import GIB, Gpu, Process
from .runs import Course, Pause, WorkerEvent, event, jitter, shares, warmup_excess
from .signals import PERIOD_S, autocorrelated, jittered_grid, lagged, loguniform, ramp, within

HEAT = int(ClocksEvent.SW_THERMAL_SLOWDOWN | ClocksEvent.HW_THERMAL_SLOWDOWN)
IDLE_SPIKE_S = 0.3
LONGEST_SPIKE_S = 0.1 * WARM_S  # so that, with five or six of them, warm-up is over in WARM_S
CLOCK_BIN_HZ = 15e6


@dataclass(frozen=True, eq=False)
class Training:
    """The iterations, and the spans in which the GPUs stood still; the last one begins when training ends."""

    course: Course
    idle: tuple[tuple[float, float], ...]

    @property
    def ends_s(self) -> float:
        """When the last iteration ended."""
        return self.idle[-1][0]

    def busy(self, time_s: Floats) -> Floats:
        """Return 1 where the GPUs work, else 0."""
        idle = sum((within(time_s, from_s, to_s) for from_s, to_s in self.idle), np.zeros(len(time_s)))
        return 1.0 - np.minimum(idle, 1.0)


def train(rng: np.random.Generator, job: Job, effect: Effect) -> Training:
    """Train until the job's time is over."""
    most = int(job.share_of_training(1.0) / job.mean_s * 4) + 50
    steady = job.mean_s * jitter(rng, most, float(rng.uniform(0, 0.8)))
    spikes = np.minimum(job.mean_s * warmup_excess(rng, most), LONGEST_SPIKE_S)
    spikes[int(0.4 * WARM_S / job.mean_s) :] = 0.0
    data = steady * shares(rng, most, float(rng.uniform(0, 0.2)))
    times: list[float] = []
    excess: list[float] = []
    pauses: list[Pause] = []
    idle = [(-np.inf, job.trains_from_s)]
    stops = sorted(effect.stops, key=lambda stop: stop.at_s)
    now_s = job.trains_from_s
    while now_s < job.duration_s and len(times) < most:
        index = len(times)
        extra = float(spikes[index])
        while stops and stops[0].at_s <= now_s and index:
            stop = stops.pop(0)
            extra += stop.length_s
            if stop.event:
                pauses.append(Pause(index, stop.length_s, stop.event))
            else:
                data[index] += stop.length_s
        if extra > IDLE_SPIKE_S:
            idle.append((now_s, now_s + extra))
        excess.append(extra)
        times.append(extra + float(steady[index] / np.interp(now_s + extra, job.time_s, effect.speed)))
        now_s += times[-1]
    idle.append((now_s, np.inf))
    return Training(Course(floats(times), data[: len(times)], floats(excess), tuple(pauses)), tuple(idle))


def gpu(rng: np.random.Generator, job: Job, effect: Effect, training: Training, index: int) -> Gpu:
    """Play one GPU: what NVML says of it but for its processes."""
    model, time_s = job.model, job.time_s
    busy = training.busy(time_s)
    if index != effect.gpu:
        # It waits for the slowest rank, or for a starved host, and works only as long as its own clock has it.
        busy *= np.clip(effect.speed / effect.clock[index] ** 0.8, 0.0, 1.0)
    clock, idle_bit = _clock(rng, job, effect, training, index)
    bits = effect.bits[index] & np.where(busy > 0, ~0, ~int(ClocksEvent.SW_POWER_CAP))
    bits |= idle_bit * int(ClocksEvent.GPU_IDLE)
    power = _power(rng, job, bits, busy, clock)
    hot_c = rng.uniform(84, 92) if np.any(bits & HEAT) else rng.uniform(58, 79)
    heat = lagged(power / power.max(), float(np.exp(-PERIOD_S / rng.uniform(8, 40))))
    temperature = 28 + (hot_c - 28) * heat + rng.normal(0, 0.3, len(time_s))
    use = lagged(busy * np.clip(rng.uniform(0.85, 1.0) + 0.05 * autocorrelated(rng, len(time_s), 0.7), 0, 1), 0.6)
    return Gpu(
        name=model.name,
        uuid=f"GPU-{rng.integers(16**8):08x}-{rng.integers(16**4):04x}-4a1b-9c2d-{rng.integers(16**12):012x}",
        total_bytes=Curve.constant(model.total_bytes),
        reserved_bytes=Curve.constant(float(rng.integers(300, 900)) * 2**20),
        power_w=Curve(time_s, power.round(3)),
        power_limit_w=Curve.constant(model.limit_w),
        energy_start_j=Curve.constant(round(loguniform(rng, 1e6, 1e9), 3)),
        energy_step_s=Curve.constant(float(rng.choice([0.02, 0.1]))),
        sm_clock_hz=_changes(time_s, clock),
        mem_clock_hz=Curve.constant(model.mem_hz),
        max_sm_clock_hz=Curve.constant(model.boost_hz),
        max_mem_clock_hz=Curve.constant(model.mem_hz),
        # NVML reads clocks and their reasons one after the other.
        clocks_events=_changes(time_s + rng.uniform(0.0, 0.05), bits.astype(np.float64)),
        temperature_c=Curve(time_s[::5], temperature[::5].round(1)),
        utilization=Curve(time_s, use.round(3), steps=True),
        nvlinks=Curve.constant(12.0 if job.gpus > 1 else 0.0),
    )


def rank_process(rng: np.random.Generator, job: Job, index: int, pid: int) -> Process:
    """Return a rank's process on its GPU: its context, and what its allocator holds."""
    opens_s = float(rng.uniform(0.3, 0.8)) * job.trains_from_s
    held, context = job.reserved_bytes[index], job.context_bytes[index]
    times = floats([opens_s, *held.time_s[held.time_s > opens_s]])
    return Process(Curve(times, held.at(times) + context, steps=True), pid, from_s=opens_s, to_s=job.duration_s + 60)


def allocator_peaks(rng: np.random.Generator, job: Job, training: Training) -> Iterator[WorkerEvent]:
    """Yield what the ranks' allocators held at most so far, about once a second and at the end."""
    last_s = training.ends_s + 0.05
    times = np.arange(job.trains_from_s + rng.uniform(0.9, 1.1), last_s - 0.1, 1.0)
    used = rng.uniform(0.75, 0.97, job.gpus)
    for time_s in [*(times + rng.uniform(0, 0.08, len(times))), last_s]:
        for rank, held in enumerate(job.reserved_bytes):
            most = held.peak(-1.0, float(time_s))
            sizes = {"allocated_bytes": int(used[rank] * most), "reserved_bytes": int(most)}
            yield event(float(time_s) + 1e-4 * rank, "allocator_peak", rank=rank, device=f"cuda:{rank}", **sizes)


def host(rng: np.random.Generator, job: Job, effect: Effect, training: Training) -> HostSeries:
    """Play the host: what the job's tree and everything else does, read as /proc tells it, in hundredths of seconds."""
    count = len(job.time_s)
    quiet = rng.uniform(0.005, 0.03) + 0.001 * job.cores * rng.random()
    outside = quiet * rng.gamma(2.0, 0.5, count) + effect.outside_cores
    outside = np.minimum(outside, 0.98 * job.cores)
    wish = job.tree_cores * (0.4 + 0.6 * training.busy(job.time_s))
    wish = np.where(job.time_s < job.trains_from_s, min(1.0, 0.9 * job.cores), wish)
    wish *= np.clip(1 + 0.05 * autocorrelated(rng, count, 0.6), 0, 2)
    tree = np.minimum(wish, job.cores - outside)
    times = _sampling_times(rng, training.ends_s + 0.5)
    done, others = (np.interp(times, job.time_s, _summed(job.time_s, cores)) for cores in (tree, outside))
    # The machine's counters and the tree's are read some milliseconds apart.
    late = rng.uniform(0.0, 0.004, len(times)) * np.interp(times, job.time_s, tree + outside)
    grown = loguniform(rng, 1.0, 20.0) * GIB * (0.1 + 0.9 * ramp(times, 0.5, job.trains_from_s + 5))
    return HostSeries(
        cores=job.cores,
        time_s=times,
        tree_bytes=np.round(grown * (1 + 0.002 * autocorrelated(rng, len(times), 0.9))),
        tree_cpu_s=np.floor(100 * done) / 100,
        outside_cpu_s=np.floor(100 * (others + late)) / 100,
    )


def _clock(
    rng: np.random.Generator, job: Job, effect: Effect, training: Training, index: int
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Return a GPU's clock, and where it says that it is idle: it notices late, clocks lower some time after."""
    time_s, model = job.time_s, job.model
    plateau = model.boost_hz * rng.uniform(0.85, 1.0)
    clock = plateau * effect.clock[index] * (1 + 0.004 * autocorrelated(rng, len(time_s), 0.6))
    idle_bit = np.zeros(len(time_s), dtype=np.bool_)
    is_lowering = rng.random() < 0.7
    for from_s, to_s in training.idle:
        noticed_s, wakes_s = from_s + rng.uniform(0.1, 0.5), to_s + rng.uniform(0.05, 0.3)
        idle_bit |= within(time_s, noticed_s, to_s) > 0
        lower_s = noticed_s + rng.uniform(0.0, 1.0)
        if lower_s < to_s and (is_lowering or from_s < 0):
            clock = np.where(within(time_s, lower_s, wakes_s) > 0, 0.6 * plateau, clock)
            clock = np.where(within(time_s, lower_s + 0.5, wakes_s) > 0, model.idle_hz, clock)
    return np.minimum(CLOCK_BIN_HZ * np.round(clock / CLOCK_BIN_HZ), model.boost_hz), idle_bit


def _power(rng: np.random.Generator, job: Job, bits: np.ndarray, busy: Floats, clock: Floats) -> Floats:
    is_capped = (bits & int(ClocksEvent.SW_POWER_CAP)) > 0
    load_w = job.model.limit_w * (0.985 if np.any(is_capped) else rng.uniform(0.6, 0.93))
    effort = np.where(is_capped, 1.0, (clock / np.median(clock[busy > 0])) ** 2)
    noise = 1 + 0.03 * autocorrelated(rng, len(busy), 0.5)
    power = job.model.idle_w + (load_w - job.model.idle_w) * busy * np.minimum(effort, 1.2) * noise
    return np.clip(lagged(power, 0.4), 0.8 * job.model.idle_w, 1.03 * job.model.limit_w)


def _changes(time_s: Floats, values: Floats) -> Curve:
    changed = np.concatenate([[True], values[1:] != values[:-1]])
    return Curve(time_s[changed], values[changed], steps=True)


def _sampling_times(rng: np.random.Generator, to_s: float) -> Floats:
    times = jittered_grid(rng, to_s) + rng.uniform(0, PERIOD_S)
    # Now and then the sampler itself comes late.
    return times[rng.random(len(times)) > 0.01]


def _summed(time_s: Floats, rate: Floats) -> Floats:
    steps = np.diff(time_s) * (rate[1:] + rate[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])
