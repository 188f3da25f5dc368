"""What searchers with a tree of regions have in common: what is known, and when a tree grows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import OptionError
from ..space import Space
from .base import Config
from .growth import Grown, Growth, OneThread
from .model import ModelSearcher
from .places import Array, Places
from .random import draw_new, key
from .regions import Region, Split, Tree, grow, levels
from .worth import Scale

Results = dict[int, dict[float, float]]  # by trial and time; -inf where it failed

PART = 8  # a tree grows while a share of 1 / PART of the suggestions under way is made
KNOWN = 0.5  # the first tree grows when this share of the first trials has results


@dataclass(frozen=True)
class Seen:
    """A region as its picture shows it.

    `depth`: how many splits lead to it. `side`: whether it is the good part of its parent, None for
    the whole space. `trials`: its trials with a result, `running`: those without. `mean`: the mean
    of their rewards, None where all have failed. `is_chosen`: whether the next suggestion would
    come from it, as the highest bounds lead there.
    """

    depth: int
    side: bool | None
    trials: int
    running: int
    mean: float | None
    is_chosen: bool
    is_leaf: bool


class RegionSearcher(ModelSearcher):
    """Learns a tree of regions from results and suggests from the leaf that UCB chooses.

    A subclass says how a region is split (`split`), and what is suggested in a leaf (`suggest_in`).
    A tree is grown once `first` trials were suggested and half of them have results, and anew after
    `rebuild_every` further results. It grows in a thread of its own. Meanwhile some suggestions
    come from the tree before it (or, before the first tree, at random): an eighth as many as trials
    are under way, at least one. When a tree grows, and from which suggestion on it is used, depends
    on the order of suggestions and results alone, not on the time that growing takes: so a replay,
    which suggests nothing, comes to the same tree. One tree grows at a time.
    """

    constrained = True

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        points_to_evaluate: Iterable[Config] | None,
        first: int,
        rebuild_every: int,
        height: int,
        least: int,
        exploration: float,
    ) -> None:
        super().__init__(space, seed=seed, points_to_evaluate=points_to_evaluate)
        for name, value, at_least in (
            ("first", first, 2),
            ("rebuild_every", rebuild_every, 1),
            ("height", height, 0),
            ("least", least, 1),
            ("exploration", exploration, 0),
        ):
            if not value >= at_least:
                raise OptionError(f"{name}={value!r}, but it must be {at_least} or more")
        self.first, self.rebuild_every = first, rebuild_every
        self.height, self.least, self.exploration = height, least, exploration
        self._one_thread = OneThread()  # (the matrices are small)
        self.places = Places(space)
        self._results: Results = {}
        self._failed: set[int] = set()
        self._violations: dict[int, float] = {}
        self._suggested = 0  # how many suggestions were made, or replayed
        self._is_live = False  # whether it suggests: in a replay no tree needs to grow
        self._used: Growth | None = None  # the tree from which suggestions come
        self._next: Growth | None = None  # the tree from which they come later
        self._tree: Tree | None = None  # what `_used` has grown, once that was needed
        self.scale = Scale.of({}, {})
        self.learned: Any = None  # what `learn` has returned
        self._leaves: dict[int, int] = {}  # by trial that is counted in the tree
        self._scores: dict[int, float] = {}  # by trial with a result

    # What a subclass adds

    def split(self, rows: Array, scores: Array) -> Split | None:
        """The split of a region with these rows and scores; None: it stays whole."""
        raise NotImplementedError(f"{type(self).__name__} needs a method split(rows, scores)")

    def score(self, scale: Scale, rewards: Mapping[float, float], violation: float) -> float:
        """The score of a trial by its rewards; -inf if it failed."""
        return scale.score(rewards, violation)

    def learn(self, rows: Array, scores: Array) -> Any:
        """What else to learn from the rows and scores (-inf: failed) of a tree: for `learned`.

        Called in the thread in which the tree grows.
        """

    def suggest_in(self, leaf: Region, rng: np.random.Generator) -> Config | None:
        """A configuration in a leaf that was not seen before; None if none is found."""
        raise NotImplementedError(f"{type(self).__name__} needs a method suggest_in(leaf, rng)")

    def suggest_anywhere(self, rng: np.random.Generator) -> Config | None:
        """A random configuration that was not seen before; None if there is none left."""
        return draw_new(self.space, rng, self._seen)

    # Ask and tell

    def ask(self, trial_id: int) -> Config | None:
        """A new configuration; None once all of a finite space or pool were suggested."""
        self._is_live = True
        self._use_what_is_due()
        if self._next is not None:
            self._next.start()
        config = super().ask(trial_id)
        self._suggested += config is not None
        return config

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """A configuration from the chosen leaf; a random one at first, or if no leaf has one."""
        found = None
        if self._used is not None:
            with self._one_thread:
                found = self._suggest_from_tree(rng)
        return self.suggest_anywhere(rng) if found is None else found

    def observe(self, trial_id: int, config: Config, reward: float | None, time: float) -> None:
        """Take note of a reward at a rung."""
        self._begin(trial_id, config)
        if trial_id in self._failed:  # (the trial runs again)
            self._failed.discard(trial_id)
            del self._results[trial_id]
        works = reward is not None and math.isfinite(reward)
        self._note(trial_id, time, reward if works else -math.inf)  # type: ignore[arg-type]

    def _ended(
        self, trial_id: int, config: Config, reward: float | None, violations: tuple[float, ...]
    ) -> None:
        amounts = [amount if amount > 0 else 0.0 for amount in violations]
        self._violations[trial_id] = sum(amounts) if np.isfinite(amounts).all() else math.inf
        if reward is None or not math.isfinite(reward) or math.isinf(self._violations[trial_id]):
            self._failed.add(trial_id)
            self._results.pop(trial_id, None)  # earlier rewards do not count
            self._note(trial_id, math.inf, -math.inf)
        elif math.inf in self._results.get(trial_id, {math.inf: 0.0}):
            self.observe(trial_id, config, reward, math.inf)
        self._scores.pop(trial_id, None)

    def replay(self, trial_id: int, config: Config) -> bool:
        """Take note of an earlier suggestion without computing it again.

        False only where the user's points to evaluate have changed.
        """
        self._is_live = False
        self._use_what_is_due()
        self._suggested += 1
        if self._first and not self._first.pop().items() <= config.items():
            return False
        self._begin(trial_id, config)
        return True

    def _row(self, config: Config) -> Array:
        return self.places.row(config)

    def _note(self, trial_id: int, time: float, reward: float) -> None:
        self._results.setdefault(trial_id, {})[time] = reward
        self._scores.pop(trial_id, None)
        self._use_what_is_due()
        if self._next is not None or not len(self.places):
            return
        count = _count(self._results)
        if self._is_enough(count):
            self._next = self._growth(count)
            if self._is_live:
                self._next.start()
            self._use_what_is_due()

    # The tree

    def _is_enough(self, count: int) -> bool:
        """Whether a tree may grow from this number of results.

        The first tree grows once all first trials were suggested, of which some may still run.
        """
        if self._used is not None:
            return count >= self._used.count + self.rebuild_every
        known = len(self._results)
        all_suggested = self._suggested >= self.first
        return known >= self.first or (all_suggested and known >= KNOWN * self.first)

    def _growth(self, count: int) -> Growth:
        """The growth of a tree from what is known now, with the first suggestion that uses it.

        What was told before the first suggestion counts from that one on.
        """
        results = {trial: dict(one) for trial, one in self._results.items()}
        violations = dict(self._violations)
        rows = np.array([self._rows[trial] for trial in results])
        running = len(self._rows) - len(results)
        meanwhile = max(1, running // PART) if self._suggested else 0
        return Growth(
            lambda: self._grown(rows, results, violations),
            count=count,
            since=self._suggested + meanwhile,
        )

    def _use_what_is_due(self) -> None:
        """Let the next tree take the place of the one before it, once its suggestion has come."""
        if self._next is not None and self._suggested >= self._next.since:
            self._used, self._next, self._tree = self._next, None, None

    def _suggest_from_tree(self, rng: np.random.Generator) -> Config | None:
        tree = self.tree()
        assert tree is not None
        empty: list[Region] = []
        while (leaf := tree.choose(self.exploration, rng, empty)) is not None:
            found = self.suggest_in(leaf, rng)
            if found is not None:
                return found
            empty.append(leaf)
        return None

    def tree(self) -> Tree | None:
        """The tree that is used, in which all trials are counted; None while there is none."""
        if self._used is None:
            return None
        if self._tree is None:
            grown = self._used.result()
            self._tree, self.scale, self.learned = grown.tree, grown.scale, grown.learned
            self._leaves, self._scores = {}, {}
        tree = self._tree
        new = [trial for trial in self._rows if trial not in self._leaves]
        if new:
            found = tree.leaves_of(np.array([self._rows[trial] for trial in new]))
            self._leaves.update(zip(new, found.tolist(), strict=True))
        for trial in self._results:
            if trial not in self._scores:
                violation = self._violations.get(trial, 0.0)
                self._scores[trial] = self.score(self.scale, self._results[trial], violation)
        leaves = np.array([self._leaves[trial] for trial in self._rows])
        scores = np.array([self._scores.get(trial, math.nan) for trial in self._rows])
        tree.count(leaves, scores)
        return tree

    def _grown(self, rows: Array, results: Results, violations: Mapping[int, float]) -> Grown:
        with self._one_thread:
            scale = Scale.of(results, violations)
            known = [(one, violations.get(trial, 0.0)) for trial, one in results.items()]
            scores = np.array([self.score(scale, one, violation) for one, violation in known])
            learned = self.learn(rows, scores)
            tree = grow(rows, scores, self.split, height=self.height, least=self.least)
        return Grown(tree, scale, learned)

    def in_leaf(self, leaf: Region) -> tuple[Array, Array]:
        """The rows of the trials in a leaf, and their scores (NaN: no result yet, -inf: failed)."""
        trials = [trial for trial, number in self._leaves.items() if number == leaf.number]
        scores = [self._scores.get(trial, math.nan) for trial in trials]
        return np.array([self._rows[trial] for trial in trials]), np.array(scores)

    def is_new(self, config: Config) -> bool:
        """Whether a configuration was neither suggested nor told yet."""
        return key(config) not in self._seen

    def overview(self) -> list[Seen]:
        """Every region with its trials, each before its parts; [] while there is no tree."""
        tree = self.tree()
        if tree is None:
            return []
        chosen: set[Region] = set()
        at = tree.choose(self.exploration, np.random.default_rng(self.seed))
        while at is not None:
            chosen.add(at)
            at = at.parent
        members: dict[Region, list[int]] = {region: [] for region in tree.regions}
        leaves = tree.leaves
        for trial, number in self._leaves.items():
            region: Region | None = leaves[number]
            while region is not None:
                members[region].append(trial)
                region = region.parent
        return [
            self._seen_as(region, depth, members[region], region in chosen)
            for region, depth in zip(tree.regions, levels(tree), strict=True)
        ]

    def _seen_as(self, region: Region, depth: int, trials: list[int], is_chosen: bool) -> Seen:
        known = [trial for trial in trials if trial in self._results]
        rewards = [self._results[trial][max(self._results[trial])] for trial in known]
        works = [reward for reward in rewards if reward > -math.inf]
        side = None if region.parent is None else region is region.parent.good
        mean = sum(works) / len(works) if works else None
        running = len(trials) - len(known)
        return Seen(depth, side, len(known), running, mean, is_chosen, not region.parts)


def _count(results: Results) -> int:
    return sum(map(len, results.values()))
