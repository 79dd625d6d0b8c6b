"""What would run, and why: cells and runs -> plan. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from zoo_bench.cell import Cell, at_half_its_batch, digest
from zoo_bench.destination import Destination
from zoo_bench.errors import ConfigError
from zoo_bench.recipe import PHASES, WORKER_PHASES, Phase, differences
from zoo_bench.record import Checkpoint, Inputs, Record
from zoo_bench.runs import Runs, Summary
from zoo_bench.scaling import without_scaling

# Phases are tracked one by one, beside the fingerprint; how closely a run was watched, and how often it
# is tried, changes no figure of it.
NOT_FINGERPRINTED = ("phases", "trust", "retry")
SHOWN_DIFFERENCES = 2


@dataclass(frozen=True)
class PlannedCell:
    """A cell, the phases that are left to run (none: it is fresh), why, and the checkpoint they would start from.

    `instead_of`: the id of the matrix's cell that this one stands in for, with a smaller batch; else empty.
    `anew`: also a training that was interrupted begins again. `training_log`: of the run that made the checkpoint,
    relative to the workspace. `unpublished`: it was to be published, and has no model here that could be.
    """

    cell: Cell
    inputs: Inputs
    fingerprint: str
    phases: tuple[Phase, ...]
    reason: str
    checkpoint: Checkpoint | None
    training_log: str | None = None
    anew: bool = False
    unpublished: bool = False
    instead_of: str = ""

    @property
    def worker_phases(self) -> tuple[Phase, ...]:
        """The phases that a worker runs."""
        return tuple(phase for phase in self.phases if phase in WORKER_PHASES)

    @property
    def fresh(self) -> bool:
        """True when nothing is left to run."""
        return not self.phases


@dataclass(frozen=True)
class Request:
    """What the user asked for beyond the cells.

    `since`: of a forced call that goes on, when it began (Unix seconds): what was done after that is done. `accepted`:
    by cell id, the model of the baseline that is to be measured. `available` names the checkpoint files that still
    exist, `destination` says where models are published now.
    """

    phases: tuple[Phase, ...] | None = None
    force: bool = False
    since: float | None = None
    checkpoint: Checkpoint | None = None
    accepted: Mapping[str, Checkpoint] = field(default_factory=dict)
    available: frozenset[str] = frozenset()
    destination: Destination | None = None

    @property
    def anew(self) -> bool:
        """Whether everything is to be run again, from its beginning."""
        return self.force and self.since is None

    def counts(self, run: Summary | None) -> bool:
        """Tell whether a phase is done that this run has done last; None: none has."""
        return run is not None and (self.since is None or run.started_unix_s >= self.since)

    def given(self, cell: Cell) -> Checkpoint | None:
        """Return the model that a cell is to be measured with, whatever it has trained itself."""
        return self.accepted.get(cell.id) or self.checkpoint


def after(planned: PlannedCell, record: Record) -> PlannedCell:
    """Return what is left of a cell after a run of it that is to be tried again.

    A quarantined run counts as if nothing had been done; of any other one its finished phases are kept, and an
    interrupted training goes on, though the first try was to begin anew.
    """
    reason = f"{record.status.replace('_', ' ')} in run {record.run_id}"
    done = () if record.status == "quarantined" else record.phases_done
    if not record.measured:
        done = tuple(phase for phase in planned.phases if phase != "publish")
    left = tuple(phase for phase in planned.phases if phase not in done)
    if "train" in done:
        log = record.files["log"]
        return replace(planned, phases=left, reason=reason, checkpoint=record.checkpoint, training_log=log, anew=False)
    return replace(planned, phases=left, reason=reason, anew=False)


def with_smaller_batch(planned: PlannedCell, record: Record) -> PlannedCell | None:
    """Return what is to be run in place of a cell that needs more memory than there is; None where nothing is."""
    in_training = "train" in planned.phases and "train" not in record.phases_done  # else a batch decides nothing
    if record.status != "out_of_memory" or not planned.cell.retry.smaller_batch or not in_training:
        return None
    matrix_id = planned.instead_of or planned.cell.id
    cell = at_half_its_batch(planned.cell, matrix_id)
    if cell is None:
        return None
    reason = f"out of memory with {planned.cell.images_per_gpu} images a GPU in run {record.run_id}"
    mark = fingerprint(cell, planned.inputs, None)
    return PlannedCell(cell, planned.inputs, mark, planned.phases, reason, None, instead_of=matrix_id)


def parse_phases(text: str | None) -> tuple[Phase, ...] | None:
    """Read ``--phases infer,evaluate``. Raises ConfigError for a phase that does not exist."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in PHASES]
    if unknown or not words:
        raise ConfigError(
            f"--phases {text}: {unknown[0] if unknown else 'nothing'!r} is no phase",
            f"phases: {', '.join(PHASES)}",
        )
    return tuple(phase for phase in PHASES if phase in words)


def fingerprint(cell: Cell, inputs: Inputs, given: Checkpoint | None) -> str:
    """Return the digest that decides whether a cell is fresh."""
    values = {key: value for key, value in cell.resolved().items() if key not in NOT_FINGERPRINTED}
    return digest({"cell": values, "inputs": inputs.model_dump(), "checkpoint": given.sha256 if given else None})


