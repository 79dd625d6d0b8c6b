"""Where the cells that were submitted are just now, for whoever looks on."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_bench.executors.slurm.notes import Notes
from zoo_bench.executors.slurm.queue import SlurmError, queue
from zoo_bench.locks import is_held
from zoo_bench.text import one_line
from zoo_bench.workspace import Workspace


@dataclass(frozen=True)
class Place:
    """Where a cell is. `state`: running, queued, or waiting to be submitted. `told`: by whom, or why."""

    state: str
    told: str


def places(workspace: Workspace, profile: str) -> dict[str, Place]:
    """Return where the submitted cells of a profile are, by their ids. Slurm is asked only where some may be there."""
    notes, found = Notes.of(workspace), dict[str, Place]()
    if not notes.folder.is_dir():
        return found
    waiting = notes.waiting(profile)
    if waiting and is_held(notes.lock):
        told = Place("waiting to be submitted", one_line(waiting.reason))
        found = dict.fromkeys(waiting.cells, told)
    if not notes.any_open(profile):
        return found
    try:
        jobs = queue()
    except SlurmError as error:
        unknown = Place("submitted", f"Slurm does not say where it is: {error.message}")
        return found | {slot.cell_id: unknown for slot in notes.open_slots(profile, {})}
    for slot in notes.open_slots(profile, jobs):
        job = jobs.get(slot.job_id)
        if job is not None and job.live:
            found[slot.cell_id] = Place("queued" if job.state == "PENDING" else "running", job.told)
    return found
