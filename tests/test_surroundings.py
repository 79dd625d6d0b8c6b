"""What happens to a call whose reader, terminal, parent or folder goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time

import psutil
import pytest
from conftest import Zoo

RETINANET = ("--select", "*retinanet*")


def begin(zoo: Zoo, script: str) -> subprocess.Popen[str]:
    """Start a shell in which `zb` calls zoo-bench."""
    zb = " ".join(zoo.command())
    return subprocess.Popen(
        ["bash", "-c", f'zb() {{ {zb} "$@"; }}\n{script}'],
        cwd=zoo.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def shell(zoo: Zoo, script: str) -> subprocess.CompletedProcess[str]:
    process = begin(zoo, script)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(script, process.returncode, out, err)


def wait_for(happened: object, what: str, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_for_a_step(zoo: Zoo) -> None:
    wait_for(
        lambda: any('"step"' in file.read_text() for file in zoo.root.glob("results/runs/*/events.jsonl")),
        "the worker wrote no step",
    )


def test_a_run_outlives_the_reader_of_its_progress(zoo: Zoo) -> None:
    done = shell(zoo, f"zb run {' '.join(RETINANET)} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert [record.status for record in zoo.records] == ["succeeded"]


def test_a_run_keeps_its_code_when_nobody_reads_its_table(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 1, "kind": "error"})
    assert shell(zoo, "zb run | true; exit ${PIPESTATUS[0]}").returncode == 1
    assert len(zoo.records) == 2


@pytest.mark.parametrize("verb", ["plan", "status", "render", "doctor", "data schema"])
def test_other_verbs_tell_the_shell_that_their_reader_went_away(finished: Zoo, verb: str) -> None:
    done = shell(finished, f"(sleep 0.1; zb {verb}) | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize("verb", ["plan", "status", "render"])
def test_closed_and_full_outputs(finished: Zoo, verb: str) -> None:
    assert shell(finished, f"zb {verb} >&-").returncode == 0
    assert shell(finished, f"zb {verb} 2>&-").returncode == 0
    full = shell(finished, f"zb {verb} > /dev/full")
    assert full.returncode == 2
    assert "No space left" in full.stderr


def test_an_output_that_cannot_hold_every_character_gets_them_escaped(zoo: Zoo) -> None:
    zoo.change({"document": {"title": "Modellübersicht ↯"}})
    done = shell(zoo, "PYTHONIOENCODING=ascii zb render")
    assert done.returncode == 0
    assert r"Modell\xfcbersicht \u21af" in done.stdout


def test_a_run_that_is_to_ignore_it_outlives_its_terminal(zoo: Zoo) -> None:
    zoo.options(iteration_s=0.1)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", "trap '' HUP; exec \"$@\"", "bash", *zoo.command("run", *RETINANET)],  # nohup, bars and all
        cwd=zoo.root,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    wait_for_a_step(zoo)
    assert b"\x1b[" in os.read(ours, 10_000), "bars"
    os.kill(process.pid, signal.SIGHUP)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert [record.status for record in zoo.records] == ["succeeded"]


def test_a_worker_ends_when_its_harness_is_killed(zoo: Zoo) -> None:
    zoo.options(iteration_s=0.5, child=True)
    process = subprocess.Popen(zoo.command("run"), cwd=zoo.root, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_a_step(zoo)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_stop_while_data_is_generated_leaves_nothing_half_made(zoo: Zoo, number: signal.Signals) -> None:
    zoo.change({"datasets": {"shapes": {"train_images": 100_000}}})
    process = subprocess.Popen(
        zoo.command("run"), cwd=zoo.root, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    data = zoo.root / ".zoo-bench" / "data"
    wait_for(lambda: any(data.glob(".*.partial/train/*.jpg")), "no image was generated")
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=120)  # a busy disk takes its time to remove thousands of images
    assert process.returncode == 130
    assert err.strip() == "interrupted; nothing was started"
    assert [path.name for path in data.iterdir() if path.is_dir()] == []
    assert not (zoo.root / "results").exists()


def test_a_folder_that_is_gone(zoo: Zoo) -> None:
    done = shell(zoo, "mkdir gone && cd gone && rmdir ../gone && zb plan")
    assert done.returncode == 2
    assert "the current folder is gone" in done.stderr


def test_a_table_off_a_terminal_cuts_no_word(zoo: Zoo) -> None:
    done = shell(zoo, "COLUMNS=40 zb plan")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("mask-rcnn_r50_fpn_1x_shapes  "))
    assert "  train, infer, evaluate  " in line
    assert line.rstrip().endswith("  never run")


def test_the_version_is_told(zoo: Zoo) -> None:
    from zoo_bench import __version__

    assert zoo.call("--version").stdout.strip() == f"zoo-bench {__version__}"


@pytest.mark.parametrize(
    ("prepare", "call", "words"),
    [
        ("", "zb plan --profile ''", "an argument is empty: after --profile"),
        ("", "zb plan --root=", "an argument is empty: --root"),
        ("", "zb plan --matrix .", "--matrix .: not a regular file"),
        ("", "zb plan --root matrix.yaml", "--root matrix.yaml: not a folder"),
        ("rm matrix.yaml; mkfifo matrix.yaml", "zb plan", "matrix.yaml is there, but is no regular file"),
        ("mv matrix.yaml matrix.yml", "zb plan", "matrix.yml would not be read"),
        ("touch machine.yml", "zb plan", "machine.yml would not be read"),
        ("mkdir machine.yaml", "zb plan", "machine.yaml is there, but is no regular file"),
        ("echo 'datasets: {shapse: /x}' > machine.yaml", "zb plan", "machine.yaml:1: datasets.shapse: unknown; did"),
        ("echo 'backends: {fakes: {}}' > machine.yaml", "zb plan", "backends.fakes: unknown; did you mean 'fake'?"),
        ("echo 'datasets: {shapes: ~nobody0/x}' > machine.yaml", "zb plan", "expected an absolute path"),
        ("", "ZOO_BENCH_MACHINE='~nobody0/x' zb plan", "no such file"),
        ("mkdir templates; echo '{{ 1 / 0 }}' > templates/model_zoo.md.j2", "zb render", "ZeroDivisionError"),
        ("", "zb data shapes -o /proc/x", "cannot write the shapes dataset to /proc/x"),
        ("", f"zb plan --matrix {'x' * 5000}", "File name too long"),
    ],
)
def test_what_is_wrong_around_a_call_is_said_in_a_line(zoo: Zoo, prepare: str, call: str, words: str) -> None:
    done = shell(zoo, f"{prepare}\n{call}")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("variables", ["XDG_CONFIG_HOME='~nobody0'", "HOME=/", "HOME=", "HOME=nowhere"])
def test_an_odd_home_is_no_obstacle(zoo: Zoo, variables: str) -> None:
    done = shell(zoo, f"{variables} zb run {' '.join(RETINANET)}")
    assert done.returncode == 0, done.stderr
    assert zoo.records[0].files["log"].startswith("results/runs/")
