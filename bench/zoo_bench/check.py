"""The nightly verdicts: each cell's newest night against what was accepted and the nights since. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from zoo_bench.baselines import Baseline
from zoo_bench.cell import Cell
from zoo_bench.columns import OF_ONE_MODEL
from zoo_bench.compare import unlike
from zoo_bench.matrix import Check
from zoo_bench.nights import (
    MEASURED_IN,
    NightRuns,
    by_night,
    counts,
    incomparable,
    is_evidence,
    is_exact,
    newest_by_model,
    newest_night,
    of_one_state,
)
from zoo_bench.provenance import MachineKey, machine_text
from zoo_bench.regression import Judgement, Night, judge
from zoo_bench.rules import METRICS, RATES, Metric, change_of, comparable, figure_of, rule_of
from zoo_bench.runs import Runs, Summary
from zoo_bench.units import percent

RECIPE_SHOWN = 3
ENOUGH = 3  # runs of a night, of which one that is odd moves the middle no more
Verdict: TypeAlias = Literal["improved", "unchanged", "regressed", "missing", "not_comparable"]


@dataclass(frozen=True)
class Judged:
    """The figures behind a verdict, in the units of records.

    `before`: what is normal by now; `after`: of the newest `window` nights. `change`, with what chance makes of it in
    95 % of cases (`low`, `high`), and `limit`: as a share of `before`; of AP as a difference. `bad_since`: the first
    night that was accused, `good`: the last one before. `typical`: of the newest night the run that is nearest to its
    value. `same_model`: its fps and AP are of an accepted one.
    """

    before: float
    after: float
    change: float
    low: float
    high: float
    limit: float
    window: int
    good: Summary
    bad_since: Summary
    typical: Summary
    suspicious: bool
    same_model: bool


@dataclass(frozen=True)
class Finding:
    """What is said of one metric of one cell. `reason`: why nothing was compared; empty where it was.

    `run`: the newest one that was to give the figure; None where there is none. `tonight`: how many runs of that night
    give it. `spoiled`: it is missing for the noise around it, and for nothing else. `machine`: whose runs were looked
    at; None where there are none, or where it does not matter.
    """

    cell_id: str
    metric: Metric
    verdict: Verdict
    reason: str = ""
    run: Summary | None = None
    tonight: int = 0
    judged: Judged | None = None
    spoiled: bool = False
    machine: MachineKey | None = None


@dataclass(frozen=True)
class Scope:
    """Which runs are looked at: those of a profile that began after a moment (Unix seconds).

    `metric`: the only one that is asked for; None: all. `ap_only`: for machines of which nobody knows what else they
    do. AP alone is judged, and whichever machine accepted. `here`: the machine that was to run something since that
    moment, even where it did not. `machine`: the only one that is asked for; None: all.
    """

    profile: str
    begun_after_s: float = 0.0
    ap_only: bool = False
    metric: str | None = None
    here: MachineKey | None = None
    machine: MachineKey | None = None


Phases: TypeAlias = Mapping[MachineKey, frozenset[str]]


def check_cells(
    cells: Iterable[Cell],
    runs: Runs,
    baselines: Mapping[MachineKey, Baseline],
    rules: Check,
    scope: Scope,
    damaged: Callable[[str], str],
) -> list[Finding]:
    """Judge every metric of cells that their runs of the profile were to give, on every machine for itself.

    Args:
        runs: the whole store.
        baselines: what was accepted, on every machine.
        damaged: tells of a cell's id the newest run whose record cannot be read; empty where there is none.
    """
    cells = tuple(cells)
    phases, accepted = _phases_lately(cells, runs, scope), list(baselines.values())
    found: list[Finding] = []
    for cell in cells:
        every, unread = runs.of(cell.id), damaged(cell.id)
        mine = [run for run in every.summaries if run.measured and _is_asked(run, scope)]
        if not mine:
            found += [Finding(cell.id, metric, "missing", "never run") for metric in _asked(cell, scope)]
        for machine in _machines(cell, mine, baselines, scope, phases):
            here = [run for run in mine if machine in (None, run.machine)]
            # What others have measured there lately was asked of this cell too.
            expected = phases.get(machine, frozenset()) if machine else frozenset[str]().union(*phases.values())
            for metric in _asked(cell, scope):
                if machine in phases and _is_to_come(metric, here, machine, scope):
                    continue
                case = _Case(cell, metric, here, every, accepted, rules, scope, unread)
                found += [replace(one, machine=machine) for one in case.findings(expected)]
    return found


def _phases_lately(cells: Iterable[Cell], runs: Runs, scope: Scope) -> Phases:
    """Return what each machine has measured lately; nothing where it is not asked what is late."""
    if not scope.begun_after_s:
        return {}
    found: dict[MachineKey, frozenset[str]] = {scope.here: frozenset()} if scope.here else {}
    for run in (run for cell in cells for run in runs.of(cell.id).summaries):
        if _is_asked(run, scope) and run.started_unix_s >= scope.begun_after_s:
            found[run.machine] = found.get(run.machine, frozenset()) | set(run.phases)
    return found


def _machines(
    cell: Cell, mine: Sequence[Summary], baselines: Mapping[MachineKey, Baseline], scope: Scope, lately: Phases
) -> list[MachineKey | None]:
    """Return the machines on which a cell is judged: those that accepted it, and the newest run's.

    Where it is asked what is late, machines that ran nothing at all lately are not: their nights are another time.
    """
    if scope.ap_only:
        return [None] if mine else []
    ran = [key for key in dict.fromkeys(run.machine for run in reversed(mine)) if not lately or key in lately]
    accepted = [key for key in ran if key in baselines and baselines[key].runs_of(cell.id)]
    return list(dict.fromkeys([*ran[:1], *accepted])) or [run.machine for run in mine[-1:]]


def _is_to_come(metric: Metric, runs: Sequence[Summary], machine: MachineKey | None, scope: Scope) -> bool:
    """Tell whether another machine, in the midst of its night, has not measured this yet: its own check asks for it."""
    lately = (run for run in runs if run.started_unix_s >= scope.begun_after_s)
    return machine != (scope.machine or scope.here) and not any(MEASURED_IN[metric] in run.phases for run in lately)


def accepted_for(
    cell: Cell, metric: Metric, run: Summary, runs: Runs, baselines: Mapping[MachineKey, Baseline], rules: Check
) -> list[Summary]:
    """Return the accepted runs that a run's figure is held against, oldest first; none where nothing can be."""
    case = _Case(cell, metric, [run], runs.of(cell.id), list(baselines.values()), rules, Scope(run.profile), "")
    return case.accepted(run)[0]


