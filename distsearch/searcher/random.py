"""Random search (Bergstra and Bengio 2012)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .base import Config, Searcher

TRIES = 200


class RandomSearcher(Searcher):
    """Draws each configuration independently; a finite space is not drawn from twice.

    >>> scheduler = FIFOScheduler(train_fn, searcher='random')
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seen: set[str] | None = set() if self.space.size < 1e6 else None

    def ask(self, trial_id: int) -> Config | None:
        """A configuration; None once every one of a finite space was suggested."""
        config = super().ask(trial_id)
        if self._seen is not None and config is not None:
            self._seen.add(_key(config))
        return config

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """A random configuration that is new, if the space is finite."""
        if self._seen is None:
            return self.space.sample(rng)
        for _ in range(TRIES):
            config = self.space.sample(rng)
            if _key(config) not in self._seen:
                return config
        # Almost everything has been seen: look for what is left.
        left = [c for c in self.space.grid(10**6) if _key(c) not in self._seen]
        return left[rng.integers(len(left))] if left else None


def _key(config: Config) -> str:
    return json.dumps(config, sort_keys=True)
