"""Many cells, a fault in a third of them, zoo-bench killed again and again: is anything lost, doubled or left behind?

Everything is real but the worker, which is the fake one: processes, signals, files, locks. A fault happens once, as
bad luck does, or each time, as a mistake does. zoo-bench is killed (SIGKILL) at random moments and started again, until
only cells with mistakes are unfinished. Exits with 1 when a promise of docs/reliability.md was not kept.

    python benchmarks/soak.py [--cells 1000] [--kills 50] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import Zoo
from leftovers import nothing_left, of_workspace

from zoo_bench.cell import expand
from zoo_bench.load import load_matrix
from zoo_bench.locks import is_held
from zoo_bench.record import Record

DETECTORS = ("faster-rcnn_c4", "faster-rcnn_fpn", "mask-rcnn_fpn", "retinanet_fpn")
BACKBONES = ("r18", "r50")
# Kind of fault -> the status and the reason that its record must have.
CAUSES = {
    "error": ("failed", "scripted error"),
    "out_of_memory": ("out_of_memory", "scripted out_of_memory"),
    "diverged": ("diverged", "scripted diverged"),
    "exit": ("failed", "ended with exit code 3"),
    "kill": ("failed", "killed by SIGKILL"),
    "segv": ("failed", "killed by SIGSEGV"),
    "hang": ("hung", "no progress for 10 s"),
    "burn": ("hung", "no progress for 10 s"),
    "deadlock": ("hung", "no progress for 10 s"),
    "lie": ("failed", "says success, but its events show no end of"),
    "other_protocol": ("failed", "speaks event protocol 99"),
}
SELDOM = ("hang", "burn", "deadlock")  # it takes HANG_S to be sure of one
HANG_S = 10.0
ALWAYS = ("error", "diverged", "exit")  # what a mistake does
STEPS = {"train": 10, "infer": 5, "evaluate": 1}
MISTAKES = 0.03  # of the faults
SAFE = 0.7  # of the time that is left: the last kill is to come before the last cell
PATIENCE_S = 3600.0
POLL_S = 0.02


@dataclass(frozen=True)
class Fault:
    """What a cell's worker does, whether each time, and what child process it starts before."""

    kind: str
    phase: str
    at: int
    always: bool
    child: bool | str


@dataclass(frozen=True)
class Soaked:
    """What a soak has come to: figures for people, and every promise that was not kept."""

    figures: dict[str, object]
    broken: tuple[str, ...]


@dataclass
class Pace:
    """How the time until the next kill is drawn, so that the kills are spread over all cells."""

    chance: random.Random
    kills: int
    cell_s: float = 0.4

    def draw(self, cells_left: int) -> float | None:
        """Return after how many seconds zoo-bench is killed; None where it is not any more."""
        if not self.kills:
            return None
        return self.chance.uniform(0, 2) * SAFE * cells_left * self.cell_s / (self.kills + 1)


def soak(root: Path, cells: int, kills: int, seed: int) -> Soaked:
    """Run `cells` in a workspace at `root`, kill zoo-bench `kills` times on the way, and look at what is there."""
    chance = random.Random(seed)
    zoo = Zoo(root)
    faults = scripted(zoo, cells, chance)
    wanted = cells - sum(fault.always for fault in faults.values())
    started_s = time.monotonic()
    seen, broken, runs, finished = dict[Path, str](), list[str](), 0, 0
    pace = Pace(chance, kills)
    with _progress() as progress:
        task = progress.add_task("cells that have ended", total=cells)
        while finished < wanted:
            runs += 1
            was_killed = _run(zoo, pace.draw(wanted - finished), lambda done: progress.update(task, completed=done))
            pace.kills -= was_killed
            broken += _changed(root, seen)
            finished = len({record.cell_id for record in zoo.records if record.status == "succeeded"})
            pace.cell_s = (time.monotonic() - started_s) / max(finished, 1)
            if time.monotonic() - started_s > PATIENCE_S:
                broken.append(f"{wanted - finished} cells were not finished within {PATIENCE_S:.0f} s")
                break
    if pace.kills:
        broken.append(f"all cells were finished when zoo-bench was still to be killed {pace.kills} times")
    took_s = time.monotonic() - started_s
    records = zoo.records
    broken += [*_miscounted(records, faults, cells), *_unexplained(root, records, faults), *_left_behind(root)]
    statuses = Counter(record.status for record in records)
    figures = {
        "cells": cells,
        "cells with a fault": len(faults),
        "of them each time": cells - wanted,
        "zoo-bench was killed": kills - pace.kills,
        "and started": runs,
        "cells finished": finished,
        "records": len(records),
        **{f"records: {status}": count for status, count in sorted(statuses.items())},
        "seconds": round(took_s),
        "promises not kept": len(broken),
    }
    return Soaked(figures, tuple(broken))