def _is_asked(run: Summary, scope: Scope) -> bool:
    return run.profile == scope.profile and scope.machine in (None, run.machine)


def _asked(cell: Cell, scope: Scope) -> list[Metric]:
    return [
        metric
        for metric in METRICS
        if scope.metric in (None, metric)
        and (metric != "mask_ap" or cell.masks)
        and (metric not in RATES or not scope.ap_only)
    ]


@dataclass(frozen=True)
class _Case:
    cell: Cell
    metric: Metric
    runs: Sequence[Summary]  # of the profile, and of the machine where it matters
    every: Runs  # of all profiles
    baselines: Sequence[Baseline]
    rules: Check
    scope: Scope
    damaged: str

    def findings(self, expected: frozenset[str]) -> list[Finding]:
        """Judge the metric; nothing where it was not to be measured: a profile that never evaluates misses no AP."""
        phase = MEASURED_IN[self.metric]
        if any(phase in run.phases for run in self.runs):
            return [self._finding()]
        reason = "never measured, as other cells are"
        return [Finding(self.cell.id, self.metric, "missing", reason)] if phase in expected else []

    def _finding(self) -> Finding:
        night = newest_night(self.runs, self.metric)
        last = night[-1]
        if self.damaged > last.run_id:  # whatever it held, the night before must not stand for it
            return Finding(self.cell.id, self.metric, "missing", f"the record of run {self.damaged} cannot be read")
        good = [one for one in night if self._counts(one)]
        run = good[-1] if good else last
        found = self._found(run)
        # A rerun that failed takes back no regression, and is no reason to call the cell unchanged; of enough others it
        # takes nothing away.
        stands = run is last or found.verdict == "regressed" or len(good) >= ENOUGH
        return found if stands else self._found(last)

    def _found(self, run: Summary) -> Finding:
        problem, spoiled = self._missing(run)
        if problem:
            return Finding(self.cell.id, self.metric, "missing", problem, run, spoiled=spoiled)
        accepted, problem = self.accepted(run)
        if problem:
            return Finding(self.cell.id, self.metric, "not_comparable", problem, run)
        newest = max(one.run_id for one in accepted)
        if run.run_id == newest:
            return Finding(self.cell.id, self.metric, "unchanged", "it is what was accepted", run)
        if run.run_id < newest:
            return Finding(self.cell.id, self.metric, "missing", "not run since it was accepted", run)
        return self._judged(run, accepted)

    def _missing(self, run: Summary) -> tuple[str, bool]:
        """Say why a run has no figure to be judged, and whether noise is the reason."""
        if run.started_unix_s < self.scope.begun_after_s:
            return f"not run lately: the newest is run {run.run_id}", False
        if counts(run, self.metric, self.cell):
            return self._inexact(run), False
        if run.status != "succeeded":
            reason = self.every.read(run).reason
            told = f"{run.status.replace('_', ' ')} in run {run.run_id}{f': {reason}' if reason else ''}"
            return f"{told}; log: {run.log}", run.status == "quarantined"
        noisy = run.spoiled_in(self.cell) and self.metric in RATES
        return f"{'noisy' if noisy else 'no figure'} in run {run.run_id}", noisy

    def _counts(self, run: Summary) -> bool:
        return is_evidence(run, self.metric, self.cell, self.rules)

    def _inexact(self, run: Summary) -> str:
        """Say where a run's own interval is so wide that no change could be seen against it."""
        if is_exact(run, self.metric, self.rules):
            return ""
        wide = percent(run.half_widths[self.metric])
        return f"too inexact to be judged: the 95 % interval of run {run.run_id} is ±{wide} wide"

    def accepted(self, run: Summary) -> tuple[list[Summary], str]:
        """Return the accepted runs that this one is to be compared with, or why there are none."""
        here = self._baselines(run)
        if not here:
            elsewhere = [machine_text(one.machine) for one in self.baselines if one.runs_of(self.cell.id)]
            told = f"machine: accepted on {' and '.join(elsewhere)}, run on {machine_text(run.machine)}"
            return [], told if elsewhere else "nothing was accepted yet"
        wanted = frozenset(name for one in here for name in one.runs_of(self.cell.id, self.metric))
        every = [one for one in self.every.summaries if one.run_id in wanted and self._counts(one)]
        found = [one for one in every if one.profile == run.profile]
        if self.metric in OF_ONE_MODEL:  # a model is as fast, and as good, in every profile
            same_model = [one for one in every if run.weights and one.weights == run.weights]
            mine = [one for one in same_model if one.profile == run.profile]
            if self._is_ap:
                found = mine or same_model or found
            elif not mine:  # of several models that were accepted together fps is the middle of all
                found = same_model or found
            found = found or every
        if not found:
            lost = self._lost(wanted, here, run.profile)
            return [], lost or f"no accepted run of profile {run.profile} has this figure"
        fitting = [one for one in found if not self._incomparable(one, run)]
        if fitting and not self._is_ap:
            fitting = of_one_state(fitting)
        return fitting, "" if fitting else self._why_not(found[-1], run)

    def _lost(self, accepted: frozenset[str], baselines: Sequence[Baseline], profile: str) -> str:
        """Name an accepted run that could be compared with, but that has left the store; empty where there is none."""
        if self.metric not in OF_ONE_MODEL:
            of_profile = (one.of_metric(self.cell.id, profile, self.metric) for one in baselines)
            accepted = frozenset(name for names in of_profile for name in names)
        gone = sorted(accepted - {one.run_id for one in self.every.summaries})
        return f"the accepted run {gone[0]} has left the store: take it back, or accept anew" if gone else ""

    def _baselines(self, run: Summary) -> list[Baseline]:
        """Return what was accepted of the cell where a run was made."""
        there = [one for one in self.baselines if self.scope.ap_only or one.machine == run.machine]
        return [one for one in there if one.runs_of(self.cell.id)]

    def _why_not(self, accepted: Summary, run: Summary) -> str:
        """Say what cannot be compared; of a recipe its values that differ."""
        names = ", ".join(self._incomparable(accepted, run))
        said = [text for text in unlike(self.every.read(accepted), self.every.read(run)) if text.startswith("recipe")]
        return "; ".join([f"{names}: not as in run {accepted.run_id}", *said[:RECIPE_SHOWN]])

    def _incomparable(self, a: Summary, b: Summary) -> list[str]:
        return [name for name in incomparable(a, b, self.metric) if name != "machine" or not self.scope.ap_only]

    @property
    def _is_ap(self) -> bool:
        return self.metric not in RATES

    def _judged(self, run: Summary, accepted: Sequence[Summary]) -> Finding:
        of_one_model = self.metric in OF_ONE_MODEL
        known = {one.weights for one in accepted} - {None}  # a training that left no model is like no other
        same_model = of_one_model and run.weights in known
        newest_accepted = max(one.run_id for one in accepted)
        since = [
            one
            for one in self.runs
            if one.run_id > newest_accepted and self._counts(one) and not self._incomparable(one, run)
        ]
        if of_one_model:
            since = [one for one in since if (one.weights in known) == same_model]
        if self._is_ap and not same_model:
            since = newest_by_model(since)
        nights = by_night(since, each_alone=self._is_ap)
        cells = max(one.cells(self.scope.profile) for one in self._baselines(run))
        rule = rule_of(self.metric, self.rules, same_model=same_model, cells=cells)
        levels = [comparable(self.metric, one.figures[self.metric]) for one in accepted]
        error = NightRuns(tuple(accepted)).of(self.metric).error
        earlier = self._before(min(one.run_id for one in accepted), run) if not self._is_ap else ()
        judgement = judge(rule, levels, [night.of(self.metric) for night in nights], error, earlier)[-1]
        good = nights[judgement.since - 1].runs[-1] if judgement.since else accepted[-1]
        first_bad, tonight = nights[judgement.since].runs[0], nights[-1]
        told = _told(self.metric, judgement, good, first_bad, tonight.typical(self.metric), same_model=same_model)
        verdict = judgement.direction
        if same_model and self._is_ap and verdict == "improved":  # a model does not learn by being evaluated
            verdict = "regressed"
        return Finding(self.cell.id, self.metric, verdict, "", run, len(tonight.runs), told)

    def _before(self, run_id: str, run: Summary) -> list[Night]:
        """Return the nights before a run: what is accepted changes the level, not how far nights are apart."""
        older = [one for one in self.runs if one.run_id < run_id and self._counts(one)]
        nights = by_night(one for one in older if not self._incomparable(one, run))
        return [night.of(self.metric) for night in nights]


def _told(
    metric: Metric, judged: Judgement, good: Summary, bad: Summary, typical: Summary, *, same_model: bool
) -> Judged:
    """Turn what was compared back into figures."""
    before = figure_of(metric, judged.before)
    offs = (0.0, -judged.chance, judged.chance)
    changes = [change_of(metric, before, figure_of(metric, judged.after + off)) for off in offs]
    return Judged(
        before,
        figure_of(metric, judged.after),
        changes[0],
        min(changes),
        max(changes),
        abs(change_of(metric, before, figure_of(metric, judged.before + judged.limit))),
        judged.window,
        good,
        bad,
        typical,
        judged.suspicious,
        same_model,
    )
