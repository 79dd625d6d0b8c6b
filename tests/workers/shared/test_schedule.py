from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from models.coco import Sample
from models.schedule import EndlessBatches, learning_rate

SCHEDULE = {
    "iterations": 90000,
    "milestones": [60000, 80000],
    "gamma": 0.1,
    "warmup_iterations": 500,
    "warmup_factor": 0.001,
}


@pytest.mark.parametrize(
    ("iteration", "lr"),
    [(1, 0.00002), (251, 0.01001), (501, 0.02), (60000, 0.02), (60001, 0.002), (80000, 0.002), (80001, 0.0002)],
)
def test_the_published_schedule_warms_up_and_steps_down(iteration: int, lr: float) -> None:
    assert learning_rate(iteration, 0.02, SCHEDULE) == pytest.approx(lr)


def test_no_warm_up_starts_at_the_full_rate() -> None:
    assert learning_rate(1, 0.02, {**SCHEDULE, "warmup_iterations": 0}) == 0.02


def samples_of(sizes: list[tuple[int, int]]) -> list[Sample]:
    nothing = np.zeros((0, 4), dtype=np.float32)
    return [
        Sample(number, Path(), width, height, nothing, np.zeros(0, dtype=np.int64), ())
        for number, (width, height) in enumerate(sizes)
    ]


def test_batches_go_through_all_images_before_any_again() -> None:
    batches = EndlessBatches(samples_of([(9, 9)] * 6), 3, 0.5, seed=1)
    drawn = [index for batch in islice(batches, 4) for index, _ in batch]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))
    assert drawn[:6] != drawn[6:]


def test_batches_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> list[list[tuple[int, bool]]]:
        return list(islice(EndlessBatches(samples_of([(9, 9)] * 20), 4, 0.5, seed), 10))

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize(("probability", "flips"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_flips_are_drawn_with_their_probability(probability: float, flips: set[bool]) -> None:
    batches = EndlessBatches(samples_of([(9, 9)] * 20), 4, probability, seed=1)
    assert {flip for batch in islice(batches, 5) for _, flip in batch} == flips


def test_a_batch_is_all_upright_or_all_wide() -> None:
    batches = EndlessBatches(samples_of([(9, 5), (5, 9)] * 5), 4, 0.5, seed=1)
    for batch in islice(batches, 10):
        assert len({index % 2 for index, _ in batch}) == 1


def test_a_resumed_training_goes_on_with_the_batches_it_has_not_seen() -> None:
    samples = samples_of([(9, 9)] * 20)
    whole = list(islice(EndlessBatches(samples, 4, 0.5, seed=1), 12))
    assert list(islice(EndlessBatches(samples, 4, 0.5, seed=1, start=7), 5)) == whole[7:]


def test_the_ranks_together_see_what_one_would() -> None:
    samples = samples_of([(9, 5), (5, 9)] * 10)
    whole = list(islice(EndlessBatches(samples, 8, 0.5, seed=1), 5))
    shares = [list(islice(EndlessBatches(samples, 8, 0.5, 1, 0, (rank, 4)), 5)) for rank in range(4)]
    assert [[drawn for part in parts for drawn in part] for parts in zip(*shares)] == whole
