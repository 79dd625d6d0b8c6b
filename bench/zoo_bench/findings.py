"""What the nightly check says of a metric, in words and numbers that every kind of report shares. Pure functions."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo_bench.check import Finding, Judged
from zoo_bench.compare import unlike
from zoo_bench.errors import EXIT_CELL_FAILED, EXIT_NO_BASELINE, EXIT_OK, EXIT_QUARANTINED, EXIT_REGRESSED
from zoo_bench.moved import moved
from zoo_bench.provenance import machine_text
from zoo_bench.revision import short_commit
from zoo_bench.rules import RATES, Metric
from zoo_bench.runs import Runs, Summary
from zoo_bench.text import one_line
from zoo_bench.units import HOST_MEMORY_HEAD, SHORT_HEADS, percent_change, points_change, written

MOST_DIGITS = 3  # more than a table has
NOTHING_ELSE = "nothing else that the records hold differs from the last good run"
WORST_FIRST = ("regressed", "missing", "not_comparable", "improved", "unchanged")


@dataclass(frozen=True)
class Told:
    """A finding in words, none of which holds a line break: they would begin a line of their own.

    `moved`: which parts of the figure did. `surroundings`: what else differs between the last good run and the first
    bad one, and between that one and the newest.
    """

    finding: Finding
    cell: str
    metric: str
    verdict: str
    before: str
    after: str
    change: str
    since: str
    note: str
    reason: str
    command: str
    moved: str
    surroundings: tuple[str, ...]

    @property
    def details(self) -> tuple[str, ...]:
        """How it changed and what else did; empty where nothing got worse or better."""
        if self.verdict not in ("regressed", "improved"):
            return ()
        return tuple(filter(None, (self.moved, *(self.surroundings or (NOTHING_ELSE,)))))

    @property
    def explanation(self) -> str:
        """Since when, or why nothing was compared."""
        return self.reason or "; ".join(filter(None, (self.since, self.note)))

    @property
    def remedy(self) -> tuple[str, str]:
        """What its command is good for, and the command."""
        return ("to accept it" if self.verdict == "not comparable" else "again", self.command)

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        if self.finding.judged is None:
            return f"{self.cell}: {self.metric}: {self.verdict}: {self.reason}"
        noted = f"; {self.note}" if self.note else ""
        since = f", {self.since}" if self.since else ""
        return f"{self.cell}: {self.metric}: {self.verdict}: {self.before} -> {self.after}, {self.change}{since}{noted}"


def merged(told: Iterable[Told]) -> list[Told]:
    """Put those of one cell together of which the same is said."""
    found: list[Told] = []
    for one in told:
        last = found[-1] if found else None
        alike = last and one.finding.judged is None and last.finding.judged is None
        if last and alike and (last.cell, last.verdict, last.reason) == (one.cell, one.verdict, one.reason):
            found[-1] = replace(last, metric=f"{last.metric}, {one.metric}")
        else:
            found.append(one)
    return found


def tell(findings: Iterable[Finding], runs: Runs, profile: str, name: Callable[[str], str]) -> list[Told]:
    """Put findings into words, the worst first; `name` is how tables call a cell. Of several machines each is named."""
    ordered = sorted(findings, key=lambda one: WORST_FIRST.index(one.verdict))
    several = len({one.machine for one in ordered if one.machine}) > 1
    return [_told(finding, runs, profile, _cell(finding, name, several=several)) for finding in ordered]


def _cell(finding: Finding, name: Callable[[str], str], *, several: bool) -> str:
    cell = name(finding.cell_id)
    return f"{cell} on {one_line(machine_text(finding.machine))}" if several and finding.machine else cell


def _told(finding: Finding, runs: Runs, profile: str, cell: str) -> Told:
    judged, run = finding.judged, finding.run
    on_host = finding.metric == "memory" and run is not None and runs.read(run).cell["gpus"] == 0
    head = HOST_MEMORY_HEAD if on_host else SHORT_HEADS[finding.metric]
    accused = judged is not None and finding.verdict in ("regressed", "improved")
    return Told(
        finding,
        cell,
        head,
        finding.verdict.replace("_", " "),
        *(_figures(finding.metric, judged, apart=accused) if judged else ("", "")),
        _change(finding.metric, judged) if judged else "",
        _since(judged) if judged and accused else "",
        _note(finding, judged) if judged and accused else "",
        one_line(finding.reason),
        one_line(command_of(finding, profile)),
        *(_compared(finding.metric, judged, runs) if judged and accused else ("", ())),
    )


def _compared(metric: Metric, judged: Judged, runs: Runs) -> tuple[str, tuple[str, ...]]:
    """Say which parts moved until now, what else changed when it began, and what has since."""
    good, bad, now = (runs.read(one) for one in (judged.good, judged.bad_since, judged.typical))
    alike = judged.bad_since.run_id == judged.typical.run_id
    later = [] if alike else [f"since then: {text}" for text in unlike(bad, now)]
    return moved(metric, good, now), tuple(map(one_line, [*unlike(good, bad), *later]))


def _figures(metric: Metric, judged: Judged, *, apart: bool) -> tuple[str, str]:
    """Write both figures; `apart`: with as many digits as it takes to see that they differ."""
    for digits in range(1, 1 + (MOST_DIGITS if apart else 1)):
        before, after = (written(metric, one, more_digits=digits) for one in (judged.before, judged.after))
        if before != after:
            break
    return before, after


def _change(metric: Metric, judged: Judged) -> str:
    change, low, high = (change_text(metric, one) for one in (judged.change, judged.low, judged.high))
    return f"{change} ({low} to {high})"


def change_text(metric: Metric, change: float) -> str:
    """Write a change as people do: in percent; of AP in points."""
    return percent_change(change) if metric in RATES else points_change(change)


def _since(judged: Judged) -> str:
    first, last = _sources_of(judged.bad_since), _sources_of(judged.good)
    if not first:
        return f"since run {judged.bad_since.run_id}"
    return f"since commit {first} (last good: {last or judged.good.run_id})"


def commit_of(run: Summary) -> str:
    """Return the commit that a run was made from, as people write it; empty outside of git."""
    return one_line(short_commit(run.commit or ""))


def _sources_of(run: Summary) -> str:
    return f"{commit_of(run)}{' with changes' if run.dirty else ''}" if commit_of(run) else ""


def _note(finding: Finding, judged: Judged) -> str:
    said = []
    if judged.same_model and finding.metric not in RATES:
        said.append("one model has one AP: what evaluates it has changed")
    elif finding.verdict == "improved":
        said.append("accept it: until then, that it is lost again is not seen")
    if judged.window > 1:
        said.append(f"the middle of {judged.window} nights")
    if finding.tonight == 1 and judged.suspicious and finding.verdict == "regressed" and finding.metric in RATES:
        said.append("one run only: --confirm 4 would look again")
    return "; ".join(said)


def command_of(finding: Finding, profile: str) -> str:
    """Return what measures the metric once more; where it is like nothing that was accepted, what accepts it."""
    run = finding.run
    if finding.verdict == "not_comparable":
        there = f" --machine {shlex.quote(machine_text(finding.machine))}" if finding.machine else ""
        return f"zoo-bench accept {_chosen(finding.cell_id, profile)}{there} --why ''"
    phases = f" --phases {','.join(run.phases)}" if run else ""
    return f"{command_of_cell(finding.cell_id, profile)}{phases}{_model_of(finding)}{_seed_of(finding)} --force"


def command_of_cell(cell_id: str, profile: str) -> str:
    """Return what runs a cell."""
    return f"zoo-bench run {_chosen(cell_id, profile)}"


def _chosen(cell_id: str, profile: str) -> str:
    return f"--profile {shlex.quote(profile)} --select {shlex.quote(cell_id)}"


def _seed_of(finding: Finding) -> str:
    """Return the option that trains the same model once more, where it is the model that is judged."""
    run = finding.run
    judged_model = finding.judged and finding.metric not in RATES and run is not None and "train" in run.phases
    return f" --seed {run.seed}" if run and judged_model else ""


def _model_of(finding: Finding) -> str:
    """Return the option that names the model which was measured; nothing where it was trained first."""
    run = finding.run
    if run is None or run.checkpoint is None or "train" in run.phases:
        return ""
    if finding.judged is not None and finding.judged.same_model:
        return " --accepted"
    return f" --checkpoint {shlex.quote(run.checkpoint.file)}"


def exit_code(findings: Sequence[Finding]) -> int:
    """Return how a check ends: what is worst decides."""
    verdicts = {one.verdict for one in findings}
    if "regressed" in verdicts:
        return EXIT_REGRESSED
    missing = [one for one in findings if one.verdict == "missing"]
    if missing:
        return EXIT_QUARANTINED if all(one.spoiled for one in missing) else EXIT_CELL_FAILED
    return EXIT_NO_BASELINE if "not_comparable" in verdicts or not findings else EXIT_OK


def summary(told: Sequence[Told]) -> str:
    """Count the verdicts in one line."""
    counts = Counter(one.verdict for one in told)
    return ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in (v.replace("_", " ") for v in WORST_FIRST) if counts[verdict]
    )


def as_json(one: Told) -> dict[str, Any]:
    """Return a finding in base units: bytes, seconds, images a second, fractions."""
    finding, judged = one.finding, one.finding.judged
    figures = (
        {
            "before": judged.before,
            "after": judged.after,
            "change": judged.change,
            "change_low": judged.low,
            "change_high": judged.high,
            "limit": judged.limit,
            "window": judged.window,
            "bad_since": {"run_id": judged.bad_since.run_id, "commit": judged.bad_since.commit},
            "good": {"run_id": judged.good.run_id, "commit": judged.good.commit},
        }
        if judged
        else None
    )
    return {
        "cell": finding.cell_id,
        "machine": dict(zip(("name", "cpu", "gpus"), finding.machine, strict=True)) if finding.machine else None,
        "metric": finding.metric,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "run_id": finding.run.run_id if finding.run else None,
        "runs_tonight": finding.tonight,
        "figures": figures,
        "command": one.command,
        "purpose": one.remedy[0],
        "moved": one.moved,
        "surroundings": list(one.surroundings),
    }
