"""BOHB: densities of the good and of the other configurations, from the longest trainings.

Source: Falkner, Klein and Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at
Scale", ICML (2018), section 4.1 and algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..space import Choice, Space
from ..space.base import Domain
from .base import Config
from .model import ModelSearcher
from .random import draw_new, key

LEAST_WIDTH = 1e-3  # the least width of a kernel
Row = dict[str, float]  # by path: the place in [0, 1], or the number of an option


class BOHBSearcher(ModelSearcher):
    """The model of BOHB, `searcher='bohb'`: learns from what trials reach at each rung.

        scheduler = HyperbandScheduler(train_fn, searcher='bohb', type='promotion', max_t=81)

    The model learns from the longest budget (rung, or whole training) at which parameters + 3
    trials were observed. The best `top_share` of these trials are the good ones. `candidates` are
    drawn near them, and the one is suggested where the density of the good trials is highest in
    relation to that of the others. Trials that failed, or run and were not observed yet, count
    among the others, so that suggestions made side by side differ. `random_share` of the
    suggestions are random, and all of them until there is enough to learn from. No configuration
    that was suggested or told is suggested again.

    A density is a product of one kernel for each parameter; to draw from it, the kernels are
    `bandwidth_factor` times as wide. A parameter that was not active tells nothing, so conditional
    spaces need no made-up values. Without rungs (FIFOScheduler) all trials count as whole
    trainings.

    Raises OptionError for settings that make no sense.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        points_to_evaluate: Iterable[Config] | None = None,
        random_share: float = 1 / 3,
        top_share: float = 0.15,
        candidates: int = 64,
        bandwidth_factor: float = 3.0,
    ) -> None:
        super().__init__(space, seed=seed, points_to_evaluate=points_to_evaluate)
        for name, share in (("random_share", random_share), ("top_share", top_share)):
            if not 0 <= share <= 1:
                raise OptionError(f"{name}={share!r}, but it is from 0 to 1")
        if not candidates >= 1:
            raise OptionError(f"candidates={candidates!r}, but it must be 1 or more")
        if not bandwidth_factor > 0:
            raise OptionError(f"bandwidth_factor={bandwidth_factor!r}, but it must be above 0")
        self.random_share = random_share
        self.top_share = top_share
        self.candidates = candidates
        self.bandwidth_factor = bandwidth_factor
        self._domains: dict[str, Domain] = {}  # of each parameter that was ever active
        self._rewards: dict[float, dict[int, float]] = {}  # by budget and trial
        self._observed: set[int] = set()
        self._failed: dict[int, None] = {}  # the failed trials, in order

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """A configuration from the model; a random one at first, and for a share of the trials."""
        split = None if rng.random() < self.random_share else self._split()
        found = None if split is None else self._best_candidate(*split, rng)
        return draw_new(self.space, rng, self._seen) if found is None else found

    def observe(self, trial_id: int, config: Config, reward: float | None, time: float) -> None:
        """Take note of a reward at a rung."""
        self._begin(trial_id, config)
        works = reward is not None and math.isfinite(reward)
        self._rewards.setdefault(time, {})[trial_id] = reward if works else -math.inf  # type: ignore[assignment]
        self._observed.add(trial_id)

    def _ended(
        self, trial_id: int, config: Config, reward: float | None, violations: tuple[float, ...]
    ) -> None:
        if reward is None or not math.isfinite(reward):
            self._failed[trial_id] = None
            for rewards in self._rewards.values():
                rewards.pop(trial_id, None)  # (rewards before a failure do not count)
        elif trial_id not in self._observed or trial_id in self._rewards.get(math.inf, ()):
            self.observe(trial_id, config, reward, math.inf)

    def _row(self, config: Config) -> Row:
        row = {}

        def note(path: str, domain: Domain) -> Any:
            self._domains[path] = domain
            unit = np.asarray(domain.to_unit(config[path]), dtype=float).reshape(-1)
            row[path] = float(unit.argmax() if isinstance(domain, Choice) else unit[0])
            return config[path]

        self.space.walk(note)
        return row

    def _split(self) -> tuple[list[Row], list[Row]] | None:
        """The good trials and the others, at the longest budget with enough of both."""
        least = len(self._domains) + 1
        enough = [time for time, rewards in self._rewards.items() if len(rewards) >= least + 2]
        if not enough:
            return None
        rewards = self._rewards[max(enough)]
        ranked = sorted(rewards, key=lambda trial: -rewards[trial])
        top = max(least, math.floor(self.top_share * len(ranked)))
        others = ranked[-max(least, len(ranked) - top) :]
        others += self._failed
        others += [
            trial
            for trial in self._rows
            if trial not in self._observed and trial not in self._failed
        ]
        return [self._rows[trial] for trial in ranked[:top]], [self._rows[t] for t in others]

    def _best_candidate(
        self, good: Sequence[Row], others: Sequence[Row], rng: np.random.Generator
    ) -> Config | None:
        """Of candidates near the good trials, the new one with the best ratio of densities."""
        dense, rare = Density(self._domains, good), Density(self._domains, others)
        drawn = [
            self.space.walk(dense.drawer(rng, self.bandwidth_factor))
            for _ in range(self.candidates)
        ]
        rows = [self._row(config) for config in drawn]
        ratio = dense.log_at(rows) - rare.log_at(rows)
        ordered = (drawn[index] for index in np.argsort(-ratio, kind="stable"))
        return next((config for config in ordered if key(config) not in self._seen), None)


