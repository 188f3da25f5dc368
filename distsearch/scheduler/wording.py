"""How rules give reasons: rewards and times by the user's own names, in the user's own sign."""

from __future__ import annotations

from ..core.metrics import number
from ..core.objectives import Objectives
from ..core.words import Report


class Wording:
    """Puts the numbers of one search into words.

        wording = Wording(Objectives.parse("loss", "min"), "epoch")
        wording.reward(-0.31)          # 'loss=0.31'
        wording.time(4, report)        # 'epoch 4'

    Rewards are given as rules know them: larger is better.
    """

    def __init__(self, objectives: Objectives, time_attr: str) -> None:
        self._objectives = objectives
        self.name = objectives.names[0]
        self._sign = -1.0 if objectives.modes[0] == "min" else 1.0
        self._time_attr = time_attr

    def reward(self, reward: float) -> str:
        """A reward as the user reported it, with the name of the metric."""
        return f"{self.name}={self.value(reward)}"

    def value(self, reward: float, beside: float | None = None) -> str:
        """A reward to six digits; to all its digits if it would look like the one `beside` it."""
        text = f"{reward * self._sign:.6g}"
        looks_alike = beside is not None and text == f"{beside * self._sign:.6g}"
        return repr(reward * self._sign) if looks_alike and reward != beside else text

    def rival(self, trial: int, reward: float, own: float) -> str:
        """A trial that has done better than the one in question, whose reward is `own`."""
        if reward == own:
            return f"trial {trial} with the same, which came first"
        return f"trial {trial} with {self.value(reward, beside=own)}"

    def time(self, time: float, report: Report) -> str:
        """A time: 'epoch 4', or 'report 4' where the report does not say its epoch."""
        is_said = number(report.metrics.get(self._time_attr)) is not None
        return f"{self._time_attr if is_said else 'report'} {time:.15g}"

    def result(self, report: Report) -> str:
        """The reward of a report; where it has none, why."""
        if report.reward is not None:
            return f"with {self.reward(report.reward)}"
        value = report.metrics.get(self.name)
        if value is None:
            return f"without {self.name}"
        if (known := number(value)) is None:
            return f"with {self.name}={value!r:.40} (no number)"
        return f"with {self.name}={known:.6g} (violates {self._violated(report)})"

    def _violated(self, report: Report) -> str:
        """The constraints that a report violates."""
        found = [
            (one, number(report.metrics.get(one.metric))) for one in self._objectives.constraints
        ]
        return " and ".join(str(one) for one, x in found if x is not None and one.violation(x) > 0)


def limit(max_t: float) -> str:
    """Why a trial that goes on beyond `max_t` is stopped."""
    return f"max_t={max_t:.15g} is reached"
