"""A Gaussian process over configurations and how long they train, for searches with rungs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ..errors import OptionError
from ..space import Space
from .base import Config
from .gaussian import Belief, Kernel, Posterior
from .model import ModelSearcher
from .places import Array, Places
from .random import draw_new, key

STEP = 3.0  # a whole training takes so many times as long as the rung, while there is one rung
GROWTH = 1.15  # the kernel is fitted again when there are so many times as many results
MOST_FITTED = 200  # the kernel is fitted to at most so many results
MOST_KNOWN = 500  # the model holds at most so many results
HOPE_AT_RUNGS = 4.0
HOPE = 1.0
CENTRES = 5  # candidates are drawn near so many of the best trials
ROUNDS = 2  # so often candidates are drawn near the best candidates
AROUND = 100  # candidates in such a round
TRIED = 50  # so many of the best candidates are looked at for a new one

Rewards = dict[int, dict[float, float]]  # by trial and time; -inf where there was none


class MFGPSearcher(ModelSearcher):
    """A multi-fidelity Gaussian process, `searcher='mfgp'`: one model of all rungs.

        scheduler = HyperbandScheduler(train_fn, searcher='mfgp', type='promotion', max_t=81)

    The model predicts the reward of a configuration after a training of any length, and how sure
    that is: a Gaussian process (Matern 5/2, with a width for each parameter and for the logarithm
    of the time) over all rewards of trials at rungs. Rewards count by their ranks among all, as
    normal scores, so that their scale does not matter; a trial that failed has the lowest score.
    `candidates` are drawn at random and near the best trials, and then more near the best of these
    candidates. The one is suggested whose whole training promises most: the mean plus `hope`
    standard deviations. `hope=None` is 4 where trials are compared at rungs, since a hope that is
    disappointed costs little there, and 1 where each trial is a whole training. Near trials that
    run and were not observed yet the model is surer, so that suggestions made side by side differ.
    The `first` trials are random, and so is a `random_share` later. No configuration that was
    suggested or told is suggested again.

    A parameter that is not active tells nothing. Without rungs (FIFOScheduler) all trials count as
    whole trainings, and the model is a plain Gaussian process. The kernel is fitted to at most 200
    results, whenever there are 15% more of them. At most 500 results are in the model: the best
    half, and an even sample of the others.

    Raises OptionError for settings that make no sense.

    Sources: Klein et al., "Model-based Asynchronous Hyperparameter and Neural Architecture Search",
    arXiv:2003.10865 (2020); Srinivas et al., "Gaussian Process Optimization in the Bandit Setting",
    ICML (2010).
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        points_to_evaluate: Iterable[Config] | None = None,
        first: int = 10,
        random_share: float = 0.0,
        candidates: int = 512,
        hope: float | None = None,
    ) -> None:
        super().__init__(space, seed=seed, points_to_evaluate=points_to_evaluate)
        if not first >= 2:
            raise OptionError(f"first={first!r}, but it must be 2 or more")
        if not 0 <= random_share <= 1:
            raise OptionError(f"random_share={random_share!r}, but it is from 0 to 1")
        if not candidates >= 1:
            raise OptionError(f"candidates={candidates!r}, but it must be 1 or more")
        if hope is not None and not hope >= 0:
            raise OptionError(f"hope={hope!r}, but it must be 0 or more")
        self.first = first
        self.random_share = random_share
        self.candidates = candidates
        self.hope = hope
        # (Here, as its import sets an environment variable.)
        from threadpoolctl import ThreadpoolController

        self._threads = ThreadpoolController()
        self._places = Places(space)
        self._kernel = _kernel(self._places)
        self._rewards: Rewards = {}
        self._failed: set[int] = set()
        self._to_fit: Rewards = {}  # what was known when the kernel was to be fitted
        self._settings: Array | None = None  # of the kernel, once it is fitted to `_to_fit`

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """A configuration from the model; a random one at first, and for a share of the trials."""
        found = None
        knows = len(self._rewards) >= self.first and len(self._places) > 0
        if knows and rng.random() >= self.random_share:
            # The matrices are small: where other cores were busy, several threads waited for each
            # other, and slots waited for suggestions 62% of their time instead of 0.2%.
            with self._threads.limit(limits=1):
                found = self._best_candidate(rng)
        return draw_new(self.space, rng, self._seen) if found is None else found

    def observe(self, trial_id: int, config: Config, reward: float | None, time: float) -> None:
        """Take note of a reward at a rung."""
        self._begin(trial_id, config)
        if trial_id in self._failed:  # (the trial runs again)
            self._failed.discard(trial_id)
            del self._rewards[trial_id]
        works = reward is not None and math.isfinite(reward)
        self._rewards.setdefault(trial_id, {})[time] = reward if works else -math.inf  # type: ignore[assignment]
        self._note_growth()

    def _ended(
        self, trial_id: int, config: Config, reward: float | None, violations: tuple[float, ...]
    ) -> None:
        if reward is None or not math.isfinite(reward):
            self._failed.add(trial_id)
            self._rewards[trial_id] = {math.inf: -math.inf}  # earlier rewards do not count
            self._note_growth()
        elif math.inf in self._rewards.get(trial_id, {math.inf: 0.0}):
            self.observe(trial_id, config, reward, math.inf)

    def _row(self, config: Config) -> Array:
        return self._places.row(config)

    def _note_growth(self) -> None:
        """Have the next suggestion fit the kernel to what is known now, if that has grown enough.

        It depends on results alone, so that after a replay, which asks nothing, it is the same.
        """
        if _count(self._rewards) >= GROWTH * _count(self._to_fit):
            self._to_fit = {trial: dict(rewards) for trial, rewards in self._rewards.items()}
            self._settings = None

    # The model

    def _best_candidate(self, rng: np.random.Generator) -> Config | None:
        """The new configuration that promises most."""
        results = self._results(self._rewards).spread(MOST_KNOWN)
        model = self._model(results)

        hope = self._hope()

        def hopes(rows: Array) -> Array:
            mean, deviation = model.at(self._points(rows, results.whole))
            return mean + hope * deviation

        known = np.unique(results.rows, axis=0, equal_nan=True)
        mean, _ = model.at(self._points(known, results.whole))
        candidates = self._drawn(known[_highest(mean, CENTRES)], rng)
        hoped = hopes(candidates)
        for round_ in range(1, 1 + ROUNDS):
            best = candidates[_highest(hoped, CENTRES)]
            more = self._near(best, AROUND, rng, 0.005, 0.1 / round_)
            candidates = np.concatenate([candidates, more])
            hoped = np.concatenate([hoped, hopes(more)])
        configs = (self._places.config(candidates[n]) for n in _highest(hoped, TRIED))
        return next((config for config in configs if key(config) not in self._seen), None)

    def _hope(self) -> float:
        """How many standard deviations are added to the mean."""
        if self.hope is not None:
            return self.hope
        has_rungs = any(time < math.inf for rewards in self._rewards.values() for time in rewards)
        return HOPE_AT_RUNGS if has_rungs else HOPE

    def _model(self, results: Results) -> Posterior:
        """The process, given these results; trials that were not observed yet are expected."""
        if self._settings is None:
            few = self._results(self._to_fit).spread(MOST_FITTED)
            self._settings = self._kernel.fit(self._points(few.rows, few.levels), few.scores)
        running = [row for trial, row in self._rows.items() if trial not in self._rewards]
        return Posterior(
            self._kernel,
            self._settings,
            self._points(results.rows, results.levels),
            results.scores,
            self._points(np.array(running), results.whole) if running else None,
        )

    def _results(self, rewards: Rewards) -> Results:
        return Results.of(rewards, self._rows)

    def _points(self, rows: Array, levels: Array | float) -> Array:
        points = self._places.points(rows)
        return np.column_stack([points, np.broadcast_to(levels, len(rows))])

    def _drawn(self, centres: Array, rng: np.random.Generator) -> Array:
        """Candidates, half of them near the centres."""
        near = self.candidates // 2
        drawn = self._places.draw(rng, self.candidates - near)
        return np.concatenate([drawn, self._near(centres, near, rng, 0.01, 0.3)])

    def _near(
        self, centres: Array, count: int, rng: np.random.Generator, least: float, most: float
    ) -> Array:
        """`count` rows near random centres, by steps of random widths from `least` to `most`."""
        chosen = centres[rng.integers(len(centres), size=count)]
        widths = np.exp(rng.uniform(math.log(least), math.log(most), (count, 1)))
        share = max(0.3, 2 / max(1, chosen.shape[1]))
        return self._places.near(chosen, rng, widths, share)