class Density:
    """A kernel density estimate over configurations, from at least one.

    The kernel of a number is normal, cut off at the ends of its range; the kernel of a choice has
    the same option, or with some probability any other (Aitchison and Aitken 1976). The widths
    follow the normal reference rule; the spread of a choice is the probability that two
    configurations differ in it.
    """

    def __init__(self, domains: dict[str, Domain], rows: Sequence[Row]) -> None:
        self.rows = rows
        self.options = {
            path: len(domain.choices) if isinstance(domain, Choice) else 0
            for path, domain in domains.items()
        }
        shrink = len(rows) ** (-1 / (4 + len(domains)))
        self.columns = {path: _column(rows, path) for path in domains}
        self.widths = {
            path: max(LEAST_WIDTH, 1.06 * _spread(column, self.options[path]) * shrink)
            for path, column in self.columns.items()
        }

    def drawer(self, rng: np.random.Generator, wider: float) -> Any:
        """An `ask` for `Space.walk` that draws near one of the configurations."""
        centre = self.rows[int(rng.integers(len(self.rows)))]

        def draw(path: str, domain: Domain) -> Any:
            if path not in centre:
                return domain.draw(rng)
            width = wider * self.widths[path]
            if isinstance(domain, Choice):
                options = len(domain.choices)
                if rng.random() < min(width, 1 - 1 / options):
                    others = [n for n in range(options) if n != centre[path]]
                    return domain.choices[others[rng.integers(len(others))]]
                return domain.choices[int(centre[path])]
            unit = rng.normal(centre[path], width)
            while not 0 <= unit <= 1:
                unit = rng.normal(centre[path], width)
            return domain.from_unit(np.array([unit]))

        return draw

    def log_at(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The logarithm of the density at configurations."""
        total = np.zeros((len(rows), len(self.rows)))
        for path, column in self.columns.items():
            at = _column(rows, path)[:, None]
            kernel = self._log_kernel(path, at, column[None, :])
            total += np.where(np.isnan(at), 0.0, kernel)
        highest = total.max(axis=1)
        return highest + np.log(np.exp(total - highest[:, None]).mean(axis=1))  # type: ignore[no-any-return]

    def _log_kernel(
        self, path: str, at: NDArray[np.float64], centres: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The logarithm of a kernel; uniform where the parameter was not active."""
        width, options = self.widths[path], self.options[path]
        if options:
            away = min(width, 1 - 1 / options)
            other = math.log(away / max(1, options - 1)) if away > 0 else 0.0
            found = np.where(at == centres, math.log(1 - away), other)
            return np.where(np.isnan(centres), -math.log(options), found)
        inside = [
            math.erf((1 - centre) / width / math.sqrt(2)) + math.erf(centre / width / math.sqrt(2))
            for centre in np.nan_to_num(centres[0])
        ]
        normal = -(((at - centres) / width) ** 2) / 2 - math.log(width * math.sqrt(math.pi / 2))
        return np.where(np.isnan(centres), 0.0, normal - np.log(inside))


def _column(rows: Sequence[Row], path: str) -> NDArray[np.float64]:
    """A parameter in each configuration, NaN where it is not active."""
    return np.array([row.get(path, math.nan) for row in rows])


def _spread(column: NDArray[np.float64], options: int) -> float:
    values = column[~np.isnan(column)]
    if not len(values):
        return 0.0
    if not options:
        return float(values.std())
    shares = np.bincount(values.astype(int)) / len(values)
    return math.sqrt(max(0.0, 1 - float(np.square(shares).sum())))
