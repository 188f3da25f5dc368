"""Says once what looks wrong with reports, which users would else see at the end of a search."""

from __future__ import annotations

from collections.abc import Callable

from .metrics import number
from .objectives import Objectives, own_names
from .words import Report, Trial


class Doubts:
    """Looks whether reports have the metrics that the search was told to look for.

    doubts = Doubts(objectives, "epoch", say=print)
    doubts.look_for_reward(trial, report)       # for each report
    doubts.look_for_time(trial, report)         # for each report on which the rule decides
    """

    def __init__(
        self, objectives: Objectives, time_attr: str, *, say: Callable[[str], None]
    ) -> None:
        self._objectives = objectives
        self._time_attr = time_attr
        self._say = say
        self._has_said_reward = False
        self._has_said_time = False

    def look_for_reward(self, trial: Trial, report: Report) -> None:
        """Warn if a trial's first report lacks the reward, which may have another name there."""
        if self._has_said_reward or trial.has_result or self._objectives.are_in(report.metrics):
            return
        self._has_said_reward = True
        self._say(f"warning: trial {trial.id}: {self._objectives.missing_in(1, report.metrics)}")

    def look_for_time(self, trial: Trial, report: Report) -> None:
        """Warn if a report on which the rule decides does not tell the time."""
        name = self._time_attr
        if self._has_said_time or number(report.metrics.get(name)) is not None:
            return
        self._has_said_time = True
        told = f"{name} was no number" if name in report.metrics else f"had no time_attr={name!r}"
        self._say(
            f"warning: trial {trial.id}: a report {told}, by which trials are compared: reports "
            f"are counted in its place (it had {own_names(report.metrics)})"
        )
