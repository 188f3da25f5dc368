"""The protocol of all searchers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Union

import numpy as np
from numpy.random import default_rng  # (now: amid a search there may be no descriptor for it)

from ..core.words import Launch
from ..errors import OptionError
from ..space import Space
from ..space.autogluon import missing
from .arguments import names_taken

Config = Mapping[str, Any]
Suggested = Union[Config, Launch]  # (a Launch names parents, too)
Reward = Union[float, tuple[float, ...]]  # a tuple has one for each of several objectives


class Searcher:
    """Suggests configurations: `ask` for one, `tell` what became of it.

    A searcher of your own overrides `suggest`, and `tell` if it learns:

        class Around(Searcher):
            def suggest(self, trial_id, rng):
                vector = self.space.encode(self.best) + rng.normal(0, 0.1, self.space.dimension)
                return self.space.decode(vector.clip(0, 1))

    Parameters that a configuration leaves out get their defaults. A configuration outside the space
    ends the search with SpaceError.

    A searcher's state is what was asked and told, in that order, and nothing else: the randomness
    of trial 7 comes from (seed, 7), so that a search does not depend on timing and can be replayed.

    `suggest` may return `Launch(config, parents=(3,))` instead of a configuration: the new trial
    goes on from the weights of trial 3, and starts once these are committed (see `Launch`).

    `slow = True` in the class says that a suggestion may take longer than a few milliseconds: then
    the search calls the searcher in a thread of its own, ahead of time where that is worth it.

    `several = True`: `tell` takes tuples, with a reward for each of several objectives.
    `constrained = True`: `tell` has a fourth argument, by how much each constraint is violated (0
    or less: it is met); other searchers hear of a trial that violates a constraint as failed.

    `endless = True`: in an infinite space the suggestions never end, so that a search has to be
    told when to end (`num_trials`, `time_out`, `max_reward`). Other searchers return None at last.

    `points_to_evaluate`: configurations (whole or in part; the rest are defaults) to suggest
    first. None means the default configuration, [] means none.
    """

    slow: ClassVar[bool] = False
    several: ClassVar[bool] = False
    constrained: ClassVar[bool] = False
    endless: ClassVar[bool] = False

    def __init__(
        self, space: Space, *, seed: int = 0, points_to_evaluate: Iterable[Config] | None = None
    ) -> None:
        self.space = space
        self.seed = seed
        points = [{}] if points_to_evaluate is None else points_to_evaluate
        self._first = [space.validate(point) for point in points]
        self._first.reverse()

    if not TYPE_CHECKING:  # to a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            return missing(self, name)

    @classmethod
    def takes(cls) -> list[str]:
        """The names of the options of this searcher, beside those that all searchers have."""
        return names_taken(cls, without=("space", "seed", "points_to_evaluate"))

    @property
    def described(self) -> Mapping[str, Any]:
        """A text for each option that is more than plain data, such as a file's fingerprint.

        The log keeps the texts, and a search goes on only with the same ones. By default none.
        """
        return {}

    def aim(self, objectives: int, constraints: int = 0) -> None:
        """Hear, before anything else, how many rewards and constraints `tell` will have.

        Raises OptionError when this searcher cannot learn from so many rewards.
        """
        learns = type(self).tell is not Searcher.tell
        if objectives > 1 and learns and not self.several:
            raise OptionError(
                f"{type(self).__name__} learns from one reward, not from {objectives} objectives; "
                "give one reward_attr, perhaps with constraints= on the others, or another "
                "searcher, such as 'tpe', 'nsga2', 'gp', 'evolution' or 'random'"
            )

    def ask(self, trial_id: int) -> Suggested | None:
        """The configuration for a new trial, or None when there is nothing left to suggest."""
        if self._first:
            return self._first.pop()
        return self.suggest(trial_id, default_rng((self.seed, trial_id)))

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Suggested | None:
        """The searcher's own choice, once the given points are used up."""
        raise NotImplementedError(f"{type(self).__name__} needs a method suggest(trial_id, rng)")

    def tell(
        self,
        trial_id: int,
        config: Config,
        reward: Reward | None,
        violations: tuple[float, ...] = (),
    ) -> None:
        """Hear the best reward of a trial; larger is better, None: the trial failed, or had none.

        With several objectives `reward` is a tuple of such rewards.

        Called when a trial ends, and whenever it pauses with a reward; so once more, perhaps with a
        better reward, when it pauses or ends after it was resumed, or when a failed trial runs
        again for its children (on_parent_failure='retry'). Called also for trials that this
        searcher did not suggest: those of the user, and, before the first `ask` and under negative
        numbers, those of earlier searches.
        """

    def observe(self, trial_id: int, config: Config, reward: float | None, time: float) -> None:
        """Hear the reward of a trial at a rung of Hyperband, where trials are compared.

        `time` is the level of the rung (epochs), math.inf for a training up to max_t. `reward` is
        None where the trial had none. `tell` is called as well when the trial then pauses or ends;
        by default only `tell` counts.
        """

    def may_need(self, trial_id: int) -> bool:
        """Whether a trial that has ended may become a parent of a trial still to be suggested.

        Its checkpoint is then kept, however much space all checkpoints take.
        """
        return False

    def replay(self, trial_id: int, config: Config) -> bool:
        """When a search is resumed: take note of an earlier suggestion, in place of `ask`.

        By default this calls `ask`. False when `ask` gives another configuration, as the search
        cannot be resumed then.
        """
        suggested = self.ask(trial_id)
        if suggested is None:
            return False
        # (Parameters that this space does not have were not this searcher's to suggest.)
        return self.space.validate(config_of(suggested)).items() <= config.items()


def launch_of(suggested: Suggested) -> Launch:
    """A suggestion as a launch, with or without parents."""
    return suggested if isinstance(suggested, Launch) else Launch(suggested)


def config_of(suggested: Suggested) -> Config:
    """The configuration of a suggestion, with or without parents."""
    return suggested.config if isinstance(suggested, Launch) else suggested
