"""Hyperband: give every configuration a little, and the best of them more.

Sources: Li et al., "Hyperband", JMLR 18 (2018); Li et al., "A System for Massively Parallel
Hyperparameter Tuning", MLSys (2020), of which `promotion` is algorithm 2 (ASHA).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.decorators import TrainFunction
from ..core.metrics import number
from ..core.words import Continue, Decision, Launch, Pause, Report, Stop, Trial, Wait
from ..errors import OptionError, StoreError
from .base import Scheduler
from .options import is_whole, refuse_misspelt
from .rungs import WORST, Rung, Rungs, SynchronousBracket, bracket_sizes, geometric_levels
from .wording import limit

TYPES = ("stopping", "promotion", "synchronous")
GRACE_SHARE = 0.05  # the first rung, unless it is given, as a share of max_t


class HyperbandScheduler(Scheduler):
    """Stops, or pauses, trials that are not among the best at a few set times (rungs).

        scheduler = HyperbandScheduler(train_fn, max_t=81)  # rungs at 4, 12, 36
        print(scheduler.plan(num_trials=200))
        scheduler.run(num_trials=200)
        scheduler.join_jobs()

    A trial is compared when it reports `time_attr` (epochs) at or above grace_period,
    grace_period * reduction_factor, ... below max_t. Reports may come at any epochs: one at epoch 4
    counts for the rung at 3.

    Args (beside those of FIFOScheduler):
        max_t: how long a trial trains at most, in units of `time_attr`; None takes `max_t` or
            `epochs` of the train function's arguments. A trial that goes on longer is stopped.
        grace_period: the first rung: no trial is judged before. None: 5% of max_t, rounded, at
            least 1; with several brackets 1, as in the first paper. (On half of 8 tasks of LCBench
            the first of 52 epochs misled; first rungs at 4% to 10% of max_t found good trials on
            all of them, see benchmarks/README.md. Where early reports can be trusted, 1 is
            cheaper.)
        reduction_factor: only the best 1/reduction_factor of a rung go on.
        rung_levels: the rungs themselves, in place of grace_period and reduction_factor.
        brackets: how many variants of the rungs share the trials; the second variant leaves out
            the first rung, the third the first two, and so on. More brackets guard against early
            reports that mislead.
        type: 'stopping': a trial is judged when it arrives at a rung, against the trials that came
            before; it ends if it is not among the best, and goes on if it is as good as the last of
            them. 'promotion': every trial pauses at its rung, and goes on when it is among the
            best; on any node, from what it saved with `reporter.save` before it reported (or from
            the start, if it saved nothing). In both, a trial that fails leaves its place among the
            best to the next one. 'synchronous', as in the first paper: a rung is decided once all
            its trials are there.

    Raises OptionError for settings that make no sense, and when no max_t can be found.
    """

    ranks_by_reward = True

    def __init__(
        self,
        train_fn: TrainFunction,
        args: Mapping[str, Any] | Any | None = None,
        *more: Any,
        max_t: float | None = None,
        grace_period: float | None = None,
        reduction_factor: float = 3,
        rung_levels: Iterable[float] | None = None,
        brackets: int = 1,
        type: str = "stopping",
        **options: Any,
    ) -> None:
        refuse_misspelt(self.__class__, options)  # before max_t is reported as missing
        if type == "pasha":
            raise OptionError("type='pasha'; what AutoGluon calls so is PASHAScheduler(...)")
        if type not in TYPES:
            raise OptionError(f"type={type!r}, but it is one of {', '.join(map(repr, TYPES))}")
        self.type = type
        self.max_t = max_t_of(train_fn, args, max_t)
        self.reduction_factor = reduction_factor
        if grace_period is None:
            grace_period = default_grace(self.max_t, brackets)
        if rung_levels is None:
            levels = geometric_levels(grace_period, reduction_factor, self.max_t)
        elif isinstance(rung_levels, Iterable):
            levels = tuple(rung_levels)
        else:
            raise OptionError(
                f"rung_levels={rung_levels!r}; give a list of times, such as [1, 3, 9]"
            )
        if not is_whole(brackets) or not 1 <= brackets <= len(levels) + 1:
            raise OptionError(
                f"brackets={brackets!r}, but with the rungs {list(levels)} there can be 1 to "
                f"{len(levels) + 1}"
            )
        self.sizes = bracket_sizes(len(levels), reduction_factor)[:brackets]
        self.brackets = [self._make_rungs(levels[n:]) for n in range(brackets)]
        self._bracket_of: dict[int, Rungs] = {}
        self._promoted: deque[int] = deque()
        self._opened: list[SynchronousBracket] = []
        self._open: list[SynchronousBracket] = []  # the brackets that are not over
        self._synchronous_of: dict[int, SynchronousBracket] = {}
        super().__init__(train_fn, args, *more, **options)

    def _make_rungs(self, levels: Sequence[float]) -> Rungs:
        return Rungs(levels, reduction_factor=self.reduction_factor, max_t=self.max_t)

    @property
    def rule_settings(self) -> dict[str, Any]:
        """The rungs of each bracket."""
        return {
            "type": self.type,
            "max_t": self.max_t,
            "reduction_factor": self.reduction_factor,
            "rungs": [[rung.level for rung in rungs.rungs] for rungs in self.brackets],
        }

    # The rule

    def next_launch(self) -> Launch | Wait | None:
        """A new trial; when synchronous, into the first bracket that has room."""
        launch = super().next_launch()
        if self.type != "synchronous" or not isinstance(launch, Launch):
            return launch
        bracket = next((b for b in self._open if b.has_room), None) or self._open_bracket()
        self._join(len(self.ledger.trials), bracket)
        return replace(launch, bracket=self._opened.index(bracket))

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """When a search is resumed: a new trial joins the bracket that it joined then."""
        super().replay_launch(trial_id, config, given, told)
        if self.type != "synchronous" or given:
            return
        number = self.ledger.trials[trial_id].bracket
        if number is None:
            raise StoreError("this search was begun by a version that did not log its brackets")
        if number == len(self._opened):  # (all brackets before were full then, or closed)
            for one in self._open:
                one.close()
            self._open_bracket()
        self._join(trial_id, self._opened[number])

    def next_resume(self) -> int | None:
        """The paused trial that has earned its next rung, from the highest rung first."""
        if self.type == "synchronous":
            return self._next_of_synchronous()
        return self._promoted.popleft() if self._promoted else None

    def replay_resume(self, trial_id: int) -> None:
        """When a search is resumed: this trial went on then, and is not to be resumed again."""
        bracket = self._synchronous_of.get(trial_id)
        if bracket is None:
            if trial_id in self._promoted:
                self._promoted.remove(trial_id)
        elif not bracket.take(trial_id):  # the bracket was closed, as no more trials were to come
            for one in self._open:
                one.close()
            bracket.take(trial_id)

    def due_at(self, trial: Trial) -> Sequence[float]:
        """The rungs that the trial has not reached, and anything beyond max_t."""
        levels = self._rungs_of(trial.id).levels_ahead(trial.id)
        return [*levels, math.nextafter(self.max_t, math.inf)]

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """At a rung, is the trial among the best? Beyond max_t it has trained enough."""
        if report.time >= self.max_t:  # (at max_t it may still do what follows its last epoch)
            self.desk.observe(trial, report.reward, math.inf)
            return Continue() if report.time == self.max_t else Stop(limit(self.max_t))
        rungs = self._rungs_of(trial.id)
        if not rungs.is_due(trial.id, report.time):
            return Continue()
        self.desk.observe(trial, report.reward, rungs.level_at(report.time))
        among_best = rungs.reach(trial.id, report.time, report.reward)
        if self.type == "stopping":
            return Continue() if among_best else Stop(self._why_stopped(report, rungs))
        if self.type == "synchronous":
            bracket = self._synchronous_of.get(trial.id)
            if bracket is None:  # a trial of add_job is in no bracket
                return Continue()
            bracket.reach(trial.id, report.reward)
            return Pause(self._why_in_bracket(report, rungs, bracket))
        # As a free slot would: promote a trial, which may be this one, or else start a new one.
        earned = self._promotable()
        goes_on = earned[:1] == [trial.id]
        self._promoted.extend(earned[1:] if goes_on else earned)
        return Continue() if goes_on else Pause(self._why_paused(report, rungs))

    def on_end(self, trial: Trial) -> None:
        """A trial that has ended is waited for at no rung; if it failed, it is no rival, either."""
        super().on_end(trial)
        bracket = self._synchronous_of.get(trial.id)
        if bracket is not None:
            bracket.leave(trial.id)
        elif trial.status.is_failure:
            self._rungs_of(trial.id).fail(trial.id)
            if self.type == "promotion":
                self._promoted.extend(self._promotable())

    def on_let_go(self, trial: Trial) -> None:
        """Promote a trial that goes on by request (as none does in a synchronous bracket)."""
        if trial.id in self._promoted:
            self._promoted.remove(trial.id)
        self._rungs_of(trial.id).take(trial.id)

    @property
    def paused_may_go_on(self) -> bool:
        """Whether a paused trial may go on: not by 'synchronous', which decides rungs for good."""
        return self.type != "synchronous"

    def _promotable(self) -> list[int]:
        """The trials that earned their next rung by the last report: hardly ever several."""
        return [found[0] for rungs in self.brackets for found in iter(rungs.promotable, None)]

    def _rungs_of(self, trial_id: int) -> Rungs:
        """The bracket of a trial: drawn in proportion to the brackets' sizes in Hyperband."""
        if trial_id not in self._bracket_of:
            index = 0
            if trial_id in self._synchronous_of:
                index = self._synchronous_of[trial_id].index
            elif len(self.brackets) > 1:
                rng = np.random.default_rng((self.seed, trial_id, len(self.brackets)))
                weights = np.array(self.sizes, dtype=float)
                index = int(rng.choice(len(self.brackets), p=weights / weights.sum()))
            self._bracket_of[trial_id] = self.brackets[index]
        return self._bracket_of[trial_id]

    # Why a trial does not go on

    def _why_stopped(self, report: Report, rungs: Rungs) -> str:
        """Where a trial stands at its rung, and whom it would have to surpass."""
        standing, rung = self._standing(report, rungs), rungs.rung_of(report.trial)
        if rung.rewards[report.trial] == WORST:
            return standing
        return f"{standing}; {self._needed(report.trial, rung, max(1, rungs.places_at(rung)))}"

    def _why_paused(self, report: Report, rungs: Rungs) -> str:
        """Where a trial stands at its rung, and what it waits for."""
        standing, rung = self._standing(report, rungs), rungs.rung_of(report.trial)
        places = rungs.places_at(rung)
        if rung.rewards[report.trial] == WORST:
            return f"{standing}; such a trial is not promoted"
        if not places:
            enough = math.ceil(self.reduction_factor - 1e-9)
            return f"{standing}; it waits, as nobody goes on before {enough} are there"
        if rung.rank_of(report.trial) <= places:  # another trial comes first
            return f"{standing}; it goes on when a slot is free"
        return f"{standing}; it waits, as {self._needed(report.trial, rung, places)}"

    def _why_in_bracket(self, report: Report, rungs: Rungs, bracket: SynchronousBracket) -> str:
        """How many trials the bracket still waits for, which has just heard of this one."""
        at, result = self._rung(report, rungs), self.wording.result(report)
        if bracket.there:
            here = f"{bracket.there} of {bracket.there + bracket.awaited} trials"
            return f"at {at} {result} until its bracket is complete: {here} are there"
        best = bracket.promoted
        own = rungs.rung_of(report.trial).rewards[report.trial]
        standing = f"its bracket is complete at {at}; {result} it"
        if report.trial in best:
            return f"{standing} goes on when a slot is free"
        if own == WORST:
            return f"{standing} does not go on"
        last = self.wording.rival(best[-1], rungs.rung_of(best[-1]).rewards[best[-1]], own)
        return f"{standing} does not go on, as that takes rank {len(best)}, held by {last}"

    def _standing(self, report: Report, rungs: Rungs) -> str:
        """The rank of a trial at its rung, and its reward."""
        rung = rungs.rung_of(report.trial)
        rank = f"rank {rung.rank_of(report.trial)} of {len(rung)}"
        return f"{rank} at {self._rung(report, rungs)} {self.wording.result(report)}"

    def _rung(self, report: Report, rungs: Rungs) -> str:
        time = self.wording.time(rungs.rung_of(report.trial).level, report)
        bracket = f" in bracket {self.brackets.index(rungs)}" if len(self.brackets) > 1 else ""
        return f"the rung of {time}{bracket}"

    def _needed(self, trial: int, rung: Rung, rank: int) -> str:
        """Which rank a trial would need at its rung, and which trial has that rank."""
        holder = rung.holder_of(rank)
        rival = self.wording.rival(holder, rung.rewards[holder], rung.rewards[trial])
        return f"going on takes rank {rank}, held by {rival}"

    # Synchronous brackets

    def _open_bracket(self) -> SynchronousBracket:
        index = len(self._opened) % len(self.brackets)
        levels = self.brackets[index].levels
        bracket = SynchronousBracket(index, self.sizes[index], len(levels), self.reduction_factor)
        self._opened.append(bracket)
        self._open.append(bracket)
        return bracket

    def _join(self, trial_id: int, bracket: SynchronousBracket) -> None:
        bracket.join(trial_id)
        self._synchronous_of[trial_id] = bracket

    def _next_of_synchronous(self) -> int | None:
        if not self.experiment.is_searching:  # no more trials will join
            for bracket in self._open:
                bracket.close()
        self._open = [bracket for bracket in self._open if not bracket.is_over]
        for bracket in self._open:
            trial_id = bracket.take_promoted()
            if trial_id is not None:
                return trial_id
        return None

    # The plan

    def plan(self, num_trials: int | None = None, seconds_per_epoch: float | None = None) -> str:
        """What the search will do, as text: its brackets, rungs, trials and epochs.

            print(scheduler.plan(num_trials=200, seconds_per_epoch=12))

        `seconds_per_epoch`: how long a trial takes for one unit of `time_attr`; the text then says
        how long the search takes, too.
        """
        count = self.num_trials if num_trials is None else num_trials
        count = sum(self.sizes) if count is None else count
        slots = max(1, self.manager.room_for(self.experiment.settings.resource))
        rungs = ", ".join(f"{level:g}" for level in self.brackets[0].levels) or "none"
        lines = [
            f"{type(self).__name__} type={self.type!r}, max_t={self.max_t:g}, rungs at {rungs}, "
            f"reduction_factor={self.reduction_factor:g}, {count} trials on {slots} slots"
        ]
        total = 0.0
        for index, bracket in enumerate(self.brackets):
            share = count * self.sizes[index] / sum(self.sizes)
            lines.append(f"bracket {index}: about {share:.0f} trials")
            before, trials = 0.0, share
            for level in (*bracket.levels, self.max_t):
                epochs = trials * (level - before)
                total += epochs
                lines.append(
                    f"    up to {level:>6g}: about {trials:8.1f} trials, {epochs:8.0f} epochs"
                )
                before, trials = level, trials / self.reduction_factor
        full = count * self.max_t
        lines.append(
            f"in all about {total:.0f} epochs ({full / max(total, 1e-9):.1f} times fewer than "
            f"{full:g} of full training), {total / slots:.0f} one after another"
        )
        if seconds_per_epoch is not None:
            seconds = total / slots * seconds_per_epoch
            lines.append(f"at {seconds_per_epoch:g} s an epoch: about {_duration(seconds)}")
        return "\n".join(lines)


def default_grace(max_t: float, brackets: int) -> float:
    """The first rung when none is given.

    >>> default_grace(81, brackets=1), default_grace(9, brackets=1), default_grace(81, brackets=5)
    (4, 1, 1)
    """
    return max(1, round(GRACE_SHARE * max_t)) if brackets == 1 else 1


def max_t_of(train_fn: TrainFunction, args: Any, max_t: float | None) -> float:
    """How long a trial trains at most: what was given, else what train_fn's arguments say.

    Raises OptionError when that makes no sense, or nothing says so.
    """
    if max_t is not None:
        if number(max_t) is None or not 0 < max_t < math.inf:
            raise OptionError(f"max_t={max_t!r}; give a finite number above 0")
        return max_t
    given = {} if args is None else dict(args) if isinstance(args, Mapping) else vars(args)
    known = {**getattr(train_fn, "space", {}), **given}
    for name in ("max_t", "epochs"):
        value = number(known.get(name))
        if value is not None and value > 0:
            return value
    raise OptionError(
        "how long does a trial train at most? Give max_t=, or an argument `epochs` to the train "
        "function: @args(epochs=81, ...)"
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
