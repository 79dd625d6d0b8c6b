"""Memory over time: a thread that samples the job's process tree and, where there is NVML, its GPUs.

Units are bytes and seconds. A figure that cannot be had is None with the reason beside it, never zero.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import psutil

PERIOD_S = 0.2


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment. `process_bytes` is what NVML counts for the job's processes, None if it hides that."""

    index: int
    used_bytes: int
    process_bytes: int | None


@dataclass(frozen=True)
class Sample:
    """The job at one moment (monotonic seconds): memory of its process tree, and its GPUs.

    Host memory is the proportional set size where the system has it, so that pages shared by a worker and its
    data-loading children count once; elsewhere the resident set size.
    """

    time_s: float
    host_bytes: int
    gpus: tuple[GpuSample, ...]


class Sampler:
    """Context that samples the process tree of `pid` and the GPUs `gpus` until it ends, into a file and a list."""

    def __init__(self, pid: int, gpus: Sequence[int], path: Path, period_s: float = PERIOD_S) -> None:
        self._root = psutil.Process(pid)
        self._gpus = tuple(gpus)
        self._path = path
        self._period_s = period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sampler", daemon=True)
        self._nvml, self.problem = open_nvml() if gpus else (None, None)
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def _loop(self) -> None:
        try:
            with self._path.open("w", encoding="utf-8") as stream:
                self._sample_into(stream)
        except (OSError, psutil.Error) as error:
            # A peak over a part of the run would pass for the peak of all of it.
            self.samples.clear()
            self.problem = f"sampling ended early: {error}"

    def _sample_into(self, stream: TextIO) -> None:
        while True:
            sample = self._take()
            if sample is not None:
                self.samples.append(sample)
                stream.write(json.dumps(asdict(sample)) + "\n")
                stream.flush()
            if self._ended.wait(self._period_s):
                return

    def _take(self) -> Sample | None:
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return None
        host = sum(_resident_bytes(process) for process in tree)
        if host == 0:
            return None
        pids = {process.pid for process in tree}
        return Sample(time.monotonic(), host, self._take_gpus(pids))

    def _take_gpus(self, pids: set[int]) -> tuple[GpuSample, ...]:
        if self._nvml is None:
            return ()
        try:
            return tuple(self._gpu(index, pids) for index in self._gpus)
        except self._nvml.NVMLError as error:
            self.problem = str(error)
            return ()

    def _gpu(self, index: int, pids: set[int]) -> GpuSample:
        nvml: Any = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        used = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
        mine = [p.usedGpuMemory for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid in pids]
        hidden = not mine or any(value is None for value in mine)
        return GpuSample(index, used, None if hidden else sum(mine))


def open_nvml() -> tuple[ModuleType | None, str | None]:
    """Return the initialised NVML module, or None and the reason why there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, str(error)
    return pynvml, None


def _resident_bytes(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.rss)
    except psutil.Error:  # gone in the meantime, or not ours to look into
        return 0
