"""What an adapter tells of a run's files -> one run: segments joined, times summed, its ending judged. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from zoo_bench.adapters import Told
from zoo_bench.events import Event, averaged_over
from zoo_bench.measurements import ReportedMemory, TrainTiming
from zoo_bench.recipe import WORKER_PHASES, Phase
from zoo_bench.record import Status
from zoo_bench.steady import steady_state
from zoo_bench.timing import train_timing


@dataclass(frozen=True)
class FinishedRun:
    """What was found of a run. `facts`: as adapters describe a run. `scores`: by kind, the last evaluation's.

    `planned`: iterations of the whole training; None where the files do not tell. `began_unix_s` likewise.
    """

    facts: Mapping[str, Any]
    steps: tuple[Event, ...]
    scores: Mapping[str, Mapping[str, float]]
    memory: ReportedMemory | None
    planned: int | None
    status: Status
    reason: str
    phases_done: tuple[Phase, ...]
    began_unix_s: float | None
    duration_s: float
    remarks: tuple[str, ...] = ()

    @property
    def iterations(self) -> int:
        """How many iterations were trained."""
        return int(self.steps[-1].number("iteration")) if self.steps else 0

    def timing(self, warmup_iterations: int, batch_size: int) -> TrainTiming | None:
        """Return how long an iteration took in the steady state; None where the files tell no times."""
        timed = [replace(step, fields=_timed(step.fields, batch_size)) for step in self.steps]
        timed = [step for step in timed if step.number("iteration_time_s") > 0]
        steady = steady_state(timed, warmup_iterations)
        found = train_timing(timed, steady, schedule=self.planned or self.iterations, half_width=None)
        return found and found.model_copy(update={"iterations_run": self.iterations, "ended_by": "schedule"})


def _timed(fields: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """Give a step what its line does not tell: the batch, and of a line that tells images a second, the time."""
    images_per_s = fields.get("images_per_s")
    time_s = {"iteration_time_s": batch_size / images_per_s} if images_per_s else {}
    return {"batch_size": batch_size, **time_s, **fields}


@dataclass
class _Reading:
    """What has been read so far."""

    facts: dict[str, Any] = field(default_factory=dict)
    steps: list[Event] = field(default_factory=list)
    results: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    memory: ReportedMemory | None = None
    ended: str | None = None
    times_unix_s: list[float] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lost: int = 0
    segments: int = 1
    begins: bool = False


def finished_run(told: Iterable[Told], planned: int | None = None) -> FinishedRun:
    """Put together what an adapter tells of one run. `planned`: the iterations of the whole, if somebody knows.

    A run that was interrupted and taken up again has several segments. An iteration that comes a second time replaces
    the first, and all that followed that: so what was trained twice counts once, and a training that began anew
    replaces what was before it. Of a later segment the first line is not timed: it holds the start.
    """
    reading = _Reading()
    for name, fields in told:
        if "unix_s" in fields:
            reading.times_unix_s.append(float(fields["unix_s"]))
        if name == "described":
            reading.facts.update({key: value for key, value in fields.items() if key != "remarks"})
            reading.remarks += fields.get("remarks", ())
            reading.begins, reading.ended = bool(reading.steps), None
        elif name == "step" and reading.ended is None:  # what is told after its end is no iteration of it
            _take_step(reading, fields)
        elif name == "eval_result":
            at = int(reading.steps[-1].number("iteration")) if reading.steps else 0
            reading.results.append((at, fields))
        elif name == "memory_peak":
            _take_memory(reading, fields)
        elif name == "run_stop":
            reading.ended = str(fields.get("status"))
        elif name == "remark":
            reading.remarks.append(str(fields["text"]))
    return _finished(reading, planned)


def _take_step(reading: _Reading, fields: Mapping[str, Any]) -> None:
    number, before = int(fields["iteration"]), len(reading.steps)
    while reading.steps and reading.steps[-1].number("iteration") >= number:
        reading.steps.pop()
    replaced = before - len(reading.steps)
    begins = reading.begins or replaced > 0
    if begins:
        reading.lost, reading.segments, reading.begins = reading.lost + replaced, reading.segments + 1, False
        reading.results = [(at, result) for at, result in reading.results if at < number]
    since = number - (int(reading.steps[-1].number("iteration")) if reading.steps else 0)
    values = {"averaged_over": since, **fields}
    at_s = float(values.pop("unix_s", 0.0))
    if begins and reading.steps:
        values.pop("iteration_time_s", None)
    if begins and not reading.steps:  # all before it was another training
        reading.times_unix_s, reading.memory = reading.times_unix_s[-1:], None
    reading.steps.append(Event("step", 0.0, at_s, values))


def _take_memory(reading: _Reading, fields: Mapping[str, Any]) -> None:
    try:
        found = ReportedMemory.model_validate({key: value for key, value in fields.items() if key != "unix_s"})
    except ValidationError:  # more than any machine has, or less than nothing
        return
    if reading.memory is None or found.bytes > reading.memory.bytes:
        reading.memory = found


def _finished(reading: _Reading, stated: int | None) -> FinishedRun:
    steps = _on_one_clock(reading.steps)
    last = int(steps[-1].number("iteration")) if steps else 0
    planned = stated or _planned(reading)
    status, reason = _ending(reading, last, planned)
    evaluated = [result for at, result in reading.results if at == last or reading.ended == "success"]
    remarks = list(reading.remarks)
    if reading.segments > 1:
        again = f"; {reading.lost} lines are left out, whose iterations were trained again" if reading.lost else ""
        remarks.append(f"joined from {reading.segments} segments{again}")
    if reading.results and not evaluated:
        remarks.append(f"its last evaluation was after iteration {reading.results[-1][0]} of {last}: no AP is taken")
    if status == "succeeded" and planned is None and steps and reading.ended is None:
        remarks.append(f"its length is not told: {last} iterations are taken for all of it (--iterations says another)")
    done = {"train": status == "succeeded" and bool(reading.steps or evaluated), "evaluate": bool(evaluated)}
    scores = evaluated[-1] if evaluated else {}
    times = reading.times_unix_s
    return FinishedRun(
        facts=reading.facts,
        steps=steps,
        scores={kind: scores[kind] for kind in ("box", "mask") if scores.get(kind)},
        memory=reading.memory,
        planned=planned,
        status=status,
        reason=reason,
        phases_done=tuple(phase for phase in WORKER_PHASES if done.get(phase)),
        began_unix_s=min(times) if times else None,
        duration_s=max(times) - min(times) if times else steps[-1].time_s if steps else 0.0,
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _on_one_clock(steps: Sequence[Event]) -> tuple[Event, ...]:
    """Let the times of the steps tell when each ended, from 0. What came before the first line is not known: it counts
    for no more iterations than the second.
    """
    if len(steps) > 1 and averaged_over(steps[0]) > 2 * averaged_over(steps[1]):
        steps = [replace(steps[0], fields={**steps[0].fields, "averaged_over": averaged_over(steps[1])}), *steps[1:]]
    passed_s, found = 0.0, []
    for step in steps:
        time_s = step.number("iteration_time_s")
        passed_s += time_s * averaged_over(step) if math.isfinite(time_s) else 0.0
        found.append(replace(step, time_s=passed_s))
    return tuple(found)


def _planned(reading: _Reading) -> int | None:
    stated = reading.facts.get("recipe.lr_schedule.iterations")
    if stated:
        return int(stated)
    known = [step.number("iterations") for step in reading.steps if "iterations" in step.fields]
    return int(known[-1]) if known else None


def _ending(reading: _Reading, last: int, planned: int | None) -> tuple[Status, str]:
    """Judge how a run ended by what its files say: they are cut off where the run was, or where they were copied."""
    if reading.ended == "success":
        return "succeeded", ""
    if reading.ended is not None:
        return "failed", f"its log says that it ended as {reading.ended}"
    if not reading.steps:
        return ("succeeded", "") if reading.results else ("failed", "there is no iteration and no evaluation in it")
    gap = averaged_over(reading.steps[-1])
    if planned is not None and last + gap <= planned:
        return "interrupted", f"its log ends at iteration {last} of {planned}"
    if planned is None and not any(at == last for at, _ in reading.results):
        return (
            "interrupted",
            f"its log ends at iteration {last}, with no evaluation after it: whether it is whole is not told",
        )
    return "succeeded", ""
