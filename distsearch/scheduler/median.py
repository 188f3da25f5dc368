"""Median stopping: a trial ends when half of its peers have done better on average.

Source: Golovin et al., "Google Vizier", KDD (2017), section 3.2.2.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from typing import Any

from ..core.metrics import number
from ..core.words import Continue, Decision, Report, Stop, Trial
from ..errors import OptionError
from .base import Scheduler
from .options import is_whole


class Averages:
    """The running averages of all trials at each time, sorted; pure, so that it can be replayed.

        averages = Averages()
        averages.add(trial=3, time=1, reward=0.5)
        averages.median(1)                          # (0.5, 1): of one trial

    A time is a whole number of `time_attr`: a report at epoch 2.5 belongs to 2. The value of a
    trial at a time is the average of its rewards up to then, if it has come so far: a trial that
    reports at epochs 2 and 4 has at epoch 3 its average of epoch 2. Rewards that are no number are
    left out.
    """

    def __init__(self) -> None:
        self._at: dict[int, list[float]] = {}
        self._times: list[int] = []  # the keys of _at, sorted
        self._sums: dict[int, tuple[float, int]] = {}
        # The times and averages of each trial.
        self._curves: dict[int, tuple[list[int], list[float]]] = {}

    def median(self, time: int) -> tuple[float, int]:
        """The median at a time, and the number of trials with a value there; NaN, 0 if none has."""
        values = self._at.get(time) or self._others_at(time)
        middle = len(values) // 2
        if not values:
            return math.nan, 0
        if len(values) % 2:
            return values[middle], len(values)
        return (values[middle - 1] + values[middle]) / 2, len(values)

    def add(self, trial: int, time: int, reward: float | None) -> None:
        """Take in the first report of a trial at a time."""
        times, averages = self._curves.setdefault(trial, ([], []))
        if time not in self._at:
            insort(self._times, time)
            self._at[time] = self._others_at(time)
        if averages:  # at times without a report the average stays what it was
            passed = slice(bisect_right(self._times, times[-1]), bisect_right(self._times, time))
            for between in self._times[passed]:
                if between != time:
                    insort(self._at[between], averages[-1])
        if reward is not None and math.isfinite(reward):
            total, count = self._sums.get(trial, (0.0, 0))
            self._sums[trial] = total + reward, count + 1
        total, count = self._sums.get(trial, (0.0, 0))
        if count:
            times.append(time)
            averages.append(total / count)
            insort(self._at[time], averages[-1])

    def _others_at(self, time: int) -> list[float]:
        """The averages, at a time without any report yet, of the trials that came further."""
        found = []
        for times, averages in self._curves.values():
            if times and times[0] <= time <= times[-1]:
                found.append(averages[bisect_right(times, time) - 1])
        return sorted(found)


class MedianStoppingScheduler(Scheduler):
    """Stops a trial whose best reward so far is below the median of the others' averages.

        scheduler = MedianStoppingScheduler(train_fn, grace_period=5, num_trials=100)

    At each whole `time_attr` (epoch) t the best reward that the trial has had is compared with the
    median, over the other trials that came as far as t, of the averages of their rewards up to t.
    Reports may come at any epochs. A trial that has reported no number yet is the worst.

    Args (beside those of FIFOScheduler):
        grace_period: no trial is judged before this time.
        min_samples: no trial is judged while fewer other trials came as far.

    Raises OptionError when one of these is out of range.
    """

    ranks_by_reward = True

    def __init__(
        self, *args: Any, grace_period: float = 1, min_samples: int = 3, **options: Any
    ) -> None:
        if number(grace_period) is None or not grace_period >= 0:
            raise OptionError(f"grace_period={grace_period!r}, but it is a number from 0 on")
        if not is_whole(min_samples) or not min_samples >= 1:
            raise OptionError(f"min_samples={min_samples!r}, but it is an integer from 1 on")
        self.grace_period, self.min_samples = grace_period, min_samples
        self._averages = Averages()
        self._judged: dict[int, int] = {}  # trial -> the last time at which it was judged
        self._best_of: dict[int, float] = {}
        super().__init__(*args, **options)

    @property
    def rule_settings(self) -> dict[str, Any]:
        """From which time on, and against how many other trials, a trial is judged."""
        return {"grace_period": self.grace_period, "min_samples": self.min_samples}

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """Stop a trial below the median of the trials that came as far."""
        if not math.isfinite(report.time):
            return Continue()
        if report.reward is not None:
            before = self._best_of.get(trial.id, -math.inf)
            self._best_of[trial.id] = max(before, report.reward)
        time = math.floor(report.time)
        if time <= self._judged.get(trial.id, -math.inf):
            return Continue()
        self._judged[trial.id] = time
        median, samples = self._averages.median(time)
        self._averages.add(trial.id, time, report.reward)
        if report.time < self.grace_period or samples < self.min_samples:
            return Continue()
        is_behind = self._best_of.get(trial.id, -math.inf) < median
        return Stop(self._why(report, median, samples)) if is_behind else Continue()

    def _why(self, report: Report, median: float, samples: int) -> str:
        """What the trial has reached, and what the other trials have."""
        say, best = self.wording, self._best_of.get(report.trial)
        others = f"the median {say.value(median, beside=best)} of {samples} others' averages"
        at = f"at {say.time(report.time, report)}"
        if best is None:
            return f"{at} no {say.name} of it counts yet, against {others}"
        return f"{at} its best {say.reward(best)} is worse than {others}"
