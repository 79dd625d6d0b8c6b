"""What every worker shares: its argv, its job, its event stream and the way it ends.

Standard library only and Python 3.6 syntax: the oldest framework of the zoo runs on nothing newer.

The protocol (version 1)
------------------------
The harness starts ``PYTHON -m models.<backend>.<module> --job JOB.json`` in the folder that holds ``models/``.

JOB.json: ``protocol`` (1), ``run_id``, ``cell`` (every value resolved), ``phases`` (of train, infer, evaluate),
``dataset`` (``train`` and ``val``, each ``images`` and ``annotations``), ``nodes`` (machines that share the job; more
than 1 only for a backend that offers it), ``devices`` (of this machine: ``["cpu"]`` or ``["gpu:0", ...]``),
``checkpoint`` (a file to load in place of training, or null) and ``paths`` (``output``, ``events``, ``model``,
``detections``, ``enough``, ``checkpoints``, ``index``) and ``trial``. A file ``enough`` appears when more training
iterations would tell nothing new: training then ends within a few. ``checkpoints`` is a folder for the states from
which an interrupted training of the same cell can be resumed; what lies there is resumed from, by a worker that can.
``index`` is a folder for what was made of annotation files (models/index.py): all runs share it, so it may be there
already, or be in use by another process. With ``trial`` true the job only tries whether the cell would run: it trains
on the largest images.

The worker answers with one JSON object a line in ``paths.events``, never on stdout, where frameworks print. Every
event has ``event``, ``time_s`` (monotonic), ``unix_s`` and ``protocol``. Seconds and bytes everywhere:

    init_start        {}
    init_stop         environment: {name: version}, parameters, images: {train, val}
    run_start         phases
    train_resumed     iteration (the last one that was done before), path
    epoch_start       epoch
    step              iteration (from 1), iterations, loss, losses: {name: value}, lr, iteration_time_s (from the end
                      of the last iteration to the end of this one), data_time_s (of it, waiting for data), batch_size,
                      end_s (monotonic; when it ended, for a device that tells it later; else time_s is that),
                      averaged_over (the iterations up to this one that its figures are means of; else 1). Of a trainer
                      that does not tell them, loss, lr and data_time_s are left out
    epoch_stop        epoch
    checkpoint_saved  path, iteration, final, trained (the whole schedule was run), bytes
    infer_step        index (from 1), images (planned), image_id, load_s, preprocess_s, forward_s, postprocess_s,
                      encode_s, detections, warmup
    eval_start        images
    eval_step         index, images
    eval_stop         detections (path of a COCO results list), count
    eval_result       box: {...}, mask: {...}    (only of a worker that scores itself)
    allocator_peak    rank, device, allocated_bytes, reserved_bytes (largest so far; about once a second in training,
                      and at its end)
    memory_peak       bytes, count (allocated or reserved), over_gpus (max, rank0 or sum): what a trainer that is not
                      ours says of itself; the last two are left out where it does not tell
    heartbeat         {}    (nothing else was written for some seconds; a sign of life, not of progress)
    error             phase, kind (one of ERROR_KINDS), message
    run_stop          status: success, failed or aborted

Of several processes one alone writes events, but for the error and run_stop of a job that one of them has ended.

The run succeeded only if run_stop says success and the exit code is 0. SIGINT and SIGTERM end it as aborted, with
exit code 128 + signal number (130 for Ctrl-C); a failure ends it with 1, its traceback on stderr. It ends likewise when
the process that started it has gone.
"""

import argparse
import errno
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional

PROTOCOL = 1
EVENTS = (
    "init_start",
    "init_stop",
    "run_start",
    "train_resumed",
    "epoch_start",
    "step",
    "epoch_stop",
    "checkpoint_saved",
    "infer_step",
    "eval_start",
    "eval_step",
    "eval_stop",
    "eval_result",
    "allocator_peak",
    "memory_peak",
    "heartbeat",
    "error",
    "run_stop",
)
ERROR_KINDS = ("out_of_memory", "diverged", "exception", "data")
# CUDA's own words, the status that cuDNN and cuBLAS give it; those of libc, of torch's and MXNet's host allocators.
MEMORY_SIGNS = (
    "out of memory",
    "alloc_failed",
    "allocate memory",
    "bad_alloc",
    "not enough memory",
    "failed to allocate",
)
HEARTBEAT_S = 5.0
PARENT_S = 1.0  # between looks whether the harness is still there
ORPHAN_PATIENCE_S = 5.0
STDERR = 2


class WorkerError(Exception):
    """A failure the worker understood: its message tells the reader what happened, where and what to do."""

    def __init__(self, message: str, kind: str = "exception") -> None:
        super().__init__(message)
        self.kind = kind


