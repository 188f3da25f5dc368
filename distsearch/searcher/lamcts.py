"""LaMCTS: a tree of regions with curved boundaries, and Bayesian optimisation in one of them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MissingPackage, OptionError
from ..space import Space
from .base import Config
from .gaussian import Belief, Kernel, Posterior
from .places import Array, Places
from .region_searcher import RegionSearcher
from .regions import Mask, Region, with_worst
from .worth import Scale

MOST_FITTED = 200  # results to which the kernel is fitted
MOST_KNOWN = 400  # results that the model holds
CENTRES = 8  # so many of the best in a region are looked around
BOXES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of which the largest is taken that lies
MOSTLY = 0.5  # with this share of it in the region
SIZES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of the boxes around them, which grow
ROUNDS = 8  # of looking around the best candidates
SHRINK = 4.0  # so many times as small are the boxes in each round
TRIED = 50  # so many of the best candidates may have been seen before
STARTS = 4  # of KMeans


@dataclass(frozen=True)
class Curved:
    """A support vector machine that tells the good cluster of a region from the bad one.

    split = Curved.fit(places, rows, scores, penalty=10.0, seed=0)     # None: it does not
    split.is_good(rows)
    """

    places: Places
    machine: Any

    @classmethod
    def fit(
        cls, places: Places, rows: Array, scores: Array, penalty: float, seed: int
    ) -> Curved | None:
        """Two KMeans clusters of [x, f(x)], told apart by x alone."""
        cluster, svm = (importlib.import_module(f"sklearn.{name}") for name in ("cluster", "svm"))
        points = places.points(rows)
        spread = float(scores.std())
        both = np.column_stack([points, (scores - scores.mean()) / spread])
        labels = cluster.KMeans(2, n_init=STARTS, random_state=seed).fit_predict(both)
        if len(np.unique(labels)) < 2:
            return None
        is_good = labels == int(scores[labels == 1].mean() > scores[labels == 0].mean())
        if not points.std() > 0:
            return None
        return cls(places, svm.SVC(kernel="rbf", C=penalty, gamma="scale").fit(points, is_good))

    def is_good(self, rows: Array) -> Mask:
        """Which rows the machine takes for good."""
        if not len(rows):
            return np.zeros(0, dtype=bool)
        good: Mask = self.machine.decision_function(self.places.points(rows)) > 0
        return good


class LaMCTSSearcher(RegionSearcher):
    """A tree of regions with Bayesian optimisation in them, `searcher='lamcts'`, for any space.

        scheduler = FIFOScheduler(train_fn, searcher='lamcts', search_options={'first': 20})

    A region with more than `leaf_size` trials is split by a support vector machine between the two
    KMeans clusters of [x, f(x)], if that tells them apart, up to `height` splits deep. A leaf is
    chosen by UCB as in 'lanas' (`exploration`; trials that run count as visits). In it the
    configuration is suggested of which a Gaussian process expects the largest improvement; its
    candidates lie in boxes around the leaf's trials, which grow while they stay in the region (in
    one of them evenly, as a Sobol sequence), and all meet every inequality on the path.

    Rewards count as they are, except that none is further below the median than twice what the best
    is above it; a trial that failed is the worst of each of its regions, and one that violates
    constraints, all of them counted, is below all that do not. The `first` trials are random (after
    the given points). Once they were suggested and half of them have results, tree and process are
    fitted to these, and anew after `rebuild_every` further results. Where trials are compared at
    rungs, one counts with what is to be expected of its whole training. What was suggested or told
    once is not suggested again.

    Raises OptionError for settings that make no sense, MissingPackage without scikit-learn.

    Source: Wang, Fonseca and Tian, "Learning Search Space Partition for Black-box Optimization
    using Monte Carlo Tree Search", NeurIPS (2020), arXiv:2007.00708.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        points_to_evaluate: Iterable[Config] | None = None,
        first: int = 15,
        rebuild_every: int = 5,
        height: int = 8,
        leaf_size: int = 20,
        exploration: float = 0.1,
        candidates: int = 512,
        penalty: float = 10.0,
    ) -> None:
        super().__init__(
            space,
            seed=seed,
            points_to_evaluate=points_to_evaluate,
            first=first,
            rebuild_every=rebuild_every,
            height=height,
            least=1,
            exploration=exploration,
        )
        for name, value in (("leaf_size", leaf_size), ("candidates", candidates)):
            if not value >= 2:
                raise OptionError(f"{name}={value!r}, but it must be 2 or more")
        if not penalty > 0:
            raise OptionError(f"penalty={penalty!r}, but it must be above 0")
        self.leaf_size = leaf_size
        self.candidates = candidates
        self.penalty = penalty
        _refuse_without_sklearn()
        self._kernel = _kernel(self.places)

    def split(self, rows: Array, scores: Array) -> Curved | None:
        """Between the good and the bad cluster, if there are trials enough."""
        if len(rows) <= self.leaf_size:
            return None
        return Curved.fit(self.places, rows, scores, self.penalty, self.seed % 2**32)

    def suggest_in(self, leaf: Region, rng: np.random.Generator) -> Config | None:
        """Where in a leaf the largest improvement is expected."""
        inside, scores = self.in_leaf(leaf)
        known = scores > -math.inf
        model, best = self._model(leaf)

        def gain(rows: Array) -> Array:
            return expected_improvement(*model.at(self.places.points(rows)), best)

        order = np.argsort(-np.where(known, scores, -math.inf), kind="stable")
        centres = inside[order[:CENTRES]]
        centre = inside[rng.integers(len(inside))]
        rows = np.concatenate(
            [self._drawn(leaf, centre, rng), self._around(leaf, centres, SIZES, rng)]
        )
        if not len(rows):
            return None
        gains = gain(rows)
        for round_ in range(ROUNDS):
            best_rows = rows[np.argsort(-gains, kind="stable")[:CENTRES]]
            sizes = [size / SHRINK**round_ for size in SIZES[:4]]
            more = self._around(leaf, best_rows, sizes, rng)
            rows, gains = np.concatenate([rows, more]), np.concatenate([gains, gain(more)])
        tried = np.argsort(-gains, kind="stable")[:TRIED]
        configs = (self.places.config(rows[n]) for n in tried)
        return next((config for config in configs if self.is_new(config)), None)

    def _drawn(self, leaf: Region, centre: Array, rng: np.random.Generator) -> Array:
        """Rows of a leaf in a box around one, as large as still lies in the leaf for the most part.

        They are evenly spread there, as a Sobol sequence is; without luck the result is empty.
        """
        qmc = importlib.import_module("scipy.stats.qmc")
        doublings = round(math.log2(self.candidates))  # a Sobol sequence is even at powers of two
        cube = qmc.Sobol(len(self.places), seed=rng).random_base2(doublings)
        found = np.empty((0, len(self.places)))
        for size in BOXES:
            rows = self.places.in_box(centre, cube, size)
            inside = leaf.contains(rows)
            if len(found) and inside.mean() < MOSTLY:
                break
            found = rows[inside]
        return found

    def _around(
        self, leaf: Region, centres: Array, sizes: Iterable[float], rng: np.random.Generator
    ) -> Array:
        """Rows in boxes around centres, as large as still has some inside the leaf."""
        sizes = tuple(sizes)
        each = max(1, self.candidates // len(sizes))
        found = []
        for size in sizes:
            chosen = centres[rng.integers(len(centres), size=each)]
            share = rng.choice([max(0.2, 2 / len(self.places)), 1.0])
            rows = self.places.near(chosen, rng, size, share)
            rows = rows[leaf.contains(rows)]
            if not len(rows):
                break
            found.append(rows)
        return np.concatenate(found) if found else np.empty((0, len(self.places)))

    def score(self, scale: Scale, rewards: Mapping[float, float], violation: float) -> float:
        """The score of a trial by its distance from the others; -inf if it failed."""
        return scale.standard(rewards, violation)

    def learn(self, rows: Array, scores: Array) -> Array:
        """Settings of the kernel that fit what is known."""
        scores = with_worst(scores)
        kept = _kept(scores, np.zeros(len(rows), dtype=bool), MOST_FITTED)
        return self._kernel.fit(self.places.points(rows[kept]), scores[kept])

    def _model(self, leaf: Region) -> tuple[Posterior, float]:
        """What is known, the leaf's trials before others, and the best that it believes in.

        That is the highest mean at a trial: where results are noisy, less than the best result.
        """
        trials = list(self._results)
        scores = with_worst(np.array([self._scores[trial] for trial in trials]))
        is_inside = np.array([self._leaves[trial] == leaf.number for trial in trials])
        kept = _kept(scores, is_inside, MOST_KNOWN)
        rows = np.array([self._rows[trials[n]] for n in kept])
        running = [row for trial, row in self._rows.items() if trial not in self._results]
        expected = self.places.points(np.array(running)) if running else None
        points = self.places.points(rows)
        posterior = Posterior(self._kernel, self.learned, points, scores[kept], expected)
        return posterior, float(posterior.at(points)[0].max())


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """By how much values of these means and standard deviations are above the best, on average.

    Source: Jones, Schonlau and Welch, "Efficient Global Optimization of Expensive Black-Box
    Functions", Journal of Global Optimization 13 (1998), equation 15.
    """
    special = importlib.import_module("scipy.special")
    away = (mean - best) / deviation
    density = np.exp(-(away**2) / 2) / math.sqrt(2 * math.pi)
    gain: Array = deviation * (away * special.ndtr(away) + density)
    return gain


def _kept(scores: Array, first: Mask, most: int) -> Any:
    """The places of at most so many: those that come first, then the best."""
    order = np.lexsort((-scores, ~first))
    return np.sort(order[:most])


def _kernel(places: Places) -> Kernel:
    """A trend, and short widths for what it leaves, in units of the parameters' ranges."""
    count = len(places)
    width = Belief(math.log(0.15 * math.sqrt(count)) if count else 0.0, 0.3)
    widths = [width] * count
    variance, noise, trend = Belief(0.0, 1.0), Belief(-6.0, 1.5), Belief(0.0, 2.0)
    return Kernel(places.groups, widths, variance, noise, trend)


def _refuse_without_sklearn() -> None:
    for name in ("sklearn", "scipy"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise MissingPackage(
                "searcher='lamcts' needs scikit-learn: pip install scikit-learn scipy"
            ) from error
