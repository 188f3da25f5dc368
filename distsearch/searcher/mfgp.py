"""A Gaussian process over configurations and how long they train, for searches with rungs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ..errors import SpaceError
from ..space import Space
from .base import Config, Reward, Searcher, config_of
from .gaussian import Belief, Kernel, Posterior
from .places import Array, Places
from .random import draw_new, key

STEP = 3.0  # how much longer a whole training is than the last rung, while there is one rung
GROWTH = 1.15  # so many times as many results, and the kernel is fitted again
MOST_FITTED = 200  # results from which the kernel is fitted
MOST_KNOWN = 500  # results that the model holds
HOPE_AT_RUNGS = 4.0
HOPE = 1.0
CENTRES = 5  # so many of the best are looked around
ROUNDS = 2  # of looking around the best candidates
AROUND = 100  # candidates in such a round
TRIED = 50  # so many of the best candidates may have been seen before

Rewards = dict[int, dict[float, float]]  # trial -> time -> reward, -inf where there was none


class MFGPSearcher(Searcher):
    """A multi-fidelity Gaussian process, `searcher='mfgp'`: one model of all rungs.

        scheduler = HyperbandScheduler(train_fn, searcher='mfgp', type='promotion', max_t=81)

    The model says what reward a configuration has after how long a training, and how sure that
    is: a Gaussian process (Matern 5/2, a width for each parameter and for the logarithm of the
    time) over all that trials reached at rungs. Rewards count by their ranks among all, as normal
    scores, so that their scale does not matter; a trial that failed has the lowest. Of `candidates`
    that are drawn at random and near the best ones, and of those found around the best of these, it
    suggests the one for whose whole training the model hopes for most: the mean and `hope`
    standard deviations. None stands for 4 where trials are compared at rungs, since what is hoped
    for in vain costs little there, and for 1 where each is a whole training. Where trials run that
    were not observed yet, the model is surer already, so that suggestions made side by side
    differ. The `first` trials are random, and a `random_share` later. What was suggested or told
    once is not suggested again.

    A parameter that is not active says nothing. Without rungs (FIFOScheduler) all trials count as
    whole trainings, and it is a plain Gaussian process. The kernel is fitted to at most 200
    results, whenever there are 15% more of them, and at most 500 are in the model: the best half,
    and of the others every so-manyth.

    Raises SpaceError for settings that make no sense.

    Sources: Klein et al., "Model-based Asynchronous Hyperparameter and Neural Architecture Search",
    arXiv:2003.10865 (2020); Srinivas et al., "Gaussian Process Optimization in the Bandit Setting",
    ICML (2010).
    """

    endless = True
    slow = True

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
            raise SpaceError(f"first={first!r}, but it must be 2 or more")
        if not 0 <= random_share <= 1:
            raise SpaceError(f"random_share={random_share!r}, but it is from 0 to 1")
        if not candidates >= 1:
            raise SpaceError(f"candidates={candidates!r}, but it must be 1 or more")
        if hope is not None and not hope >= 0:
            raise SpaceError(f"hope={hope!r}, but it must be 0 or more")
        self.first = first
        self.random_share = random_share
        self.candidates = candidates
        self.hope = hope
        from threadpoolctl import ThreadpoolController  # which sets an environment variable

        self._threads = ThreadpoolController()
        self._places = Places(space)
        self._kernel = _kernel(self._places)
        self._rows: dict[int, Array] = {}  # of every trial
        self._rewards: Rewards = {}
        self._failed: set[int] = set()
        self._seen: set[str] = set()
        self._to_fit: Rewards = {}  # what was known when the kernel was to be fitted
        self._settings: Array | None = None  # of the kernel, once it is fitted to that

    def ask(self, trial_id: int) -> Config | None:
        """A new configuration; None once every one of a finite space was suggested."""
        suggested = super().ask(trial_id)
        if suggested is None:
            return None
        config = config_of(suggested)
        self._begin(trial_id, config)
        return config

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """From the model, or at first, and for a share of the trials, a random configuration."""
        found = None
        knows = len(self._rewards) >= self.first and len(self._places) > 0
        if knows and rng.random() >= self.random_share:
            # Its matrices are small: where other cores were busy, several threads waited for each
            # other, and slots for a suggestion 62% of their time, not 0.2%.
            with self._threads.limit(limits=1):
                found = self._best_candidate(rng)
        return draw_new(self.space, rng, self._seen) if found is None else found

    def observe(self, trial_id: int, config: Config, reward: float | None, time: float) -> None:
        """Take note of a reward at a rung."""
        self._begin(trial_id, config)
        if trial_id in self._failed:  # it runs again
            self._failed.discard(trial_id)
            del self._rewards[trial_id]
        works = reward is not None and math.isfinite(reward)
        self._rewards.setdefault(trial_id, {})[time] = reward if works else -math.inf  # type: ignore[assignment]
        self._note_growth()

    def tell(
        self,
        trial_id: int,
        config: Config,
        reward: Reward | None,
        violations: tuple[float, ...] = (),
    ) -> None:
        """Take note of a failure, or of the reward of a trial for which there are no rungs."""
        assert not isinstance(reward, tuple)  # it aims at one
        self._begin(trial_id, config)
        if reward is None or not math.isfinite(reward):
            self._failed.add(trial_id)
            self._rewards[trial_id] = {math.inf: -math.inf}  # what was good before counts no more
            self._note_growth()
        elif math.inf in self._rewards.get(trial_id, {math.inf: 0.0}):
            self.observe(trial_id, config, reward, math.inf)

    def replay(self, trial_id: int, config: Config) -> bool:
        """Take note of an earlier suggestion without computing it again.

        False only when a given point was another one.
        """
        if self._first:
            return super().replay(trial_id, config)
        self._begin(trial_id, config)
        return True

    def _begin(self, trial_id: int, config: Config) -> None:
        if trial_id not in self._rows:
            self._rows[trial_id] = self._places.row(config)
            self._seen.add(key(config))

    def _note_growth(self) -> None:
        """Let the kernel be fitted, with the next suggestion, to what is known now.

        When that is depends on results alone, so that a replay, which does not ask, fits it alike.
        """
        if _count(self._rewards) >= GROWTH * _count(self._to_fit):
            self._to_fit = {trial: dict(rewards) for trial, rewards in self._rewards.items()}
            self._settings = None

    # The model

    def _best_candidate(self, rng: np.random.Generator) -> Config | None:
        """The new configuration for which the model hopes for most."""
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
        """How many standard deviations count."""
        if self.hope is not None:
            return self.hope
        has_rungs = any(time < math.inf for rewards in self._rewards.values() for time in rewards)
        return HOPE_AT_RUNGS if has_rungs else HOPE

    def _model(self, results: Results) -> Posterior:
        """What is known, fitted, with those trials in it that were not observed yet."""
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
        """So many rows near some of the centres, of widths from the least to the most."""
        chosen = centres[rng.integers(len(centres), size=count)]
        widths = np.exp(rng.uniform(math.log(least), math.log(most), (count, 1)))
        share = max(0.3, 2 / max(1, chosen.shape[1]))
        return self._places.near(chosen, rng, widths, share)


@dataclass(frozen=True)
class Results:
    """What trials reached, one a row: their configuration, how long they trained, normal score.

    `levels` are logarithms of times; `whole` is that of a whole training.
    """

    rows: Array
    levels: Array
    scores: Array
    whole: float

    @classmethod
    def of(cls, rewards: Rewards, rows: Mapping[int, Array]) -> Results:
        """Of all rewards of trials, whose rows are given."""
        flat = [(t, time, r) for t, by_time in rewards.items() for time, r in by_time.items()]
        trials, times, values = zip(*flat, strict=True)
        whole = whole_level(times)
        levels = [whole if math.isinf(time) else _level(time) for time in times]
        scores = normal_scores(np.array(values))
        return cls(np.array([rows[t] for t in trials]), np.array(levels), scores, whole)

    def spread(self, most: int) -> Results:
        """At most so many of them: the best half, and of the others every so-manyth."""
        if len(self.scores) <= most:
            return self
        order = _highest(self.scores, len(self.scores))
        best, others = order[: most // 2], order[most // 2 :]
        places = np.linspace(0, len(others) - 1, most - len(best)).astype(int)
        kept = np.sort(np.concatenate([best, others[places]]))
        return Results(self.rows[kept], self.levels[kept], self.scores[kept], self.whole)


def whole_level(times: Sequence[float]) -> float:
    """The level of a whole training, which lies beyond the last rung as that beyond those before.

    >>> whole_level([1, 3, 9, math.inf])     # as the one at 27
    3.0
    """
    rungs = sorted({_level(time) for time in times if time < math.inf})
    if len(rungs) < 2:
        return rungs[0] + 1 if rungs else 0.0
    return rungs[-1] + (rungs[-1] - rungs[0]) / (len(rungs) - 1)


def _level(time: float) -> float:
    return math.log(max(time, 1e-9)) / math.log(STEP)


def normal_scores(values: Array) -> Array:
    """What values of these ranks would be in a sample of a normal distribution; equal ones share.

    >>> normal_scores(np.array([3.0, -math.inf, 7.0])).round(2)
    array([ 0.  , -0.97,  0.97])
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles = (np.cumsum(counts) - counts / 2) / len(values)
    scores = np.array([NormalDist().inv_cdf(middle) for middle in middles.tolist()])
    return scores[inverse]


def _highest(values: Array, count: int) -> Any:
    """The places of the highest values, the highest first."""
    return np.argsort(-values, kind="stable")[:count]


def _count(rewards: Rewards) -> int:
    return sum(map(len, rewards.values()))


def _kernel(places: Places) -> Kernel:
    """In units of the parameters' ranges, and for the time of rungs."""
    groups = np.append(places.groups, len(places))
    width = Belief(math.log(0.5 * math.sqrt(len(places))) if len(places) else 0.0, 1.0)
    widths = [width] * len(places) + [Belief(2.0, 1.0)]
    return Kernel(groups, widths, variance=Belief(0.0, 1.0), noise=Belief(-6.0, 1.5))
