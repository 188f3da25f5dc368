"""Searchers that learn under early stopping, on real learning curves: regret against epochs.

    python -m benchmarks.multi_fidelity_models --data FOLDER    # half an hour
    python -m benchmarks.multi_fidelity_models --searchers random bohb mfgp --seeds 10 --slots 4

The simulation of multi_fidelity.py, but each searcher suggests whatever it likes of the whole
space: its configurations are looked up as they start. "full training" is random search that stops
nothing. A search starts no trial after the epochs of the last budget. Regret: how much worse, after
whole training, the configuration with the best report so far is than the best that any of these
searches, or of their random configurations, holds: the best known.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from distsearch.searcher import SEARCHERS

from .multi_fidelity import (
    CHEAPER,
    DEFAULT,
    FULL,
    GRACE,
    ROOT,
    RULES,
    Course,
    Source,
    Table,
    after_epochs,
    cost_of,
    course,
    play,
    sources_in,
)

BUDGETS = (5, 10, 20, 40)  # in whole trainings
REACHED = 20
SLOTS = (4, 64)
RESAMPLES = 4000  # of the bootstrap


@dataclass(frozen=True)
class OpenTable(Table):
    """A table that is written as trials start."""

    source: Source = field(kw_only=True)

    def note(self, trial, config):
        if trial < len(self.configs):  # it goes on
            super().note(trial, config)
            return
        assert trial == len(self.configs), "trials start in their order"
        self.configs.append(config)
        (self.values[trial],), (self.seconds[trial],) = self.source.look_up([config])


@dataclass(frozen=True)
class Search:
    """What came of one: the course of its regret beside its own best, which is given."""

    task: str
    searcher: str
    slots: int
    seed: int
    course: Course
    best: float
    thinking_ms: float  # of one core, for a suggestion

    def beside(self, best: float) -> Course:
        return Course(
            self.course.epochs, self.course.seconds, self.course.regret + best - self.best
        )


class Measured:
    """Comes before a searcher's class: ends the search in time, and measures how long it thinks."""

    slow = False  # in no thread of its own: its thinking takes no simulated time
    most_epochs = math.inf
    epochs: dict[int, float]
    thinking_s: list[float]

    def ask(self, trial_id):
        if sum(self.epochs.values()) >= self.most_epochs:
            return None
        begin = time.thread_time()
        suggested = super().ask(trial_id)
        self.thinking_s.append(time.thread_time() - begin)
        return suggested

    def observe(self, trial_id, config, reward, time):
        self.epochs[trial_id] = time if time < math.inf else self.max_t
        super().observe(trial_id, config, reward, time)


def search(job: tuple[Source, str, int, int], trials: int, folder: str) -> Search:
    """One search by the recommended rule, or one that stops nothing."""
    source, name, slots, seed = job
    shape = trials, len(source.epochs)
    table = OpenTable(
        source.name, seed, source.space, [], source.epochs,
        np.full(shape, -np.inf), np.zeros(shape), source=source,
    )  # fmt: skip
    is_full = name == FULL
    make = type(name, (Measured, SEARCHERS["random" if is_full else name]), {})
    searcher = make(source.space, seed=seed, points_to_evaluate=[])
    searcher.epochs, searcher.thinking_s, searcher.max_t = {}, [], table.max_t
    searcher.most_epochs = BUDGETS[-1] * table.max_t
    history = play(table, RULES[FULL if is_full else DEFAULT], GRACE, slots, folder, searcher)
    thinking_ms = 1000 * float(np.mean(searcher.thinking_s))
    best = float(table.values.max())
    return Search(source.name, name, slots, seed, course(history, table.values), best, thinking_ms)


def show(found: Sequence[Search], names: Sequence[str], slots: int) -> None:
    """Print the medians of each task, and their means over the tasks of each kind."""
    seeds = len({one.seed for one in found})
    print(f"\n{DEFAULT}, from {GRACE}, {slots} slots: regret in points beside the best known")
    print(f"after the epochs of {BUDGETS} whole trainings, median (quartiles) of {seeds} seeds")
    print("epochs: of the whole search\n")
    medians: dict[tuple[str, str], list[list[float]]] = {}
    dearer: dict[str, list[str]] = {}
    for task in dict.fromkeys(one.task for one in found):
        best = max(one.best for one in found if one.task == task)
        max_t = 52 if task.startswith("LCBench") else 200
        whole: dict[int, Course] = {}
        for name in names:
            mine = [o for o in found if (o.task, o.searcher, o.slots) == (task, name, slots)]
            courses = {one.seed: one.beside(best) for one in mine}
            spreads = [after_epochs(courses, budget * max_t) for budget in BUDGETS]
            whole = whole or courses
            if name != FULL:
                dearer.setdefault(name, []).append(times_dearer(whole, courses, max_t))
            epochs = np.median([one.course.epochs[-1] for one in mine])
            line = " ".join(f"{one!s:>20}" for one in spreads)
            print(f"{task:18}{name:14}{epochs:8.0f} {line}")
            kind = task.split()[0]
            medians.setdefault((kind, name), []).append([one.median for one in spreads])
    for (kind, name), rows in medians.items():
        line = " ".join(f"{value:20.2f}" for value in np.mean(rows, axis=0))
        print(f"{kind + ', means':18}{name:14}{'':8} {line}")
    tasks = dict.fromkeys(one.task for one in found)
    print(f"\ntimes as many epochs that {FULL} takes for the regret after {REACHED} trainings")
    print(f"{'':18}" + "".join(f"{name:>12}" for name in dearer) + f"   goal: >= {CHEAPER:g}")
    for task, cells in zip(tasks, zip(*dearer.values(), strict=True), strict=True):
        print(f"{task:18}" + "".join(f"{cell:>12}" for cell in cells))


