"""PASHA: Hyperband by promotion which trains longer only while the ranking is still open.

Source: Bohdal et al., "PASHA: Efficient HPO and NAS with Progressive Resource Allocation", ICLR
(2023): algorithm 1, and section 4.2 on how the noise is measured.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..core.words import Decision, Report, Trial
from ..errors import OptionError
from .hyperband import HyperbandScheduler
from .rungs import WORST, Rungs


def same_ranking(upper: Mapping[int, float], lower: Mapping[int, float], epsilon: float) -> bool:
    """Whether the trials of a rung are ranked as they were one rung below, give or take `epsilon`.

    Soft ranking: at each place of the upper rung may stand the trial that had this place below, or
    any trial whose reward below differs from that trial's by `epsilon` at most.

    >>> same_ranking({1: 0.9, 2: 0.8}, {1: 0.70, 2: 0.71}, epsilon=0.02)
    True
    """
    above = sorted(upper, key=lambda trial: (-upper[trial], trial))
    below = sorted(upper, key=lambda trial: (-lower[trial], trial))
    return all(
        lower[one] == lower[other] or abs(lower[one] - lower[other]) <= epsilon
        for one, other in zip(above, below, strict=True)
    )


def noise_between(one: Mapping[float, float], other: Mapping[float, float]) -> float | None:
    """How far apart two trials are at their last common time, if their curves cross and cross back.

    Each curve is {time: reward}. Trials that change places at least twice cannot be told apart.
    """
    times = sorted(one.keys() & other.keys())
    signs = [one[time] > other[time] for time in times if one[time] != other[time]]
    crossings = sum(before != after for before, after in pairwise(signs))
    return abs(one[times[-1]] - other[times[-1]]) if crossings >= 2 else None


def percentile(ascending: Sequence[float], share: float) -> float:
    """The value below which `share` per cent of the values lie, interpolated; 0 without values."""
    if not ascending:
        return 0.0
    place = share / 100 * (len(ascending) - 1)
    low, high = ascending[math.floor(place)], ascending[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


class PASHAScheduler(HyperbandScheduler):
    """Hyperband by promotion whose trials train longer only if that may change who is best.

        scheduler = PASHAScheduler(train_fn, max_t=81, num_trials=200)

    At first no trial is promoted beyond the second rung. Whenever the trials of the highest open
    rung are ranked otherwise than they were at the rung below, the next rung is opened, up to
    `max_t`. Rewards that differ by no more than the noise count as equal; the noise is the
    `noise_percentile` of the differences between trials of that rung whose curves cross back and
    forth. Train the best configuration to the end with `run_with_config(get_best_config())`.

    Args (beside those of HyperbandScheduler, without `brackets` and `type`):
        noise_percentile: 0 to 100, 90 in the paper.

    Raises OptionError when `noise_percentile` is out of range, and what HyperbandScheduler raises.
    """

    def __init__(self, *args: Any, noise_percentile: float = 90, **options: Any) -> None:
        if not 0 <= noise_percentile <= 100:
            raise OptionError(f"noise_percentile={noise_percentile!r}, but it is from 0 to 100")
        for name in {"type", "brackets"} & options.keys():
            raise OptionError(f"{name}= is not for PASHA, which promotes in one bracket")
        self.noise_percentile = noise_percentile
        self._curves: dict[int, dict[float, float]] = {}
        self._noise: list[float] = []  # differences within pairs of the highest open rung, sorted
        self._compared: list[int] = []  # the trials that make up these pairs
        super().__init__(*args, type="promotion", brackets=1, **options)

    def _make_rungs(self, levels: Sequence[float]) -> Rungs:
        rungs = super()._make_rungs(levels)
        rungs.open = min(1, len(levels))
        return rungs

    @property
    def rule_settings(self) -> dict[str, Any]:
        """The settings of Hyperband, and the percentile of the noise."""
        return {**super().rule_settings, "noise_percentile": self.noise_percentile}

    @property
    def epsilon(self) -> float:
        """Rewards that differ by so much at most count as equal."""
        return percentile(self._noise, self.noise_percentile)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """Pause at rungs, as Hyperband by promotion; open the next rung if the ranking changed."""
        if report.reward is not None:
            self._curves.setdefault(trial.id, {})[report.time] = report.reward
        return super().on_report(trial, report)

    def _why_paused(self, report: Report, rungs: Rungs) -> str:
        """Why a trial pauses; at the highest open rung, as no trial goes beyond it yet."""
        if rungs.open < len(rungs.levels):
            highest = rungs.levels[rungs.open]
            if rungs.rung_of(report.trial).level >= highest:
                return (
                    f"{self._standing(report, rungs)}; the highest open rung is that of "
                    f"{self.wording.time(highest, report)}, until its ranking changes"
                )
        return super()._why_paused(report, rungs)

    def _promotable(self) -> list[int]:
        while self._ranking_is_open():
            self.brackets[0].open += 1
            self._noise, self._compared = [], []
        return super()._promotable()

    def _ranking_is_open(self) -> bool:
        """Whether the highest open rung ranks its trials otherwise than the rung below."""
        rungs = self.brackets[0]
        if not 1 <= rungs.open < len(rungs.rungs):
            return False
        upper, lower = (rungs.rungs[index].rewards for index in (rungs.open, rungs.open - 1))
        if len(upper) == len(self._compared):
            return False  # nothing has changed
        for trial in list(upper)[len(self._compared) :]:
            self._compare(trial)
        # (A trial that jumped over the rung below has no place there; a trial that failed, and then
        # ran again for its children, has lost its place.)
        both = {t: reward for t, reward in upper.items() if lower.get(t, WORST) > WORST}
        return not same_ranking(both, lower, self.epsilon)

    def _compare(self, trial: int) -> None:
        for other in self._compared:
            noise = noise_between(self._curves.get(trial, {}), self._curves.get(other, {}))
            if noise is not None:
                insort(self._noise, noise)
        self._compared.append(trial)
