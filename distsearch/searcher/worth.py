"""Comparable scores for trials that trained for different times."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .mfgp import normal_scores
from .places import Array

Rewards = Mapping[float, float]  # rewards by the time that a trial had trained; larger is better
TAIL = 2.0
FEW = 3  # with fewer trials at two times, the line between them is their mean gain


@dataclass(frozen=True)
class Scale:
    """How the rewards of trials become scores, as some results have shown.

        scale = Scale.of({0: {1: 0.3, math.inf: 0.8}, 1: {1: 0.2}}, {})
        scale.score({1: 0.25})

    A trial counts with its reward at the longest time that it has trained. From it the reward at
    the longest time of all is predicted: by a straight line from each time to the next, fitted to
    the trials that came to both. `score` ranks trials by these predictions and gives the values
    that a normal sample has at these ranks, so that the scale of rewards does not matter.
    `standard` gives their distances from the mean, in standard deviations, but no trial is further
    below the median than TAIL times the distance of the best above it.

    A trial that violates constraints is below all that do not; the further, the more it does.
    """

    times: tuple[float, ...]
    lines: tuple[tuple[float, float], ...]  # slope and start, from each time to the next
    lowest: float  # the lowest prediction for a trial that violates nothing
    values: Array  # all predictions, in order, each once
    scores: Array  # the scores of these values
    floor: float = -math.inf  # in `standard` no value counts as less
    middle: float = 0.0  # where `standard` is 0
    deviation: float = 1.0

    @classmethod
    def of(cls, rewards: Mapping[int, Rewards], violations: Mapping[int, float]) -> Scale:
        """The scale that results show; `violations`: by how much trials violate constraints."""
        works = {trial: one for trial, one in rewards.items() if _last(one) > -math.inf}
        times = tuple(sorted({time for one in works.values() for time in one}))
        lines = tuple(
            _line([(one[a], one[b]) for one in works.values() if _works_at(one, a, b)])
            for a, b in itertools.pairwise(times)
        )
        scale = cls(times, lines, 0.0, np.array([0.0]), np.array([0.0]))
        feasible = [scale.expected(one) for t, one in works.items() if not violations.get(t)]
        lowest = min(feasible, default=0.0)
        values = [*feasible, *(_below(lowest, violations[t]) for t in works if violations.get(t))]
        if not values:
            return scale
        every = np.array(values)
        scores = normal_scores(every)
        ordered, first = np.unique(every, return_index=True)
        return cls(times, lines, lowest, ordered, scores[first], *_spread(every))

    def expected(self, rewards: Rewards) -> float:
        """The predicted reward of a trial at the longest time; -inf if it failed."""
        known = [time for time in rewards if time in self.times or not self.times]
        if _last(rewards) == -math.inf:
            return -math.inf
        if not known:  # a new time counts as the next longer one that is known
            time = max(rewards)
            value, place = rewards[time], int(np.searchsorted(self.times, time))
        else:
            time = max(known)
            value = rewards[time]
            place = self.times.index(time) if self.times else 0
        for slope, start in self.lines[place:]:
            value = slope * value + start
        return value

    def score(self, rewards: Rewards, violation: float = 0.0) -> float:
        """The score of a trial by its rank; -inf if it failed."""
        value = self._value(rewards, violation)
        if value == -math.inf:
            return value
        return float(np.interp(value, self.values, self.scores))

    def standard(self, rewards: Rewards, violation: float = 0.0) -> float:
        """The score of a trial by its distance from the mean; -inf if it failed."""
        value = self._value(rewards, violation)
        if value == -math.inf:
            return value
        return (max(value, self.floor) - self.middle) / self.deviation

    def _value(self, rewards: Rewards, violation: float) -> float:
        value = self.expected(rewards)
        if value > -math.inf and violation > 0:
            return _below(self.lowest, violation)
        return value


def _spread(values: Array) -> tuple[float, float, float]:
    """The floor of values, and their mean and standard deviation above it (0, 1 if too large)."""
    middle = float(np.median(values))
    with np.errstate(over="ignore", invalid="ignore"):
        floor = middle - TAIL * (float(values.max()) - middle)
        above = np.maximum(values, floor)
        mean, deviation = float(above.mean()), float(above.std())
    if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
        return middle, middle, 1.0
    return floor, mean, deviation


def _last(rewards: Rewards) -> float:
    return rewards[max(rewards)] if rewards else -math.inf


def _works_at(rewards: Rewards, *times: float) -> bool:
    return all(rewards.get(time, -math.inf) > -math.inf for time in times)


def _below(lowest: float, violation: float) -> float:
    """A value below the lowest, the more so the larger the violation."""
    return lowest - (1 + abs(lowest)) * (1 + violation / (1 + violation))


def _line(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The straight line through pairs of rewards, by least squares; it never falls."""
    if not pairs:
        return 1.0, 0.0
    before, after = np.array(pairs).T
    centre = before - before.mean()
    with np.errstate(over="ignore"):
        spread = float(centre @ centre)
    slope = 1.0
    if len(pairs) >= FEW and spread > 0 and math.isfinite(spread):
        slope = max(0.0, float(centre @ (after - after.mean())) / spread)
    return slope, float(after.mean() - slope * before.mean())