def make_plan(
    cells: Sequence[Cell], inputs: Mapping[str, Inputs], runs: Runs, request: Request
) -> tuple[PlannedCell, ...]:
    """Decide for every cell which phases are left to run.

    A phase is left unless an earlier run with the same fingerprint finished it. Training is taken over from an
    earlier run only when its checkpoint still exists.
    """
    return tuple(_plan_cell(cell, inputs[cell.id], runs.of(cell.id), request) for cell in cells)


def _plan_cell(cell: Cell, inputs: Inputs, earlier: Runs, request: Request) -> PlannedCell:
    given = request.given(cell)
    mark = fingerprint(cell, inputs, given)
    same = [run for run in earlier.summaries if run.fingerprint == mark and not _spoiled(run, cell)]
    wanted = request.phases or cell.phases
    done = _done(same, request.destination)
    left = wanted if request.anew else tuple(phase for phase in wanted if not request.counts(done.get(phase)))
    if wanted == ("publish",) and "train" not in done:  # what was trained is published, and the others are not begun
        return PlannedCell(cell, inputs, mark, (), "not published: not trained yet", None, unpublished=True)
    trained = done.get("train") if given is None else None
    checkpoint = given or _checkpoint(trained, request.available)
    if left == ("publish",) and trained is not None and checkpoint is None:
        # A finished cell is not trained for days once more only because its files moved.
        gone = f"not published: the model of run {trained.run_id} is gone"
        return PlannedCell(cell, inputs, mark, (), gone, None, unpublished=True)
    if left and "train" not in left and checkpoint is None:
        if "train" not in wanted:
            raise ConfigError(
                f"{cell.id}: {', '.join(left)} needs a trained model, and no earlier run left one",
                "run the train phase too, or name a model with --checkpoint FILE",
            )
        left = wanted
    if "train" in left:
        left, checkpoint, trained = wanted, None, None
    reason = _reason(cell, inputs, earlier, same, left, request)
    if "train" in left and "train" in done and not request.force:
        reason = f"the model of run {done['train'].run_id} is gone"
    log = trained.log if trained else None
    return PlannedCell(cell, inputs, mark, left, reason, checkpoint if left else None, log, request.anew)


def _spoiled(run: Summary, cell: Cell) -> bool:
    """Tell whether a run does not count: quarantined, or kept in spite of noise that would quarantine it now."""
    return run.status == "quarantined" or run.spoiled_in(cell)


def _done(same: Sequence[Summary], destination: Destination | None) -> dict[Phase, Summary]:
    """Return, for every phase that is done, the newest run that did it.

    Every other phase counts only when it was done with the model of the newest training, where there is one; and
    what was published, only when it was at `destination`.
    """
    trained = next((run for run in reversed(same) if "train" in run.phases_done), None)
    weights = trained.weights if trained else None
    done: dict[Phase, Summary] = {}
    for run in same:
        if weights is None or run.weights == weights:
            here = run.published is not None and destination is not None and destination.holds(run.published)
            done.update({phase: run for phase in run.phases_done if phase != "publish" or here})
    return done


def _checkpoint(trained: Summary | None, available: frozenset[str]) -> Checkpoint | None:
    found = trained.checkpoint if trained else None
    return found if found and found.file in available else None


def _reason(
    cell: Cell,
    inputs: Inputs,
    earlier: Runs,
    same: Sequence[Summary],
    left: Sequence[Phase],
    request: Request,
) -> str:
    if not left:
        wanted = request.phases or cell.phases
        runs = dict.fromkeys(run.run_id for phase, run in _done(same, request.destination).items() if phase in wanted)
        return f"run {', '.join(runs)}"
    if request.force:
        return "forced"
    if tuple(left) == ("publish",) and request.destination is not None:
        return f"not published at {request.destination.address}"
    if same:
        last = same[-1]
        return f"{last.status} in run {last.run_id}" if last.status != "succeeded" else "not measured yet"
    if request.accepted.get(cell.id):
        return "the accepted model"
    if request.checkpoint:
        return "given checkpoint"
    if not earlier.summaries:
        return "never run"
    last = earlier.summaries[-1]
    if last.fingerprint == fingerprint(cell, inputs, None):  # and yet not among the same ones
        return f"{'quarantined' if last.status == 'quarantined' else 'noisy'} in run {last.run_id}"
    return _what_changed(cell, inputs, earlier.read(last))


def _what_changed(cell: Cell, inputs: Inputs, last: Record) -> str:
    old = {key: value for key, value in last.cell.items() if key not in NOT_FINGERPRINTED}
    new = {key: value for key, value in cell.resolved().items() if key not in NOT_FINGERPRINTED}
    changed = differences(*without_scaling(old, new))
    shown = changed[:SHOWN_DIFFERENCES]
    if len(changed) > len(shown):
        shown.append(f"and {len(changed) - len(shown)} values more")
    for name, what in (
        ("sources_sha256", "worker sources changed"),
        ("lock_sha256", "requirements changed"),
        ("dataset_sha256", "dataset changed"),
    ):
        if getattr(inputs, name) != getattr(last.inputs, name):
            shown.append(what)
    return "; ".join(shown) or f"another checkpoint than in run {last.run_id}"
