"""Regularised evolution: mutate the good ones, let the old ones die.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI (2019),
algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core.objectives import Point, Standing, beats
from ..core.words import Launch
from ..errors import OptionError
from ..space import Choice, Space
from ..space.base import Domain
from .base import Config, Reward, Searcher, Suggested, config_of
from .random import draw_new, key

TRIES = 50
STEP = 0.2  # the standard deviation of a mutation of a number, as a share of its range


class EvolutionSearcher(Searcher):
    """Mutates the best of a random sample of the `population` youngest trials.

        scheduler = FIFOScheduler(train_fn, searcher='evolution', search_options={'population': 50})

    The first `population` trials are random (after the given points). Then each suggestion takes
    the best of `sample` random members, and changes each of its parameters with
    `mutation_probability`, at least one of them: a choice to another option, a number by a normal
    step of a fifth of its range (on its scale). Parameters of a newly chosen option are drawn. A
    trial joins the population when it is told, and the oldest leaves: good configurations live on
    only in their children.

    With `inherit=True` a child goes on from its parent's weights: `reporter.load()` gives these,
    and `distsearch.train.inherit` takes the weights of layers that have not changed.

    A suggestion does not wait for trials that run: the parent is one of the members there are. No
    configuration that was suggested or told is suggested again. Failed trials do not join.

    With several objectives or constraints the parent is a member of the sample that no other
    member beats by constrained domination (Deb et al. 2002): it violates the constraints least (a
    feasible one not at all), and none that violates them as little dominates it.

    Raises OptionError for settings that make no sense.
    """

    endless = True
    several = constrained = True

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        points_to_evaluate: Iterable[Config] | None = None,
        population: int = 100,
        sample: int = 25,
        mutation_probability: float = 0.05,
        inherit: bool = False,
    ) -> None:
        super().__init__(space, seed=seed, points_to_evaluate=points_to_evaluate)
        if not 1 <= sample <= population:
            raise OptionError(
                f"sample={sample!r} of population={population!r}, but it is from 1 to population"
            )
        if not 0 <= mutation_probability <= 1:
            raise OptionError(
                f"mutation_probability={mutation_probability!r}, but it is from 0 to 1"
            )
        if not isinstance(inherit, bool):
            raise OptionError(f"inherit={inherit!r}; give True or False")
        self.population = population
        self.sample = sample
        self.mutation_probability = mutation_probability
        self.inherit = inherit
        self._members: dict[int, tuple[Standing, Config]] = {}  # by trial, the oldest first
        self._dead: set[int] = set()
        self._begun: set[int] = set()  # every trial that was asked for or told
        self._seen: set[str] = set()

    def ask(self, trial_id: int) -> Suggested | None:
        """A new configuration; None once all of a finite space were suggested."""
        suggested = super().ask(trial_id)
        if suggested is not None:
            self._begun.add(trial_id)
            self._seen.add(key(config_of(suggested)))
        return suggested

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Suggested | None:
        """A child of a good member, or a random configuration while members are too few."""
        if self._members and len(self._begun) >= self.population:
            for _ in range(TRIES):
                parent = self._parent(rng)
                child = self._mutate(self._members[parent][1], rng)
                if key(child) in self._seen:
                    continue
                # (Trials of earlier searches, with negative numbers, have no weights here.)
                return Launch(child, (parent,)) if self.inherit and parent >= 0 else child
        return draw_new(self.space, rng, self._seen)

    def tell(
        self,
        trial_id: int,
        config: Config,
        reward: Reward | None,
        violations: tuple[float, ...] = (),
    ) -> None:
        """Let a trial that did not fail join, or take note of its better reward."""
        self._begun.add(trial_id)
        self._seen.add(key(config))
        if reward is None or trial_id in self._dead:
            return
        rewards = reward if isinstance(reward, tuple) else (reward,)
        if any(map(math.isnan, rewards)):
            return
        standing = Point(rewards, rewards, violations).standing
        self._members[trial_id] = standing, self.space.validate(config)  # in the space's order
        if len(self._members) > self.population:
            oldest = next(iter(self._members))
            del self._members[oldest]
            self._dead.add(oldest)

    def may_need(self, trial_id: int) -> bool:
        """Whether a trial is a member from whose weights children may go on."""
        return self.inherit and trial_id in self._members

    def _parent(self, rng: np.random.Generator) -> int:
        """The best member of a random sample; of several that none beats, the one drawn first."""
        members = list(self._members)
        drawn = rng.choice(len(members), min(self.sample, len(members)), replace=False).tolist()
        best: int = members[drawn[0]]
        for index in drawn[1:]:
            # (Nor does any that was drawn before, as domination is transitive.)
            if beats(self._members[members[index]][0], self._members[best][0]):
                best = members[index]
        return best

    def _mutate(self, parent: Config, rng: np.random.Generator) -> Config:
        changed = {path for path in parent if rng.random() < self.mutation_probability}
        if parent and not changed:
            changed = {list(parent)[rng.integers(len(parent))]}

        def inherit(path: str, domain: Domain) -> Any:
            if path not in parent:
                return domain.draw(rng)
            return _other(domain, parent[path], rng) if path in changed else parent[path]

        return self.space.walk(inherit)


def _other(domain: Domain, value: Any, rng: np.random.Generator) -> Any:
    """Another value of a parameter, if it has more than one."""
    if isinstance(domain, Choice):
        here = [(type(choice), choice) for choice in domain.choices].index((type(value), value))
        others = [*domain.choices[:here], *domain.choices[here + 1 :]]
        return others[rng.integers(len(others))] if others else value
    unit = np.asarray(domain.to_unit(value)).reshape(1) + rng.normal(0, STEP)
    found = domain.from_unit(1 - abs(1 - abs(unit) % 2))  # reflected at both ends
    return domain.draw(rng) if found == value else found
