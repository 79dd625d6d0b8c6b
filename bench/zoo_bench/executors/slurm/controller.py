"""Follows the cells of a plan through the cluster: submits what is not there yet, and ends with a record of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from zoo_bench.executors.slurm.lost import lost, lost_record
from zoo_bench.executors.slurm.notes import Slot
from zoo_bench.executors.slurm.queue import (
    QueuedJob,
    SlurmError,
    cancel,
    end_of,
    most_in_an_array,
    queue,
)
from zoo_bench.executors.slurm.submission import RejectedError, Submitter
from zoo_bench.interrupts import Presses, held_back
from zoo_bench.locks import is_held
from zoo_bench.plan import PlannedCell
from zoo_bench.record import Record
from zoo_bench.recorder import Setting, record_of_lost
from zoo_bench.runs import Runs

# A record that a node has just written may be seen some looks later, where a network lies between.
LOOKS = 3
AGAIN_LOOKS = 4  # between two tries to submit what a full queue did not take
LEAVING_S = 2.0  # between two looks at the queue while somebody waits for the end
SLICE_S = 0.2


@dataclass
class Followed:
    """A submitted cell: its place, what was planned, how Slurm showed it last, how often it was not seen."""

    slot: Slot
    planned: PlannedCell
    told: str = ""
    gone: int = 0


@dataclass
class Controller:
    """Runs cells of one session on the cluster. `say` prints a line for whoever watches."""

    submitter: Submitter
    setting: Setting
    say: Callable[[str], None]
    followed: dict[str, Followed] = field(default_factory=dict)
    waiting: list[PlannedCell] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    _part: int = 0
    _due_s: float = 0.0
    _cancelled: bool = False
    _said: str = ""

    def run(self, left: Sequence[PlannedCell]) -> tuple[list[Record], bool]:
        """Bring every cell to its end; return their records, and whether a signal ended it.

        Jobs that an earlier controller has left in the queue are followed, not submitted again. Ctrl-C cancels the
        jobs, and waits for their records; any other signal leaves them where they are.
        """
        limit = most_in_an_array()
        with held_back() as presses:
            self._adopt(left)
            while (self.followed or self.waiting) and not presses.count:
                self._submit(limit, presses)
                self._look()
                self._pause(self.submitter.section.poll_s, presses)
            if presses.count and self.followed:
                self._leave(presses)
            self._note_waiting("")
            return self.records, presses.count > 0

    def _adopt(self, left: Sequence[PlannedCell]) -> None:
        """Find the jobs that were submitted before; those that ended meanwhile are seen to like all others."""
        by_id: dict[str, PlannedCell] = {}
        for cell in left:  # of several seeds the first stands for all: they are one job
            by_id.setdefault(cell.cell.id, cell)
        jobs = queue()
        for slot in self.submitter.notes.open_slots(self.setting.profile, jobs):
            planned = by_id.get(slot.cell_id)
            if planned is None:
                continue
            job, one = jobs.get(slot.job_id), Followed(slot, planned, gone=LOOKS)
            if (job is not None and job.live) or not self._settle(one):
                one.told = job.told if job else f"Slurm job {slot.job_id}"
                self.followed[slot.cell_id] = one
                self.say(f"{slot.cell_id}: found again: {one.told}")
        self.records = [record for record in self.records if record.status == "succeeded"]  # all else is run again
        done = {record.cell_id for record in self.records}
        self.waiting = [cell for name, cell in by_id.items() if name not in self.followed and name not in done]

    def _submit(self, limit: int, presses: Presses) -> None:
        """Submit what waits, in arrays of `limit` jobs at most, as much as Slurm takes."""
        if not self.waiting or time.monotonic() < self._due_s:
            return
        self._note_waiting("sbatch has not handed its job over yet")  # with a full queue it tries for minutes
        for _, group in groupby(sorted(self.waiting, key=lambda one: one.cell.gpus), key=lambda one: one.cell.gpus):
            cells = list(group)
            while cells and not presses.count:
                part = cells[: min(limit, self._part or limit)]
                try:
                    slots = self.submitter.submit(part)
                except RejectedError as error:
                    if error.later and len(part) > 1:  # a smaller one may still find room
                        self._part = len(part) // 2
                        continue
                    if error.later:
                        self._wait(error.reason)
                        return
                    self._reject(part, error.reason)
                    slots = []
                self._take(part, slots)
                del cells[: len(part)]
        self._note_waiting("")

    def _take(self, cells: Sequence[PlannedCell], slots: Iterable[Slot]) -> None:
        self.waiting = [cell for cell in self.waiting if cell not in cells]
        for planned, slot in zip(cells, slots, strict=False):
            self.followed[slot.cell_id] = Followed(slot, planned)

    def _wait(self, reason: str) -> None:
        self._part, self._due_s = 0, time.monotonic() + AGAIN_LOOKS * self.submitter.section.poll_s
        self._say_once(f"{len(self.waiting)} cells wait, since Slurm takes no job now: {reason}")
        self._note_waiting(reason)

    def _say_once(self, line: str) -> None:
        """Say what may stay so for long."""
        if line != self._said:
            self.say(line)
        self._said = line

    def _note_waiting(self, reason: str) -> None:
        cells = tuple(cell.cell.id for cell in self.waiting) if reason else ()
        self.submitter.notes.wait(self.setting.profile, cells, reason)

    def _reject(self, cells: Sequence[PlannedCell], reason: str) -> None:
        for planned in cells:
            run_id = self.setting.store.new_run_id()
            log = self.setting.store.run_folder(run_id) / "slurm.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"sbatch: {reason}\n", encoding="utf-8")
            record = record_of_lost(
                planned, run_id, self.setting, status="failed", reason=f"Slurm rejects its job: {reason}", log=log
            )
            self._keep(record)

    def _keep(self, record: Record) -> None:
        self.setting.store.add(record)
        self._ended(record)

    def _ended(self, record: Record) -> None:
        self.records.append(record)
        self.say(f"{record.cell_id}: {record.status}{f': {record.reason}' if record.reason else ''}")

    def _look(self) -> None:
        """See what became of every job."""
        try:
            jobs = queue()
        except SlurmError as error:  # it may come back; the jobs do not need it meanwhile
            self._say_once(f"Slurm does not answer; it is asked again: {error.message}")
            return
        gone = [one for one in self.followed.values() if not self._seen(one, jobs)]
        runs = self.setting.store.load().runs if gone else None
        for one in gone:
            if self._settle(one, runs):
                del self.followed[one.slot.cell_id]

    def _seen(self, one: Followed, jobs: Mapping[str, QueuedJob]) -> bool:
        """Tell whether a job is still in the queue, and say so when it is somewhere else than before."""
        job = jobs.get(one.slot.job_id)
        if job is None or not job.live:
            one.gone += 1
            return False
        one.gone = 0
        if job.told != one.told and (job.nodes or not one.told.startswith(job.told.partition(" (")[0])):
            self.say(f"{one.slot.cell_id}: {job.told}")
        one.told = job.told
        return True

    def _settle(self, one: Followed, runs: Runs | None = None) -> bool:
        """See to it that a job which has gone leaves a record; False where it is too early to tell."""
        store, cell_id = self.setting.store, one.slot.cell_id
        if self._cancelled and one.slot.started is None:  # as of any cell that Ctrl-C came before
            one.slot.settle()
            return True
        if is_held(store.cell_lock(cell_id)):  # its zoo-bench is still about it
            return False
        mine = (runs or store.load().runs).of(cell_id)
        found = lost(one.slot, mine.summaries, end_of(one.slot.job_id))
        if found is not None and one.gone < LOOKS:
            return False
        if found is not None:
            self._keep(lost_record(one.slot, found, one.planned, self.setting))
        else:
            since = one.slot.batch.submitted_unix_s
            for run in [run for run in mine.summaries if run.started_unix_s >= since][-1:]:
                self._ended(mine.read(run))
        one.slot.settle()
        return True

    def _pause(self, seconds: float, presses: Presses) -> None:
        deadline = time.monotonic() + seconds
        before = presses.count
        while (self.followed or self.waiting) and presses.count == before and time.monotonic() < deadline:
            time.sleep(SLICE_S)

    def _leave(self, presses: Presses) -> None:
        """After Ctrl-C: cancel all jobs, and wait until their records are there or it is pressed once more."""
        if not presses.from_terminal:
            self.say(f"{len(self.followed)} job(s) stay in the queue; the same call follows them again")
            return
        self.say(f"cancelling {len(self.followed)} job(s), and waiting for their records; Ctrl-C again does not wait")
        self._cancelled = True
        before = presses.count
        while self.followed and presses.count == before:
            try:
                cancel([one.slot.job_id for one in self.followed.values()])
            except SlurmError as error:
                self.say(f"they could not be cancelled; it is tried again: {error.message}")
            self._look()
            self._pause(min(LEAVING_S, self.submitter.section.poll_s), presses)
