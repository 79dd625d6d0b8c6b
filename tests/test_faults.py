"""Whatever happens to a worker or to zoo-bench: the record says why, nothing stays behind, the next run goes on.

The fake worker is scripted; the processes, signals, files and the kernel are real.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Zoo
from leftovers import nothing_left, of_workspace

from zoo_bench.events import LONGEST_LINE, EventReader
from zoo_bench.record import Record
from zoo_bench.worker_log import WorkerLog

RETINANET = ("--select", "*retinanet*")
PHASES = ("train", "infer", "evaluate")
# Steps of a phase that the fake worker has; evaluation has one.
AT = {"train": 4, "infer": 3, "evaluate": 1}


def faulty(zoo: Zoo, phase: str, kind: str) -> Zoo:
    """Let the cell do something bad, and be judged soon."""
    zoo.options(fault={"phase": phase, "at": AT[phase], "kind": kind}, child=True)
    zoo.change({"profiles": {"quick": {"set": {"trust": {"hang_timeout_s": 2.0}, "retry": {"hung": 0}}}}})
    return zoo


def ran(zoo: Zoo) -> Record:
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 1, done.stderr
    assert nothing_left(zoo.root)
    (record,) = zoo.records
    assert (zoo.root / record.files["log"]).is_file()
    return record


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", ["hang", "burn", "deadlock"])
def test_a_worker_that_makes_no_progress_is_ended_and_its_stacks_are_kept(zoo: Zoo, phase: str, kind: str) -> None:
    record = ran(faulty(zoo, phase, kind))
    assert record.status == "hung"
    assert record.reason.startswith("no progress for 2 s, after ")
    assert "its processes then stood as in results/runs/" in record.reason
    stacks = (zoo.root / record.files["stacks"]).read_text(encoding="utf-8")
    if "its own account is in its log" in stacks:  # where py-spy may not look into other processes
        log = (zoo.root / record.files["log"]).read_text(encoding="utf-8")
        assert re.search(r'train.py", line \d+ in fault\n', log)
    else:
        assert "fault (train.py:" in stacks
        assert f"{phase} (train.py:" in stacks
    assert record.phases_done == PHASES[: PHASES.index(phase)]


def test_the_last_words_of_a_hung_worker_are_told(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 4, "kind": "hang", "says": "no room left"})
    zoo.change({"profiles": {"quick": {"set": {"trust": {"hang_timeout_s": 2.0}, "retry": {"hung": 0}}}}})
    assert "no progress for 2 s, after step 3; its log then ended with: no room left; its processes" in ran(zoo).reason


def test_a_workspace_whose_path_is_no_text_is_one(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    odd = Zoo(folder)
    odd.options(child="session")
    done = odd.call("run", *RETINANET)
    assert done.returncode == 0, done.stderr
    assert nothing_left(folder, within_s=0.0)


def test_a_worker_that_ignores_every_request_is_killed(zoo: Zoo) -> None:
    started = time.monotonic()
    record = ran(faulty(zoo, "train", "deaf"))
    assert record.status == "hung"
    assert time.monotonic() - started < 60


def test_a_slow_cell_is_ended_at_its_time_limit(zoo: Zoo) -> None:
    zoo.options(iteration_s=0.5)
    zoo.change({"profiles": {"quick": {"set": {"trust": {"time_limit_s": 3.0}}}}})
    record = ran(zoo)
    assert record.status == "timed_out"
    assert record.reason.startswith("it took longer than 3 s, after step ")


def test_long_steps_are_no_hang(zoo: Zoo) -> None:
    zoo.options(iteration_s=1.0)
    recipe = {"lr_schedule": {"iterations": 4, "milestones": []}}
    zoo.change({"profiles": {"quick": {"set": {"recipe": recipe, "trust": {"hang_timeout_s": 3.0}}}}})
    assert zoo.call("run", *RETINANET).returncode == 0


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("kind", "name"), [("kill", "SIGKILL"), ("segv", "SIGSEGV")])
def test_a_worker_that_dies_leaves_a_record_and_the_next_run_goes_on(
    zoo: Zoo, phase: str, kind: str, name: str
) -> None:
    record = ran(faulty(zoo, phase, kind))
    assert record.status == "failed"
    assert f"the worker was killed by {name} without saying why" in record.reason
    assert record.phases_done == PHASES[: PHASES.index(phase)]
    if kind == "segv":
        log = (zoo.root / record.files["log"]).read_text(encoding="utf-8")
        assert "Fatal Python error: Segmentation fault" in log
        assert "in fault" in log


def start(zoo: Zoo) -> subprocess.Popen[bytes]:
    """Start zoo-bench in a session of its own."""
    return subprocess.Popen(
        zoo.command("run", *RETINANET),
        cwd=zoo.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(zoo: Zoo, event: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not any(f'"{event}"' in file.read_text() for file in zoo.root.glob("results/runs/*/events.jsonl")):
        assert time.monotonic() < deadline, f"no {event}"
        time.sleep(0.05)


@pytest.mark.parametrize("child", [True, "session"])
def test_what_a_worker_started_ends_with_it(zoo: Zoo, child: object) -> None:
    zoo.options(child=child)
    assert zoo.call("run", *RETINANET).returncode == 0
    assert nothing_left(zoo.root, within_s=0.0)


@pytest.mark.parametrize("child", [True, "session"])
@pytest.mark.parametrize(("phase", "event"), [("train", "step"), ("infer", "infer_step"), ("evaluate", "eval_start")])
def test_a_killed_zoo_bench_leaves_no_process_and_the_next_run_finishes(
    zoo: Zoo, phase: str, event: str, child: object
) -> None:
    zoo.options(fault={"phase": phase, "at": AT[phase], "kind": "hang"}, child=child)
    process = start(zoo)
    wait_for(zoo, event)
    process.kill()
    process.wait()
    assert nothing_left(zoo.root)
    assert zoo.records == ()
    zoo.options(fault=None, child=False)
    assert zoo.call("run", *RETINANET).returncode == 0
    assert zoo.records[-1].status == "succeeded"


def test_after_everything_was_killed_at_once_the_next_run_finishes(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 20, "kind": "hang"}, child=True)
    zoo.change({"profiles": {"quick": {"set": {"runtime": {"checkpoint_interval": 10}}}}})
    process = start(zoo)
    wait_for(zoo, "step")
    time.sleep(1)
    for one in [psutil.Process(process.pid), *of_workspace(zoo.root)]:  # as when the power goes
        one.kill()
    process.wait()
    folder = zoo.root / "results" / "fake" / "retinanet_r50_fpn_1x_shapes"
    folder.mkdir(parents=True)
    (folder / ".half.json.x1y2").write_text('{"schema_version": 2, "run')  # a record that was being written
    zoo.options(fault=None, child=False)
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 0, done.stderr
    assert zoo.records[-1].status == "succeeded"


def test_a_flood_of_output_fills_no_disk_and_both_its_ends_are_kept(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 2, "kind": "flood", "bytes": 200 * 2**20})
    assert zoo.call("run", *RETINANET).returncode == 0
    log = zoo.root / zoo.records[0].files["log"]
    assert log.stat().st_size < 65 * 2**20
    text = log.read_bytes()
    assert text.startswith(b"flood flood")
    assert text.rstrip().endswith(b"the last line")
    assert text.count(b"[zoo-bench left out ") == 1
    assert [path.name for path in log.parent.glob("worker.*")] == ["worker.log"]


def test_a_log_keeps_every_byte_until_it_is_too_long(tmp_path: Path) -> None:
    lines = [f"line {number}\n".encode() for number in range(100_000)]
    kept = {}
    for count in (10, 100_000):
        read, write = os.pipe()
        log = WorkerLog(os.fdopen(read, "rb"), tmp_path / f"{count}.log", head_bytes=2000, piece_bytes=1000)
        log.start()
        with os.fdopen(write, "wb", buffering=0) as pipe:
            for line in lines[:count]:
                pipe.write(line)
        log.finish()
        kept[count] = (tmp_path / f"{count}.log").read_bytes()
    assert kept[10] == b"".join(lines[:10])
    whole = b"".join(lines)
    head, said, end = kept[100_000].partition(b"\n[zoo-bench left out ")
    left_out, _, end = end.partition(b" bytes here]\n")
    assert said
    assert whole.startswith(head)
    assert whole.endswith(end)
    assert len(head) + int(left_out) + len(end) == len(whole)


def test_garbage_and_a_huge_line_in_the_events_are_passed_over(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 2, "kind": "garbage", "bytes": 100 * 2**20})
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 0, done.stderr
    assert zoo.records[0].measurements.train is not None
    assert zoo.records[0].measurements.train.iterations_run == 30


def test_a_line_of_any_length_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    event = json.dumps({"event": "heartbeat", "time_s": 1.0, "unix_s": 1.0, "protocol": 1}).encode() + b"\n"
    path.write_bytes(event + b"x" * (40 * LONGEST_LINE) + b"\n" + event)
    reader = EventReader(path)
    read = [reader.read() for _ in range(5)]
    assert sum(map(len, read)) == 2
    assert reader.malformed == 1
    assert reader.offset == path.stat().st_size


def test_another_protocol_ends_the_job_and_is_told(zoo: Zoo) -> None:
    record = ran(faulty(zoo, "train", "other_protocol"))
    assert record.reason == "the worker speaks event protocol 99; this zoo-bench speaks 1"


def test_out_of_memory_says_how_much_was_held(zoo: Zoo) -> None:
    record = ran(faulty(zoo, "train", "out_of_memory"))
    assert record.status == "out_of_memory"
    assert record.reason.startswith("train: scripted out_of_memory (peak: host 0.0")


def test_out_of_memory_is_followed_by_a_cell_with_a_smaller_batch_where_that_is_wanted(zoo: Zoo) -> None:
    flag = zoo.root / "once"
    zoo.options(fault={"phase": "train", "at": 4, "kind": "out_of_memory", "unless": str(flag)})
    zoo.change({"profiles": {"quick": {"set": {"images_per_gpu": 4, "retry": {"smaller_batch": True}}}}})
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 1
    asked, smaller = zoo.records
    assert (asked.status, smaller.status) == ("out_of_memory", "succeeded")
    assert smaller.cell_id == f"{asked.cell_id}_1xb2"
    assert smaller.cell["images_per_gpu"] == 2
    assert f"[2/2] {smaller.cell_id}: train, infer, evaluate (out of memory with 4 images a GPU" in done.stderr
    assert smaller.cell_id not in zoo.call("render").stdout
    assert zoo.call("show", smaller.cell_id).returncode == 0
    flag.unlink()  # the cell of the matrix is tried again, and the other one is fresh by now
    zoo.call("run", *RETINANET)
    assert [record.status for record in zoo.records] == ["out_of_memory", "succeeded", "out_of_memory"]


def test_out_of_memory_with_a_single_image_is_the_end(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 4, "kind": "out_of_memory"})
    zoo.change({"profiles": {"quick": {"set": {"images_per_gpu": 3, "retry": {"smaller_batch": True}}}}})
    assert zoo.call("run", *RETINANET).returncode == 1
    assert [record.cell["images_per_gpu"] for record in zoo.records] == [3, 1]


@pytest.mark.parametrize("phase", ["infer", "evaluate"])
def test_a_smaller_batch_is_no_help_after_the_training(zoo: Zoo, phase: str) -> None:
    zoo.options(fault={"phase": phase, "at": 1, "kind": "out_of_memory"})
    zoo.change({"profiles": {"quick": {"set": {"images_per_gpu": 4, "retry": {"smaller_batch": True}}}}})
    assert zoo.call("run", *RETINANET).returncode == 1
    assert len(zoo.records) == 1


def test_a_trial_lets_pass_what_a_smaller_batch_is_wanted_for(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 4, "kind": "out_of_memory"})
    recipe = {"lr_schedule": {"iterations": 1000, "milestones": []}}
    zoo.change({"profiles": {"quick": {"set": {"recipe": recipe, "retry": {"smaller_batch": True}}}}})
    done = zoo.call("run", *RETINANET)
    assert "trying 1 cells" in done.stderr
    assert [record.cell["images_per_gpu"] for record in zoo.records] == [2, 1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB, mounted in the place of a workspace's results; skipped where nothing can be mounted."""
    results = tmp_path / "results"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(results)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield results
    subprocess.run(["umount", "-l", str(results)], check=True)


