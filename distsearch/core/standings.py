"""What the reports of a search amount to: rewards, the best trial, the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .metrics import number
from .objectives import Objectives, front
from .words import Report, Trial


class Standings:
    """Keeps the best trial, or with several objectives the front.

    standings = Standings(Objectives.parse("accuracy", "max"), "epoch")
    report = standings.report(trial, 1, {"epoch": 1, "accuracy": 0.9})
    standings.count(trial, report)
    standings.best, standings.front(open_trials)
    """

    def __init__(self, objectives: Objectives, time_attr: str) -> None:
        self.best: Trial | None = None  # of equally good trials the one with the lowest id
        # 1 where larger rewards are better, else -1
        self.sign = -1.0 if objectives.modes[0] == "min" else 1.0
        self.objectives = objectives
        self._reward_attr = objectives.names[0]
        self._time_attr = time_attr
        self._is_plain = objectives.is_plain
        self._ended: list[Trial] = []  # the trials that have ended, where there may be a front
        # A list of ended trials, how many of them were looked at, and the front of these.
        self._front_of_ended: tuple[list[Trial], int, list[Trial]] = self._ended, 0, []

    def report(self, trial: Trial, sequence: int, metrics: Mapping[str, Any]) -> Report:
        """A report of a trial, as searchers and rules hear it."""
        reward = number(metrics.get(self._reward_attr))
        if reward is not None:
            reward *= self.sign
        if not (self._is_plain or self.objectives.can_rank(metrics)):
            reward = None
        at = number(metrics.get(self._time_attr))
        return Report(trial.id, sequence, metrics, reward, float(sequence) if at is None else at)

    def count(self, trial: Trial, report: Report) -> None:
        """Take note of a report, and of what is best now."""
        if not self._is_plain:
            trial.count(report, None)
            self._count_point(trial, report)
        elif report.reward is None or not self._improves(report.reward, trial):
            trial.count(report, None)
        else:
            trial.count(report, self.sign * report.reward)
            self._note_best(trial)

    def ended(self, trial: Trial) -> None:
        """Take note that a trial will report no more."""
        if self.objectives.several:
            self._ended.append(trial)

    def reopened(self, trial: Trial) -> None:
        """Take note that a trial that had ended may report again."""
        if self.objectives.several:  # whom it dominated may come forward again
            self._ended = [one for one in self._ended if one is not trial]

    def front(self, unended: Iterable[Trial]) -> list[Trial]:
        """The trials that no other dominates so far; `unended`: the trials that may still report.

        They are feasible, have not failed, and come by the first objective, the best first.
        """
        # Several threads may ask: they replace the tuple as a whole.
        ended, (of, seen, members) = self._ended, self._front_of_ended
        if of is not ended:
            seen, members = 0, []
        if new := ended[seen:]:
            members = front_among([*members, *new])
            self._front_of_ended = ended, seen + len(new), members
        return front_among([*members, *unended])

    def has_reached(self, goal: float) -> bool:
        """Whether the best reward is at least as good as this one."""
        best = self.best
        if best is None or best.best_reward is None:
            return False
        return self.sign * best.best_reward >= self.sign * goal

    def _count_point(self, trial: Trial, report: Report) -> None:
        point = self.objectives.point(report.metrics)
        if point is None or not self.objectives.counts_instead(point, trial.point):
            return
        trial.point, trial.best_time = point, report.time
        if not self.objectives.several:
            trial.best_reward = point.values[0]
            if point.is_feasible:
                self._note_best(trial)

    def _improves(self, reward: float, trial: Trial) -> bool:
        return trial.best_reward is None or reward > self.sign * trial.best_reward

    def _note_best(self, trial: Trial) -> None:
        if trial.best_reward is None or trial.is_final:
            return
        if self.best is None or self.is_better(trial, self.best):
            self.best = trial

    def is_better(self, trial: Trial, best: Trial) -> bool:
        """Whether a trial is better than the best; of equally good trials the earlier one is."""
        if trial.best_reward is None or best.best_reward is None or trial.is_final:
            return False
        if trial.point is not None and not trial.point.is_feasible:
            return False
        mine, its = self.sign * trial.best_reward, self.sign * best.best_reward
        return (mine, -trial.id) > (its, -best.id)


def front_among(trials: Iterable[Trial]) -> list[Trial]:
    """The trials, among these, that no other of them dominates."""
    candidates = {
        trial.id: trial
        for trial in trials
        if trial.point is not None
        and trial.point.is_feasible
        and not (trial.is_final or trial.status.is_failure)
    }
    rewards = {n: trial.point.rewards for n, trial in candidates.items() if trial.point is not None}
    return [candidates[trial_id] for trial_id in front(rewards)]
