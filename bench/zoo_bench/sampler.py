"""Samples a job while it runs, from threads of zoo-bench's own.

Device figures are read every `sample_period_s`, process lists every `process_period_s`, the host's side as often as
the devices but at most every HOST_PERIOD_S. Each has a thread of its own, so that a slow list delays no reading of
memory.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from zoo_bench.observer import Observer
from zoo_bench.telemetry import Telemetry

HOST_PERIOD_S = 0.2
PATIENCE_S = 10.0


class Sampler:
    """Context around a job. Entering takes the baseline, so enter it before the worker is launched; then `watch`.

    Sampling ends with the context, and `telemetry` gives what was seen.
    """

    def __init__(self, gpus: Sequence[int], path: Path, *, sample_period_s: float, process_period_s: float) -> None:
        self._gpus = tuple(gpus)
        self._path = path
        self._sample_period_s = sample_period_s
        self._process_period_s = process_period_s
        self._tickers: tuple[Ticker, ...] = ()
        self._wall_s = 0.0

    def __enter__(self) -> Sampler:
        self._observer = Observer(self._gpus)
        return self

    def watch(self, worker: int) -> None:
        """Start sampling the job of `worker`, which must lead a session of its own."""
        observer = self._observer
        observer.follow(worker, self._path)
        tickers = [Ticker("host", max(HOST_PERIOD_S, self._sample_period_s), observer.take_host, observer.note)]
        if observer.has_gpus:
            tickers += [
                Ticker("GPU", self._sample_period_s, observer.take_devices, observer.note),
                Ticker("GPU process", self._process_period_s, observer.take_lists, observer.note),
            ]
        self._tickers = tuple(tickers)
        self._started_s = time.monotonic()
        for ticker in self._tickers:
            ticker.start()

    def __exit__(self, *exception: object) -> None:
        for ticker in self._tickers:
            ticker.end()
        hung = [ticker for ticker in self._tickers if not ticker.ended(PATIENCE_S)]
        if not hung:  # else closing NVML would hang as well
            self._observer.close()
        if self._tickers:
            self._wall_s = time.monotonic() - self._started_s

    def telemetry(self) -> Telemetry:
        """Return what was seen. Call it after the context has ended."""
        cpu_s = math.fsum(ticker.cpu_s for ticker in self._tickers)
        return self._observer.telemetry(cpu_s / self._wall_s if self._wall_s else None)


class Ticker(threading.Thread):
    """Calls `take` at once and then at every multiple of `period_s` after it, until it is told to end.

    A call that takes too long, or a machine that sleeps, drops the calls it has missed: no burst follows. `cpu_s` is
    the CPU time of the thread so far.
    """

    def __init__(self, what: str, period_s: float, take: Callable[[], None], note: Callable[[str, str], None]) -> None:
        super().__init__(name=f"{what} sampler", daemon=True)
        self._what = what
        self._period_s = period_s
        self._take = take
        self._note = note
        self._end = threading.Event()
        self.cpu_s = 0.0

    def run(self) -> None:
        """Tick."""
        started_s, tick = time.monotonic(), 0
        while True:
            try:
                self._take()
            except Exception as error:  # noqa: BLE001 - a sampler that dies unseen would pass for a quiet machine
                self._note(f"{self._what} failed", f"{self._what} samples are missing: {type(error).__name__}: {error}")
            self.cpu_s = time.thread_time()
            elapsed_s = time.monotonic() - started_s
            tick = max(tick, int(elapsed_s / self._period_s)) + 1
            if self._end.wait(tick * self._period_s - elapsed_s):
                return

    def end(self) -> None:
        """Ask it to end after the call that is under way."""
        self._end.set()

    def ended(self, patience_s: float) -> bool:
        """Wait for the end. A driver that has hung on a lost GPU may never answer: then False, and a reason."""
        self.join(patience_s)
        if self.is_alive():
            self._note(f"{self._what} hangs", f"{self._what} sampling did not end within {patience_s:.0f} s")
        return not self.is_alive()
