"""Population based training: the worst go on from the weights of the best, slightly changed.

Source: Jaderberg et al., "Population Based Training of Neural Networks", arXiv:1711.09846 (2017).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from ..core.decorators import TrainFunction
from ..core.words import Continue, Decision, Launch, Pause, Report, Status, Stop, Trial, Wait
from ..errors import OptionError, StoreError
from ..space import Choice, Space
from ..space.domains import Number
from .base import Scheduler
from .hyperband import max_t_of
from .options import check_number, refuse_misspelt
from .wording import limit

Config = Mapping[str, Any]


def explore(
    space: Space,
    config: Config,
    rng: np.random.Generator,
    *,
    resample_probability: float = 0.25,
    factors: Sequence[float] = (0.8, 1.2),
) -> dict[str, Any]:
    """A configuration near another one, inside the space.

    Each number is multiplied by one of the `factors`, and clipped to its range (a number with
    steps, such as an integer, moves by one step at least); or, with `resample_probability`, it is
    drawn anew. Each choice stays, or, with the same probability, becomes another option, whose own
    parameters are then drawn.
    """

    def change(path: str, domain: Any) -> Any:
        if path not in config:
            return domain.draw(rng)
        value, is_drawn = config[path], rng.random() < resample_probability
        if isinstance(domain, Choice):
            others = [option for option in domain.choices if repr(option) != repr(value)]
            return others[rng.integers(len(others))] if is_drawn and others else value
        if is_drawn or not isinstance(domain, Number) or value == 0:
            return domain.draw(rng)
        moved = value * factors[int(rng.integers(len(factors)))]
        return domain.beyond(moved, start=value)

    return space.validate(space.walk(change))


class PBTScheduler(Scheduler):
    """Trains a population, in which the worst are replaced by changed copies of the best.

        scheduler = PBTScheduler(train_fn, population_size=8, max_t=100, perturbation_interval=5)
        scheduler.run()

    Every `perturbation_interval` a member that is in the bottom quantile of the population ends.
    In its place a new trial starts from the newest checkpoint of a member in the top quantile, its
    parent (`trial.parents`), with the parent's configuration explored (see `explore`). The train
    function must `reporter.save` before it reports, and start from `reporter.load()`, with the
    number of epochs that lies in there; a member that has saved nothing is never copied.

    Members are compared by their newest reward at a multiple of the interval. When there are fewer
    slots than members, members take turns, an interval each. Members that fail or end early are not
    replaced. The search ends when all members have reached `max_t` or ended; `num_trials`, which
    counts the new trials, too, and `time_out` may end it sooner.

    Args (beside those of FIFOScheduler):
        population_size: how many trials make up the population.
        max_t: how long a member trains at most, in units of `time_attr`; None takes `max_t` or
            `epochs` of the train function's arguments. One that goes on beyond is stopped.
        perturbation_interval: how often a member is compared, in units of `time_attr`.
        quantile_fraction: the share of the population in the bottom and in the top quantile.
        resample_probability, perturbation_factors: how a configuration is explored.

    Raises OptionError when one of these is out of range, and when no max_t can be found.
    """

    ranks_by_reward = True

    def __init__(
        self,
        train_fn: TrainFunction,
        args: Mapping[str, Any] | Any | None = None,
        *more: Any,
        population_size: int = 8,
        max_t: float | None = None,
        perturbation_interval: float = 1,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        perturbation_factors: Sequence[float] = (0.8, 1.2),
        **options: Any,
    ) -> None:
        factors = tuple(perturbation_factors)
        check_number("population_size", population_size, "from 2 on", least=2, kind=Integral)
        check_number("perturbation_interval", perturbation_interval, "above 0", above=0)
        check_number("quantile_fraction", quantile_fraction, "in (0, 0.5]", above=0, most=0.5)
        check_number("resample_probability", resample_probability, "from 0 to 1", least=0, most=1)
        if not factors:
            raise OptionError("perturbation_factors=(), but there must be one at least")
        for factor in factors:
            check_number("perturbation_factors", factor, "above 0, each of them", above=0)
        self.population_size = population_size
        refuse_misspelt(type(self), options)  # before max_t is reported as missing
        self.max_t = max_t_of(train_fn, args, max_t)
        self.perturbation_interval = perturbation_interval
        self.quantile_fraction = quantile_fraction
        self.resample_probability, self.perturbation_factors = resample_probability, factors
        self._living: set[int] = set()  # the members that have not ended
        self._interval: dict[int, int] = {}  # at which each member was compared last
        self._scores: dict[int, float] = {}  # the rewards of the living at that interval
        self._turns: dict[int, int] = {}  # comparisons of a member and those it replaced
        self._done: set[int] = set()  # the members that have reached max_t
        self._founded = 0  # how many members have replaced nobody
        self._all_founded = False  # there are enough, or the searcher has no more
        self._children: deque[tuple[Launch, int]] = deque()  # with the members that they replace
        super().__init__(train_fn, args, *more, **options)

    @property
    def rule_settings(self) -> dict[str, Any]:
        """The options that are PBT's own."""
        names = ["population_size", "max_t", "perturbation_interval", "quantile_fraction"]
        names += ["resample_probability", "perturbation_factors"]
        return {name: getattr(self, name) for name in names}

    @property
    def _could_go_on_forever(self) -> bool:
        return False  # `_turns` bounds it

    # The rule

    def next_launch(self) -> Launch | Wait | None:
        """A member of the first generation, until there are enough; then children."""
        launch = super().next_launch() if self._founded < self.population_size else None
        if launch is None:
            self._all_founded = True
            launch = self._next_child() or (Wait() if self._living else None)
        if isinstance(launch, Launch):
            self._join(len(self.ledger.trials), is_child=bool(launch.parents))
        return launch

    def next_resume(self) -> int | None:
        """The paused member that is furthest behind, unless a new member is further behind."""
        paused = [trial_id for trial_id in self._living if self._is_paused(trial_id)]
        if not paused:
            return None
        interval, trial_id = min((self._interval[trial_id], trial_id) for trial_id in paused)
        return None if self._next_new_at <= interval else trial_id

    def due_at(self, trial: Trial) -> Sequence[float]:
        """The multiples of the interval that are ahead, and anything beyond max_t."""
        times = []
        if trial.id in self._living:
            last = math.floor(self.max_t / self.perturbation_interval)
            ahead = range(self._interval[trial.id] + 1, last + 1)
            times = [n * self.perturbation_interval for n in ahead]
        return [*times, math.nextafter(self.max_t, math.inf)]

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """At a multiple of the interval, is the member in the bottom quantile?"""
        if report.time > self.max_t:
            return Stop(limit(self.max_t))
        if trial.id not in self._living:  # a trial of add_job or run_with_config
            return Continue()
        interval = math.floor(max(report.time, 0) / self.perturbation_interval)
        if interval <= self._interval[trial.id]:
            return Continue()
        self._interval[trial.id] = interval
        self._turns[trial.id] += 1
        self._scores[trial.id] = -math.inf if report.reward is None else report.reward
        if report.time >= self.max_t:
            self._leave(trial.id)
            self._done.add(trial.id)
            return Continue()
        parent = self._parent_for(trial.id)
        if parent is not None:
            reason = self._why_replaced(report, parent)
            self._replace(trial.id, parent)
            return Stop(reason)
        if trial.saved_step is not None and self._others_wait(interval):
            at = self.wording.time(report.time, report)
            return Pause(f"its turn is over at {at}: members that are behind come first")
        return Continue()

    def on_end(self, trial: Trial) -> None:
        """Compare a member that has ended no longer."""
        super().on_end(trial)
        self._leave(trial.id)

    def may_need(self, trial: Trial) -> bool:
        """Whether a child is to start from the checkpoint of this trial."""
        is_next = any(trial.id in launch.parents for launch, _ in self._children)
        return is_next or super().may_need(trial)

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """When a search is resumed: a trial joins the population as it did then."""
        if given:
            return
        is_child = bool(self.ledger.trials[trial_id].parents)
        if not is_child:
            super().replay_launch(trial_id, config, given, told)
        elif (child := self._next_child()) is None or dict(child.config) != dict(config):
            raise StoreError(
                f"{self.folder} cannot be resumed: trial {trial_id} would now be another child; "
                "were population_size, the quantile or what explores it changed?"
            )
        self._join(trial_id, is_child)

    # The population

    def _join(self, trial_id: int, is_child: bool) -> None:
        """A trial becomes a member: the next child, or one of the first generation."""
        self._living.add(trial_id)
        self._interval[trial_id] = self._turns[trial_id] = 0
        if not is_child:
            self._founded += 1
            return
        launch, replaced = self._children.popleft()
        self._turns[trial_id] = self._turns[replaced]
        self._interval[trial_id] = self._interval[launch.parents[0]]  # (it goes on from there)

    def _next_child(self) -> Launch | None:
        """The child that is to start next; children of parents at max_t have nothing left to do."""
        while self._children and self._children[0][0].parents[0] in self._done:
            self._children.popleft()
        return self._children[0][0] if self._children else None

    def _leave(self, trial_id: int) -> None:
        self._living.discard(trial_id)
        self._scores.pop(trial_id, None)

    def _replace(self, trial_id: int, parent: int) -> None:
        """Let a child of another member (`parent`) take the place of a member."""
        config = explore(
            self.train_fn.space,
            self.ledger.trials[parent].config,
            self._rng(trial_id, 1),
            resample_probability=self.resample_probability,
            factors=self.perturbation_factors,
        )
        self._children.append((Launch(config, (parent,), wait_for="checkpoint"), trial_id))
        self._leave(trial_id)

    def _parent_for(self, trial_id: int) -> int | None:
        """A better member of the top quantile, if this member is in the bottom one; else None."""
        if self._turns[trial_id] > self.max_t / self.perturbation_interval:
            return None  # the place has had all its turns, so that the search ends in any case
        ranked = sorted(self._scores, key=lambda member: (-self._scores[member], member))
        places = min(math.ceil(len(ranked) * self.quantile_fraction - 1e-9), len(ranked) // 2)
        if ranked.index(trial_id) < len(ranked) - places:
            return None
        own, trials = self._scores[trial_id], self.ledger.trials
        better = [
            member
            for member in ranked[:places]
            if self._scores[member] > own and trials[member].saved_step is not None
        ]
        return better[self._rng(trial_id, 0).integers(len(better))] if better else None

    def _why_replaced(self, report: Report, parent: int) -> str:
        """The rank of a member that is about to be replaced, and whose child takes its place."""
        say, scores, own = self.wording, self._scores, self._scores[report.trial]
        before = sum((-scores[n], n) < (-own, report.trial) for n in scores)
        standing = f"rank {before + 1} of {len(scores)} at {say.time(report.time, report)}"
        rival = say.rival(parent, scores[parent], own)
        return f"{standing} {say.result(report)}; its place is for a child of {rival}"

    def _rng(self, trial_id: int, use: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, trial_id, self._turns[trial_id], use + 1))

    # Taking turns, when there are fewer slots than members

    def _others_wait(self, interval: int) -> bool:
        """Whether a member that is behind this interval waits for a slot."""
        return self._founded < self.population_size or any(
            self._is_paused(member) and self._interval[member] < interval for member in self._living
        )

    @property
    def _next_new_at(self) -> float:
        """The interval from which the next new member will go on; infinity if there is none."""
        if not self.experiment.is_searching:
            return math.inf
        if self._founded < self.population_size and not self._all_founded:
            return 0
        child = self._next_child()
        return math.inf if child is None else self._interval[child.parents[0]]

    def _is_paused(self, trial_id: int) -> bool:
        return self.ledger.trials[trial_id].status is Status.PAUSED
