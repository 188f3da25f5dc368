"""Random search (Bergstra and Bengio 2012)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

import numpy as np

from ..space import Space
from .base import Config, Searcher, Suggested, config_of

TRIES = 200
FINITE = 10**6  # spaces with fewer configurations are searched to the last one


class RandomSearcher(Searcher):
    """Draws each configuration independently; a finite space is not drawn from twice.

    >>> scheduler = FIFOScheduler(train_fn, searcher='random')
    """

    endless = True

    def __init__(
        self, space: Space, *, seed: int = 0, points_to_evaluate: Iterable[Config] | None = None
    ) -> None:
        super().__init__(space, seed=seed, points_to_evaluate=points_to_evaluate)
        self._seen: set[str] | None = set() if self.space.size < FINITE else None

    def ask(self, trial_id: int) -> Suggested | None:
        """A configuration; None once all of a finite space were suggested."""
        suggested = super().ask(trial_id)
        if self._seen is not None and suggested is not None:
            self._seen.add(key(config_of(suggested)))
        return suggested

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Suggested | None:
        """A random configuration that is new, if the space is finite."""
        if self._seen is None:
            return self.space.sample(rng)
        return draw_new(self.space, rng, self._seen)


def draw_new(space: Space, rng: np.random.Generator, seen: Collection[str]) -> Config | None:
    """A random configuration whose `key` is not in `seen`; None when there is none left.

    In a space of a million configurations or more it may be in `seen`, if nearly all draws are.
    """
    for _ in range(TRIES):
        config = space.sample(rng)
        if key(config) not in seen:
            return config
    if space.size >= FINITE:
        return config
    left = [config for config in space.grid(FINITE) if key(config) not in seen]
    return left[rng.integers(len(left))] if left else None


def key(config: Config) -> str:
    """A text that is the same for equal configurations."""
    return json.dumps(config, sort_keys=True)
