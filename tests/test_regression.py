"""The rule of the nightly check: what it accuses, what it lets pass, and for how long. Nights are drawn from seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from zoo_bench.changepoints import cuts
from zoo_bench.matrix import Check
from zoo_bench.regression import Course, Judgement, Night, Rule, judge
from zoo_bench.rules import Metric, comparable, figure_of, rule_of

RULE = rule_of("s_per_iter", Check(), same_model=False)
SIGMA = 0.007


def quiet(nights: int, seed: int = 0, sigma: float = SIGMA) -> list[float]:
    """Student's t with 4 degrees of freedom, of which the variance is 2."""
    return (sigma / 2**0.5 * np.random.default_rng(seed).standard_t(4, nights)).tolist()


def judged(values: Iterable[float], rule: Rule = RULE, accepted: Sequence[float] = (0.0,)) -> list[Judgement]:
    return judge(rule, accepted, [Night((value,)) for value in values])


def accused(values: Iterable[float], rule: Rule = RULE) -> list[int]:
    return [place for place, one in enumerate(judged(values, rule)) if one.direction == "regressed"]


def test_nothing_is_said_of_a_quiet_year() -> None:
    assert accused(quiet(365)) == []


@pytest.mark.parametrize(("step", "nights"), [(0.05, 1), (0.03, 2)])
def test_a_step_is_found_soon_and_said_every_night_until_it_is_accepted(step: float, nights: int) -> None:
    values = [value + step * (place >= 60) for place, value in enumerate(quiet(120))]
    found = accused(values)
    assert 60 <= found[0] < 60 + nights
    assert len(found) >= 0.9 * 60, "but for nights that chance has hidden it in"
    assert judged(values)[-1].before == pytest.approx(0.0, abs=0.003)
    assert judged(values)[found[0] + 3].since == 60, "also where two nights were needed"


def test_what_was_mended_is_not_accused_by_the_nights_before_it() -> None:
    values = [value + 0.06 * (60 <= place < 70) for place, value in enumerate(quiet(80))]
    assert set(accused(values)) == set(range(60, 70))


def test_getting_better_is_told_and_is_no_regression() -> None:
    values = [value - 0.06 * (place >= 60) for place, value in enumerate(quiet(70))]
    assert accused(values) == []
    assert {one.direction for one in judged(values)[60:]} == {"improved"}


def test_a_machine_that_drifts_by_a_percent_a_quarter_is_not_accused() -> None:
    assert accused(value + 0.01 * place / 91 for place, value in enumerate(quiet(330))) == []


def test_a_percent_a_week_is_found_before_it_is_five() -> None:
    values = [value + 0.01 * max(0, place - 60) / 7 for place, value in enumerate(quiet(100))]
    assert 60 < accused(values)[0] < 60 + 35


def test_a_creep_that_no_window_sees_has_an_end() -> None:
    creeping = [value + 0.005 * place / 7 for place, value in enumerate(quiet(200))]
    first = accused(creeping)[0]
    assert creeping[first] == pytest.approx(0.08, abs=0.02), "four times the smallest change that is accused"


def test_an_outlier_is_worth_a_second_look_and_is_nothing_after_it() -> None:
    course = Course(RULE, [0.0])
    for value in quiet(30):
        course.add(Night((value,)))
    assert course.look(Night((0.15,))).suspicious
    assert course.add(Night((0.15, 0.001, -0.002, 0.003))).direction == "unchanged"
    assert not course.look(Night((0.002,))).suspicious


def test_a_run_that_is_itself_not_exact_needs_a_larger_change() -> None:
    def after(error: float) -> Judgement:
        course = Course(RULE, [0.0])
        for value in quiet(30):
            course.add(Night((value,)))
        return course.look(Night((0.06,), error))

    assert after(0.001).direction == "regressed"
    assert after(0.03).direction == "unchanged"


def test_the_limit_is_learnt_from_the_nights() -> None:
    calm, wild = (judged(quiet(60, sigma=sigma))[-1].limit for sigma in (0.004, 0.02))
    assert judged([0.0])[0].limit > calm, "one night says little"
    assert wild > 2 * calm
    assert calm >= RULE.least


def test_of_more_cells_each_is_accused_less_often() -> None:
    def limits(metric: Metric, cells: int) -> list[float]:
        return list(rule_of(metric, Check(), same_model=False, cells=cells).windows.values())

    assert limits("s_per_iter", 1) == limits("s_per_iter", 8) == list(RULE.windows.values())
    assert limits("s_per_iter", 128) == [2 * limit for limit in limits("s_per_iter", 8)]
    assert limits("box_ap", 1) == limits("box_ap", 100) < limits("box_ap", 200)


def test_the_accepted_model_is_held_to_its_tolerance_whatever_the_nights_did() -> None:
    rule = rule_of("box_ap", Check(), same_model=True)
    values = [comparable("box_ap", ap) for ap in (0.3740, 0.3742, 0.3736, 0.3734)]
    found = judged(values, rule, [comparable("box_ap", 0.374)])
    assert [one.direction for one in found] == ["unchanged", "unchanged", "unchanged", "regressed"]
    assert not any(one.suspicious for one in found[:3])


def test_seeds_that_were_accepted_say_how_far_seeds_are_apart() -> None:
    rule = rule_of("box_ap", Check(), same_model=False)
    near, far = (
        Course(rule, [comparable("box_ap", 0.37 + off) for off in (-spread, 0, spread, -spread / 2, spread / 2)])
        for spread in (0.001, 0.02)
    )
    lost = Night((comparable("box_ap", 0.355),))
    assert near.look(lost).direction == "regressed"
    assert far.look(lost).direction == "unchanged"


def test_figures_come_back_as_they_were() -> None:
    for metric in ("memory", "s_per_iter", "fps", "box_ap"):
        assert figure_of(metric, comparable(metric, 0.37)) == pytest.approx(0.37)
        worse = 0.38 if metric in ("memory", "s_per_iter") else 0.36
        assert comparable(metric, worse) > comparable(metric, 0.37), metric


def test_history_is_cut_where_its_level_changed() -> None:
    values = [value + 0.03 * (place >= 100) - 0.05 * (place >= 200) for place, value in enumerate(quiet(300))]
    values[50] += 0.2
    found = cuts(values, least=0.02)
    assert len(found) == 2
    assert found[0] == pytest.approx(100, abs=3)
    assert found[1] == pytest.approx(200, abs=3)


def test_a_slow_drift_is_cut_though_no_night_is_far_from_the_last() -> None:
    drifting = [value + 0.01 * max(0, place - 60) / 7 for place, value in enumerate(quiet(100))]
    assert cuts(drifting, least=0.02)
    assert cuts(quiet(100), least=0.02) == []
    assert cuts([0.5] * 40, least=0.02) == []
    assert cuts(quiet(9), least=0.02) == []
