"""LaNAS: a tree of learned linear regions over architectures, chosen by UCB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import OptionError
from ..space import Space
from .base import Config
from .linear import Linear
from .places import Array
from .pool import Given, Indices, Pool
from .region_searcher import RegionSearcher
from .regions import Region, Tree

SMALL = 50_000  # a space with at most so many configurations is its own pool
DRAWN = 20_000  # from a larger pool, or a space, so many configurations are drawn at a time
TRIES = 64  # so many random draws before a whole pool is looked through for a new configuration
ROUNDS = 4  # so often configurations are drawn from a space
NEAR = 0.1  # then trials' numbers move by this share of their ranges, to find some in the region


class LaNASSearcher(RegionSearcher):
    """A tree of learned linear regions, `searcher='lanas'`, for spaces of architectures.

        scheduler = FIFOScheduler(train_fn, searcher='lanas')
        scheduler = FIFOScheduler(train_fn, searcher='lanas', search_options={'pool': 'pool.npy'})

    Every region is split where a linear model (ridge regression on one-hot encoded choices)
    predicts the region's mean, up to `height` splits deep, while both parts have `least` results.
    From the root on, the part with the higher bound is chosen: mean + 2 `exploration`
    sqrt(2 ln n / n_part), in which trials that run count as visits. `drawn` configurations are
    drawn uniformly from the chosen leaf, and the one is suggested for which the models on its path
    predict most; `drawn=1` is the paper's uniform draw. Rewards count by rank, as normal scores; a
    trial that failed is the worst of each of its regions, and a trial that violates constraints is
    below all that do not.

    The `first` trials are random (after the given points). Once they were suggested and half of
    them have results, the tree is grown from these, and anew after `rebuild_every` further results.
    Where trials are compared at rungs, a trial counts with the reward that is to be expected of its
    whole training (see `worth.Scale`), so that hopeless trials that were stopped early teach, too.
    No configuration that was suggested or told is suggested again.

    `pool`: the configurations to choose from, as codes (see `Pool`): an array, a .npy file, which
    is mapped into memory and never copied, or an iterable of rows. Unless points are given, the
    first trial is then of the pool, and not the default configuration. Without a pool
    configurations are drawn from the space, and kept if they meet every inequality on the path.

    Raises OptionError for settings that make no sense, SpaceError for a pool that has rows outside
    the space, of another width, given twice, or none.

    Source: Wang et al., "Sample-Efficient Neural Architecture Search by Learning Actions for Monte
    Carlo Tree Search", arXiv:1906.06832 (2019).
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        points_to_evaluate: Iterable[Config] | None = None,
        pool: Given | None = None,
        first: int = 50,
        rebuild_every: int = 20,
        height: int = 7,
        least: int = 4,
        exploration: float = 0.1,
        drawn: int = 16,
        ridge: float = 0.15,
    ) -> None:
        if pool is not None and points_to_evaluate is None:
            points_to_evaluate = []
        super().__init__(
            space,
            seed=seed,
            points_to_evaluate=points_to_evaluate,
            first=first,
            rebuild_every=rebuild_every,
            height=height,
            least=least,
            exploration=exploration,
        )
        if not drawn >= 1:
            raise OptionError(f"drawn={drawn!r}, but it must be 1 or more")
        if not ridge > 0:
            raise OptionError(f"ridge={ridge!r}, but it must be above 0")
        self.drawn = drawn
        self.ridge = ridge
        self.pool = Pool.whole(space, SMALL) if pool is None else Pool.of(space, pool)
        self._is_given = pool is not None
        self._inside: dict[Region, Indices] = {}  # what of the pool lies in regions of the tree
        self._inside_of: Tree | None = None
        self._taken = np.zeros(0 if self.pool is None else len(self.pool), dtype=bool)
        self._looked_up = 0  # so many trials were looked up in the pool

    @property
    def described(self) -> Mapping[str, Any]:
        """The fingerprint of the pool."""
        return {} if self.pool is None or not self._is_given else {"pool": self.pool.fingerprint}

    def split(self, rows: Array, scores: Array) -> Linear:
        """The linear model of a region, which splits the region where it predicts the mean."""
        return Linear.fit(self.places, rows, scores, self.ridge)

    def suggest_in(self, leaf: Region, rng: np.random.Generator) -> Config | None:
        """The most promising of some configurations that are drawn uniformly from a leaf."""
        if self.pool is not None:
            return self._from_pool(self.pool, leaf, rng)
        rows = self._drawn(leaf, rng)
        return self._first_new(rows[_descending(self._hopes(leaf, rows))])

    def suggest_anywhere(self, rng: np.random.Generator) -> Config | None:
        """A random configuration that is new, from the pool if there is one."""
        if self.pool is None:
            return super().suggest_anywhere(rng)
        found = self._first_new(self.pool.rows(rng.integers(len(self.pool), size=TRIES)))
        if found is not None:
            return found
        self._look_up(self.pool)
        all_ = rng.permutation(np.flatnonzero(~self._taken))
        some = (self.pool.rows(all_[n : n + DRAWN]) for n in range(0, len(all_), DRAWN))
        return next((found for rows in some if (found := self._first_new(rows)) is not None), None)

    # With a pool

    def _from_pool(self, pool: Pool, leaf: Region, rng: np.random.Generator) -> Config | None:
        self._look_up(pool)
        if len(pool) > SMALL and leaf not in self._inside:
            some = rng.permutation(np.unique(rng.integers(len(pool), size=DRAWN)))
            for model, side in leaf.path:
                assert isinstance(model, Linear)
                some = some[(pool.predict(model, some) > 0) == side]
            if len(some) >= self.drawn:
                found = self._best_new(pool, leaf, some[: self.drawn])
                if found is not None:
                    return found
        inside = self._all_inside(pool, leaf)
        inside = rng.permutation(inside[~self._taken[inside]])
        tries = (inside[n : n + self.drawn] for n in range(0, len(inside), self.drawn))
        found_in = (self._best_new(pool, leaf, some) for some in tries)
        return next((found for found in found_in if found is not None), None)

    def _look_up(self, pool: Pool) -> None:
        """Mark as taken from the pool what was suggested or told since the last call."""
        rows = list(self._rows.values())[self._looked_up :]
        if rows:
            self._taken[pool.find(np.array(rows))] = True
        self._looked_up = len(self._rows)

    def _best_new(self, pool: Pool, leaf: Region, indices: Indices) -> Config | None:
        hopes = sum((pool.predict(one, indices) for one in _models(leaf)), np.zeros(len(indices)))
        return self._first_new(pool.rows(indices[_descending(hopes)]))

    def _all_inside(self, pool: Pool, leaf: Region) -> Indices:
        """All configurations of a pool that lie in a leaf, kept as long as the tree is used."""
        if self._inside_of is not self._tree:
            self._inside, self._inside_of = {}, self._tree
        if leaf in self._inside:
            return self._inside[leaf]
        if leaf.parent is None:
            found = np.arange(len(pool), dtype=np.intp)
        else:
            around = self._all_inside(pool, leaf.parent)
            model = leaf.parent.split
            assert isinstance(model, Linear)
            is_good = pool.predict(model, around) > 0
            found = around[is_good == (leaf is leaf.parent.good)]
        self._inside[leaf] = found
        return found

    # Without a pool

    def _drawn(self, leaf: Region, rng: np.random.Generator) -> Array:
        """Rows in a leaf, drawn from the space; where none of these is in it, near its trials."""
        found: list[Array] = []
        for _ in range(ROUNDS):
            rows = self.places.draw(rng, DRAWN // ROUNDS)
            found.append(rows[leaf.contains(rows)])
            if sum(map(len, found)) >= self.drawn:
                return np.concatenate(found)[: self.drawn]
        inside, _ = self.in_leaf(leaf)
        centres = inside[rng.integers(len(inside), size=DRAWN // ROUNDS)]
        rows = self.places.near(centres, rng, NEAR, 1 / len(self.places))
        found.append(rows[leaf.contains(rows)])
        return np.concatenate(found)[: self.drawn]

    def _hopes(self, leaf: Region, rows: Array) -> Array:
        return sum((model.predict(rows) for model in _models(leaf)), np.zeros(len(rows)))

    def _first_new(self, rows: Array) -> Config | None:
        configs = map(self.places.config, rows)
        return next((config for config in configs if self.is_new(config)), None)


def _models(leaf: Region) -> Iterator[Linear]:
    """The linear models on the path to a leaf."""
    for model, _ in leaf.path:
        assert isinstance(model, Linear)
        yield model


def _descending(values: Array) -> Indices:
    return np.argsort(-values, kind="stable")
