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


@pytest.mark.parametrize("seed", range(6))
def test_a_step_that_nobody_mends_does_not_become_normal(seed: int) -> None:
    values = [value + 0.03 * (place >= 60) for place, value in enumerate(quiet(200, seed))]
    told = judged(values)
    assert sum(one.direction == "regressed" for one in told[-30:]) >= 25
    assert told[-1].before == pytest.approx(0.0, abs=0.004), "the luckiest of the slow nights are not taken in"
    assert {one.since for one in told[-30:] if one.direction == "regressed"} <= {60, 61}


def test_an_accusation_ends_after_three_quiet_nights_and_theirs_become_normal() -> None:
    course = Course(RULE, [0.0])
    for value in quiet(30):
        course.add(Night((value,)))
    assert course.add(Night((0.06,))).direction == "regressed"
    assert course.add(Night((0.04,))).direction == "regressed", "nearer to it than to the level"
    assert course.add(Night((0.01,))).direction == "unchanged", "nearer to the level"
    assert course.add(Night((0.04,))).since == 30, "it is the same one"
    for _ in range(3):
        assert course.add(Night((0.001,))).direction == "unchanged"
    assert course.add(Night((0.012,))).direction == "unchanged", "what was accused is over"
    assert course.add(Night((0.06,))).since == 38


def steps(values: Sequence[float]) -> list[str]:
    """What is said of nights after thirty quiet ones, of which the spread is known well."""
    return [one.direction for one in judged([*quiet(30), *values])[30:]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.026], ["unchanged"]),
        ([0.04], ["regressed"]),
        ([0.023, 0.023], ["unchanged", "regressed"]),
        ([0.023, 0.0, 0.023], ["unchanged"] * 3),
        ([0.02, 0.0, 0.02, 0.0, 0.02, 0.0, 0.02], ["unchanged"] * 6 + ["regressed"]),
        ([0.02, 0.0, 0.02, 0.0, 0.0, 0.0, 0.02], ["unchanged"] * 7),
    ],
)
def test_each_window_has_its_own_limit(values: Sequence[float], said: list[str]) -> None:
    """One night of 4.7 spreads, two of 2.4, four of seven."""
    assert steps(values) == said


def test_newly_trained_ap_is_judged_by_one_two_and_three_runs() -> None:
    rule = rule_of("box_ap", Check(), same_model=False)
    seeds = [0.0015 * value for value in np.random.default_rng(3).standard_normal(40)]

    def said(*lost: float) -> list[str]:
        return [one.direction for one in judged([-one for one in lost], rule, [-seed for seed in seeds])]

    assert [one.direction for one in judged([0.0075], rule, seeds)] == ["regressed"]
    assert [one.direction for one in judged([0.0045], rule, seeds)] == ["unchanged"]
    assert [one.direction for one in judged([0.0045] * 2, rule, seeds)] == ["unchanged", "regressed"]
    assert [one.direction for one in judged([0.0035] * 3, rule, seeds)] == ["unchanged"] * 2 + ["regressed"]
    assert said(0.0075) == ["improved"]


def test_seeds_that_are_far_apart_are_no_alarm() -> None:
    """Seven, as far apart as those of a smoke recipe are; any five in a row may be accepted."""
    rule = rule_of("box_ap", Check(), same_model=False)
    aps = [-one / 100 for one in (23.5, 19.1, 12.2, 13.5, 11.9, 17.0, 15.1)]
    for begin in range(len(aps)):
        turned = [*aps[begin:], *aps[:begin]]
        assert {one.direction for one in judged(turned[5:], rule, turned[:5])} == {"unchanged"}


def test_the_order_of_what_was_accepted_says_nothing() -> None:
    orders = ([0.0, 0.01, 0.03], [0.03, 0.0, 0.01], [0.01, 0.03, 0.0])
    assert len({judged([0.0], accepted=order)[0].limit for order in orders}) == 1


def test_what_is_accepted_anew_is_judged_by_the_spread_that_was_known() -> None:
    wild = [Night((value,)) for value in quiet(90, sigma=0.03)]
    known = Course(RULE, [0.0], earlier=wild).look(Night((0.1,)))
    fresh = Course(RULE, [0.0]).look(Night((0.1,)))
    assert known.direction == "unchanged"
    assert fresh.direction == "regressed"


def test_nights_that_are_far_apart_are_learnt_also_where_they_were_accused() -> None:
    found = [one.direction for one in judged(quiet(120, seed=2, sigma=0.05))]
    assert found[60:].count("unchanged") >= 55