def compare(found: Sequence[Search], names: Sequence[str], slots: int) -> None:
    """Print how the searchers rank, and how often each has the lowest median and beats the last.

    Better or worse than another on a task: the bootstrap's 95% interval of the mean difference,
    seed by seed, excludes 0.
    """
    tasks = list(dict.fromkeys(one.task for one in found))
    regrets = {name: [_regrets(found, task, name, slots) for task in tasks] for name in names}
    # (budgets, names, tasks, seeds)
    cube = np.moveaxis(np.array([regrets[name] for name in names]), -1, 0)
    below = (cube[:, :, None] > cube[:, None]).sum(axis=2)
    ties = (cube[:, :, None] == cube[:, None]).sum(axis=2)
    ranks = (below + (ties + 1) / 2).mean(axis=(2, 3))
    medians = np.median(cube, axis=3)
    lowest = (medians <= medians.min(axis=1, keepdims=True) + 1e-9).sum(axis=2)
    print(f"\nafter {BUDGETS} whole trainings, {slots} slots, {len(tasks)} tasks: mean rank of")
    print(
        f"{len(names)}; on how many tasks its median is the lowest; {names[-1]} beside it, better,"
    )
    print("open and worse")
    last = len(names) - 1
    for row, name in enumerate(names):
        verdicts = ["" if row == last else _verdicts(one[last] - one[row]) for one in cube]
        print(
            f"{name:14} "
            + " ".join(f"{rank:5.2f}" for rank in ranks[:, row])
            + "   "
            + " ".join(f"{count:3}" for count in lowest[:, row])
            + "   "
            + "  ".join(verdicts)
        )


def _regrets(found: Sequence[Search], task: str, name: str, slots: int) -> np.ndarray:
    """Of the seeds in their order, after each budget: (seeds, budgets)."""
    mine = [o for o in found if (o.task, o.searcher, o.slots) == (task, name, slots)]
    best = max(one.best for one in found if one.task == task)
    epochs = np.array(BUDGETS) * (52 if task.startswith("LCBench") else 200)
    mine.sort(key=lambda one: one.seed)
    return np.array([one.beside(best).at_epochs(epochs) for one in mine])


def _verdicts(differences: np.ndarray) -> str:
    """On how many tasks, of (tasks, seeds), they are below 0, open, and above."""
    picks = np.random.default_rng(0).integers(
        differences.shape[1], size=(RESAMPLES, differences.shape[1])
    )
    means = differences[:, picks].mean(axis=2)
    low, high = np.quantile(means, (0.025, 0.975), axis=1)
    better, worse = int((high < 0).sum()), int((low > 0).sum())
    return f"{better}/{len(differences) - better - worse}/{worse}"


def times_dearer(whole: Mapping[int, Course], ours: Mapping[int, Course], max_t: int) -> str:
    """By how many times full training needs more epochs for what a searcher reaches."""
    regret = after_epochs(ours, REACHED * max_t).median
    needed, spent = cost_of(whole, regret), cost_of(ours, regret)
    if needed < math.inf:
        return f"{needed / spent:.1f} x"
    most = max(one.epochs[-1] for one in whole.values())
    return f"> {most / spent:.1f} x"


def main() -> None:
    text = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    text.add_argument("--seeds", "--repeats", type=int, default=20)
    text.add_argument("--trials", type=int, default=300, help="of each search")
    text.add_argument("--tasks", type=int, default=8, help="at most, of each kind")
    text.add_argument("--searchers", nargs="+", default=["random", "bohb", "tpe", "mfgp"])
    text.add_argument("--slots", type=int, nargs="+", default=SLOTS)
    text.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = text.parse_args()
    sources = sources_in(given.data, given.tasks)
    if not sources:
        print("nothing to play: there is no table of learning curves")
        return
    names = [FULL, *given.searchers]
    jobs = [
        (source, name, slots, seed)
        for source in sources
        for name in names
        for slots in given.slots
        for seed in range(given.seeds)
    ]
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool,
    ):
        found = list(pool.map(partial(search, trials=given.trials, folder=folder), jobs))
    for slots in given.slots:
        show(found, names, slots)
        compare(found, names, slots)
    print("\nmilliseconds of one core for a suggestion, mean:")
    for name in names:
        thinking_ms = np.mean([one.thinking_ms for one in found if one.searcher == name])
        print(f"    {name:14}{thinking_ms:6.1f}")


if __name__ == "__main__":
    main()
