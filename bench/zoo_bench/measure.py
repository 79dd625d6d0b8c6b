"""Events and telemetry of one job -> its measurements, and what may have spoiled them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from zoo_bench.cell import Cell
from zoo_bench.contamination import Findings, judge_telemetry
from zoo_bench.energy import energy
from zoo_bench.evaluate import CocoScores
from zoo_bench.events import Event
from zoo_bench.measurements import Measurements, Reported, ReportedMemory
from zoo_bench.memory import memory, training_end_s
from zoo_bench.sampling import sampling
from zoo_bench.steady import steady_state
from zoo_bench.telemetry import Telemetry
from zoo_bench.timing import infer_timing, train_timing


def measure(
    events: Sequence[Event], telemetry: Telemetry, cell: Cell, scores: CocoScores | None
) -> tuple[Measurements, Findings]:
    """Return everything the job's events and telemetry tell."""
    steady = steady_state(events, cell.measure.warmup_iterations)
    findings = judge_telemetry(events, telemetry, cell.gpus)
    measured = Measurements(
        train=train_timing(
            events,
            steady,
            schedule=cell.recipe.lr_schedule.iterations,
            half_width=cell.measure.train_half_width,
        ),
        infer=infer_timing(events),
        memory=memory(events, telemetry, training_end_s(events), findings.hidden_own),
        energy=energy(telemetry, steady.spans, sum(steady.averaged_over)),
        sampler_cpu_share=telemetry.own_cpu_share,
        sampling=sampling(telemetry),
        scores=scores,
        reported=_reported(events),
    )
    return measured, findings


def _reported(events: Sequence[Event]) -> Reported | None:
    """Return what a trainer that is not ours said of its own memory: the largest that it said."""
    peaks = [event for event in events if event.name == "memory_peak"]
    if not peaks:
        return None
    largest = max(peaks, key=lambda event: event.number("bytes"))
    try:
        return Reported(memory=ReportedMemory.model_validate(largest.fields))
    except ValidationError:
        return None
