"""Searchers run against a table: how soon each finds the best, and how far it is from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError
from ...searcher import SEARCHERS, Searcher
from ...searcher.base import config_of
from .tables import Table

AFTER = 200  # regret is told after so many evaluations
# Evolution's settings were the best of a small grid (see benchmarks/lanas.py).
RACERS: dict[str, dict[str, Any]] = {
    "lanas": {},
    "evolution": {"population": 20, "sample": 10, "mutation_probability": 0.0},
    "random": {},
}
Make = Callable[[Table, int], Searcher]


@dataclass(frozen=True)
class Run:
    """One search: the best accuracy after each evaluation; `seconds` of thinking in all."""

    best_so_far: NDArray[np.float64]
    found_after: int | None  # evaluations to the best of the table; None: not within the budget
    seconds: float


@dataclass(frozen=True)
class Score:
    """The results of several runs of one searcher.

    `found`: how many of the `runs` have found the best. `median`: how many evaluations that took
    (inf where most have not found it). `regret`: the mean distance from the best after 200
    evaluations, or as many as there were.
    """

    found: int
    runs: int
    median: float
    regret: float
    seconds: float  # how long one suggestion takes

    @classmethod
    def of(cls, runs: list[Run], table: Table) -> Score:
        """The score of several runs against a table."""
        after = [np.inf if run.found_after is None else run.found_after for run in runs]
        regrets = [table.best - run.best_so_far[: AFTER + 1][-1] for run in runs]
        asked = sum(len(run.best_so_far) for run in runs)
        return cls(
            found=int(np.isfinite(after).sum()),
            runs=len(runs),
            median=float(np.median(after)),
            regret=float(np.mean(regrets)),
            seconds=sum(run.seconds for run in runs) / asked,
        )


def named(name: str, options: Mapping[str, Any] | None = None) -> Make:
    """A function that makes the searcher of this name, without a first point of its own.

    Raises OptionError for a name that is none.
    """
    if name not in SEARCHERS:
        raise OptionError(f"there is no searcher {name!r}; there are {', '.join(SEARCHERS)}")

    def make(table: Table, seed: int) -> Searcher:
        more = dict(options or {})
        if name == "lanas" and len(table.codes) < table.space.size:
            more["pool"] = table.codes
        return SEARCHERS[name](table.space, seed=seed, points_to_evaluate=[], **more)

    return make


def run(make: Make, table: Table, seed: int, evaluations: int, outstanding: int = 1) -> Run:
    """One search, with so many evaluations under way at once, which end in random order.

    It ends early once it has found the best of the table. Of a table that is not a whole space,
    what is missing counts as failed, without being counted as an evaluation.
    """
    searcher = make(table, seed)
    rng = np.random.default_rng((seed, outstanding))
    running: list[tuple[int, Any]] = []
    best: list[float] = []
    asked, seconds = 0, 0.0
    while len(best) < evaluations:
        while len(running) < outstanding:
            begin = time.thread_time()
            suggested = searcher.ask(asked)
            seconds += time.thread_time() - begin
            if suggested is None:
                break
            config = config_of(suggested)
            if table.has(config):
                running.append((asked, config))
            else:
                searcher.tell(asked, config, None)
            asked += 1
        if not running:
            break
        place = int(rng.integers(len(running)))
        trial_id, config = running.pop(place)
        accuracy = table.accuracy(config)
        searcher.tell(trial_id, config, accuracy)
        best.append(max(accuracy, best[-1] if best else accuracy))
        if accuracy >= table.best:
            return Run(np.array(best), len(best), seconds)
    return Run(np.array(best), None, seconds)


def quartiles(runs: list[Run], evaluations: int) -> NDArray[np.float64]:
    """The lower quartile, the median and the upper one after each evaluation: (3, evaluations)."""
    filled = np.full((len(runs), evaluations), np.nan)
    for row, one in zip(filled, runs, strict=True):
        row[: len(one.best_so_far)] = one.best_so_far
        row[len(one.best_so_far) :] = one.best_so_far[-1]
    found: NDArray[np.float64] = np.quantile(filled, [0.25, 0.5, 0.75], axis=0)
    return found
