"""The schedulers of stories; with a rule and a searcher that do what is allowed and seldom done."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from ...core.words import Continue, Decision, Pause, Report, Stop, Trial
from ...scheduler import FIFOScheduler, HyperbandScheduler, PBTScheduler, Scheduler
from ...searcher.base import Config, Searcher
from .dask import DaskCluster
from .plan import Plan, train_fn


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


def scheduler_of(plan: Plan, folder: Path, cluster: DaskCluster) -> Scheduler:
    """The scheduler that the program of a plan makes, each time that it is started."""
    options: dict[str, Any] = {
        "resource": {
            "num_cpus": plan.cpus,
            "world_size": plan.ranks,
            "ranks_per_node": plan.ranks_per_node,
        },
        "checkpoint": folder,
        "resume": True,
        "client": cluster,
        "isolation": "reuse" if plan.reuse else "fresh",
        "report_timeout": plan.report_timeout,
        "max_failures": plan.max_failures,
        "seed": plan.seed,
        "verbose": 0,
    }
    evolution = {"population": 4, "sample": 2}
    if plan.rule == "fifo":
        return FIFOScheduler(train_fn, **options)
    if plan.rule == "partial":
        searcher = Partial(train_fn.space, seed=plan.seed)
        return FIFOScheduler(train_fn, searcher=searcher, **options)
    if plan.rule == "evolution":
        options |= {"searcher": "evolution", "search_options": evolution}
        return FIFOScheduler(train_fn, **options)
    if plan.rule == "front":
        options |= {"reward_attr": ["accuracy", "cost"], "mode": ["max", "min"]}
        options |= {"searcher": "evolution", "search_options": {**evolution, "inherit": True}}
        return FIFOScheduler(train_fn, on_parent_failure="retry", **options)
    if plan.rule == "unasked":
        return Unasked(train_fn, **options)
    if plan.rule == "pbt":
        return PBTScheduler(train_fn, max_t=plan.max_t, population_size=3, **options)
    return HyperbandScheduler(
        train_fn, max_t=plan.max_t, reduction_factor=2, type=plan.rule, **options
    )