def scripted(zoo: Zoo, cells: int, chance: random.Random) -> dict[str, Fault]:
    """Write a matrix of so many cells into a workspace, a third of them with a fault; return the faults by cell."""
    schedules = [f"s{number}" for number in range(-(-cells // (len(DETECTORS) * len(BACKBONES))))]
    trust = {"hang_timeout_s": HANG_S}
    zoo.change({"profiles": {"quick": {"set": {"trust": trust, "retry": {"hung": 1, "backoff_s": 0.0}}}}})
    zoo.change({"schedules": {name: {"set": {"iterations": 30, "milestones": [20]}} for name in schedules}})
    zoo.change({"axes": {"detector": list(DETECTORS), "backbone": list(BACKBONES), "schedule": schedules}})
    ids = [cell.id for cell in expand(load_matrix(zoo.root / "matrix.yaml"), "quick")]
    surplus = ids[cells:]
    faults = {}
    for number, cell_id in enumerate(chance.sample(ids[:cells], cells // 3)):
        always = number < cells // 3 * MISTAKES
        kinds = ALWAYS if always else tuple(CAUSES)
        kind = chance.choices(kinds, [0.25 if kind in SELDOM else 1.0 for kind in kinds])[0]
        phase = chance.choice(tuple(STEPS))
        faults[cell_id] = Fault(kind, phase, chance.randint(1, STEPS[phase]), always, chance.choice((True, "session")))
    overrides = [
        {"select": cell_id, "set": {"options": _options(zoo.root, cell_id, fault)}} for cell_id, fault in faults.items()
    ]
    zoo.change({"overrides": [*zoo.matrix.get("overrides", []), *overrides], "exclude": surplus})
    return faults


def _options(root: Path, cell_id: str, fault: Fault) -> dict[str, Any]:
    script = {"phase": fault.phase, "at": fault.at, "kind": fault.kind}
    if not fault.always:
        script["unless"] = str(root / f"{cell_id.replace('/', '_')}.happened")
    return {"fault": script, "child": fault.child}


def _run(zoo: Zoo, kill_after_s: float | None, told: Callable[[int], None]) -> bool:
    """Run the matrix until zoo-bench ends or is killed; tell which."""
    killed_s = None if kill_after_s is None else time.monotonic() + kill_after_s
    with (zoo.root / "soak.log").open("ab") as log:
        process = subprocess.Popen(zoo.command("run"), cwd=zoo.root, stdout=log, stderr=log, start_new_session=True)
    while process.poll() is None:
        if killed_s is not None and time.monotonic() > killed_s:
            process.kill()
            process.wait()
            return True
        told(sum(1 for _ in (zoo.root / "results" / "fake").glob("*")))
        time.sleep(POLL_S)
    return False


def _record_files(root: Path) -> Iterator[Path]:
    return (root / "results" / "fake").glob("*/*.json")


def _changed(root: Path, seen: dict[Path, str]) -> list[str]:
    """Say which of the records that were seen before are gone or changed; those that are new are seen from now on."""
    now = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in _record_files(root)}
    lost = [f"{path}: the record is gone" for path in seen if path not in now]
    other = [f"{path}: the record was changed" for path, digest in seen.items() if now.get(path, digest) != digest]
    seen.update(now)
    return lost + other


def _miscounted(records: Sequence[Record], faults: Mapping[str, Fault], cells: int) -> Iterator[str]:
    """Say which cells have not exactly one succeeded record, or, with a mistake in them, one at all."""
    succeeded = Counter(record.cell_id for record in records if record.status == "succeeded")
    mistakes = {cell_id for cell_id, fault in faults.items() if fault.always}
    yield from (f"{cell_id}: {count} succeeded records" for cell_id, count in succeeded.items() if count > 1)
    yield from (f"{cell_id}: succeeded in spite of its fault" for cell_id in mistakes & set(succeeded))
    missing = cells - len(mistakes) - len(succeeded)
    if missing:
        yield f"{missing} cells have no succeeded record"


def _unexplained(root: Path, records: Sequence[Record], faults: Mapping[str, Fault]) -> Iterator[str]:
    """Say which failures do not name their cause, or have no log."""
    for record in records:
        if not (root / record.files["log"]).is_file():
            yield f"{record.cell_id}: the log of run {record.run_id} is missing"
        if record.status == "succeeded":
            continue
        fault = faults.get(record.cell_id)
        status, words = CAUSES[fault.kind] if fault else ("succeeded", "")
        if record.status != status or words not in record.reason:
            cause = f"its fault was: {fault.kind}" if fault else "it had no fault"
            yield f"{record.cell_id}: {record.status}: {record.reason} ({cause})"


def _left_behind(root: Path) -> Iterator[str]:
    """Say which processes still live, and which locks are still held."""
    if not nothing_left(root):
        yield from (f"still alive: {' '.join(process.cmdline())}" for process in of_workspace(root))
    locks = sorted((root / "results" / "locks").rglob("*.lock"))
    yield from (f"{path} is still held" for path in locks if is_held(path))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


def main() -> int:
    """Soak, print the figures, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soaked = soak(Path(folder).resolve(), given.cells, given.kills, given.seed)
    print(tabulate(soaked.figures.items(), headers=["what", "number"], tablefmt="pipe"))
    for promise in soaked.broken:
        print(f"not kept: {promise}")
    return 1 if soaked.broken else 0


if __name__ == "__main__":
    sys.exit(main())
