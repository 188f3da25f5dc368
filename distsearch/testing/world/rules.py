"""A rule and a searcher that do what is allowed, but what those of this project do not do."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ...core.words import Continue, Decision, Pause, Report, Stop, Trial
from ...scheduler import FIFOScheduler
from ...searcher.base import Config, Searcher


class Unasked(FIFOScheduler):
    """Stops trials, and pauses others once, at reports at which they do not wait for that."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._promoted: deque[int] = deque()
        self._done: set[int] = set()  # trials of which it has decided
        super().__init__(*args, **options)

    def due_at(self, trial: Trial) -> None:
        """Never."""

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """At the second epoch a third of the trials stop, and a third pause."""
        if report.time < 2 or trial.id in self._done or trial.id % 3 == 2:
            return Continue()
        self._done.add(trial.id)
        return Pause("for a while") if trial.id % 3 else Stop("enough")

    def on_pause(self, trial: Trial) -> None:
        """It goes on when there is room."""
        super().on_pause(trial)
        self._promoted.append(trial.id)

    def next_resume(self) -> int | None:
        """The one that has paused first."""
        return self._promoted.popleft() if self._promoted else None


class Partial(Searcher):
    """Suggests configurations in part, of which the rest are defaults."""

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config:
        """One of the two parameters."""
        return {"x": float(rng.random())}
