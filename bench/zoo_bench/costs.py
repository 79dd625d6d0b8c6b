"""What a plan will cost before anything of it is run: wall time and GPU time, and where that is known from. Pure.

From earlier runs of a cell with its recipe, on machines of this one's class: seconds an iteration times iterations, and
what a run of the other phases took beside its iterations. Where there is none, from what other zoos have published: the
time of an image on one GPU at their batch, times the images of a training. Tries that fail are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zoo_bench.cell import Cell, digest, recipe_values
from zoo_bench.plan import PlannedCell
from zoo_bench.provenance import MachineKey
from zoo_bench.published import PUBLISHED_PRECISION, PublishedRow, Zoo
from zoo_bench.recipe import Phase
from zoo_bench.runs import Runs, Summary
from zoo_bench.table import rank

UNKNOWN = "?"


@dataclass(frozen=True)
class Cost:
    """What one cell will cost. `wall_s`: None where nothing is known. `source`: where it is known from.

    `recorded`: from earlier runs. `without`: phases that it leaves out, since how long they take is not known.
    """

    cell_id: str
    gpus: int
    wall_s: float | None
    source: str
    recorded: bool = False
    without: tuple[Phase, ...] = ()

    @property
    def gpu_s(self) -> float | None:
        """Seconds of all its GPUs together, which it holds as long as it runs."""
        return None if self.wall_s is None else self.wall_s * self.gpus


@dataclass(frozen=True)
class Total:
    """What all cells cost whose cost is known, one after another. `unknown`: how many others there are.

    `without`: by phase, of how many of them it leaves that phase out.
    """

    wall_s: float
    gpu_s: float
    unknown: int
    without: dict[Phase, int]


def costs(
    planned: Sequence[PlannedCell], runs: Runs, here: MachineKey, zoos: Sequence[Zoo], target_gpu: str
) -> tuple[Cost, ...]:
    """Return the cost of every cell that a worker is left to run for.

    Args:
        here: this machine. A cell that needs more GPUs than it has will run elsewhere, so any machine's runs count.
        zoos: whose figures count where there are no runs: first those of this machine's GPUs, then those of
            `target_gpu`, then any.
    """
    gpus = (*here[2][:1], target_gpu)
    return tuple(_cost(one, runs.of(one.cell.id), here, zoos, gpus) for one in planned if one.worker_phases)


def total(found: Sequence[Cost]) -> Total:
    """Add up costs."""
    known = [cost for cost in found if cost.wall_s is not None]
    phases = dict.fromkeys(phase for cost in known for phase in cost.without)
    return Total(
        wall_s=sum(cost.wall_s or 0.0 for cost in known),
        gpu_s=sum(cost.gpu_s or 0.0 for cost in known),
        unknown=len(found) - len(known),
        without={phase: sum(phase in cost.without for cost in known) for phase in phases},
    )


def _cost(planned: PlannedCell, earlier: Runs, here: MachineKey, zoos: Sequence[Zoo], gpus: Sequence[str]) -> Cost:
    found = _from_runs(planned, earlier, here) or _from_published(planned, zoos, gpus)
    if found is None:
        return Cost(planned.cell.id, planned.cell.gpus, None, UNKNOWN)
    at_most = "train" in planned.phases and planned.cell.measure.train_half_width is not None
    return replace(found, source=f"at most: {found.source}") if at_most else found


def _iterations(cell: Cell) -> int:
    """Return how long a training is, at most."""
    whole = cell.recipe.lr_schedule.iterations
    return min(whole, cell.measure.train_iterations or whole)


def _from_runs(planned: PlannedCell, earlier: Runs, here: MachineKey) -> Cost | None:
    if not earlier.summaries:
        return None
    cell, sha256 = planned.cell, digest(recipe_values(planned.cell.resolved()))
    alike = [
        run
        for run in earlier.summaries
        if run.recipe_sha256 == sha256 and run.status != "quarantined" and run.measured and _fits(run, cell, here)
    ]
    others = tuple(phase for phase in planned.worker_phases if phase != "train")
    timed = max((run for run in alike if "s_per_iter" in run.figures), key=rank, default=None)
    ended = _closest([run for run in alike if run.status == "succeeded"], others)
    rest_s = None if ended is None else _beside_training_s(ended, earlier)
    without = () if rest_s is not None else others
    if "train" in planned.phases:
        if timed is None:
            return None
        wall_s = timed.figures["s_per_iter"] * _iterations(cell) + (rest_s or 0.0)
        return Cost(cell.id, cell.gpus, wall_s, _told(timed, cell, here), recorded=True, without=without)
    if ended is None:
        return None
    return Cost(cell.id, cell.gpus, rest_s, _told(ended, cell, here), recorded=True)


def _fits(run: Summary, cell: Cell, here: MachineKey) -> bool:
    """Tell whether a run was on a machine of the class that the cell will run on."""
    (_, cpu, gpus), (_, our_cpu, our_gpus) = run.machine, here
    if cell.gpus == 0:
        return cpu == our_cpu
    return _elsewhere(cell, here) or set(gpus) == set(our_gpus)


def _elsewhere(cell: Cell, here: MachineKey) -> bool:
    return cell.gpus > len(here[2])


def _closest(ended: Sequence[Summary], phases: Sequence[Phase]) -> Summary | None:
    """Return, of the runs that did all of `phases`, one that did the least beside them and training: the newest."""
    fitting = [run for run in ended if set(phases) <= set(run.phases_done)]
    return max(fitting, key=lambda run: (-len(set(run.phases_done) - {*phases, "train"}), run.run_id), default=None)


def _beside_training_s(run: Summary, runs: Runs) -> float:
    """Return how long a run took beside the iterations of its training: starting, and its other phases."""
    train = runs.read(run).measurements.train
    if train is None:
        return run.duration_s
    return max(0.0, run.duration_s - (train.iterations_run - train.resumed_at) * train.mean_s)


def _told(run: Summary, cell: Cell, here: MachineKey) -> str:
    where = f" on {', '.join(sorted(set(run.machine[2])))}" if cell.gpus and _elsewhere(cell, here) else ""
    return f"record of {time.strftime('%Y-%m-%d', time.gmtime(run.started_unix_s))}{where}"


def _from_published(planned: PlannedCell, zoos: Sequence[Zoo], gpus: Sequence[str]) -> Cost | None:
    """Take, of the zoos that measured on the first of these GPUs that any did, the slowest: a budget is to last."""
    cell, train = planned.cell, "train" in planned.phases
    found = [
        (zoo, row)
        for zoo in zoos
        for row in zoo.rows
        if cell.gpus > 0 and (row.detector, row.backbone) == (cell.detector, cell.backbone) and _same_input(zoo, cell)
    ]
    usable = [(_published_s(planned, *one), *one) for one in found if (one[1].s_per_iter if train else one[1].fps)]
    if not usable or (not train and "infer" not in planned.phases):
        return None
    of_gpu = ([one for one in usable if one[1].hardware.is_kind_of(gpu)] for gpu in gpus)
    wall_s, zoo, row = max(next(filter(None, of_gpu), usable), key=lambda one: one[0])
    unknown: tuple[Phase, ...] = ("evaluate",) if row.fps else ("infer", "evaluate")
    precision = f", {PUBLISHED_PRECISION}" if cell.precision != PUBLISHED_PRECISION else ""
    told = f"published by {zoo.title} ({zoo.hardware.text}{precision})"
    return Cost(cell.id, cell.gpus, wall_s, told, without=tuple(p for p in planned.worker_phases if p in unknown))


def _same_input(zoo: Zoo, cell: Cell) -> bool:
    ours = cell.recipe.input
    return (zoo.input.min_size, zoo.input.max_size) == (ours.min_size, ours.max_size)


def _published_s(planned: PlannedCell, zoo: Zoo, row: PublishedRow) -> float:
    """Return how long a cell takes by a published row: as many images on each GPU, each in the time it took there."""
    cell, wall_s = planned.cell, 0.0
    if "train" in planned.phases and row.s_per_iter:
        image_s = row.s_per_iter * zoo.hardware.gpus / (row.batch_size or zoo.batch_size)
        wall_s += image_s * cell.images_per_gpu * _iterations(cell)
    if "infer" in planned.phases and row.fps:
        wall_s += (cell.measure.infer_images + cell.measure.infer_warmup_images) / row.fps
    return wall_s
