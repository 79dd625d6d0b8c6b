"""`zoo-bench status --watch` in a terminal: what needs eyes is on the screen, however many cells there are."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
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
        shown, deadline = b"", time.monotonic() + within_s
        while not re.search(until.encode(), shown) and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.5)[0]:
                shown += os.read(ours, 65536)
        process.terminate()
    os.close(ours)
    seen = shown.decode()
    assert re.search(until, seen), seen
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in seen.split("\x1b[H")[-1].splitlines()]


def test_what_went_wrong_stands_before_what_was_never_run(zoo: Zoo) -> None:
    schedules = [f"s{number}" for number in range(20)]
    zoo.change({"schedules": {name: {"set": {"iterations": 30, "milestones": [20]}} for name in schedules}})
    zoo.change({"axes": {"schedule": schedules, "detector": ["retinanet_fpn"]}})
    zoo.options(fault={"phase": "train", "at": 2, "kind": "error"})
    assert zoo.call("run", "--select", "*_s19_*").returncode == 1
    damaged = zoo.root / "results" / "fake" / "retinanet_r50_fpn_s1_shapes" / "damaged.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    screen = watched(zoo, r"and \d+ never run")
    assert screen[0].startswith("zoo-bench: passed over:")
    assert len(screen) <= ROWS
    assert [line.split()[:2] for line in screen if line.startswith("retinanet_r50_fpn_s19")] == [
        ["retinanet_r50_fpn_s19_shapes", "failed"]
    ]
    assert any("scripted error" in line for line in screen)
    shown = sum(line.startswith("retinanet_") for line in screen)
    assert f"and {20 - shown} never run" in screen


def test_a_narrow_terminal_cuts_no_figure(finished: Zoo) -> None:
    narrow = {**os.environ, "COLUMNS": "72"}
    done = subprocess.run(
        finished.command("status"), cwd=finished.root, env=narrow, capture_output=True, text=True, check=True
    )
    record = finished.records[0]
    assert record.measurements.train is not None
    assert f"{record.measurements.train.mean_s:.3f}" in done.stdout
    assert "…" not in done.stdout


def test_what_is_watched_through_a_pipe_comes_again_and_again(finished: Zoo) -> None:
    with subprocess.Popen(
        finished.command("status", "--watch"), cwd=finished.root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(8)]
        process.terminate()
    assert sum(line.startswith("cell ") for line in seen) == 2


def test_who_watches_for_a_reader_that_has_gone_ends(finished: Zoo) -> None:
    with subprocess.Popen(finished.command("status", "--watch"), cwd=finished.root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141


def test_a_folder_without_a_matrix_is_told(zoo: Zoo) -> None:
    assert "no matrix.yaml" not in zoo.call("plan").stderr
    (zoo.root / "matrix.yaml").unlink()
    plan = zoo.call("plan")
    assert plan.returncode == 0
    assert f"{zoo.root} has no matrix.yaml" in plan.stderr
