"""`run --executor slurm` on a real Slurm: munged, slurmctld and two slurmd on loopback, and the fake backend's cells.

Twenty of them at once, and a real one, are run by benchmarks/slurm.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_cluster
from conftest import Zoo
from slurm_cluster import Cluster

from zoo_bench.record import Record

PATIENCE_S = 180.0  # on a busy machine; Slurm itself may take two minutes to begin a job again
ONE = ("--select", "*retinanet_r50*")
RETINANET = "fake/retinanet_r50_fpn_1x_shapes"


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    why = slurm_cluster.missing()
    if why and os.environ.get("ZOO_BENCH_SLURM") == "required":
        pytest.fail(why)
    if why:
        pytest.skip(why)
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def cluster(_running: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, without a job; what is submitted in the test goes to it."""
    for name, value in _running.environment.items():
        monkeypatch.setenv(name, value)
    yield _running
    _running.clear()


@pytest.fixture
def fleet(zoo: Zoo, cluster: Cluster) -> Zoo:
    """A workspace whose cells take a second on the cluster."""
    assert cluster
    zoo.change({"slurm": {"time_min": 60, "poll_s": 0.3, "grace_s": 30, "extra": {"gres": "gpu:1"}}})
    return zoo


def start(zoo: Zoo, *arguments: str) -> subprocess.Popen[str]:
    """Start a controller; what it says goes to a file, so that it never waits for a reader."""
    with (zoo.root / "said.txt").open("a", encoding="utf-8") as said:
        return subprocess.Popen(
            zoo.command("run", "--executor", "slurm", *arguments), cwd=zoo.root, stdout=said, stderr=said, text=True
        )


def said(zoo: Zoo) -> str:
    return (zoo.root / "said.txt").read_text(encoding="utf-8")