class Stopped(KeyboardInterrupt):
    """The harness, or the user, asked the worker to stop with a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


class EventWriter:
    """Appends events to one file, each in a single unbuffered write, so a reader never sees two halves interleaved.

    ``phase`` is the phase an error would be reported for; the worker sets it as it goes on.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = False
        self._lock = threading.Lock()
        self._last_write_s = time.monotonic()
        self.phase = "init"

    def write(self, event: str, **fields: Any) -> None:
        """Write one event.

        Raises ValueError for one the protocol lacks, or a number that is not finite; OSError where the disk is full.
        """
        if event not in EVENTS:
            raise ValueError(f"unknown event {event!r}; the protocol has {', '.join(EVENTS)}")
        record = {"event": event, "time_s": time.monotonic(), "unix_s": time.time(), "protocol": PROTOCOL}
        record.update(fields)
        line = (json.dumps(record, allow_nan=False) + "\n").encode("utf-8")
        with self._lock:
            if self._torn:  # what is left of a line that found the disk full must not spoil this one
                os.write(self._descriptor, b"\n")
            written = os.write(self._descriptor, line)
            self._torn = written < len(line)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
            self._last_write_s = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since the last event."""
        return time.monotonic() - self._last_write_s

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Heartbeat:
    """Context that writes a heartbeat whenever the worker has been silent for ``interval_s`` seconds.

    It also ends the worker when the process that started it has gone: a harness that was killed can stop nothing.
    """

    def __init__(self, events: EventWriter, interval_s: float = HEARTBEAT_S) -> None:
        self._events = events
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._parent = os.getppid()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self._ended.wait(min(PARENT_S, max(0.01, self._interval_s - self._events.silent_s()))):
            if os.getppid() != self._parent:
                self._end_orphan()
                return
            if self._events.silent_s() >= self._interval_s:
                self._events.write("heartbeat")

    def _end_orphan(self) -> None:
        """Stop as the harness would have done: ask, then kill; with it all that it started, where it leads a group."""
        whom = 0 if os.getpgrp() == os.getpid() else os.getpid()
        os.kill(whom, signal.SIGTERM)
        if not self._ended.wait(ORPHAN_PATIENCE_S):
            os.kill(whom, signal.SIGKILL)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()


def read_job(argv: Optional[List[str]] = None) -> Dict[str, Any]:
    """Parse ``--job FILE`` and read the job. Exits with 2 and one line when the file is no job of this protocol."""
    parser = argparse.ArgumentParser(description="A zoo-bench worker; the harness starts it.")
    parser.add_argument("--job", required=True, help="job.json as the harness wrote it")
    path = parser.parse_args(argv).job
    try:
        with open(path, encoding="utf-8") as stream:
            job = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        parser.error(f"cannot read the job {path}: {error}")
    found = job.get("protocol") if isinstance(job, dict) else None
    if found != PROTOCOL:
        parser.error(f"{path} has protocol {found!r:.100}; this worker speaks {PROTOCOL}")
    paths = job.get("paths")
    if not isinstance(paths, dict) or not isinstance(paths.get("events"), str):
        parser.error(f"{path} does not say where events are to be written: paths.events")
    return job


def has_enough(job: Dict[str, Any]) -> bool:
    """Whether the harness has said that more iterations would tell nothing new. Cheap: one look at a file's name."""
    return os.path.exists(job["paths"]["enough"])


def error_kind(error: BaseException) -> str:
    """Kind of a failure for the ``error`` event; frameworks report a full GPU with exceptions of their own."""
    if isinstance(error, WorkerError):
        return error.kind
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    is_memory = is_memory or any(sign in str(error).lower() for sign in MEMORY_SIGNS)
    return "out_of_memory" if is_memory else "exception"


def run(main: Callable[[Dict[str, Any], EventWriter], None], argv: Optional[List[str]] = None) -> int:
    """Read the job, call ``main(job, events)`` under a heartbeat, report how it ended; returns the exit code."""
    job = read_job(argv)
    try:
        events = EventWriter(job["paths"]["events"])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"events cannot be written to {job['paths']['events']!r}: {error}\n")
        return 2
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _raise_stopped)
    # By its number, since sys.stderr may be an object without one: a crash in native code leaves its stack in
    # the log, and so does the harness's question where everybody stands.
    faulthandler.enable(STDERR)
    faulthandler.register(signal.SIGUSR1, STDERR)
    try:
        with Heartbeat(events):
            main(job, events)
        events.write("run_stop", status="success")
        return 0
    except KeyboardInterrupt as stop:
        events.write("run_stop", status="aborted")
        return 128 + getattr(stop, "signum", int(signal.SIGINT))
    except Exception as error:  # noqa: BLE001 - every failure must reach the harness as an event
        traceback.print_exc(file=sys.stderr)
        message = str(error) or type(error).__name__
        events.write("error", phase=events.phase, kind=error_kind(error), message=message)
        events.write("run_stop", status="failed")
        return 1
    finally:
        events.close()


def _raise_stopped(signum: int, _frame: Any) -> None:
    # The first signal stops the worker; a second one must not interrupt the report of the first.
    signal.signal(signum, signal.SIG_IGN)
    raise Stopped(signum)
