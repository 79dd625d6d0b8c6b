"""What only one runner may have at a time: a cell, a GPU. The kernel lets go of a lock when its process ends, however.

Beside each lock lies a note of who holds it, for those who wait. A note without a lock means nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from zoo_bench.bounded import MIB, read_bytes
from zoo_bench.errors import StoreError
from zoo_bench.machine import GpuDevice
from zoo_bench.whole import write_whole

VARIABLE = "ZOO_BENCH_LEASES"


@dataclass(frozen=True)
class Taken:
    """Something that others hold: what it is, and who they are."""

    what: str
    by: str


def take(path: Path, purpose: str) -> ExitStack | None:
    """Take a lock without waiting; None where somebody else has it. Leaving the stack, or its process's end, frees it.

    Raises:
        StoreError: the lock's folder cannot be written, or something else stands in its place.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be locked: {error.strerror or error}", "see what is there") from None
    if descriptor is None:
        return None
    stack = ExitStack()
    stack.callback(os.close, descriptor)
    note = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "for": purpose}
    with suppress(OSError):  # it only tells
        write_whole(_note(path), json.dumps(note))
    return stack


def is_held(path: Path) -> bool:
    """Tell whether somebody holds a lock just now. Whoever tries in the same moment finds it held, and tries again."""
    try:
        descriptor = _lock(path)
    except OSError:  # not ours to try
        return False
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def _lock(path: Path) -> int | None:
    """Lock a file, which is made, by flock; None where it is locked. Several users of a machine take turns.

    filelock refuses what another user has made in a folder like /tmp, and the kernel refuses to create it again: so it
    is opened as it is. A link is not followed, and a fifo not waited for.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask
    except FileExistsError:
        descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def holder(path: Path) -> str:
    """Say who holds a lock, as far as that is known."""
    try:
        note = json.loads(read_bytes(_note(path), MIB))
        return f"process {note['pid']} on {note['host']}, since {note['since']}, for {note['for']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _note(path: Path) -> Path:
    return path.with_suffix(".holder")


@dataclass(frozen=True)
class Leases:
    """The GPUs of this machine, shared by all runners on it: one lock for each, by its UUID."""

    folder: Path

    @classmethod
    def of_machine(cls) -> Leases:
        """Those that everybody on the machine knows; $ZOO_BENCH_LEASES names another folder."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else Path(tempfile.gettempdir()) / "zoo-bench-gpus")

    def take(self, count: int, candidates: Sequence[GpuDevice], purpose: str) -> dict[int, ExitStack] | list[Taken]:
        """Take `count` of the GPUs, or none: then who has those that are not free. Returns the leases by index."""
        self._share()
        mine, others = dict[int, ExitStack](), list[Taken]()
        for gpu in candidates:
            if len(mine) == count:
                break
            path = self.folder / f"{gpu.uuid}.lock"
            taken = take(path, purpose)
            if taken is None:
                others.append(Taken(f"GPU {gpu.index}", holder(path)))
            else:
                mine[gpu.index] = taken
        if len(mine) == count:
            return mine
        for lease in mine.values():
            lease.close()
        return others

    def _share(self) -> None:
        """Make the folder, in which every user may take locks and nobody may remove another's."""
        if not self.folder.is_dir():
            with suppress(OSError):  # `take` says what is wrong with it
                self.folder.mkdir(parents=True, exist_ok=True)
                self.folder.chmod(0o1777)
