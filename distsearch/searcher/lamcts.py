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

MOST_FITTED = 200  # the kernel is fitted to at most so many results
MOST_KNOWN = 400  # the model holds at most so many results
CENTRES = 8  # boxes are around so many of the best trials of a region
BOXES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # the largest is taken that lies mostly in a leaf
MOSTLY = 0.5  # with this share of the box
SIZES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of the boxes around centres, which grow
ROUNDS = 8  # so often candidates are drawn around the best candidates
SHRINK = 4.0  # in each round the boxes are so many times smaller
TRIED = 50  # so many of the best candidates are looked at for a new one
STARTS = 4  # so many starts of KMeans


@dataclass(frozen=True)
class Curved:
    """A support vector machine that tells the good cluster of a region from the bad one.

    split = Curved.fit(places, rows, scores, penalty=10.0, seed=0)     # None: it cannot
    split.is_good(rows)
    """

    places: Places
    machine: Any

    @classmethod
    def fit(
        cls, places: Places, rows: Array, scores: Array, penalty: float, seed: int
    ) -> Curved | None:
        """A machine that tells two KMeans clusters of [x, f(x)] apart by x; None if none can."""
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
    KMeans clusters of [x, f(x)], if it can tell them apart, up to `height` splits deep. A leaf is
    chosen by UCB as in 'lanas' (`exploration`; trials that run count as visits). In the leaf the
    configuration is suggested of which a Gaussian process expects the largest improvement. The
    candidates lie in boxes around the leaf's trials, which grow while they stay in the region (in
    one box evenly, as a Sobol sequence), and meet every inequality on the path.

    Rewards count as they are, but none is further below the median than twice the distance of the
    best above it. A trial that failed is the worst of each of its regions; a trial that violates
    constraints is below all that do not, by the sum of its violations. The `first` trials are
    random (after the given points). Once they were suggested and half of them have results, tree
    and process are fitted to these results, and anew after `rebuild_every` further ones. Where
    trials are compared at rungs, a trial counts with the reward that is to be expected of its whole
    training. No configuration that was suggested or told is suggested again.

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
        """The boundary between the good and the bad cluster, if there are enough trials."""
        if len(rows) <= self.leaf_size:
            return None
        return Curved.fit(self.places, rows, scores, self.penalty, self.seed % 2**32)

    def suggest_in(self, leaf: Region, rng: np.random.Generator) -> Config | None:
        """The configuration in a leaf of which the largest improvement is expected."""
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
        """Rows of a leaf in the largest box around a centre that lies mostly in the leaf.

        The rows are evenly spread, as a Sobol sequence; if none lies in the leaf, there are none.
        """
        qmc = importlib.import_module("scipy.stats.qmc")
        doublings = round(math.log2(self.candidates))  # (a Sobol sequence is even at powers of two)
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
        """Rows in boxes around centres; the boxes grow while some rows are inside the leaf."""
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
        """The settings of the kernel that fit these results."""
        scores = with_worst(scores)
        kept = _kept(scores, np.zeros(len(rows), dtype=bool), MOST_FITTED)
        return self._kernel.fit(self.places.points(rows[kept]), scores[kept])

    def _model(self, leaf: Region) -> tuple[Posterior, float]:
        """The process, given the leaf's results before others, and the best value by its belief.

        That value is the highest mean at a trial: where results are noisy, less than the best one.
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
    """The indices of at most `most` results: those of `first`, then the best of the others."""
    order = np.lexsort((-scores, ~first))
    return np.sort(order[:most])


def _kernel(places: Places) -> Kernel:
    """A kernel with a trend, and short widths, as shares of the ranges, for what that leaves."""
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
