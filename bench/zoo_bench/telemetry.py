"""What was seen of a job from outside, over time: its GPUs, their processes, and the host. Values only.

Arrays are float64 and as long as their `time_s` (monotonic seconds); NaN stands for what could not be had, and
`problems` say why. NVML's own words are kept where it has some, so that a figure can be looked up in its reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Span: TypeAlias = tuple[float, float]  # from and to, monotonic seconds
Owner = Literal["job", "foreign", "unknown"]
OWNERS: tuple[Owner, ...] = get_args(Owner)


class ClocksEvent(IntFlag):
    """Why a GPU's clocks are where they are: NVML's nvmlClocksEventReasons (once called throttle reasons)."""

    GPU_IDLE = 0x1
    APPLICATIONS_CLOCKS_SETTING = 0x2
    SW_POWER_CAP = 0x4
    HW_SLOWDOWN = 0x8
    SYNC_BOOST = 0x10
    SW_THERMAL_SLOWDOWN = 0x20
    HW_THERMAL_SLOWDOWN = 0x40
    HW_POWER_BRAKE_SLOWDOWN = 0x80
    DISPLAY_CLOCK_SETTING = 0x100


@dataclass(frozen=True)
class GpuSeries:
    """One GPU of the job. `energy_j` is NVML's counter, which only grows; `utilization` is a fraction.

    `clocks_events` holds `ClocksEvent` bits, -1 where they could not be had. `baseline_bytes` is the device's memory
    in use before the job was launched. With `mig` it is divided into instances: figures are of the whole device, and
    its list has the processes of all of them.
    """

    index: int
    uuid: str
    baseline_bytes: float
    time_s: Floats
    used_bytes: Floats
    power_w: Floats
    energy_j: Floats
    sm_clock_hz: Floats
    temperature_c: Floats
    utilization: Floats
    clocks_events: NDArray[np.int64]
    mig: bool = False


@dataclass(frozen=True)
class ProcessSeries:
    """One PID in NVML's lists of one GPU, an entry for each that has it. `memory_bytes` is NaN where NVML tells none.

    `owners` says whose each list found it to be, as places in `OWNERS`: job, where the process is of the job's process
    tree or session, or once was; foreign, where it is another process of this machine; unknown, where this machine's
    process table does not have it, as in a container that hides the host's processes.
    """

    gpu: int
    pid: int
    time_s: Floats
    memory_bytes: Floats
    owners: NDArray[np.int8]

    def found(self, owner: Owner) -> NDArray[np.bool_]:
        """Return which lists found it to be `owner`'s."""
        return np.asarray(self.owners == OWNERS.index(owner))


@dataclass(frozen=True)
class HostSeries:
    """The processors' and the memory's side. CPU seconds are cumulative since the job's start.

    `tree_bytes` is the proportional set size of the job's process tree; `outside_cpu_s` what the `cores` processors
    that the job may use did for anything but the job and zoo-bench itself, time stolen by other virtual machines
    included.
    """

    cores: int
    time_s: Floats
    tree_bytes: Floats
    tree_cpu_s: Floats
    outside_cpu_s: Floats


@dataclass(frozen=True)
class Telemetry:
    """Everything that was sampled during one job. `list_times_s`: when process lists were taken.

    `own_cpu_share` is the CPU time that sampling itself took, as a share of the wall time; None when not known.
    """

    host: HostSeries
    gpus: tuple[GpuSeries, ...]
    processes: tuple[ProcessSeries, ...]
    list_times_s: Floats
    problems: tuple[str, ...]
    own_cpu_share: float | None


def floats(values: Sequence[float]) -> Floats:
    """Return `values` as the arrays of this module."""
    return np.asarray(values, dtype=np.float64)
