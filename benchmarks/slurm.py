"""Twenty cells of the fake backend and a real smoke cell on a real Slurm, with all that may come between.

The real cell is trained on two nodes together, joined by gloo. The cluster is that of the tests: munged, slurmctld and
two slurmd on loopback. While the cells run, the controller is killed and started again, an urgent job preempts those
that run, and one job is killed with all its processes. Then every cell must have succeeded, exactly once, with a record
of each run that was broken off. Exits with 1 where that is not so. Needs root and Slurm (tools/install_slurm.sh); the
real cell's environment is built in the checkout.

    python benchmarks/slurm.py [--cell CELL]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import slurm_cluster
from conftest import Zoo
from slurm_cluster import Cluster

PATIENCE_S = 1200.0  # on a machine that is slow and busy; it takes two minutes on a quiet one
REAL = "torchvision/retinanet_r50_fpn_1x_shapes"
FAKE_CELLS = 20
# Of the real cell: that it learns is what benchmarks/smoke.py looks at.
SHORT = {"recipe": {"lr_schedule": {"iterations": 50, "milestones": [35, 45]}}, "runtime": {"checkpoint_interval": 10}}


def main() -> int:
    """Run the cells, disturb them, and count what is left."""
    parser = argparse.ArgumentParser(description="Cells on a real Slurm, disturbed.")
    parser.add_argument("--cell", default=REAL, help=f"the real smoke cell ({REAL})")
    real = parser.parse_args().cell
    why = slurm_cluster.missing()
    if why:
        print(why, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the cluster must not stay
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="zoo-bench-slurm-"))
    folder.chmod(0o755)
    try:
        with slurm_cluster.running(folder / "cluster") as cluster:
            os.environ.update(cluster.environment)
            zoo = workspace(folder / "zoo")
            disturbed(zoo, cluster, real)
        kept = report(zoo, real, time.monotonic() - began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if kept else 1


def workspace(root: Path) -> Zoo:
    """A workspace with the profile quick (20 fake cells) and the real smoke cells beside it.

    It shares the worker environments of the checkout, which are moved by their workspace's path alone.
    """
    root.mkdir(parents=True)
    (ROOT / ".zoo-bench" / "envs").mkdir(parents=True, exist_ok=True)
    (root / ".zoo-bench").mkdir()
    (root / ".zoo-bench" / "envs").symlink_to(ROOT / ".zoo-bench" / "envs")
    zoo = Zoo(root)
    smoke = zoo.matrix["profiles"]["smoke"]
    zoo.change(
        {
            "axes": {
                "detector": ["faster-rcnn_c4", "faster-rcnn_fpn", "mask-rcnn_fpn", "retinanet_fpn"],
                "backbone": ["r18", "r50", "r101"],
                "precision": ["fp32", "bf16"],
            },
            "exclude": [*zoo.matrix.get("exclude", ()), "backend=fake,backbone=r18,precision=bf16"],
            "profiles": {
                "smoke": {
                    **smoke,
                    "set": {**smoke["set"], "options": {"cpu_ranks": 2}},
                    "overrides": [*smoke["overrides"], {"select": "*", "set": SHORT}],
                    "axes": {"backend": ["torchvision"], "backbone": ["r50", "r101"], "precision": ["fp32"]},
                },
                "quick": {"set": {"options": {"iteration_s": 0.15}, "runtime": {"checkpoint_interval": 1}}},
            },
            "slurm": {
                "time_min": 30,
                "poll_s": 0.5,
                "grace_s": 30,
                "partition": "one",
                "max_running": 4,
                "extra": {"gres": "gpu:2"},
            },
        }
    )
    return zoo


def disturbed(zoo: Zoo, cluster: Cluster, real: str) -> None:
    """Run all cells to their end, with everything that may come between; the real one first of all."""
    smoke = ("--profile", "smoke", "--select", real)
    zoo.change({"slurm": {"partition": "zoo", "nodes": 2}})
    with controller(zoo, *smoke) as lone:
        until(lambda: cluster.call("squeue", "--noheader", "--states=RUNNING", "--format=%D").strip() == "2")
        lone.kill()  # its job goes on meanwhile
    zoo.change({"slurm": {"partition": "one", "nodes": 1}})
    with controller(zoo) as first:
        until(lambda: steps(zoo))
        first.kill()
    with controller(zoo) as second:
        until(lambda: len(begun(zoo, cluster)) >= 3)
        preempted = begun(zoo, cluster)
        urgent = ("--partition=urgent", "--nodelist=zoo1", "--gres=gpu:8", "--output=/dev/null", "--wrap=sleep 1")
        cluster.call("sbatch", *urgent)
        until(lambda: records(zoo, "interrupted") and cluster.call("squeue", "--noheader", "--partition=urgent") == "")
        print(f"preempted: {', '.join(preempted)}", flush=True)
        until(lambda: begun(zoo, cluster))
        victim = begun(zoo, cluster)[-1]
        cluster.kill(victim)
        print(f"killed: {victim}", flush=True)
        second.wait(PATIENCE_S)
    for arguments in ((), smoke):
        with controller(zoo, *arguments) as last:
            last.wait(PATIENCE_S)


@contextmanager
def controller(zoo: Zoo, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a controller, which has ended afterwards."""
    process = subprocess.Popen(zoo.command("run", "--executor", "slurm", *arguments), cwd=zoo.root)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def report(zoo: Zoo, real: str, took_s: float) -> bool:
    """Print what is left of all runs; tell whether every promise was kept."""
    found = Counter(record.status for record in zoo.records)
    succeeded = Counter(record.cell_id for record in zoo.records if record.status == "succeeded")
    trained = [record for record in zoo.records if record.cell_id == real and record.status == "succeeded"]
    scores = [record.measurements.scores for record in trained]
    promises = {
        "cells that succeeded": (len(succeeded), FAKE_CELLS + 1),
        "cells that succeeded more than once": (sum(count > 1 for count in succeeded.values()), 0),
        "runs that were killed, told as failed": (found.pop("failed", 0), 1),
        "nodes of the real cell": ([record.machine.get("nodes") for record in trained], [2]),
        "the real cell has an AP": (any(score and score.box and score.box.ap is not None for score in scores), True),
    }
    rows = [[what, number, wanted] for what, (number, wanted) in promises.items()]
    rows += [[f"runs: {status}", count, ""] for status, count in sorted(found.items())]
    print(tabulate([*rows, ["seconds", f"{took_s:.0f}", ""]], headers=["what", "found", "must be"], tablefmt="pipe"))
    broken = [record for record in zoo.records if record.status != "succeeded"]
    for record in broken:
        print(f"{record.cell_id}: {record.status}: {record.reason}")
    return all(number == wanted for number, wanted in promises.values())


def running(cluster: Cluster) -> list[str]:
    """The ids of zoo-bench's jobs that run just now."""
    return cluster.call("squeue", "--noheader", "--array", "--states=RUNNING", "--partition=one", "--format=%i").split()


def begun(zoo: Zoo, cluster: Cluster) -> list[str]:
    """Those of them that have begun to train."""
    logs = {job: next(zoo.root.glob(f".zoo-bench/slurm/*/{job}_0_log.out"), None) for job in running(cluster)}
    return [job for job, log in logs.items() if log and "    train " in log.read_text().rpartition("[1/1]")[2]]


def steps(zoo: Zoo) -> bool:
    """Whether a fake cell has begun to train."""
    runs = zoo.root.glob("results/runs/*")
    return any('"backend": "fake"' in (run / "job.json").read_text() for run in runs if (run / "events.jsonl").exists())


def records(zoo: Zoo, status: str) -> list[str]:
    """The runs that ended so."""
    return [record.run_id for record in zoo.records if record.status == status]


def until(there: Callable[[], object]) -> None:
    """Wait for something, within reason."""
    deadline = time.monotonic() + PATIENCE_S
    while not there():
        if time.monotonic() > deadline:
            raise SystemExit("what is waited for does not come")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
