"""What searchers share that learn a model from rows of numbers, one for each configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..space import Space
from .base import Config, Reward, Searcher, config_of
from .random import key


class ModelSearcher(Searcher):
    """A searcher with a model: it keeps a row for each trial, and suggests nothing twice.

    A subclass says what the row of a configuration is (`_row`), and learns from the end of a trial
    (`_ended`).
    """

    endless = True
    slow = True

    def __init__(
        self, space: Space, *, seed: int = 0, points_to_evaluate: Iterable[Config] | None = None
    ) -> None:
        super().__init__(space, seed=seed, points_to_evaluate=points_to_evaluate)
        self._rows: dict[int, Any] = {}  # by trial
        self._seen: set[str] = set()  # every configuration that was suggested or told

    def _row(self, config: Config) -> Any:
        """A configuration as the model sees it."""
        raise NotImplementedError

    def _ended(
        self, trial_id: int, config: Config, reward: float | None, violations: tuple[float, ...]
    ) -> None:
        """Take note of a failure, or of the reward of a trial for which there are no rungs."""
        raise NotImplementedError

    def ask(self, trial_id: int) -> Config | None:
        """A new configuration; None once all of a finite space were suggested."""
        suggested = super().ask(trial_id)
        if suggested is None:
            return None
        config = config_of(suggested)
        self._begin(trial_id, config)
        return config

    def tell(
        self,
        trial_id: int,
        config: Config,
        reward: Reward | None,
        violations: tuple[float, ...] = (),
    ) -> None:
        """Hear how a trial has ended."""
        assert not isinstance(reward, tuple)  # (`aim` refuses several objectives)
        self._begin(trial_id, config)
        self._ended(trial_id, config, reward, violations)

    def replay(self, trial_id: int, config: Config) -> bool:
        """Take note of an earlier suggestion without computing it again.

        False only where the user's points to evaluate have changed.
        """
        if self._first:
            return super().replay(trial_id, config)
        self._begin(trial_id, config)
        return True

    def _begin(self, trial_id: int, config: Config) -> None:
        """Know a trial and its configuration from now on."""
        if trial_id not in self._rows:
            self._rows[trial_id] = self._row(config)
            self._seen.add(key(config))
