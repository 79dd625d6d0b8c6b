"""Whether GPUs got back the memory that a job held there: nothing is to begin on one that did not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from zoo_bench.interrupts import Presses
from zoo_bench.nvml import Device, open_nvml
from zoo_bench.problems import Problems
from zoo_bench.units import gigabytes

PATIENCE_S = 10.0
POLL_S = 0.1
LOOK_S = 1.0
TOLERANCE_BYTES = 2**29  # what a driver and a desktop take and return by themselves


class SetAside:
    """The GPUs whose memory was not given back, by NVML's index. Their leases are kept: no runner takes them."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[float, ExitStack]] = {}
        self._looked_s = 0.0

    @contextmanager
    def watched(self, leases: Mapping[int, ExitStack], told: Callable[[str], None], presses: Presses) -> Iterator[None]:
        """Let go of leases when a job has ended, but for GPUs that it left memory on; `told` hears of these."""
        before = _in_use(leases)
        try:
            yield
        finally:
            kept = _wait(before, presses)
            for gpu, lease in leases.items():
                if gpu not in kept:
                    lease.close()
                    continue
                self._kept[gpu] = (before[gpu], lease)
                told(
                    f"GPU {gpu} is set aside: the job has ended, and {gigabytes(kept[gpu], 1)} GB more of its memory "
                    "are in use than before it (nvidia-smi shows by whom)"
                )

    def look_again(self) -> None:
        """Let go of those that are free by now. Cheap to call often: it looks every LOOK_S at most."""
        if not self._kept or time.monotonic() - self._looked_s < LOOK_S:
            return
        kept = _more({gpu: before for gpu, (before, _) in self._kept.items()})
        for gpu in self._kept.keys() - kept:
            self._kept.pop(gpu)[1].close()
        self._looked_s = time.monotonic()


def _wait(before: Mapping[int, float], presses: Presses) -> dict[int, float]:
    pressed, deadline = presses.count, time.monotonic() + PATIENCE_S
    while (kept := _more(before)) and time.monotonic() < deadline and presses.count == pressed:
        time.sleep(POLL_S)
    return kept


def _more(before: Mapping[int, float]) -> dict[int, float]:
    """Return by how many bytes more is in use than before, of the GPUs where that is too much."""
    now = _in_use(before)
    return {gpu: now[gpu] - used for gpu, used in before.items() if now[gpu] - used > TOLERANCE_BYTES}


def _in_use(gpus: Iterable[int]) -> dict[int, float]:
    """Return the bytes in use, NaN where NVML does not say."""
    nvml, _ = open_nvml() if gpus else (None, None)
    if nvml is None:
        return dict.fromkeys(gpus, float("nan"))
    try:
        return {gpu: Device(nvml, gpu, Problems(), lambda: 0.0).used_bytes() for gpu in gpus}
    finally:
        nvml.nvmlShutdown()
