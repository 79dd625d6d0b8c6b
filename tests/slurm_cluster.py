"""A Slurm cluster on loopback, in a temporary folder: munged, slurmctld, and a slurmd for each of two nodes.

It needs root, as Slurm's daemons do that start jobs. Two nodes share this machine's processors; each has 8 generic
GPUs that are nothing but numbers. Started and stopped by whoever enters it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
NODES = ("zoo1", "zoo2")
GPUS = 8
PATIENCE_S = 90.0

CONFIGURATION = """
ClusterName=zoo
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=1,bf_interval=1,default_queue_depth=1000
GresTypes=gpu
ReturnToService=2
MinJobAge=10
KillWait=15
InactiveLimit=0
SlurmdTimeout=300
MessageTimeout=30
SlurmdParameters=config_overrides
MaxJobCount=200
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=zoo Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=one Nodes=zoo1 MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)}: not installed; see tools/install_slurm.sh"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


class Cluster:
    """A running cluster. `environment`: what its commands need to find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def call(self, *words: str) -> str:
        """What a command of Slurm's prints; it must succeed."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def start(self) -> None:
        """Write the configuration, start the daemons, and wait until the nodes are idle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munged wants its socket to be reached by all
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        self._munge()
        ports = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=16 Gres=gpu:{GPUS}"
            for node, port in zip(NODES, ports[1:], strict=True)
        )
        text = CONFIGURATION.format(folder=self.folder, controller=ports[0], nodes=nodes)
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        for number in range(GPUS):  # to Slurm a GPU is a device's file
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        gpus = f"Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n"
        (self.folder / "gres.conf").write_text(gpus, encoding="utf-8")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")
        self._daemon("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))
        _until(self._idle, f"{NODES} idle: see {self.folder}")

    def _idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%N %T", "--partition=zoo"],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split() == [word for node in NODES for word in (node, "idle")]

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        socket_path = self.folder / "munge.socket"
        self._daemon(
            "munged",
            "--foreground",
            "--force",  # folders under /tmp may be written by all
            f"--key-file={key}",
            f"--socket={socket_path}",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
            "--num-threads=1",
        )
        _until(socket_path.exists, f"munged: see {self.folder}/munged.output")

    def _daemon(self, *words: str) -> None:
        with (self.folder / f"{Path(words[0]).name}.output").open("ab") as output:
            self._daemons.append(
                subprocess.Popen(
                    words,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    def clear(self) -> None:
        """Cancel all jobs at once, and wait until they have gone."""
        self.call("scancel", "--user=root", "--state=PENDING")
        for line in self.call("squeue", "--noheader", "--array", "--format=%A").splitlines():
            self.kill(line)
        self.call("scancel", "--user=root")
        _until(lambda: not self.call("squeue", "--noheader").strip(), "no job left")

    def kill(self, job: str) -> None:
        """Kill every process of a job, as the kernel does where memory ends."""
        number = self.call("squeue", "--noheader", f"--jobs={job}", "--format=%A").strip()
        mark = f"SLURM_JOB_ID={number}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if mark in words and f"SLURM_CONF={self.environment['SLURM_CONF']}".encode() in words:
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def fail(self, node: str) -> None:
        """Let a node be down, with all that runs on it."""
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def mend(self, node: str) -> None:
        """Let a node be up again; it may be so by itself, since its daemon has never gone."""
        with contextlib.suppress(AssertionError):
            self.call("scontrol", "update", f"NodeName={node}", "State=RESUME")
        _until(self._idle, f"{node} idle")

    def stop(self) -> None:
        """Cancel all jobs, and end the daemons, the last one first."""
        if self._daemons:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.clear()
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start a cluster in an empty folder, and stop it."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _until(there: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < deadline, f"not reached: {what}"
        time.sleep(0.1)