@pytest.mark.parametrize("error", [0.0, 0.03])
def test_what_was_accepted_must_be_exact_too(error: float) -> None:
    """A level of one run is no more exact than that run."""
    told = Course(RULE, [0.0], error).look(Night((0.07,)))
    assert told.direction == ("unchanged" if error else "regressed")


def test_of_what_is_accused_chance_alone_is_no_explanation() -> None:
    for step in (0.03, 0.05):
        for seed in range(20):
            values = [value + step * (place >= 60) for place, value in enumerate(quiet(64, seed))]
            for one in judged(values)[60:62]:
                if one.direction == "regressed":
                    assert one.change - one.chance > 0
    rule = rule_of("box_ap", Check(), same_model=False)
    for seed in range(50):
        aps = 0.0015 * np.random.default_rng(seed).standard_normal(30)
        for one in judged([0.005 - ap for ap in aps[20:23]], rule, (-aps[:20]).tolist()):
            if one.direction == "regressed":
                assert one.change - one.chance > 0


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
    assert limits("box_ap", 1) == limits("box_ap", 40) < limits("box_ap", 80)


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


def test_quiet_years_are_hardly_ever_cut() -> None:
    assert sum(bool(cuts(quiet(365, seed), least=0.015)) for seed in range(30)) <= 3


def test_two_odd_nights_are_no_level_of_their_own() -> None:
    values = quiet(100)
    values[50] += 0.2
    values[51] += 0.2
    assert cuts(values, least=0.02) == []


def test_a_few_odd_nights_do_not_make_the_spread_as_large_as_they_are() -> None:
    values = quiet(120)
    for place in range(10, 120, 20):
        values[place] = 0.2
    assert judged(values)[-1].limit < 1.3 * judged(quiet(120))[-1].limit


def test_what_is_known_from_little_is_held_to_more() -> None:
    assert judged([0.0])[0].limit == pytest.approx(4.7 * 0.006 * 1.2 * (1 + 1.6) ** 0.5)
    rule = rule_of("box_ap", Check(), same_model=False)
    assert judged([0.03], rule)[0].direction == "unchanged", "one model was accepted, and this may be its seed"
    assert judged([0.06], rule)[0].direction == "regressed"
    alarms = 0
    for seed in range(200):
        aps = 0.02 * np.random.default_rng(seed).standard_normal(15)
        alarms += any(one.direction == "regressed" for one in judged(aps[5:], rule, aps[:5].tolist()))
    assert alarms <= 30, "seeds are two points apart, and nothing happens in ten full runs"


def test_the_accepted_model_is_held_to_what_was_accepted_and_not_to_last_month() -> None:
    rule = rule_of("box_ap", Check(), same_model=True)
    assert judged([*[0.0004] * 40, 0.0007], rule)[-1].direction == "regressed"


def test_a_night_that_a_later_one_accuses_too_says_nothing_of_what_is_normal() -> None:
    """Soon after something was accepted: the first night is not enough, and must not excuse those after it."""
    assert [one.direction for one in judged([0.0488] * 6)] == ["unchanged"] + ["regressed"] * 5
    assert judged([0.0488] * 6)[-1].since == 0


def test_one_odd_good_night_ends_no_accusation() -> None:
    values = [value + 0.05 * (place >= 60) for place, value in enumerate(quiet(90))]
    values[70] = -0.08
    told = judged(values)
    assert told[70].direction == "unchanged"
    assert {one.direction for one in told[71:]} == {"regressed"}
    assert {one.since for one in told[71:]} == {60}
    values[71] = -0.08
    assert judged(values)[71].direction == "improved", "of two in a row it is told"


def test_what_got_better_and_was_not_accepted_hides_no_bad_night() -> None:
    course = Course(RULE, [0.0])
    for value in [*quiet(60), *(value - 0.05 for value in quiet(20, 1))]:
        course.add(Night((value,)))
    assert course.add(Night((0.3,) * 5)).direction == "regressed"


def test_of_one_model_there_is_no_odd_evaluation() -> None:
    rule = rule_of("box_ap", Check(), same_model=True)
    assert [one.direction for one in judged([0.001, -0.001], rule)] == ["regressed", "improved"]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_after_a_mend_is_not_accused_where_it_is_nobodys_worry(seed: int) -> None:
    """Two percent were accused, and one of them was mended: nights are as near to the accused ones as to the level."""
    steps = [0.0] * 60 + [0.02] * 30 + [0.009] * 30
    told = judged(value + step for value, step in zip(quiet(120, seed, 0.002), steps, strict=True))
    assert {one.direction for one in told[62:90]} == {"regressed"}
    assert {one.direction for one in told[-20:]} == {"unchanged"}


