"""Successive halving as a pure table: who has reached which rung, and with what reward.

A `Rungs` hears which trials have reached which rung, and answers two questions: is a trial among
the best there (stopping), and which trial has earned the next rung (promotion). It knows neither
clock nor processes, so that it can be replayed from a log.

Sources: Li et al., "Hyperband", JMLR 18 (2018), algorithm 1; Li et al., "A System for Massively
Parallel Hyperparameter Tuning", MLSys (2020), algorithm 2 (ASHA).
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from ..core.metrics import number
from ..errors import OptionError

WORST = -math.inf  # the reward of a trial that reported none, or NaN, at a rung


def geometric_levels(
    grace_period: float, reduction_factor: float, max_t: float
) -> tuple[float, ...]:
    """The times at which trials are compared: grace_period * reduction_factor**k, below max_t.

    >>> geometric_levels(1, 3, 81)
    (1, 3, 9, 27)

    Raises OptionError where the levels would have no end.
    """
    if number(grace_period) is None or not grace_period > 0:
        raise OptionError(f"grace_period={grace_period!r}, but it must be above 0")
    _check_factor(reduction_factor)
    if grace_period > max_t:
        raise OptionError(
            f"grace_period={grace_period!r} is above max_t={max_t:g}, so that no trial would be "
            "compared with others"
        )
    levels = []
    level = grace_period
    while level < max_t:
        levels.append(level)
        level *= reduction_factor
    return tuple(levels)


def _check_factor(reduction_factor: float) -> None:
    if number(reduction_factor) is None or not 1 < reduction_factor < math.inf:
        raise OptionError(f"reduction_factor={reduction_factor!r}, but it must be above 1")


class Rung:
    """One rung: the rewards of the trials that reached it; of equal ones the earlier is better."""

    def __init__(self, level: float) -> None:
        self.level = level
        self.rewards: dict[int, float] = {}  # by trial, in the order of arrival
        self._trials: list[int] = []  # in the order of arrival
        self._numbers: dict[int, int] = {}  # of arrival, by trial
        self._ascending: list[tuple[float, int]] = []  # (reward, -number of arrival)
        self._waiting: list[tuple[float, int, int]] = []  # heap of (-reward, number, trial)
        self._taken: set[int] = set()  # trials that went on without being the best

    def __len__(self) -> int:
        return len(self._ascending)

    def add(self, trial: int, reward: float | None) -> int:
        """Record a trial; return its rank, 1 for the best so far."""
        number = len(self._ascending)
        key = (WORST if reward is None else reward, -number)
        self.rewards[trial], self._numbers[trial] = key[0], number
        self._trials.append(trial)
        insort(self._ascending, key)
        heapq.heappush(self._waiting, (-key[0], number, trial))
        return self._rank(key)

    def rank_of(self, trial: int) -> int:
        """The rank that a recorded trial has by now, 1 for the best."""
        return self._rank((self.rewards[trial], -self._numbers[trial]))

    def holder_of(self, rank: int) -> int:
        """The trial that has a rank by now, from 1 to the number of trials."""
        return self._trials[-self._ascending[-rank][1]]

    def is_as_good(self, trial: int, rank: int) -> bool:
        """Whether a trial has the same reward as the trial at a rank, and that is a number."""
        return WORST < self.rewards[trial] == self.rewards[self.holder_of(rank)]

    def take_best(self, places: int) -> int | None:
        """Take the best trial not yet taken, if it is among the first `places`."""
        while self._waiting and self._is_gone(*self._waiting[0]):
            heapq.heappop(self._waiting)
        if not self._waiting:
            return None
        negative, number, trial = self._waiting[0]
        if -negative == WORST or self._rank((-negative, -number)) > places:
            return None
        heapq.heappop(self._waiting)
        return trial

    def take(self, trial: int) -> None:
        """Take this trial, whatever its rank; the rank stays."""
        self._taken.add(trial)

    def _is_gone(self, negative: float, number: int, trial: int) -> bool:
        """Whether a trial that waited was taken, or has failed, since then."""
        return -negative != self.rewards[trial] or trial in self._taken

    def put_last(self, trial: int) -> None:
        """Rank a trial below all others, like a trial that reported nothing."""
        number = -self._numbers[trial]
        del self._ascending[bisect_left(self._ascending, (self.rewards[trial], number))]
        insort(self._ascending, (WORST, number))
        self.rewards[trial] = WORST

    def _rank(self, key: tuple[float, int]) -> int:
        return 1 + len(self._ascending) - bisect_right(self._ascending, key)


class Rungs:
    """The rungs of one bracket, at the rising `levels` (times at which trials are compared).

        rungs = Rungs((1, 3, 9), reduction_factor=3, max_t=27)
        rungs.reach(trial=0, time=1, reward=0.5)      # True: goes on (it is the only one)
        rungs.promotable()                            # (trial, level of the next rung) or None

    Raises OptionError for levels that do not rise or do not lie below `max_t`, and for a reduction
    factor that is not above 1.
    """

    def __init__(self, levels: Sequence[float], *, reduction_factor: float, max_t: float) -> None:
        _check_factor(reduction_factor)
        if (
            any(number(level) is None for level in levels)
            or list(levels) != sorted(set(levels))
            or any(not 0 < level < max_t for level in levels)
        ):
            raise OptionError(
                f"the rungs {list(levels)} must rise and lie above 0 and below max_t={max_t:g}"
            )
        self.reduction_factor = reduction_factor
        self.max_t = max_t
        self.levels = tuple(levels)
        self.rungs = [Rung(level) for level in levels]
        self.open = len(levels)  # the index of the highest rung to which trials are promoted
        self._reached: dict[int, int] = {}  # by trial: the index of its highest rung

    def reach(self, trial: int, time: float, reward: float | None) -> bool:
        """Record a report; tell whether the trial is among the best 1/reduction_factor there.

        A report counts once, at the highest rung that it reaches: a trial that reports only at
        epochs 2, 4 and 9 is compared at 1, 3 and 9; a trial that jumps over a rung is not compared
        there. While fewer trials than the factor are at a rung, only the best so far is among the
        best. A trial that equals the last of the best is among them: at chance level, or where
        rewards are rounded, equal rewards say nothing. True also where nothing was to be decided.
        """
        index = self._highest(time)
        if index <= self._reached.get(trial, -1):
            return True
        self._reached[trial] = index
        rung = self.rungs[index]
        rank = rung.add(trial, reward)
        places = max(1, self.places_at(rung))
        return reward is not None and (rank <= places or rung.is_as_good(trial, places))

    def fail(self, trial: int) -> None:
        """Rank a trial last at all its rungs, as it has failed: its place goes to the next best."""
        for rung in self.rungs[: self._reached.get(trial, -1) + 1]:
            if trial in rung.rewards:
                rung.put_last(trial)

    def take(self, trial: int) -> None:
        """Promote a trial from the highest rung at which it was recorded, whatever its rank."""
        if trial in self._reached:
            self.rung_of(trial).take(trial)

    def is_due(self, trial: int, time: float) -> bool:
        """Whether a report at this time reaches a rung at which the trial was not recorded."""
        return self._highest(time) > self._reached.get(trial, -1)

    def rung_of(self, trial: int) -> Rung:
        """The highest rung at which the trial was recorded."""
        return self.rungs[self._reached[trial]]

    def places_at(self, rung: Rung) -> int:
        """How many of the trials at a rung have earned the next rung."""
        return math.floor(len(rung) / self.reduction_factor + 1e-9)

    def level_at(self, time: float) -> float:
        """The level of the highest rung that a report at this time reaches; 0 below the first."""
        index = self._highest(time)
        return self.levels[index] if index >= 0 else 0.0

    def levels_ahead(self, trial: int) -> tuple[float, ...]:
        """The levels above the highest rung at which the trial was recorded."""
        return self.levels[self._reached.get(trial, -1) + 1 :]

    def promotable(self) -> tuple[int, float] | None:
        """A trial that has earned its next rung, and that rung's level; from the highest rung down.

        The trial counts as promoted from then on.
        """
        for index in reversed(range(min(self.open, len(self.rungs)))):
            rung = self.rungs[index]
            trial = rung.take_best(self.places_at(rung))
            if trial is not None:
                return trial, self.next_level(index)
        return None

    def next_level(self, index: int) -> float:
        """The level above a rung; max_t above the highest."""
        return self.rungs[index + 1].level if index + 1 < len(self.rungs) else self.max_t

    def _highest(self, time: float) -> int:
        """The index of the highest rung at or below a time, -1 below the first."""
        return bisect_right(self.levels, time) - 1


def bracket_sizes(levels: int, reduction_factor: float) -> list[int]:
    """How many trials each bracket of Hyperband starts with, the most eager first.

    Bracket b makes `levels - b` comparisons (s in the paper): ceil((s_max + 1) / (s + 1) * eta^s).

    >>> bracket_sizes(4, 3)     # max_t=81, as in the paper's table 1
    [81, 34, 15, 8, 5]
    """
    return [
        math.ceil((levels + 1) / (s + 1) * reduction_factor**s - 1e-9)
        for s in range(levels, -1, -1)
    ]


class SynchronousBracket:
    """A bracket of the first paper: each rung is decided when all its trials are there.

    `index` says which of the scheduler's brackets it is, `size` how many trials it starts with,
    `rungs` how often the trials are compared.
    """

    def __init__(self, index: int, size: int, rungs: int, reduction_factor: float) -> None:
        self.index = index
        self.size = size
        self.rungs = rungs
        self.reduction_factor = reduction_factor
        self._level = 0
        self._joined = 0
        self._out: set[int] = set()  # trials on their way to the present rung
        self._there: list[tuple[float, int, int]] = []  # (-reward, number of arrival, trial)
        self._promoted: list[int] = []

    @property
    def has_room(self) -> bool:
        """Whether new trials may join."""
        return self._joined < self.size

    @property
    def is_over(self) -> bool:
        """Whether no trial of the bracket will be promoted any more."""
        return not (self.has_room or self._out or self._promoted)

    @property
    def there(self) -> int:
        """How many trials wait at the present rung for its decision."""
        return len(self._there)

    @property
    def awaited(self) -> int:
        """How many trials are still to come to the present rung, with those yet to join."""
        return self.size - self._joined + len(self._out)

    @property
    def promoted(self) -> Sequence[int]:
        """The trials that have earned the next rung and have not gone on yet, the best first."""
        return tuple(self._promoted)

    def join(self, trial: int) -> None:
        """Take in a new trial."""
        self._joined += 1
        self._out.add(trial)

    def reach(self, trial: int, reward: float | None) -> None:
        """Take note that a trial is at the present rung."""
        self._out.discard(trial)
        self._there.append((math.inf if reward is None else -reward, len(self._there), trial))
        self._decide()

    def leave(self, trial: int) -> None:
        """Take note that a trial has ended, and will come to no other rung."""
        self._out.discard(trial)
        self._decide()

    def close(self) -> None:
        """Take note that no more trials will join."""
        self.size = self._joined
        self._decide()

    def take_promoted(self) -> int | None:
        """Take a trial that may go on to the next rung; None if there is none."""
        return self._promoted.pop(0) if self._promoted else None

    def take(self, trial: int) -> bool:
        """Take this trial, if it may go on to the next rung; False if it may not."""
        if trial not in self._promoted:
            return False
        self._promoted.remove(trial)
        return True

    def _decide(self) -> None:
        """Promote the best once the rung is complete."""
        if self.has_room or self._out or self._promoted or not self._there:
            return
        places = math.floor(len(self._there) / self.reduction_factor + 1e-9)
        best = [trial for negative, _, trial in sorted(self._there) if negative < math.inf]
        self._there = []
        self._level += 1
        self._promoted = best[: max(places, 1)]
        self._out = set(self._promoted)
