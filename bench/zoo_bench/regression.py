"""Has a metric got worse? Its nights in order -> a judgement of the newest. Pure, and of numbers alone.

A night is the runs that were made in it of one cell: one, or several where it was looked at twice. Values are such that
larger is worse and differences mean the same everywhere (log of seconds, AP with its sign turned).

1. **Level.** What is normal is the median of the newest `REFERENCE` nights that nothing was said against. So a machine
   that slowly drifts is not accused.
2. **Spread.** How far nights are from the middle of those around them by chance: 1.25 times the mean distance of the
   newest `REMEMBERED` nights, where a distance counts for no more than three times the median one, since one night in a
   hundred is far out; together with what is expected while there are few. Where few runs are all that is known
   (`Rule.student`) it is larger, as Student's t has it. No smaller than the standard error of the runs themselves,
   which comes from their block means. Against a level of n nights a night differs by the spread, times
   sqrt(1 + MEDIAN / n).
3. **Windows.** The newest night is accused by itself when it is far out; together with the one before it, when both are
   less far out; and when most nights of a week are, including the newest. Each window has its own limit, in spreads,
   and none is below `least`: a smaller change is nobody's worry, however certain.
4. **Creep.** What no window sees, since it is too slow: the week's nights may be `creep` worse than what was accepted.
5. **Standing.** Once accused, another question is asked: is a night nearer to the accused ones than to the level before
   them? Then it is accused too. Meanwhile the level stays, or the luckiest of the slow nights would become normal one
   by one. Quiet are nights that are nearer to the level; those in which so little is left that nobody would be accused
   of it; and a single one that is far better than the level. `FORGOTTEN` quiet nights in a row end the accusation, and
   are normal. A level of fewer than `WELL_KNOWN` nights is not held on to: what was accepted may be the odd one.

Constants are chosen with benchmarks/detection_truth.py, on histories that its table is not made with.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["regressed", "improved", "unchanged"]

REFERENCE = 28
REMEMBERED = 180
MEAN_TO_SIGMA, FARTHEST = 1.25, 3.0
MEDIAN = 1.6  # variance of a median over that of a mean, for normal values about pi / 2
# Spreads within which 95 % of nights are, by Student's t with 4 degrees of freedom.
WITHIN = 2.4
# Nights in a row that are quiet, after which an accusation is over: chance may hide one or two.
FORGOTTEN = 3
WELL_KNOWN = 4
SMALL = 0.8  # times the smallest change that is accused: an accusation is over where less is left
WINDOWS: Mapping[int, float] = {1: 4.7, 2: 2.4, 7: 2.4}


@dataclass(frozen=True)
class Rule:
    """How a metric is judged; differences are in the values' unit.

    `least`: the smallest change that is accused. `expected`: the spread before nights have shown it, and `weight`: for
    how many nights that counts. `windows`: by the number of newest nights, how many spreads they must be away.
    `suspicion`: spreads at which a night is worth a second run. `creep`: None where the accepted value is no limit.
    `chance`: whether nights differ by it; where they do not, the accepted value stays the level. `within`: spreads that
    95 % of nights are within. `student`: how many times the spread grows, times the number of known values, where it is
    known from few. `together`: for how many nights the accepted runs count at most, which were made in one.
    """

    least: float
    expected: float
    windows: Mapping[int, float]
    weight: float = 5.0
    suspicion: float = 2.4
    creep: float | None = None
    chance: bool = True
    within: float = WITHIN
    student: float = 1.0
    together: int = 1


@dataclass(frozen=True)
class Night:
    """The runs of a night. `error`: the standard error of one of them, from its own block means; 0: not known."""

    values: tuple[float, ...]
    error: float = 0.0

    @property
    def value(self) -> float:
        """The middle run, which one odd run does not move."""
        return median(self.values)


@dataclass(frozen=True)
class Judgement:
    """What is said of a night: `after`, the middle of `window` nights, against `before`, the middle of `before_nights`.

    Those are the newest ones; of an accusation that stands, those that were accused, and this one. `limit`: how far
    they may be apart. `chance`: 95 % of such differences are within it when nothing has changed.
    `beyond`: how many of the newest nights there are from the first one that was too far on. `suspicious`: a second run
    is worth its time, which it is not where the night before was accused of the same. `since`: the first of the accused
    nights that this one continues.
    """

    direction: Direction
    before: float
    before_nights: int
    after: float
    window: int
    limit: float
    chance: float
    beyond: int
    suspicious: bool = False
    since: int = 0

    @property
    def change(self) -> float:
        """How much larger, which is worse, it is."""
        return self.after - self.before


class Course:
    """The nights of a metric so far, and what is normal by now. It begins with what was accepted.

    `error`: the standard error of one accepted run. `earlier`: nights before those, which tell how far they are apart.
    """

    def __init__(
        self, rule: Rule, accepted: Sequence[float], error: float = 0.0, earlier: Iterable[Night] = ()
    ) -> None:
        self._rule = rule
        self._accepted = median(accepted)
        # Several accepted runs tell as much as so many nights, of the level and of the spread.
        self._values = list(accepted)
        self._errors = [error] * len(accepted)
        self._normal = list(range(len(accepted)))
        self._level_error = error
        self._known = [*_distances_of(rule, earlier), *_scatter(accepted)]
        self._distances: dict[int, float] = {}  # of the nights since, by their place
        self._spreads = [self._spread_now()] * (len(accepted) + 1)  # what was known before each night, and is now
        self._first = self._settled = len(accepted)
        self._open: Judgement | None = None
        self._bad: list[int] = []  # nights that were accused, of the open accusation
        self._quiet: list[int] = []  # nights in a row that were not, since

    @property
    def distances(self) -> list[float]:
        """How far each night was from the middle of those around it."""
        return [*self._known, *self._distances.values()]

    def look(self, night: Night) -> Judgement:
        """Judge a night that comes next, without taking it in."""
        values, errors = [*self._values, night.value], [*self._errors, night.error]
        found = [self._window(values, errors, width) for width in self._rule.windows]
        if self._rule.creep is not None:
            found.append(self._crept(values, errors, self._rule.creep))
        accused = [one for one in found if one.direction != "unchanged" and not self._is_odd(one)]
        told = accused[0] if accused else replace(found[0], direction="unchanged")
        if told.direction == "unchanged" and self._open is not None and self._stands(self._open):
            told = self._standing(self._open, night, told)
        far = told.direction != "unchanged" or found[0].change > self._rule.suspicion * self._spreads[-1]
        earlier = self._continued(told)
        since = earlier.since if earlier else len(self._values) - self._first + 1 - told.beyond
        confirmed = earlier is not None and not self._quiet
        return replace(told, suspicious=far and not confirmed, since=since)

    def _continued(self, told: Judgement) -> Judgement | None:
        """Return the open accusation that a judgement goes on with, where it says the same."""
        return self._open if self._open is not None and self._open.direction == told.direction else None

    def _is_odd(self, told: Judgement) -> bool:
        """Tell whether a single night is good as never before, while others before it are accused."""
        accused = self._rule.chance and self._open is not None and self._open.direction == "regressed"
        return accused and told.direction == "improved" and told.window == 1

    def add(self, night: Night) -> Judgement:
        """Judge a night and take it in."""
        judged = self.look(night)
        place = len(self._values)
        middle = self._middle(judged, place)
        if middle is not None:
            self._distances[place] = abs(night.values[0] - middle)
        self._spreads.append(self._spread_now())
        self._values.append(night.value)
        self._errors.append(night.error)
        if judged.direction == "unchanged":
            self._pass_over(place)
        else:
            self._accuse(judged, place)
        return judged

    def _accuse(self, judged: Judgement, place: int) -> None:
        if self._continued(judged) is None:
            self._bad = list(range(place + 1 - judged.beyond, place))
            self._take_back(self._bad)
        self._bad.append(place)
        self._open, self._quiet = judged, []

    def _take_back(self, places: Sequence[int]) -> None:
        """Let nights that are accused afterwards, together with a later one, say nothing of what is normal."""
        if not places:
            return
        self._hold_normal([place for place in self._normal if place not in places])
        for place in places:
            self._distances.pop(place, None)
        after = len(self._spreads) - places[0] - 1
        self._spreads[places[0] + 1 :] = [self._spread_now()] * after

    def _pass_over(self, place: int) -> None:
        """Take in that nothing was said against a night."""
        if self._open is None:
            self._settle([place])
            return
        if not self._quiet:
            self._settled = place  # what was mended must not stay accused by the nights before it
        self._quiet.append(place)
        stands = self._stands(self._open)
        if not stands:
            self._settle([place])
        if len(self._quiet) == FORGOTTEN:
            self._settle(self._quiet if stands else [])
            self._open, self._bad, self._quiet = None, [], []

    def _settle(self, places: Sequence[int]) -> None:
        if self._rule.chance:
            self._hold_normal([*self._normal, *places])

    def _hold_normal(self, places: list[int]) -> None:
        self._normal = places
        self._level_error = median(self._errors[place] for place in places[-REFERENCE:])

    def _middle(self, judged: Judgement, place: int) -> float | None:
        """Return the middle of what is around a night: the level, or accused nights; None for the first of those."""
        if judged.direction == "unchanged":
            return self._level(place)[0]
        return median(self._values[one] for one in self._bad) if self._continued(judged) else None

    def _stands(self, open_: Judgement) -> bool:
        return self._rule.chance and open_.before_nights >= WELL_KNOWN

    def _standing(self, open_: Judgement, night: Night, told: Judgement) -> Judgement:
        """Tell whether a night is nearer to those that are accused than to the level before them."""
        bad = [self._values[one] for one in self._bad[-max(self._rule.windows) :]]
        side = math.copysign(1, median(bad) - open_.before)
        if (night.value - (open_.before + median(bad)) / 2) * side <= 0 or self._is_small(open_, night):
            return told
        around = [*bad, night.value]
        chance = self._rule.within * self._error([night.error], open_.before_nights, len(around), self._spreads[-1])
        return replace(open_, after=median(around), window=len(around), chance=chance, beyond=1)

    def _is_small(self, open_: Judgement, night: Night) -> bool:
        """Tell whether what is left of an accusation, by the nights of a week, would be accused of nobody."""
        begin = max(self._first + open_.since, len(self._values) + 1 - max(self._rule.windows))
        lately = median([*self._values[begin:], night.value])
        return abs(lately - open_.before) < SMALL * self._rule.least

    def _window(self, values: Sequence[float], errors: Sequence[float], width: int) -> Judgement:
        """Compare the newest nights with the level before them."""
        newest = self._newest(values, width)
        before, nights = self._level(len(values) - len(newest))
        return self._against(before, nights, newest, errors, width, self._rule.least)

    def _crept(self, values: Sequence[float], errors: Sequence[float], least: float) -> Judgement:
        """Compare the nights of the longest window with what was accepted."""
        width = max(self._rule.windows)
        nights = min(self._first, self._rule.together)
        # Also those before an accusation was over: one lucky night among slow ones ends nothing that creeps.
        newest = values[max(len(values) - width, self._first) :]
        return self._against(self._accepted, nights, newest, errors, width, least)

    def _against(
        self,
        before: float,
        nights: int,
        newest: Sequence[float],
        errors: Sequence[float],
        width: int,
        least: float,
    ) -> Judgement:
        begin = len(errors) - len(newest)
        # What these nights are held against is what was known before them, or they would excuse one another.
        spread = self._spreads[begin]
        limit = max(least, self._rule.windows[width] * self._error(errors[begin:], nights, 1, spread))
        chance = self._rule.within * self._error(errors[begin:], nights, len(newest), spread)
        return _judgement(before, nights, newest, limit, chance, enough=len(newest) == width)

    def _error(self, errors: Sequence[float], level_nights: int, nights: int, spread: float) -> float:
        """Return by how much the middle of some nights differs from a level of others by chance."""
        tonight = max(spread, *errors) * math.sqrt(1.0 if nights == 1 else MEDIAN / nights)
        return math.hypot(tonight, max(spread, self._level_error) * math.sqrt(MEDIAN / level_nights))

    def _newest(self, values: Sequence[float], width: int) -> Sequence[float]:
        return values[max(len(values) - width, self._settled) :]

    def _level(self, before: int) -> tuple[float, int]:
        """Return what was normal before the night in that place, and of how many nights that is the middle."""
        end = bisect_left(self._normal, before)
        places = self._normal[max(0, end - REFERENCE) : end]
        accepted = bisect_left(places, self._first)
        nights = len(places) - accepted + min(accepted, self._rule.together)
        return median(self._values[place] for place in places), nights

    def _spread_now(self) -> float:
        seen, weight = self.distances[-REMEMBERED:], self._rule.weight
        total = weight * self._rule.expected
        if seen:
            farthest = FARTHEST * median(seen)
            total += MEAN_TO_SIGMA * sum(min(distance, farthest) for distance in seen)
        known = weight + len(seen)
        return total / known * (1 + self._rule.student / known)


def judge(
    rule: Rule, accepted: Sequence[float], nights: Iterable[Night], error: float = 0.0, earlier: Iterable[Night] = ()
) -> list[Judgement]:
    """Judge every night after those that were accepted, each by what came before it."""
    course = Course(rule, accepted, error, earlier)
    return [course.add(night) for night in nights]


def _distances_of(rule: Rule, nights: Iterable[Night]) -> list[float]:
    """Return how far nights were apart, wherever their level was."""
    known = tuple(nights)
    if not known:
        return []
    course = Course(rule, [known[0].value])
    for night in known[1:]:
        course.add(night)
    return course.distances


def _scatter(values: Sequence[float]) -> list[float]:
    """Return how far values are from their middle, made larger for what the middle of few takes from it."""
    if len(values) == 1:
        return []
    lost = math.sqrt(1 + 1 / (len(values) // 2))
    return [lost * abs(value - median(values)) for value in values]


def _judgement(
    before: float, before_nights: int, newest: Sequence[float], limit: float, chance: float, *, enough: bool
) -> Judgement:
    """Say in which direction the newest night and most of its window are beyond the limit, if in any."""
    direction: Direction = "unchanged"
    reach = 1
    if enough and abs(newest[-1] - before) > limit:
        side = math.copysign(1, newest[-1] - before)
        beyond = [place for place, value in enumerate(newest) if (value - before) * side > limit]
        if len(beyond) > len(newest) // 2:
            direction = "regressed" if side > 0 else "improved"
            reach = len(newest) - beyond[0]
    return Judgement(direction, before, before_nights, median(newest), len(newest), limit, chance, reach)