def until(there: Callable[[], object], zoo: Zoo, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not there():
        assert time.monotonic() < deadline, said(zoo)
        time.sleep(0.1)


def ended(zoo: Zoo, controller: subprocess.Popen[str]) -> int:
    until(lambda: controller.poll() is not None, zoo)
    assert "Traceback" not in said(zoo), said(zoo)
    return controller.returncode


def trained(zoo: Zoo, iterations: int = 2) -> list[Path]:
    """The event files of the runs that have trained so long at least, oldest first."""
    files = sorted(zoo.root.glob("results/runs/*/events.jsonl"))
    return [path for path in files if path.read_text().count('"event": "step"') >= iterations]


def resumed(zoo: Zoo, record: Record) -> int:
    """After which iteration a run went on; 0 where it began anew."""
    lines = (zoo.root / record.files["events"]).read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return next((event["iteration"] for event in events if event["event"] == "train_resumed"), 0)


def jobs(cluster: Cluster) -> dict[str, str]:
    """The state of every job that is in the queue, by its id."""
    lines = cluster.call("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def running(cluster: Cluster) -> list[str]:
    return cluster.call("squeue", "--noheader", "--array", "--states=RUNNING", "--partition=one", "--format=%i").split()


def begun(zoo: Zoo, cluster: Cluster) -> list[str]:
    """Those of the running jobs that have printed something."""
    logs = {job: next(zoo.root.glob(f".zoo-bench/slurm/*/{job}_0_log.out"), None) for job in running(cluster)}
    return [job for job, log in logs.items() if log and "[1/1]" in log.read_text()[-2000:]]


def long(zoo: Zoo, iteration_s: float = 0.2) -> None:
    """Let every cell train for 30 iterations, each of which can be resumed from."""
    values = {"options": {"iteration_s": iteration_s}, "runtime": {"checkpoint_interval": 1}}
    zoo.change({"profiles": {"quick": {"set": values}}})


def test_cells_run_as_jobs_and_leave_the_records_of_any_run(fleet: Zoo) -> None:
    done = fleet.call("run", "--executor", "slurm")
    assert done.returncode == 0, done.stderr
    assert "running on zoo" in done.stderr
    assert Counter(record.status for record in fleet.records) == {"succeeded": 2}
    assert all(record.machine["cpu"] and record.measurements.train for record in fleet.records), "the node's own"
    again = fleet.call("run", "--executor", "slurm")
    assert "nothing to do" in again.stderr


def test_nothing_is_lost_in_a_restart_a_preemption_and_a_killed_job(fleet: Zoo, cluster: Cluster) -> None:
    fleet.change(
        {
            "axes": {"backbone": ["r18", "r50", "r101"]},
            "slurm": {"max_running": 2, "partition": "one"},
        }
    )
    long(fleet)
    first = start(fleet)
    until(lambda: trained(fleet), fleet)
    first.kill()
    first.wait()
    assert len(jobs(cluster)) >= 5, "they wait in the queue for whoever asks for them"

    second = start(fleet)
    until(lambda: "found again" in said(fleet), fleet)
    # One that has not begun leaves no record of its preemption.
    until(lambda: len(running(cluster)) == 2 and begun(fleet, cluster), fleet)
    whole_node = ("--nodelist=zoo1", "--gres=gpu:8", "--output=/dev/null", "--wrap=sleep 1")
    cluster.call("sbatch", "--partition=urgent", *whole_node)
    until(lambda: "interrupted" in [record.status for record in fleet.records], fleet)
    until(lambda: begun(fleet, cluster), fleet)
    victim = begun(fleet, cluster)[-1]
    cluster.kill(victim)

    assert ended(fleet, second) == 1, said(fleet)
    records = fleet.records
    lost = [record for record in records if record.status == "failed"]
    assert len(lost) == 1
    assert f"Slurm job {victim} on zoo1" in lost[0].reason
    assert (fleet.root / lost[0].files["log"]).read_text()
    assert ended(fleet, start(fleet)) == 0, said(fleet)
    succeeded = Counter(record.cell_id for record in fleet.records if record.status == "succeeded")
    assert len(succeeded) == 6
    assert set(succeeded.values()) == {1}, "none was run twice"
    assert {record.status for record in fleet.records} <= {"succeeded", "failed", "interrupted"}


def test_a_job_that_is_told_to_end_is_queued_again_and_goes_on_from_its_checkpoint(
    fleet: Zoo, cluster: Cluster
) -> None:
    long(fleet)
    controller = start(fleet, *ONE)
    until(lambda: trained(fleet, 5), fleet)
    (job,) = jobs(cluster)
    cluster.call("scancel", "--signal=USR2", job)  # as before the time limit, or of a cluster that preempts so
    assert ended(fleet, controller) == 0, said(fleet)
    first, second = fleet.records
    assert (first.status, second.status) == ("interrupted", "succeeded")
    assert first.reason.startswith(f"stopped by Slurm: job {job} on zoo")
    assert resumed(fleet, second) >= 4


def test_a_forced_run_goes_on_after_a_requeue_and_does_not_begin_anew(fleet: Zoo, cluster: Cluster) -> None:
    long(fleet, iteration_s=0.15)
    assert fleet.call("run", *ONE).returncode == 0
    controller = start(fleet, "--force", *ONE)
    until(lambda: len(trained(fleet, 5)) == 2, fleet)
    (job,) = jobs(cluster)
    cluster.call("scontrol", "requeue", job)
    assert ended(fleet, controller) == 0, said(fleet)
    assert [record.status for record in fleet.records] == ["succeeded", "interrupted", "succeeded"]
    assert resumed(fleet, fleet.records[-1]) >= 4


def test_a_rejected_submission_is_a_status_with_a_reason(fleet: Zoo) -> None:
    fleet.change({"slurm": {"partition": "nowhere"}})
    done = fleet.call("run", "--executor", "slurm")
    assert done.returncode == 1
    assert [record.status for record in fleet.records] == ["failed", "failed"]
    assert fleet.records[0].reason == "Slurm rejects its job: Invalid partition name specified"
    assert "Invalid partition name" in fleet.call("status").stdout


def test_cells_wait_for_a_queue_that_takes_no_job_and_run_once_it_does(fleet: Zoo, cluster: Cluster) -> None:
    cluster.call("scontrol", "update", "PartitionName=zoo", "State=INACTIVE")
    try:
        controller = start(fleet)
        until(lambda: "2 cells wait" in said(fleet), fleet)
        status = fleet.call("status").stdout
    finally:
        cluster.call("scontrol", "update", "PartitionName=zoo", "State=UP")
    assert f"{RETINANET}: waiting to be submitted: Required partition not available" in status
    assert ended(fleet, controller) == 0, said(fleet)
    assert len(fleet.records) == 2


def test_ctrl_c_cancels_the_jobs_and_leaves_the_records_of_those_that_ran(fleet: Zoo, cluster: Cluster) -> None:
    fleet.change({"slurm": {"max_running": 1}})
    long(fleet, iteration_s=3.0)  # so that it is still at it, however slow the machine
    controller = start(fleet)
    until(lambda: trained(fleet), fleet)
    status = fleet.call("status").stdout
    assert "queued: Slurm job" in status
    assert "running: Slurm job" in status
    os.kill(controller.pid, signal.SIGINT)
    assert ended(fleet, controller) == 130
    assert not jobs(cluster)
    # Before it was cancelled too, the next job may have begun in place of the first.
    assert fleet.records
    for record in fleet.records:
        assert record.status == "interrupted", record.reason
        assert "stopped by Slurm" in record.reason


def test_a_controller_that_is_terminated_leaves_its_jobs_to_the_next(fleet: Zoo, cluster: Cluster) -> None:
    long(fleet, iteration_s=0.1)
    controller = start(fleet, *ONE)
    until(lambda: trained(fleet), fleet)
    second = fleet.call("run", "--executor", "slurm", *ONE)
    assert second.returncode == 2
    assert f"followed already: process {controller.pid} on " in second.stderr
    controller.terminate()
    assert ended(fleet, controller) == 130
    assert "1 job(s) stay in the queue" in said(fleet)
    until(lambda: not jobs(cluster), fleet)
    assert ended(fleet, start(fleet, *ONE)) == 0
    assert [record.status for record in fleet.records] == ["succeeded"]


def test_a_job_of_a_failed_node_runs_again_elsewhere(fleet: Zoo, cluster: Cluster) -> None:
    long(fleet)
    controller = start(fleet, *ONE)
    until(lambda: trained(fleet, 3), fleet)
    node = cluster.call("squeue", "--noheader", "--format=%N").strip()
    cluster.fail(node)
    try:
        assert ended(fleet, controller) == 0, said(fleet)
    finally:
        cluster.mend(node)
    assert fleet.records[-1].status == "succeeded"
    assert resumed(fleet, fleet.records[-1]) >= 2


def test_a_job_of_a_failed_node_that_is_not_queued_again_is_a_failed_run(fleet: Zoo, cluster: Cluster) -> None:
    long(fleet)
    controller = start(fleet, *ONE)
    until(lambda: trained(fleet, 3), fleet)
    (job,) = jobs(cluster)
    node = cluster.call("squeue", "--noheader", "--format=%N").strip()
    cluster.call("scontrol", "update", f"JobId={job}", "Requeue=0")
    cluster.kill(job)
    cluster.fail(node)
    try:
        assert ended(fleet, controller) == 1, said(fleet)
    finally:
        cluster.mend(node)
    (record,) = fleet.records
    assert (record.status, f"Slurm job {job} on {node} ended: " in record.reason) == ("failed", True)


def test_a_job_that_somebody_cancels_before_it_begins_is_told(fleet: Zoo, cluster: Cluster) -> None:
    cluster.call("sbatch", "--partition=urgent", "--nodes=2", "--gres=gpu:8", "--output=/dev/null", "--wrap=sleep 600")
    until(lambda: list(jobs(cluster).values()) == ["RUNNING"], fleet)
    controller = start(fleet, *ONE)
    until(lambda: len(jobs(cluster)) == 2 and "pending" in said(fleet), fleet)
    (job,) = (job for job, state in jobs(cluster).items() if state == "PENDING")
    cluster.call("scancel", job)
    assert ended(fleet, controller) == 1
    (record,) = fleet.records
    assert record.status == "interrupted"
    told, _, waited = record.reason.partition(" (it waited: ")
    assert told == f"Slurm job {job} ended before it had begun: CANCELLED"
    # Slurm knows what it waited for once its scheduler has looked at it.
    assert waited in ("", "Resources)", "Priority)")


def test_a_node_that_lacks_what_the_cell_needs_is_a_failed_run_with_its_words(fleet: Zoo) -> None:
    fleet.change({"slurm": {"extra": {"comment": "no gres"}, "gpu_kind": None}})
    done = fleet.call("run", "--executor", "slurm", "--gpus", "1", *ONE)
    assert done.returncode == 1, done.stderr
    (record,) = fleet.records
    assert "zoo-bench ended with exit code 2" in record.reason
    assert "1 GPUs are needed; this machine has none" in record.reason


def test_what_a_matrix_must_say_before_cells_are_submitted(zoo: Zoo) -> None:
    done = zoo.call("run", "--executor", "slurm")
    assert done.returncode == 2
    assert "does not say what to ask the cluster for" in done.stderr
    zoo.change({"slurm": {"time_min": 60, "partiton": "gpu"}})
    assert "slurm.partiton: unknown key; did you mean 'partition'?" in zoo.call("plan").stderr
    del zoo.matrix["slurm"]["partiton"]
    zoo.change({"slurm": {"extra": {"time": "1:00"}}})
    assert "slurm.extra: 'time' is set by zoo-bench; use the key time_min" in zoo.call("plan").stderr
