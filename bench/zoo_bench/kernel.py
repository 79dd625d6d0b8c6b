"""What the kernel did to processes for want of memory."""

from __future__ import annotations

from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def oom_kills() -> int:
    """Return how many processes the kernel has killed so far, in all of the machine; 0 where it does not tell."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
