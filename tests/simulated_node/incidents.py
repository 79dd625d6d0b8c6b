"""Simulated jobs on a simulated node, contaminated or clean, with the truth about them.

    contaminated(seed), clean(seed)      of a kind drawn by the seed, or of the one that is asked for

Each is a job of 50 to 240 seconds on one GPU or several: what NVML answers (a scenario on the job's own time, 0 being
its launch), what the worker writes, what the host's processors did, and whose PIDs are whose. Everything has noise, and
most have something else too that is normal: checkpoints, a power cap, hidden PIDs, the system's own housekeeping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zoo_bench.telemetry import HostSeries, Owner

from .jobs import Job, drawn_job
from .kinds import BY_NAME, CONTAMINATIONS, NORMAL, Effect
from .node import Scenario
from .playback import allocator_peaks, gpu, host, rank_process, train
from .runs import WorkerEvent, worker_events

# What else a run may have, and how often.
COMPANY = {
    "checkpoints": 0.4,
    "idle_dips": 0.3,
    "power_cap": 0.3,
    "warmup_ramp": 0.3,
    "cpu_blip": 0.3,
    "hidden_pids": 0.25,
    "late_child": 0.15,
}
SHORT_S = 25.0
# What nobody could tell apart: a drop without the power cap's bit is no such thing under the cap; a container that
# hides PIDs shows no foreign process as alive, and hides the job's own child as well.
APART = {
    "clock_drop": {"power_cap"},
    "foreign_process": {"hidden_pids"},
    "hidden_foreign_process": {"hidden_pids", "late_child"},
    "hidden_pids": {"late_child"},
    "late_child": {"hidden_pids"},
    "plain": set(COMPANY),
}


@dataclass(frozen=True)
class Label:
    """What was done to a run. The span is the incident's (infinite at an end: longer than the job); GPU None: no GPU's.

    `company` is what else the run has, all of it normal.
    """

    kind: str
    contaminated: bool
    from_s: float
    to_s: float
    gpu: int | None
    company: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class NodeRun:
    """A job on a node. Events, scenario and host have one time, of which 0 is the launch; baselines lie before it.

    Processes that NVML names are the job's (`job_pids`), others' that live here (`foreign_pids`), or none of this
    machine's process table (`hidden_pids`, whoever's they are).
    """

    seed: int
    label: Label
    duration_s: float
    scenario: Scenario
    events: tuple[WorkerEvent, ...]
    host: HostSeries
    job_pids: frozenset[int]
    foreign_pids: frozenset[int]
    hidden_pids: frozenset[int]

    def owner(self, pid: int) -> Owner:
        """Return whose a PID is, as the process table tells it."""
        return "job" if pid in self.job_pids else "foreign" if pid in self.foreign_pids else "unknown"


def contaminated(seed: int, kind: str | None = None) -> NodeRun:
    """Draw a run whose figures are spoilt: one of CONTAMINATIONS, or of BY_NAME. Raises KeyError for another kind."""
    rng = np.random.default_rng([seed, 2])
    drawn = str(rng.choice(list(CONTAMINATIONS)))
    return _played(rng, seed, kind or drawn, is_contaminated=True)


def clean(seed: int, kind: str | None = None) -> NodeRun:
    """Draw a run whose figures are good: one of NORMAL, whose kind it surely has. Raises KeyError for another kind."""
    rng = np.random.default_rng([seed, 3])
    drawn = str(rng.choice(list(NORMAL)))
    return _played(rng, seed, kind or drawn, is_contaminated=False)


def _played(rng: np.random.Generator, seed: int, kind: str, is_contaminated: bool) -> NodeRun:
    job = drawn_job(rng)
    company = _company(rng, kind)
    effect = (CONTAMINATIONS | BY_NAME if is_contaminated else NORMAL)[kind](rng, job)
    for other in company:
        effect += NORMAL[other](rng, job)
    if kind == "clock_drop" and effect.to_s - effect.from_s < SHORT_S:
        # Clocks of a GPU that stands still show nothing.
        apart = tuple(stop for stop in effect.stops if not effect.from_s - 15 < stop.at_s < effect.to_s)
        effect = replace(effect, stops=apart)
    training = train(rng, job, effect)
    seen = _reported_pids(rng, job, effect)
    gpus = [gpu(rng, job, effect, training, index) for index in range(job.gpus)]
    for index, pid in enumerate(seen):
        others = tuple(process for where, process in effect.processes if where == index)
        processes = (rank_process(rng, job, index, pid), *others)
        gpus[index] = replace(gpus[index], processes=processes)
    if not effect.hidden and rng.random() < 0.08:
        gpus = [replace(one, not_supported=("process_memory",)) for one in gpus]
    late = int(rng.integers(2, 20)) if rng.random() < 0.3 else 0
    events = worker_events(rng, training.course, job.trains_from_s, late, allocator_peaks(rng, job, training))
    named = {process.pid for one in gpus for process in one.processes if process.pid is not None}
    ours = frozenset(job.pids) | effect.child_pids
    return NodeRun(
        seed=seed,
        label=Label(kind, is_contaminated, effect.from_s, effect.to_s, effect.gpu, company),
        duration_s=training.ends_s + 0.5,
        scenario=Scenario(gpus=tuple(gpus)),
        events=events,
        host=host(rng, job, effect, training),
        job_pids=ours,
        foreign_pids=effect.foreign_pids,
        hidden_pids=frozenset(named - ours - effect.foreign_pids),
    )


def _company(rng: np.random.Generator, kind: str) -> tuple[str, ...]:
    drawn = [name for name, chance in COMPANY.items() if rng.random() < chance]
    kept = [name for name in drawn if name != kind and name not in APART.get(kind, set())]
    if "hidden_pids" in kept and "late_child" in kept:
        kept.remove("late_child")
    return tuple(kept)


def _reported_pids(rng: np.random.Generator, job: Job, effect: Effect) -> tuple[int, ...]:
    """Return the PIDs by which NVML names the ranks: their own, or the host's where the container hides those."""
    if not effect.hidden:
        return job.pids
    return tuple(int(pid) for pid in 500_000 + rng.choice(3_000_000, job.gpus, replace=False))
