"""What is recorded of a job from outside: its GPUs, their processes, its process tree, the machine's processors.

A figure that cannot be had is NaN or missing, with the reason in the telemetry's `problems`.

The file of samples starts with an object that names the columns; then each line is one of ``{"gpus": [row, ...]}``,
``{"host": row}`` and ``{"list_time_s": t, "processes": [[gpu, pid, bytes, owner], ...]}``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from zoo_bench.host import HostMeter, HostReading
from zoo_bench.nvml import Device, Reading, open_nvml
from zoo_bench.problems import Problems
from zoo_bench.processes import JobProcesses
from zoo_bench.samplefile import SampleFile, Table, row
from zoo_bench.telemetry import OWNERS, GpuSeries, HostSeries, ProcessSeries, Telemetry

GPU_COLUMNS = ("time_s", *Reading._fields)
HOST_COLUMNS = ("time_s", *HostReading._fields)
PROCESS_COLUMNS = ("time_s", "memory_bytes", "owner")


class Observer:
    """Takes samples when told to, and keeps them. The times are `clock`'s; `processes` says whose a process is.

    Making it takes the baseline: the GPUs' memory in use, and the processes that are there, before the job is launched.
    """

    def __init__(
        self,
        gpus: Sequence[int],
        clock: Callable[[], float] = time.monotonic,
        processes: JobProcesses | None = None,
    ) -> None:
        self._clock = clock
        self._started_s = clock()
        self._problems = Problems()
        self._processes = processes or JobProcesses()
        self._nvml = self._open_nvml() if gpus else None
        self._devices = tuple(Device(self._nvml, gpu, self._problems, self._since_start) for gpu in gpus if self._nvml)
        self._baselines = tuple(device.used_bytes() for device in self._devices)
        self._gpu_tables = tuple(Table(GPU_COLUMNS) for _ in self._devices)
        self._host_table = Table(HOST_COLUMNS)
        self._lists = Table(("time_s",))
        self._process_tables: dict[tuple[int, int], Table] = {}
        self._host: HostMeter | None = None
        self._file: SampleFile | None = None

    def follow(self, worker: int, path: Path) -> None:
        """Sample for the job of `worker`, a PID that leads a session, into a new file `path`."""
        self._processes.follow(worker)
        self._host = HostMeter(self._processes, self._problems, self._clock)
        self._file = SampleFile(path, self._problems)
        self._file.write(
            gpu_columns=GPU_COLUMNS,
            host_columns=HOST_COLUMNS,
            gpus=[
                {"index": device.index, "uuid": device.uuid, "baseline_bytes": None if math.isnan(bytes_) else bytes_}
                for device, bytes_ in zip(self._devices, self._baselines, strict=True)
            ],
            monotonic_s=self._now(),
            unix_s=time.time(),
        )

    @property
    def has_gpus(self) -> bool:
        """Whether there is a GPU to sample."""
        return bool(self._devices)

    def take_devices(self) -> None:
        """Read every GPU."""
        rows = []
        for device, table in zip(self._devices, self._gpu_tables, strict=True):
            reading = (self._now(), *device.read())
            table.append(reading)
            rows.append(row(reading))
        self._write(gpus=rows)

    def take_lists(self) -> None:
        """List the processes of every GPU, and then say whose they are: the other way round, a new one is nobody's."""
        taken_s = self._now()
        listed = [(device.index, *one) for device in self._devices for one in device.processes() or ()]
        self._processes.refresh()
        found = [(gpu, pid, used, self._processes.owner(pid)) for gpu, pid, used in listed]
        for gpu, pid, used, owner in found:
            table = self._process_tables.setdefault((gpu, pid), Table(PROCESS_COLUMNS))
            table.append((taken_s, math.nan if used is None else used, OWNERS.index(owner)))
        self._lists.append((taken_s,))
        self._write(list_time_s=taken_s, processes=found)

    def take_host(self) -> None:
        """Read the host's side, as long as a process of the job is there."""
        reading = None if self._host is None else self._host.read()
        if reading is not None:
            values = (self._now(), *reading)
            self._host_table.append(values)
            self._write(host=row(values))

    def note(self, about: str, problem: str) -> None:
        """Keep a reason of whoever drives this."""
        self._problems.add(about, problem)

    def close(self) -> None:
        """End the file and NVML."""
        if self._file is not None:
            self._file.close()
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def telemetry(self, own_cpu_share: float | None = None) -> Telemetry:
        """Return all samples. None can be taken after that."""
        series = zip(self._devices, self._baselines, self._gpu_tables, strict=True)
        return Telemetry(
            host=HostSeries(cores=self._host.cores if self._host else 1, **self._host_table.arrays()),
            gpus=tuple(_series(device, baseline, table) for device, baseline, table in series),
            processes=tuple(_process(*key, table) for key, table in self._process_tables.items()),
            list_times_s=self._lists.arrays()["time_s"],
            problems=self._problems.texts,
            own_cpu_share=own_cpu_share,
        )

    def _open_nvml(self) -> ModuleType | None:
        nvml, problem = open_nvml()
        if problem is not None:
            self._problems.add("NVML", f"NVML: {problem}: nothing is known of the GPUs from outside the job")
        return nvml

    def _now(self) -> float:
        return round(self._clock(), 6)

    def _since_start(self) -> float:
        return self._clock() - self._started_s

    def _write(self, **fields: object) -> None:
        if self._file is not None:
            self._file.write(**fields)


def _series(device: Device, baseline_bytes: float, table: Table) -> GpuSeries:
    columns = table.arrays()
    return GpuSeries(
        index=device.index,
        uuid=device.uuid,
        baseline_bytes=baseline_bytes,
        time_s=columns["time_s"],
        used_bytes=columns["used_bytes"],
        power_w=columns["power_w"],
        energy_j=columns["energy_j"],
        sm_clock_hz=columns["sm_clock_hz"],
        temperature_c=columns["temperature_c"],
        utilization=columns["utilization"],
        clocks_events=columns["clocks_events"].astype("int64"),
        mig=device.mig,
    )


def _process(gpu: int, pid: int, table: Table) -> ProcessSeries:
    columns = table.arrays()
    return ProcessSeries(gpu, pid, columns["time_s"], columns["memory_bytes"], columns["owner"].astype("int8"))
