"""Grid search."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from ..space import Space
from .base import Config, Searcher


class GridSearcher(Searcher):
    """Every combination, in order; `points` values of each range that is continuous or large.

    >>> FIFOScheduler(train_fn, searcher='grid', search_options={'points': 4})

    No default configuration comes first unless `points_to_evaluate` asks for it.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        points_to_evaluate: Iterable[Config] | None = None,
        points: int = 5,
    ) -> None:
        first = [] if points_to_evaluate is None else list(points_to_evaluate)
        super().__init__(space, seed=seed, points_to_evaluate=first)
        self._given = {json.dumps(point, sort_keys=True) for point in self._first}
        self._grid = iter(space.grid(points))

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """The next combination, or None after the last."""
        for config in self._grid:
            if json.dumps(config, sort_keys=True) not in self._given:
                return config
        return None
