"""Where `zoo-bench run --executor slurm` begins."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from rich.console import Console

from zoo_bench.errors import ConfigError
from zoo_bench.executors.slurm.notes import Notes
from zoo_bench.executors.slurm.queue import require
from zoo_bench.executors.slurm.section import Slurm
from zoo_bench.locks import holder, take
from zoo_bench.plan import PlannedCell
from zoo_bench.record import Record
from zoo_bench.recorder import Setting
from zoo_bench.session import Session


def check(session: Session) -> None:
    """Raise ConfigError where cells cannot be submitted from here."""
    _section(session)
    if session.asked.accepted:
        raise ConfigError(
            "--accepted measures what was accepted on this machine, and the cluster's nodes are others",
            "run it on a node, with --executor local",
        )
    if find_spec("submitit") is None:
        raise ConfigError("--executor slurm needs submitit, which is not installed", "pip install 'zoo-bench[slurm]'")
    require()


def _section(session: Session) -> Slurm:
    if session.matrix.slurm is None:
        raise ConfigError(
            f"{session.workspace.matrix_file} does not say what to ask the cluster for",
            "add `slurm: {time_min: 1440, partition: ...}` to it; docs/cluster.md explains the keys",
        )
    return session.matrix.slurm


def run(session: Session, left: Sequence[PlannedCell], setting: Setting, console: Console) -> tuple[list[Record], bool]:
    """Run cells on the cluster; return their records, and whether a signal ended it.

    Raises:
        ConfigError: another controller is at work in this workspace.
        SlurmError: the cluster does not answer at all.
    """
    from zoo_bench.executors.slurm.controller import Controller
    from zoo_bench.executors.slurm.submission import Submitter

    notes = Notes.of(session.workspace)
    lock = take(notes.lock, "jobs of a cluster")
    if lock is None:
        raise ConfigError(
            f"the jobs of this workspace are followed already: {holder(notes.lock)}",
            "end that one, or watch with zoo-bench status --watch",
        )
    with lock:
        submitter = Submitter(session, _section(session), notes)
        return Controller(submitter, setting, lambda line: _say(console, line)).run(left)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
