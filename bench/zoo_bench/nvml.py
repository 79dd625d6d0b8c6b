"""What NVML says of one GPU, now. What it does not say is NaN or None, with the reason in `Problems`; nothing raises.

Units are bytes, watts, joules, hertz, degrees Celsius and fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from zoo_bench.problems import Problems

T = TypeVar("T")

NOT_AVAILABLE = (2**32 - 1, 2**64 - 1)  # NVML_VALUE_NOT_AVAILABLE, as unsigned int and as unsigned long long
MIG_ENABLED = 1


class Code(IntEnum):
    """The results of NVML that are told apart here (nvmlReturn_t)."""

    UNINITIALIZED = 1
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    DRIVER_NOT_LOADED = 9
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    LIB_RM_VERSION_MISMATCH = 18
    GPU_NOT_FOUND = 28


NEVER = frozenset((Code.NOT_SUPPORTED, Code.NO_PERMISSION, Code.FUNCTION_NOT_FOUND))
GONE = frozenset(
    (
        Code.UNINITIALIZED,
        Code.DRIVER_NOT_LOADED,
        Code.GPU_IS_LOST,
        Code.RESET_REQUIRED,
        Code.LIB_RM_VERSION_MISMATCH,
        Code.GPU_NOT_FOUND,
    )
)


class Reading(NamedTuple):
    """The figures of a GPU at one moment; the names and NaN are those of `telemetry.GpuSeries`."""

    used_bytes: float
    power_w: float
    energy_j: float
    sm_clock_hz: float
    temperature_c: float
    utilization: float
    clocks_events: int


def open_nvml() -> tuple[ModuleType | None, str | None]:
    """Return the initialised NVML module, or None and the reason why there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, str(error)
    return pynvml, None


class Device:
    """One GPU, by NVML's index. `since_start` gives the seconds that a reason names when something fails on the way.

    What NVML will never tell (not supported, no permission) is asked for once. A GPU that is lost is not asked again.
    """

    def __init__(self, nvml: Any, index: int, problems: Problems, since_start: Callable[[], float]) -> None:
        self._nvml = nvml
        self._name = f"GPU {index}"
        self._problems = problems
        self._since_start = since_start
        self._errors = (nvml.NVMLError, nvml.NVMLLibraryMismatchError)
        self._refused: set[str] = set()
        self._lost = False
        self._clocks_events: Callable[[], int] = self._clocks_event_reasons
        self._handle = self._ask("handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        self._lost = self._handle is None
        self.index = index
        self.uuid = str(self._ask("UUID", lambda: nvml.nvmlDeviceGetUUID(self._handle)) or "")
        self.mig = self._look_at_mig()

    def used_bytes(self) -> float:
        """Memory in use on the whole device, by any process and the driver."""
        return self._figure("memory", lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def read(self) -> Reading:
        """Return every figure of this moment, memory first."""
        nvml, handle, figure = self._nvml, self._handle, self._figure
        return Reading(
            used_bytes=self.used_bytes(),
            energy_j=figure("energy counter", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3,
            power_w=figure("power", lambda: nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3,
            sm_clock_hz=figure("SM clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)) * 1e6,
            temperature_c=figure(
                "temperature", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            utilization=figure("utilisation", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100,
            clocks_events=self._read_clocks_events(),
        )

    def processes(self) -> list[tuple[int, int | None]] | None:
        """Return PID and bytes of every compute process; None for a list that cannot be had.

        Bytes are None where NVML does not tell them. 0 means the same: inside some containers NVML names a process and
        gives 0, though a context on a GPU always takes memory.
        """
        found = self._ask("process list", self._list_processes)
        return None if found is None else [(int(one.pid), one.usedGpuMemory or None) for one in found]

    def _list_processes(self) -> list[Any]:
        try:
            return list(self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        except self._nvml.NVMLLibraryMismatchError:  # a driver of before 2022
            return list(self._nvml.nvmlDeviceGetComputeRunningProcesses_v2(self._handle))

    def _read_clocks_events(self) -> int:
        events = self._ask("clocks event reasons", lambda: self._clocks_events())
        return -1 if events is None else int(events)

    def _clocks_event_reasons(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        except self._nvml.NVMLError as error:
            if error.value != Code.FUNCTION_NOT_FOUND:
                raise
            self._clocks_events = self._clocks_throttle_reasons  # what drivers of before 2023 call it
            return self._clocks_events()

    def _clocks_throttle_reasons(self) -> int:
        return int(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))

    def _look_at_mig(self) -> bool:
        if self._lost:
            return False
        try:
            current, _pending = self._nvml.nvmlDeviceGetMigMode(self._handle)
        except self._errors:  # most GPUs cannot be divided, and then none is
            return False
        if current == MIG_ENABLED:
            self._problems.add(
                (self._name, "MIG"),
                f"{self._name}: MIG is on: figures are of the whole device, not of the instance, and other processes "
                "are not looked for",
            )
        return bool(current == MIG_ENABLED)

    def _figure(self, quantity: str, read: Callable[[], float]) -> float:
        value = self._ask(quantity, read)
        if value in NOT_AVAILABLE:
            self._problems.add((self._name, quantity), f"{self._name}: {quantity}: N/A")
            return math.nan
        return math.nan if value is None else value

    def _ask(self, quantity: str, read: Callable[[], T]) -> T | None:
        if self._lost or quantity in self._refused:
            return None
        try:
            return read()
        except self._errors as error:
            self._note(quantity, error)
            return None

    def _note(self, quantity: str, error: Exception) -> None:
        code = getattr(error, "value", Code.FUNCTION_NOT_FOUND)
        word = self._nvml.NVMLError(code)  # a mismatch of versions brings advice for programmers in place of it
        when = f"{self._since_start():.1f} s after sampling began"
        if code in GONE:
            self._lost = True
            self._problems.add((self._name, "lost"), f"{self._name}: lost {when}: {word}")
        elif code in NEVER:
            self._refused.add(quantity)
            self._problems.add((self._name, quantity), f"{self._name}: {quantity}: {word}")
        else:
            self._problems.add((self._name, quantity), f"{self._name}: {quantity}, {when}: {word}")
