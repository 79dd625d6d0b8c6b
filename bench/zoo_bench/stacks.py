"""Where the processes of a job stand: py-spy's view of every Python among them, or the interpreter's own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import psutil

MOST_PROCESSES = 64
PATIENCE_S = 20.0
# As models/worker.py sets it: every thread's stack, into the log.
DUMP_SIGNAL = signal.SIGUSR1
DUMP_S = 1.0


def dump_stacks(worker: int, path: Path) -> bool:
    """Write the stacks of a job's processes to `path`; tell whether there is something in it.

    Where py-spy cannot look into a process (it may not, or does not know its Python), the process is asked to write
    its stacks into its log, if it listens.
    """
    parts: list[str] = []
    for process in _processes(worker)[:MOST_PROCESSES]:
        with contextlib.suppress(psutil.Error):  # it has ended
            parts.append(f"process {process.pid}: {' '.join(process.cmdline())}\n{_stack(process)}\n")
    with contextlib.suppress(OSError):  # a full disk must not keep the job from being ended
        path.write_text("\n".join(parts), encoding="utf-8")
        return bool(parts)
    return False


def _processes(worker: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(worker)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def _stack(process: psutil.Process) -> str:
    try:
        dump = subprocess.run(
            [str(Path(sysconfig.get_path("scripts")) / "py-spy"), "dump", "--pid", str(process.pid)],
            capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    else:
        if dump.returncode == 0:
            return dump.stdout
        said = dump.stderr.strip()
    if _listens(process.pid):
        process.send_signal(DUMP_SIGNAL)
        time.sleep(DUMP_S)
        return f"py-spy: {said}\nits own account is in its log"
    return f"py-spy: {said}"


def _listens(pid: int) -> bool:
    """Tell whether the process handles the signal, which would end it otherwise."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (DUMP_SIGNAL - 1) & 1)