@pytest.mark.parametrize("left_bytes", [0, 8192, 20480])
def test_a_full_disk_is_told_and_nothing_that_was_there_is_lost(zoo: Zoo, small_disk: Path, left_bytes: int) -> None:
    assert zoo.call("run", *RETINANET).returncode == 0
    before = zoo.records
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - left_bytes)
    done = zoo.call("run", "--select", "*mask*")
    assert done.returncode in (1, 2)
    assert "No space left on device" in done.stdout + done.stderr
    assert zoo.records[: len(before)] == before
    filler.unlink()
    assert zoo.call("run", "--select", "*mask*").returncode == 0
    assert zoo.records[-1].status == "succeeded"


def test_a_read_only_results_folder_is_told(zoo: Zoo, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 2
    assert f"{small_disk} cannot be written" in done.stderr
    assert "never run" in zoo.call("status", *RETINANET).stdout, "and it is said before anything is launched"


def test_a_clock_that_is_set_back_does_not_make_a_new_run_an_old_one(zoo: Zoo) -> None:
    ahead = "29991231T235959.999Z-ffff"
    (zoo.root / "results" / "runs" / ahead).mkdir(parents=True)
    assert zoo.call("run", *RETINANET).returncode == 0
    assert zoo.records[0].run_id.startswith("30000101T000000.000Z-")


CGROUP = Path("/sys/fs/cgroup/memory/zoo-bench-test")


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group of the kernel with 400 MB, to be entered by writing a PID; skipped where none can be made."""
    try:
        CGROUP.mkdir()
        (CGROUP / "memory.limit_in_bytes").write_text(str(400 * 10**6))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield CGROUP / "cgroup.procs"
    for _ in range(50):
        try:
            CGROUP.rmdir()
            return
        except OSError:
            time.sleep(0.1)


def test_a_worker_that_the_kernel_kills_for_want_of_memory_is_told_as_such(zoo: Zoo, little_memory: Path) -> None:
    zoo.options(hold_bytes=2 * 10**9)
    enter = f"import os; open({str(little_memory)!r}, 'w').write(str(os.getpid()))"
    run = "import sys; from zoo_bench.cli import main; sys.argv[0] = 'zoo-bench'; main()"
    done = subprocess.run(
        [sys.executable, "-c", f"{enter}; {run}", "run", *RETINANET],
        cwd=zoo.root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (record,) = zoo.records
    assert record.status == "out_of_memory"
    assert "the kernel killed 1 process(es) of this machine for want of memory (peak: host " in record.reason


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_goes_away_stops_cleanly(zoo: Zoo, number: signal.Signals) -> None:
    zoo.options(fault={"phase": "train", "at": 4, "kind": "hang"}, child=True)
    process = start(zoo)
    wait_for(zoo, "step")
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert nothing_left(zoo.root)
    assert [record.status for record in zoo.records] == ["interrupted"]
