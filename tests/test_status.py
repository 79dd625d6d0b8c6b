"""`zoo-bench status --watch` in a terminal: what needs eyes is on the screen, however many cells there are."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time

from conftest import Zoo

ROWS, COLUMNS = 10, 120


def watched(zoo: Zoo, until: str, within_s: float = 30.0) -> list[str]:
    """The last whole screen of a terminal with ROWS lines, taken once a line like `until` stands there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    terminal = {**os.environ, "TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    with subprocess.Popen(
        zoo.command("status", "--watch"), cwd=zoo.root, stdin=theirs, stdout=theirs, stderr=theirs, env=terminal
    ) as process:
        os.close(theirs)
        seen, deadline = "", time.monotonic() + within_s
        while not re.search(until, seen) and time.monotonic() < deadline:
            seen += os.read(ours, 65536).decode()
        process.terminate()
    os.close(ours)
    assert re.search(until, seen), seen
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in seen.split("\x1b[H")[-1].splitlines()]


def test_what_went_wrong_stands_before_what_was_never_run(zoo: Zoo) -> None:
    schedules = [f"s{number}" for number in range(20)]
    zoo.change({"schedules": {name: {"set": {"iterations": 30, "milestones": [20]}} for name in schedules}})
    zoo.change({"axes": {"schedule": schedules, "detector": ["retinanet_fpn"]}})
    zoo.options(fault={"phase": "train", "at": 2, "kind": "error"})
    assert zoo.call("run", "--select", "*_s19_*").returncode == 1
    screen = watched(zoo, r"and \d+ never run")
    assert len(screen) <= ROWS
    assert [line.split()[:2] for line in screen if line.startswith("retinanet_r50_fpn_s19")] == [
        ["retinanet_r50_fpn_s19_shapes", "failed"]
    ]
    assert any("scripted error" in line for line in screen)
    shown = sum(line.startswith("retinanet_") for line in screen)
    assert f"and {20 - shown} never run" in screen


def test_a_folder_without_a_matrix_is_told(zoo: Zoo) -> None:
    assert "no matrix.yaml" not in zoo.call("plan").stderr
    (zoo.root / "matrix.yaml").unlink()
    plan = zoo.call("plan")
    assert plan.returncode == 0
    assert f"{zoo.root} has no matrix.yaml" in plan.stderr
