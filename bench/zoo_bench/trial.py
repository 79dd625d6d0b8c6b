"""Before the first long cell: every cell of the plan is tried for some iterations on the largest images.

So nobody meets on the third day what a minute would have shown: memory that does not suffice, a loader that fails, an
evaluation that cannot be scored. A cell that passed is not tried again until something in its fingerprint changes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from zoo_bench.destination import Destination
from zoo_bench.errors import PreflightError
from zoo_bench.interrupts import Presses, held_back
from zoo_bench.locks import Taken, holder, take
from zoo_bench.plan import PlannedCell
from zoo_bench.runner import POLL_S, Runner, Watcher
from zoo_bench.store import new_run_id
from zoo_bench.workspace import Workspace

ITERATIONS = 20
IMAGES = 16
# A training of fewer iterations says itself, soon enough, what is wrong.
LONG_ITERATIONS = 1000
PASSED = "passed"


@dataclass(frozen=True)
class Trials:
    """Where trials leave their files: those that failed, for their logs, and a mark for each that passed."""

    folder: Path

    @classmethod
    def of(cls, workspace: Workspace) -> Trials:
        """Those of a workspace."""
        return cls(workspace.state / "trials")

    @contextmanager
    def alone(self, watcher: Watcher, presses: Presses) -> Iterator[bool]:
        """Wait until no other runner tries cells here, and hold that; False where Ctrl-C came before."""
        path = self.folder / "trials.lock"
        while (lock := take(path, "trials")) is None:
            if presses.count:
                yield False
                return
            watcher.waiting([Taken("the trials of this workspace", holder(path))])
            time.sleep(POLL_S)
        with lock:
            yield True

    def passed(self, planned: PlannedCell) -> bool:
        """Tell whether such a cell was tried before, and would run."""
        return self._mark(planned).is_file()

    def keep(self, planned: PlannedCell) -> None:
        """Remember that a cell would run."""
        self._mark(planned).parent.mkdir(parents=True, exist_ok=True)
        self._mark(planned).touch()

    def clear(self) -> None:
        """Remove what failed trials of an earlier run left: models and checkpoints are large."""
        for folder in self.folder.glob("*"):
            if folder.name != PASSED and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)

    def _mark(self, planned: PlannedCell) -> Path:
        return self.folder / PASSED / f"{planned.fingerprint}-{'-'.join(planned.phases)}"


def wanted(planned: Sequence[PlannedCell], trials: Trials) -> list[PlannedCell]:
    """Return the cells to try, as they are to be tried: none where no cell of the plan trains for long."""
    if not any(_is_long(cell) for cell in planned):
        return []
    tried = (as_trial(cell) for cell in planned if cell.worker_phases)
    return [cell for cell in tried if not trials.passed(cell)]


def unreachable(planned: Sequence[PlannedCell], destination: Destination | None) -> list[str]:
    """Return why the models of long cells could not be published, a line; nothing where that is not to be done."""
    if destination is None or not any(_is_long(cell) and "publish" in cell.phases for cell in planned):
        return []
    problem = destination.probe()
    return [f"publish: {problem}"] if problem else []


def _is_long(planned: PlannedCell) -> bool:
    measure, schedule = planned.cell.measure, planned.cell.recipe.lr_schedule
    iterations = min(schedule.iterations, measure.train_iterations or schedule.iterations)
    return "train" in planned.phases and iterations >= LONG_ITERATIONS


def as_trial(planned: PlannedCell) -> PlannedCell:
    """Return the cell with little to do in each of its phases; what it is trained on stays."""
    cell = planned.cell
    little = {
        "train_iterations": ITERATIONS,
        "train_half_width": None,
        "warmup_iterations": 0,
        "infer_images": 2,
        "infer_warmup_images": 1,
        "evaluate_images": IMAGES,
    }
    changes = {
        "measure": cell.measure.model_copy(update=little),
        "trust": cell.trust.model_copy(update={"on_noise": "mark"}),
    }
    return replace(planned, cell=cell.model_copy(update=changes), phases=planned.worker_phases, reason="trial")


def try_cells(planned: Sequence[PlannedCell], runner: Runner, trials: Trials) -> tuple[list[str], bool]:
    """Try cells that `wanted` gave; return what is wrong, a line a cell, and whether Ctrl-C ended it."""
    problems: list[str] = []
    with held_back() as presses, trials.alone(runner.watcher, presses) as begun:
        if not begun:
            return [], True
        trials.clear()
        for cell in planned:
            if trials.passed(cell):  # by another runner, while this one waited
                continue
            folder = trials.folder / new_run_id()
            record = runner.once(cell, folder, presses, trial=True)
            if record is not None:
                runner.watcher.cell_ended(record, again=False)
            if record is None or presses.count:
                break
            if record.status == "succeeded":
                trials.keep(cell)
                shutil.rmtree(folder, ignore_errors=True)
            elif record.status != "out_of_memory" or not cell.cell.retry.smaller_batch:
                told = f"{record.status.replace('_', ' ')}: {record.reason}"
                problems.append(f"{cell.cell.id}: {told} (log: {record.files['log']})")
        return problems, presses.count > 0


def refuse(problems: Sequence[str]) -> None:
    """Raise PreflightError that lists what is wrong; nothing where nothing is."""
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise PreflightError(
            f"the trial found {len(problems)} problem(s), and no cell was started:\n{listed}",
            "mend them, or leave them out with --skip; --no-trial starts without trying",
        )
