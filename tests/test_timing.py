"""The steady state, the interval of its mean, and when a training may end: what users can rely on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from zoo_bench.events import Event
from zoo_bench.interval import LEAST_VALUES, bootstrap_interval
from zoo_bench.measurements import TrainTiming
from zoo_bench.steady import steady_state
from zoo_bench.telemetry import Floats
from zoo_bench.timing import PrecisionWatch, infer_timing, is_precise, train_timing


def noise(count: int, seed: int = 0, spread: float = 0.02, phi: float = 0.5) -> Floats:
    """Stationary, autocorrelated factors around 1."""
    source = np.random.default_rng(seed).standard_normal(count + 100)
    for place in range(1, len(source)):
        source[place] = phi * source[place - 1] + np.sqrt(1 - phi**2) * source[place]
    return np.exp(spread * source[100:])


def run(times_s: Iterable[float], *, planned: int | None = None, late: bool = False) -> list[Event]:
    """A training's steps, the first of which begins at 100 s; `late`: all written at its end, with end_s."""
    times = [float(time_s) for time_s in times_s]
    ends = 100 + np.cumsum(times)
    numbers = {"iterations": planned or len(times), "lr": 0.1, "loss": 1.0, "batch_size": 16}
    return [
        Event(
            "step",
            float(ends[-1] if late else end_s),
            0.0,
            {**numbers, "iteration": number, "iteration_time_s": time_s, "data_time_s": time_s / 4}
            | ({"end_s": float(end_s)} if late else {}),
        )
        for number, (time_s, end_s) in enumerate(zip(times, ends, strict=True), start=1)
    ]


def end_s(steps: list[Event], iteration: int) -> float:
    step = steps[iteration - 1]
    return float(step.fields.get("end_s", step.time_s))


def timing(events: list[Event], *, least_warmup: int = 0, schedule: int | None = None) -> TrainTiming:
    steps = [event for event in events if event.name == "step"]
    found = train_timing(events, steady_state(events, least_warmup), schedule=schedule or len(steps), half_width=None)
    assert found is not None
    return found


def test_the_first_iterations_are_always_cut_and_a_clean_run_loses_no_more() -> None:
    steady = steady_state(run(noise(1000)), 10)
    assert steady.iterations == tuple(range(11, 1001))
    assert (steady.warmup_cut, steady.pauses_cut) == (10, 0)
    assert steady_state(run(noise(8)), 10).iterations == ()


@pytest.mark.parametrize("count", [400, 1500, 4000])
def test_nearly_every_clean_run_is_kept_whole(count: int) -> None:
    seeds = range(60)
    cut = [steady_state(run(noise(count, seed, 0.2, phi=0.01 * seed)), 0).warmup_cut for seed in seeds]
    assert sum(length > 0 for length in cut) <= 3
    assert np.mean(cut) / count < 0.01


def test_compile_iterations_beyond_the_warm_up_are_cut() -> None:
    times = noise(2000)
    compiled = [0, 1, 5, 13, 37, 61]
    times[compiled] += 30
    steady = steady_state(run(times), 5)
    assert 62 <= steady.iterations[0] <= 90
    assert steady.times_s.mean() == pytest.approx(1, rel=0.005)


@pytest.mark.parametrize("excess", [0.5, 0.1, -0.1])
def test_a_front_that_is_slower_or_faster_than_the_rest_is_cut(excess: float) -> None:
    times = noise(2000)
    times[:300] += excess
    steady = steady_state(run(times), 20)
    assert 290 <= steady.warmup_cut <= 400
    assert steady.times_s.mean() == pytest.approx(1, rel=0.005)


def test_a_decaying_front_is_cut_until_it_no_longer_matters() -> None:
    times = noise(2000) + 2 * np.exp(-np.arange(2000) / 30)
    steady = steady_state(run(times), 0)
    assert 60 <= steady.warmup_cut <= 400
    assert steady.times_s.mean() == pytest.approx(1, rel=0.005)


@pytest.mark.parametrize("places", [[700], [150, 900], [90, 400, 1100, 1700], [600, 601, 602]])
def test_pauses_that_nobody_announced_stay(places: list[int]) -> None:
    times = noise(2000)
    times[places] += 20
    steady = steady_state(run(times), 10)
    assert {place + 1 for place in places} <= set(steady.iterations)
    assert steady.warmup_cut == 10


def test_compile_iterations_are_told_from_later_pauses() -> None:
    times = noise(2000)
    times[[12, 15, 18, 25]] += 20
    times[[400, 800, 1500]] += 20
    steady = steady_state(run(times), 10)
    assert {401, 801, 1501} <= set(steady.iterations)
    assert 26 <= steady.iterations[0] < 60