@dataclass(frozen=True)
class Results:
    """The rewards of trials, one a row: configuration, how long it trained, normal score.

    `levels` are the logarithms of the times, `whole` is the level of a whole training.
    """

    rows: Array
    levels: Array
    scores: Array
    whole: float

    @classmethod
    def of(cls, rewards: Rewards, rows: Mapping[int, Array]) -> Results:
        """All rewards of trials; `rows` are the trials' configurations."""
        flat = [(t, time, r) for t, by_time in rewards.items() for time, r in by_time.items()]
        trials, times, values = zip(*flat, strict=True)
        whole = whole_level(times)
        levels = [whole if math.isinf(time) else _level(time) for time in times]
        scores = normal_scores(np.array(values))
        return cls(np.array([rows[t] for t in trials]), np.array(levels), scores, whole)

    def spread(self, most: int) -> Results:
        """At most `most` of the results: the best half, and an even sample of the others."""
        if len(self.scores) <= most:
            return self
        order = _highest(self.scores, len(self.scores))
        best, others = order[: most // 2], order[most // 2 :]
        places = np.linspace(0, len(others) - 1, most - len(best)).astype(int)
        kept = np.sort(np.concatenate([best, others[places]]))
        return Results(self.rows[kept], self.levels[kept], self.scores[kept], self.whole)


def whole_level(times: Sequence[float]) -> float:
    """The level of a whole training: as far beyond the last rung as rungs are from each other.

    >>> whole_level([1, 3, 9, math.inf])     # log 27, to base 3
    3.0
    """
    rungs = sorted({_level(time) for time in times if time < math.inf})
    if len(rungs) < 2:
        return rungs[0] + 1 if rungs else 0.0
    return rungs[-1] + (rungs[-1] - rungs[0]) / (len(rungs) - 1)


def _level(time: float) -> float:
    return math.log(max(time, 1e-9)) / math.log(STEP)


def normal_scores(values: Array) -> Array:
    """The values that a normal sample has at the ranks of these values; equal values share one.

    >>> normal_scores(np.array([3.0, -math.inf, 7.0])).round(2)
    array([ 0.  , -0.97,  0.97])
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles = (np.cumsum(counts) - counts / 2) / len(values)
    scores = np.array([NormalDist().inv_cdf(middle) for middle in middles.tolist()])
    return scores[inverse]


def _highest(values: Array, count: int) -> Any:
    """The indices of the highest values, the highest first."""
    return np.argsort(-values, kind="stable")[:count]


def _count(rewards: Rewards) -> int:
    return sum(map(len, rewards.values()))


def _kernel(places: Places) -> Kernel:
    """A kernel with widths in units of the parameters' ranges, and one for the time."""
    groups = np.append(places.groups, len(places))
    width = Belief(math.log(0.5 * math.sqrt(len(places))) if len(places) else 0.0, 1.0)
    widths = [width] * len(places) + [Belief(2.0, 1.0)]
    return Kernel(groups, widths, variance=Belief(0.0, 1.0), noise=Belief(-6.0, 1.5))
