"""Several runners on one machine and one results folder, and tries of what failed: real processes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import Zoo
from leftovers import nothing_left
from node_zoo import GPU, NodeZoo

from zoo_bench.errors import StoreError
from zoo_bench.locks import Leases, holder, take
from zoo_bench.machine import GpuDevice
from zoo_bench.record import Record

RETINANET = ("--select", "*retinanet*")


def start(zoo: Zoo, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        zoo.command("run", *arguments), cwd=zoo.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(*runners: subprocess.Popen[str]) -> list[str]:
    """What each said, once all have ended well."""
    told = [runner.communicate(timeout=120) for runner in runners]
    assert [runner.returncode for runner in runners] == [0] * len(runners), told
    return [err for _, err in told]


def trained(records: tuple[Record, ...]) -> list[str]:
    return sorted(record.cell_id for record in records if "train" in record.phases_done)


def test_runners_of_one_store_share_its_cells_and_measure_none_twice(zoo: Zoo) -> None:
    zoo.change({"axes": {"backbone": ["r18", "r50", "r101"]}})
    zoo.options(iteration_s=0.05)
    said = finished(*(start(zoo) for _ in range(3)))
    assert len(zoo.records) == 6
    assert len(set(trained(zoo.records))) == 6
    assert sum(text.count("succeeded") for text in said) == 6
    assert all("succeeded" in text for text in said), "each had its share"


def test_a_runner_waits_for_a_cell_that_another_has_and_does_not_measure_it_again(zoo: Zoo) -> None:
    zoo.options(iteration_s=0.4)  # a busy machine starts the second one slowly
    first = start(zoo, *RETINANET)
    while not list(zoo.root.glob("results/runs/*/events.jsonl")):
        assert first.poll() is None
        time.sleep(0.05)
    second = start(zoo, *RETINANET)
    _, told = finished(first, second)
    assert "waiting for fake/retinanet_r50_fpn_1x_shapes, which process " in told
    assert f"process {first.pid} on " in told
    assert f"fresh by now (run {zoo.records[0].run_id})" in told
    assert len(zoo.records) == 1


def test_the_cell_of_a_runner_that_was_killed_is_free_at_once(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 3, "kind": "hang"})
    first = start(zoo, *RETINANET)
    while not list(zoo.root.glob("results/runs/*/events.jsonl")):
        time.sleep(0.05)
    first.kill()
    first.communicate()
    assert nothing_left(zoo.root)
    zoo.options(fault=None)
    (told,) = finished(start(zoo, *RETINANET))
    assert "waiting" not in told


def test_two_runners_take_turns_on_one_gpu(node: NodeZoo) -> None:
    masks = start(node, "--select", "*mask*")
    retinanet = start(node, *RETINANET)
    said = finished(masks, retinanet)
    assert sum("waiting for GPU 0, which process " in text for text in said) == 1
    spans = sorted((record.started_unix_s, record.started_unix_s + record.duration_s) for record in node.records)
    assert len(spans) == 2
    assert spans[0][1] <= spans[1][0], "one began before the other had ended"
    assert not any(record.noise for record in node.records)


def test_who_waits_for_a_gpu_can_be_stopped(node: NodeZoo) -> None:
    node.options(iteration_s=0.3)
    first = start(node, *RETINANET)
    while not list(Leases.of_machine().folder.glob("*.lock")):
        assert first.poll() is None
        time.sleep(0.05)
    second = start(node, "--select", "*mask*")
    assert second.stderr is not None
    assert "waiting for GPU 0" in second.stderr.readline()
    second.terminate()
    second.communicate(timeout=30)
    assert second.returncode == 130
    first.terminate()
    first.communicate(timeout=120)
    assert {record.cell_id for record in node.records} == {"fake/retinanet_r50_fpn_1x_shapes"}


def gpus(count: int) -> tuple[GpuDevice, ...]:
    return tuple(
        GpuDevice(index=index, name=GPU.name, uuid=f"GPU-{index}", memory_bytes=1, compute_capability="7.0")
        for index in range(count)
    )


def test_gpus_are_leased_all_or_none(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    first = leases.take(2, gpus(4), "a cell")
    assert isinstance(first, dict)
    assert list(first) == [0, 1]
    second = leases.take(2, gpus(4), "another")
    assert isinstance(second, dict)
    assert list(second) == [2, 3]
    assert isinstance(none := leases.take(1, gpus(4), "a third"), list)
    assert [one.what for one in none] == ["GPU 0", "GPU 1", "GPU 2", "GPU 3"]
    assert "for a cell" in none[0].by
    for lease in second.values():
        lease.close()
    assert isinstance(refused := leases.take(3, gpus(4), "a third"), list)
    assert len(refused) == 2
    third = leases.take(2, gpus(4), "what was refused let go of all it had")
    assert isinstance(third, dict)


def test_a_lock_is_free_when_its_holder_has_gone(tmp_path: Path) -> None:
    held = take(tmp_path / "x.lock", "a test")
    assert held is not None
    assert take(tmp_path / "x.lock", "another") is None
    held.close()
    assert take(tmp_path / "x.lock", "another") is not None


def test_a_note_is_written_into_nobody_elses_file(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "x.holder").symlink_to(precious)
    held = take(tmp_path / "x.lock", "a test")
    assert held is not None
    assert precious.read_text() == "mine"
    assert "for a test" in holder(tmp_path / "x.lock")
    held.close()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_lock_that_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lock"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
        os.mkfifo(tmp_path / "x.holder")
    if kind == "fifo":  # it can be locked, and nobody is made to wait
        held = take(path, "a test")
        assert held is not None
        held.close()
        return
    with pytest.raises(StoreError, match="cannot be locked"):
        take(path, "a test")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="plays two users")
def test_two_users_take_turns_on_a_gpu() -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are one user's
    code = (
        "import os, sys; from pathlib import Path; from zoo_bench.locks import take; os.setuid(int(sys.argv[1])); "
        "held = take(Path(sys.argv[2]), 'user'); "
        "print('took' if held else 'taken', flush=True); sys.stdin.read()"
    )
    folder.chmod(0o1777)

    def user(uid: int) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", code, str(uid), str(folder / "GPU-0.lock")]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    for first, second in ((1001, 1002), (1002, 1001), (0, 1001)):
        with user(first) as one:
            assert one.stdout is not None
            assert one.stdout.readline() == "took\n"
            with user(second) as other:
                assert other.communicate("")[0] == "taken\n"
            one.communicate("")
        with user(second) as other:
            assert other.communicate("")[0] == "took\n"
    shutil.rmtree(folder)


# ---------------------------------------------------------------- tried again


def test_a_hung_run_is_tried_again_and_goes_on_where_it_was(zoo: Zoo) -> None:
    flag = zoo.root / "once"
    zoo.options(fault={"phase": "evaluate", "at": 1, "kind": "hang", "unless": str(flag)})
    quick = {"trust": {"hang_timeout_s": 2.0}, "retry": {"hung": 1, "backoff_s": 0.1}}
    zoo.change({"profiles": {"quick": {"set": quick}}})
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 0, done.stderr
    assert "; trying again" in done.stderr
    hung, good = zoo.records
    assert (hung.status, hung.phases_done) == ("hung", ("train", "infer"))
    assert (good.status, good.phases_done) == ("succeeded", ("evaluate",))


@pytest.mark.parametrize(("limit", "tries"), [(0, 1), (2, 3)])
def test_what_fails_is_tried_as_often_as_the_matrix_says(zoo: Zoo, limit: int, tries: int) -> None:
    zoo.options(fault={"phase": "train", "at": 2, "kind": "error"})
    zoo.change({"profiles": {"quick": {"set": {"retry": {"failed": limit, "backoff_s": 0.5}}}}})
    assert zoo.call("run", *RETINANET).returncode == 1
    assert [record.status for record in zoo.records] == ["failed"] * tries
    starts = [record.started_unix_s for record in zoo.records]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(pause >= 0.5 * 2**index for index, pause in enumerate(pauses))


def test_a_failed_upload_is_tried_again_alone_though_the_first_try_was_forced(zoo: Zoo) -> None:
    (zoo.root / "blocked").write_text("a file")
    zoo.change({"publish": {"address": "blocked"}})
    values = {"phases": ["train", "infer", "evaluate", "publish"], "retry": {"failed": 2, "backoff_s": 0.1}}
    zoo.change({"profiles": {"quick": {"set": values}}})
    assert zoo.call("run", "--force", *RETINANET).returncode == 1
    assert [record.phases for record in zoo.records] == [("train", "infer", "evaluate"), *[("publish",)] * 3]
    told = zoo.call("status", *RETINANET).stdout
    assert "succeeded, not published" in told
    assert "mend that folder" in told
    assert "50.0" in told, "its figures are kept"
    (zoo.root / "blocked").unlink()
    assert "not published at blocked" in zoo.call("plan", *RETINANET).stdout
    assert zoo.call("run", *RETINANET).returncode == 0
    assert "not published" not in zoo.call("status", *RETINANET).stdout


def test_a_forced_training_that_hangs_goes_on_after_its_checkpoint(zoo: Zoo) -> None:
    fault = {"phase": "train", "at": 25, "kind": "hang", "unless": str(zoo.root / "once")}
    values = {"trust": {"hang_timeout_s": 2.0}, "retry": {"hung": 1, "backoff_s": 0.1}}
    zoo.change({"profiles": {"quick": {"set": {**values, "runtime": {"checkpoint_interval": 10}}}}})
    zoo.options(fault=fault)
    assert zoo.call("run", "--force", *RETINANET).returncode == 0
    train = zoo.records[-1].measurements.train
    assert train is not None
    assert train.resumed_at == 20


def test_a_run_that_hangs_when_all_is_done_is_not_run_again(zoo: Zoo) -> None:
    quick = {"trust": {"time_limit_s": 0.001}, "retry": {"timed_out": 3, "backoff_s": 0.0}}
    zoo.change({"profiles": {"quick": {"set": quick}}})
    assert zoo.call("run", *RETINANET).returncode == 1
    phases = [record.phases for record in zoo.records]
    assert () not in phases
    assert ("publish",) not in phases


def test_two_runners_try_cells_one_after_the_other(zoo: Zoo) -> None:
    recipe = {"lr_schedule": {"iterations": 1000, "milestones": []}}
    zoo.change({"profiles": {"quick": {"set": {"recipe": recipe, "measure": {"train_iterations": 1000}}}}})
    zoo.options(iteration_s=0.0005, image_s=0.3)
    said = finished(start(zoo), start(zoo))
    assert sum("waiting for the trials of this workspace" in text for text in said) <= 1
    assert sum(text.count("(trial)") for text in said) == 2, "each cell was tried once"
    assert len(trained(zoo.records)) == 2


def test_ctrl_c_before_the_next_try_ends_the_run(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 2, "kind": "error"})
    zoo.change({"profiles": {"quick": {"set": {"retry": {"failed": 3, "backoff_s": 600}}}}})
    running = start(zoo, *RETINANET)
    while not zoo.records:
        assert running.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert running.returncode == 130
    assert [record.status for record in zoo.records] == ["failed"]
