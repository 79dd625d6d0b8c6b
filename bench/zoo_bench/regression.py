"""Has a metric got worse? Its nights in order -> a judgement of the newest. Pure, and of numbers alone.

A night is the runs that were made in it of one cell: one, or several where it was looked at twice. Values are such that
larger is worse and differences mean the same everywhere (log of seconds, AP with its sign turned).

1. **Level.** What is normal is the median of the newest `REFERENCE` nights that nothing was said against. So a machine
   that slowly drifts is not accused, and a change stays a change: nights that were accused, or found better, never
   become normal; only `zoo-bench accept` makes them so.
2. **Spread.** How far nights are from their level by chance: 1.25 times the mean distance of the newest `REMEMBERED`
   nights, where a distance counts for no more than three times the median one, since one night in a hundred is far out;
   together with what is expected while there are few. No smaller than the standard error of the newest run itself,
   which comes from its block means. Against a level of n nights a night differs by the spread, times
   sqrt(1 + LEVEL_ERROR / n).
3. **Windows.** The newest night is accused by itself when it is far out; together with the one before it, when both are
   less far out; and when most nights of a week are, including the newest. Each window has its own limit, in spreads,
   and none is below `least`: a smaller change is nobody's worry, however certain.
4. **Creep.** What no window sees, since it is too slow: the week's nights may be `creep` worse than what was accepted.

Constants are chosen with benchmarks/detection_truth.py, on histories that its table is not made with.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["regressed", "improved", "unchanged"]

REFERENCE = 28
REMEMBERED = 180
MEAN_TO_SIGMA, FARTHEST = 1.25, 3.0
LEVEL_ERROR = 1.6  # variance of a median over that of a mean, for normal values about pi / 2
EXPECTED_WEIGHT = 10.0  # nights that what is expected counts for
# Spreads within which 95 % of nights are, by Student's t with 4 degrees of freedom.
WITHIN = 2.4
# Nights in a row that an accusation must be silent for, until the next one is a new one: chance may hide one or two.
FORGOTTEN = 3
WINDOWS: Mapping[int, float] = {1: 4.9, 2: 2.4, 7: 2.4}


@dataclass(frozen=True)
class Rule:
    """How a metric is judged; differences are in the values' unit.

    `least`: the smallest change that is accused. `expected`: the spread before nights have shown it. `windows`: by the
    number of newest nights, how many spreads they must be away. `suspicion`: spreads at which a night is worth a second
    run. `creep`: None where the accepted value is no limit. `moves`: what is normal moves with the nights.
    """

    least: float
    expected: float
    windows: Mapping[int, float]
    suspicion: float = 2.4
    creep: float | None = None
    moves: bool = True


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
    """What is said of a night: `after`, the middle of the newest `window` nights, against `before`, the level.

    `limit`: how far they may be apart. `chance`: 95 % of such differences are within it when nothing has changed.
    `beyond`: how many of the newest nights there are from the first one that was too far on. `suspicious`: a second run
    is worth its time. `since`: the first of the accused nights that this one continues, `FORGOTTEN` quiet ones between
    end it.
    """

    direction: Direction
    before: float
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
    """The nights of a metric so far, and what is normal by now. It begins with what was accepted."""

    def __init__(self, rule: Rule, accepted: Sequence[float]) -> None:
        self._rule = rule
        self._accepted = median(accepted)
        # Several accepted runs tell as much as so many nights, of the level and of the spread.
        self._values = list(accepted)
        self._normal = list(range(len(accepted)))
        self._distances = [abs(value - self._accepted) for value in accepted[1:]]
        self._first = self._settled = len(accepted)
        self._accused: Judgement | None = None
        self._quiet = 0  # nights since

    def look(self, night: Night) -> Judgement:
        """Judge a night that comes next, without taking it in."""
        values = [*self._values, night.value]
        spread = max(self._spread(), night.error)
        found = [self._window(values, width, spread) for width in self._rule.windows]
        if self._rule.creep is not None:
            found.append(self._crept(values, spread, self._rule.creep))
        told = next((one for one in found if one.direction != "unchanged"), found[0])
        suspicious = told.direction != "unchanged" or found[0].change > self._rule.suspicion * spread
        first = len(self._values) - self._first + 1 - told.beyond
        since = self._accused.since if self._accused and self._accused.direction == told.direction else first
        return replace(told, suspicious=suspicious, since=since)

    def add(self, night: Night) -> Judgement:
        """Judge a night and take it in."""
        judged = self.look(night)
        place = len(self._values)
        self._values.append(night.value)
        if judged.direction == "unchanged":
            self._distances.append(abs(night.values[0] - self._level(place)[0]))
            if self._rule.moves:
                self._normal.append(place)
            self._pass_over(place)
        else:
            self._accused, self._quiet = judged, 0
        return judged

    def _pass_over(self, place: int) -> None:
        """Take in that nothing was said against a night."""
        if self._accused is not None and not self._quiet:
            self._settled = place  # what was mended must not stay accused by the nights before it
        self._quiet += 1
        if self._quiet == FORGOTTEN:
            self._accused = None

    def _window(self, values: Sequence[float], width: int, spread: float) -> Judgement:
        """Compare the newest nights with the level before them."""
        newest = self._newest(values, width)
        before, nights = self._level(len(values) - len(newest))
        return self._against(before, newest, width, spread * math.sqrt(1 + LEVEL_ERROR / nights), self._rule.least)

    def _crept(self, values: Sequence[float], spread: float, least: float) -> Judgement:
        """Compare the nights of the longest window with what was accepted."""
        width = max(self._rule.windows)
        newest = self._newest(values, width)
        return self._against(self._accepted, newest, width, spread * math.sqrt(1 + 1 / self._first), least)

    def _against(self, before: float, newest: Sequence[float], width: int, error: float, least: float) -> Judgement:
        limit = max(least, self._rule.windows[width] * error)
        return _judgement(before, newest, limit, WITHIN * error, enough=len(newest) == width)

    def _newest(self, values: Sequence[float], width: int) -> Sequence[float]:
        return values[max(len(values) - width, self._settled) :]

    def _level(self, before: int) -> tuple[float, int]:
        """Return what was normal before the night in that place, and of how many nights that is the middle."""
        end = bisect_left(self._normal, before)
        nights = [self._values[place] for place in self._normal[max(0, end - REFERENCE) : end]]
        return median(nights), len(nights)

    def _spread(self) -> float:
        seen = self._distances[-REMEMBERED:]
        if not seen:
            return self._rule.expected
        farthest = FARTHEST * median(seen)
        measured = MEAN_TO_SIGMA * fmean(min(distance, farthest) for distance in seen)
        return (EXPECTED_WEIGHT * self._rule.expected + len(seen) * measured) / (EXPECTED_WEIGHT + len(seen))


def judge(rule: Rule, accepted: Sequence[float], nights: Iterable[Night]) -> list[Judgement]:
    """Judge every night after those that were accepted, each by what came before it."""
    course = Course(rule, accepted)
    return [course.add(night) for night in nights]


def _judgement(before: float, newest: Sequence[float], limit: float, chance: float, *, enough: bool) -> Judgement:
    """Say in which direction the newest night and most of its window are beyond the limit, if in any."""
    direction: Direction = "unchanged"
    reach = 1
    if enough and abs(newest[-1] - before) > limit:
        side = math.copysign(1, newest[-1] - before)
        beyond = [place for place, value in enumerate(newest) if (value - before) * side > limit]
        if len(beyond) > len(newest) // 2:
            direction = "regressed" if side > 0 else "improved"
            reach = len(newest) - beyond[0]
    return Judgement(direction, before, median(newest), len(newest), limit, chance, reach)