def test_the_iteration_that_pays_for_a_checkpoint_is_cut_whatever_it_took() -> None:
    times = noise(200)
    times[100] += 20
    steps = run(times)
    announced = [
        Event("checkpoint_saved", end_s(steps, number), 0.0, {"iteration": number}) for number in (100, 150, 200)
    ]
    steady = steady_state([*steps, *announced], 10)
    assert set(range(11, 201)) - set(steady.iterations) == {101, 151}
    assert steady.pauses_cut == 2


@pytest.mark.parametrize("late", [False, True])
def test_the_iteration_that_pays_for_an_evaluation_is_cut_also_where_steps_are_written_late(late: bool) -> None:
    times = noise(200)
    times[120] += 20
    steps = run(times, late=late)
    began_s = end_s(steps, 120) + 0.01
    evaluation = [Event("eval_start", began_s, 0.0, {"images": 5}), Event("eval_stop", began_s + 19, 0.0, {})]
    after_training = end_s(steps, 200) + 1
    final = [Event("eval_start", after_training, 0.0, {"images": 5}), Event("eval_stop", after_training + 9, 0.0, {})]
    events = sorted([*steps, *evaluation, *final], key=lambda event: event.time_s)
    steady = steady_state(events, 10)
    assert set(range(11, 201)) - set(steady.iterations) == {121}


def test_an_evaluation_beside_the_training_spoils_every_iteration_that_it_overlaps() -> None:
    steps = run([1.0] * 20)
    marks = [Event("eval_start", end_s(steps, 5) + 0.5, 0.0, {}), Event("eval_stop", end_s(steps, 8) + 0.5, 0.0, {})]
    assert steady_state([*steps, *marks], 0).iterations == (*range(1, 6), *range(10, 21))
    assert steady_state([*steps, marks[0]], 0).iterations == (*range(1, 6), *range(7, 21))


def test_spans_are_the_unbroken_stretches_between_cuts() -> None:
    steps = run([2.0] * 10)
    saved = Event("checkpoint_saved", end_s(steps, 6), 0.0, {"iteration": 6})
    assert steady_state([*steps, saved], 2).spans == [(104.0, 112.0), (114.0, 120.0)]
    assert steady_state([], 2).spans == []


def test_the_summary_is_of_the_steady_state() -> None:
    times = noise(997, spread=0.3)
    found = timing(run(times))
    summary = (found.mean_s, found.median_s, found.p10_s, found.p90_s)
    assert summary == pytest.approx((times.mean(), *np.quantile(times, (0.5, 0.1, 0.9))))
    assert (found.iterations_run, found.iterations_measured, found.iterations_cut) == (997, 997, 0)
    assert found.data_share == pytest.approx(0.25)
    assert found.interval is not None
    assert found.interval.low < found.mean_s < found.interval.high
    assert found.half_width == pytest.approx((found.interval.high - found.interval.low) / 2 / found.mean_s)


def test_nothing_measured_is_none_and_never_zero() -> None:
    def summary(events: list[Event], least_warmup: int) -> TrainTiming | None:
        return train_timing(events, steady_state(events, least_warmup), schedule=10, half_width=None)

    assert summary([], 0) is None
    assert summary(run([0.5]), 5) is None
    assert summary(run([0.5, -1.0]), 0) is None
    assert summary(run([0.5] * 99 + [float("inf")]), 0) is None
    assert infer_timing([]) is None
    few = timing(run(noise(LEAST_VALUES - 1)))
    assert (few.interval, few.half_width) == (None, None)


def test_a_record_from_before_intervals_still_loads() -> None:
    now = timing(run(noise(100))).model_dump()
    for name in ("iterations_cut", "pauses_cut", "interval", "ended_by"):
        del now[name]
    found = TrainTiming.model_validate(now)
    assert (found.interval, found.iterations_cut, found.ended_by) == (None, 0, "schedule")


@pytest.mark.parametrize(
    ("ran", "planned", "schedule", "half_width", "ended_by"),
    [
        (100, 100, 100, None, "schedule"),
        (100, 100, 100, 0.01, "schedule"),
        (100, 100, 900, None, "cap"),
        (100, 100, 900, 0.01, "cap"),
        (100, 300, 900, 0.01, "precision"),
        (100, 900, 900, 0.01, "precision"),
    ],
)
def test_a_timing_says_why_it_ended(
    ran: int, planned: int, schedule: int, half_width: float | None, ended_by: str
) -> None:
    events = run(noise(ran), planned=planned)
    found = train_timing(events, steady_state(events, 0), schedule=schedule, half_width=half_width)
    assert found is not None
    assert found.ended_by == ended_by