def test_a_creep_is_said_also_after_a_lucky_night() -> None:
    """It is more than was accepted may become, and too slow for every window."""
    values = [value + 0.005 * place / 7 for place, value in enumerate(quiet(200))]
    first = accused(values)[0]
    values[first + 20] -= 0.06
    told = judged(values)
    assert told[first + 20].direction == "unchanged"
    assert {one.direction for one in told[first + 21 : first + 26]} == {"regressed"}


def test_what_was_accused_before_is_not_worth_reruns_every_night() -> None:
    values = [value + 0.06 * (place >= 60) for place, value in enumerate(quiet(90))]
    assert [one.suspicious for one in judged(values)[60:64]] == [True, False, False, False]
    assert sum(one.suspicious for one in judged(values)[64:]) <= 1
    odd = judged([*values[:70], 0.001, 0.15])[-1]
    assert (odd.direction, odd.suspicious) == ("regressed", True), "after a quiet night it is a new accusation"


@pytest.mark.parametrize("seed", range(10))
def test_a_step_soon_after_the_accepted_night_does_not_become_normal(seed: int) -> None:
    found = accused(value + 0.025 * (place >= 4) for place, value in enumerate(quiet(120, seed)))
    assert sum(place >= 90 for place in found) >= 25


@pytest.mark.parametrize("seed", [0, 2, 3, 6, 7])
def test_an_accepted_run_that_was_the_odd_one_is_not_held_on_to(seed: int) -> None:
    found = judged(value + 0.035 for value in quiet(60, seed))
    assert sum(one.direction == "unchanged" for one in found[-20:]) >= 18


def after_calm(*values: float) -> list[str]:
    """What is said after sixty nights that hardly differ: no limit but the smallest change that matters."""
    return [one.direction for one in judged([*quiet(60, sigma=0.002), *values])[60:]]


def test_an_accusation_goes_on_by_the_middle_of_a_week_and_not_by_one_night() -> None:
    assert after_calm(*[0.02] * 10, 0.0115)[-1] == "regressed"
    assert after_calm(*[0.02] * 10, *[0.0135] * 10)[-1] == "regressed", "close to the smallest change"
    assert after_calm(*[0.02] * 10, *[0.0115] * 10)[-1] == "unchanged"
    assert after_calm(0.022, 0.022, 0.0145)[-1] == "regressed", "nights before it began are no part of it"


def test_getting_better_is_said_as_long_as_getting_worse() -> None:
    assert after_calm(-0.022, -0.022, -0.0145) == ["improved"] * 3


def test_a_night_is_held_against_the_accusations_of_a_week_and_not_against_all() -> None:
    assert after_calm(*[0.1] * 30, *[0.028] * 7, 0.0148)[-1] == "regressed"


def test_accusations_too_tell_how_far_nights_are_apart() -> None:
    wild = judged([0.5 + value for value in quiet(60, sigma=0.03)])
    assert {one.direction for one in wild} == {"regressed"}
    assert wild[-1].limit > 2 * wild[0].limit


def test_runs_that_were_accepted_together_are_of_one_night() -> None:
    several = (0.0,) * 5
    assert judged([0.0], accepted=several)[0].before_nights == 1
    creeping = judged([0.005 * place / 7 for place in range(200)], accepted=several)
    first = next(one for one in creeping if one.direction == "regressed")
    assert (first.before, first.before_nights) == (0.0, 1)


def test_a_nights_first_run_tells_how_far_nights_are_apart() -> None:
    """Only nights that are far out have reruns: the middle of those would make all nights look alike."""
    course = Course(RULE, [0.0])
    course.add(Night((0.02, 0.0, 0.0)))
    assert course.distances == [pytest.approx(0.02)]


def test_of_two_nights_the_less_exact_one_counts() -> None:
    def after(error: float) -> str:
        course = Course(RULE, [0.0])
        for value in quiet(30):
            course.add(Night((value,)))
        course.add(Night((0.023,), error))
        return course.add(Night((0.023,), 0.001)).direction

    assert (after(0.001), after(0.03)) == ("regressed", "unchanged")


def test_an_early_accusation_that_is_over_leaves_each_night_counted_once() -> None:
    told = judged([0.1, *[0.0] * 5])
    assert [one.direction for one in told] == ["regressed"] + ["unchanged"] * 5
    assert told[-1].before_nights == 5


def test_what_got_better_early_is_told_each_time() -> None:
    assert [one.direction for one in judged([-0.1, 0.0, -0.1])] == ["improved", "unchanged", "improved"]