def test_the_interval_repeats_itself_and_follows_the_unit() -> None:
    values = noise(600, spread=0.2)
    first, second, thousandfold = (bootstrap_interval(each) for each in (values, values.copy(), 1000 * values))
    assert first is not None
    assert thousandfold is not None
    assert first == second
    assert (thousandfold.low, thousandfold.high) == pytest.approx((1000 * first.low, 1000 * first.high))


def test_the_interval_widens_with_correlation_and_narrows_with_length() -> None:
    def width(values: Floats) -> float:
        found = bootstrap_interval(values)
        assert found is not None
        return found.high - found.low

    assert width(noise(1000, phi=0.8)) > 2 * width(noise(1000, phi=0))
    # White noise: Student's interval is 3.92 standard errors wide, blocks cost a little.
    assert width(noise(1000, phi=0)) == pytest.approx(3.92 * 0.02 / np.sqrt(1000), rel=0.3)
    assert width(noise(4000)) == pytest.approx(width(noise(1000)) / 2, rel=0.3)


def test_intervals_of_correlated_noise_cover_the_truth() -> None:
    truth = np.exp(0.1**2 / 2)
    found = [bootstrap_interval(noise(500, seed, 0.1, phi=0.6)) for seed in range(300)]
    covered = np.mean([each is not None and each.low <= truth <= each.high for each in found])
    assert 0.91 <= covered <= 0.985


def test_too_few_values_have_no_interval_and_equal_ones_an_empty_one() -> None:
    assert bootstrap_interval(noise(LEAST_VALUES - 1)) is None
    assert bootstrap_interval(np.empty(0)) is None
    found = bootstrap_interval(np.full(100, 0.3))
    assert found is not None
    assert found.low == found.high == pytest.approx(0.3)


@pytest.mark.parametrize("pattern", ["rare", "trend", "alternating"])
def test_odd_series_have_a_finite_interval_around_their_mean(pattern: str) -> None:
    values = np.ones(1000)
    if pattern == "rare":
        values[517] = 1e6
    elif pattern == "trend":
        values += np.linspace(0, 1, 1000)
    else:
        values[::2] = 3
    found = bootstrap_interval(values)
    assert found is not None
    assert np.isfinite([found.low, found.high]).all()
    assert found.low <= values.mean() <= found.high


def test_inference_has_an_interval_of_the_time_that_is_shown() -> None:
    def image(index: int, factor: float) -> Event:
        parts = {"load_s": 9.0, "preprocess_s": 9.0, "forward_s": 0.03 * factor, "postprocess_s": 0.02 * factor}
        others = {"encode_s": 9.0, "index": index, "images": 3, "detections": 4, "warmup": index <= 100}
        return Event("infer_step", 0, 0, {**parts, **others})

    found = infer_timing(image(index, factor) for index, factor in enumerate(noise(600), start=1))
    assert found is not None
    assert found.images == 500
    assert found.interval is not None
    assert found.interval.low < found.forward_s + found.postprocess_s < found.interval.high
    assert found.interval.high < 0.06


def stopped_at(events: Iterable[Event], watch: PrecisionWatch) -> list[int]:
    """The iterations after which the watch said stop."""
    return [int(event.number("iteration")) for event in events if watch.see(event)]


def test_a_quiet_run_is_stopped_at_the_second_look_and_told_so_once() -> None:
    assert stopped_at(run(noise(500, spread=0.001)), PrecisionWatch(20, 0.01)) == [116]


def test_a_noisy_run_is_stopped_later_and_its_interval_is_then_narrow_enough() -> None:
    events = run(noise(5000, spread=0.1))
    (stop,) = stopped_at(events, PrecisionWatch(20, 0.01))
    assert 300 < stop < 3000
    assert is_precise(steady_state(events[:stop], 20).times_s, 0.01)
    assert not is_precise(steady_state(events[:100], 20).times_s, 0.01)


def test_a_run_that_never_gets_precise_is_never_stopped() -> None:
    assert stopped_at(run(noise(1000, spread=0.5)), PrecisionWatch(20, 0.001)) == []


def test_announced_pauses_do_not_delay_the_stop() -> None:
    times = noise(500, spread=0.001)
    times[[50, 90]] += 30
    steps = run(times)
    saved = [Event("checkpoint_saved", end_s(steps, number), 0.0, {"iteration": number}) for number in (50, 90)]
    events = [*steps[:50], saved[0], *steps[50:90], saved[1], *steps[90:]]
    assert stopped_at(events, PrecisionWatch(20, 0.01)) == [118]
