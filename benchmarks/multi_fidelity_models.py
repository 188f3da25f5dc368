"""Searchers that learn under early stopping, on real learning curves: regret against epochs.

    python -m benchmarks.multi_fidelity_models --data FOLDER    # half an hour
    python -m benchmarks.multi_fidelity_models --searchers random bohb mfgp --seeds 10 --slots 4
    python -m benchmarks.multi_fidelity_models --peers-python syne/bin/python smac/bin/python

The simulation of multi_fidelity.py, but each searcher suggests whatever it likes of the whole
space: its configurations are looked up as they start. "full training" is random search that stops
nothing. A search starts no trial after the epochs of the last budget. Regret: how much worse, after
whole training, the configuration with the best report so far is than the best that any of these
searches, or of their random configurations, holds: the best known. "3 epochs, then the best" is the
simplest that one may do: random configurations for 3 epochs, as many as a tenth of the epochs pays
for, then whole trainings of the best of them.

Peers are other libraries, in environments of their own (`pip install 'syne-tune[gpsearchers]'`,
`optuna`, `smac`, `dehb`): multi_fidelity_models_peer.py says in what way they are asked. They are
slow: `--peer-seeds` and `--peer-trainings` bound them.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import math
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from distsearch import space as spaces
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
    draw,
    play,
    sources_in,
)

BUDGETS = (5, 10, 20, 40)  # in whole trainings
REACHED = 20
SLOTS = (4, 64)
RESAMPLES = 4000  # of the bootstrap
SIMPLEST = "3 epochs, then the best"
WHOLE = ", nothing stopped"  # after a searcher's name: it suggests to a rule that stops nothing
PEER = Path(__file__).with_name("multi_fidelity_models_peer.py")
PEER_BOUND_S = 3600  # for one search


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
    is_whole = name == FULL or name.endswith(WHOLE)
    kind = "random" if name == FULL else name.removesuffix(WHOLE)
    make = type(kind, (Measured, SEARCHERS[kind]), {})
    searcher = make(source.space, seed=seed, points_to_evaluate=[])
    searcher.epochs, searcher.thinking_s, searcher.max_t = {}, [], table.max_t
    searcher.most_epochs = BUDGETS[-1] * table.max_t
    history = play(table, RULES[FULL if is_whole else DEFAULT], GRACE, slots, folder, searcher)
    thinking_ms = 1000 * float(np.mean(searcher.thinking_s))
    best = float(table.values.max())
    return Search(source.name, name, slots, seed, course(history, table.values), best, thinking_ms)


def simplest(source: Source, seed: int, slots: int) -> Search:
    """Random configurations for a few epochs, then whole trainings of the best; once a budget."""
    max_t = float(source.epochs[-1])
    first = max(int(np.searchsorted(source.epochs, GRACE)), 0)  # the report after these epochs
    regrets, best = [], -math.inf
    for budget in BUDGETS:
        whole = max(1, math.ceil(budget / 2))
        tried = int((budget - whole) * max_t / source.epochs[first])
        tried = max(tried, whole)
        values, _ = source.look_up(draw(source.space, seed, tried))
        kept = np.argsort(-values[:, first], kind="stable")[:whole]
        found = kept[np.argmax(values[kept].max(axis=1))]
        best = max(best, float(values.max()))
        regrets.append(float(values[found].max()))
    epochs = np.array(BUDGETS) * max_t
    course = Course(epochs, epochs, best - np.array(regrets))
    return Search(source.name, SIMPLEST, slots, seed, course, best, 0.0)


# Peers


@dataclass
class Line:
    """A peer in its own process, asked line by line; see multi_fidelity_models_peer.py."""

    process: subprocess.Popen[str]
    thinking_s: list[float] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def to(cls, python: str, name: str) -> Iterator[Line]:
        """Start the peer; it is killed at the end, and when a search takes too long."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(
            [python, str(PEER), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        ) as process:
            bound = threading.Timer(PEER_BOUND_S, process.kill)
            bound.daemon = True
            bound.start()
            try:
                yield cls(process)
            finally:
                bound.cancel()
                process.kill()

    def ask(self, verb: str, what: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        begin = time.monotonic()
        self.process.stdin.write(json.dumps({verb: what}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended when it was asked: {verb} {what}")
        if verb == "next":
            self.thinking_s.append(time.monotonic() - begin)
        return json.loads(line)


def described(space: spaces.Dict) -> dict[str, Any]:
    """The space in words that a peer understands."""
    found = {}
    for name in space:
        one = space[name]
        if isinstance(one, spaces.Choice):
            found[name] = {"kind": "choice", "options": [option.value for option in one.options]}
        else:
            kind = "int" if isinstance(one, spaces.Int) else "real"
            found[name] = {"kind": kind, "lower": one.lower, "upper": one.upper, "log": one.log}
    return found


def search_by_peer(job: tuple[Source, str, str, int, int], trainings: float) -> Search:
    """One search by a peer, until it has spent the epochs of so many whole trainings."""
    source, python, name, slots, seed = job
    max_t = int(source.epochs[-1])
    few = len(source.epochs) < max_t
    opening = {
        "space": described(source.space),
        "max_t": max_t,
        "grace": int(source.epochs[0]) if few else GRACE,
        "factor": round(max_t / float(source.epochs[-2])) if few else 3,
        "seed": seed,
    }
    with Line.to(python, name) as line:
        line.ask("open", opening)
        history, values = _play_peer(line, source, slots, trainings * max_t)
    thinking_ms = 1000 * float(np.mean(line.thinking_s))
    found = course(history, values)
    return Search(source.name, name, slots, seed, found, float(values.max()), thinking_ms)


def _play_peer(
    line: Line, source: Source, slots: int, most_epochs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Its reports in order of time, see SimulatedNode, and what its configurations report."""
    curves: list[tuple[np.ndarray, np.ndarray]] = []
    done: list[int] = []  # of each trial, how many of its reports there are
    coming: list[tuple[float, int, int]] = []  # heap of (time, running number, trial)
    history: list[tuple[float, float, int, float]] = []
    numbers = itertools.count()

    def train(trial: int, now: float) -> None:
        seconds, at = curves[trial][1], done[trial]
        took = seconds[at] - (seconds[at - 1] if at else 0.0)
        heapq.heappush(coming, (now + took, next(numbers), trial))

    def occupy(now: float) -> bool:
        if sum(row[1] for row in history) >= most_epochs:
            return False
        todo = line.ask("next", len(curves))
        if "config" in todo:
            (values,), (seconds,) = source.look_up([todo["config"]])
            curves.append((values, seconds))
            done.append(0)
            train(len(curves) - 1, now)
        elif "resume" in todo:
            train(todo["resume"], now)
        return bool(todo)

    free, now = slots, 0.0
    while True:
        while free and occupy(now):
            free -= 1
        if not coming:
            return np.array(history), np.array([values for values, _ in curves])
        now, _, trial = heapq.heappop(coming)
        at = done[trial]
        done[trial] = at + 1
        epoch, value = float(source.epochs[at]), float(curves[trial][0][at])
        cost = epoch - (source.epochs[at - 1] if at else 0)
        history.append((now, float(cost), trial, value))
        decision = line.ask("report", [trial, int(epoch), value])
        if at + 1 == len(source.epochs):
            if decision == "continue":
                line.ask("complete", [trial, int(epoch), value])
            free += 1
        elif decision == "continue":
            train(trial, now)
        else:
            free += 1


def peers_of(pythons: Sequence[str]) -> dict[str, str]:
    """The peers that these interpreters have: name -> interpreter, the first that has it."""
    found: dict[str, str] = {}
    for python in pythons:
        said = subprocess.run([python, PEER], capture_output=True, text=True, timeout=300)
        for line in said.stdout.splitlines():
            if line.startswith("peer: "):
                found.setdefault(line.removeprefix("peer: "), python)
    return found


@dataclass(frozen=True)
class Kept:
    """Searches that were run before, each in a file of a folder; None: nothing is kept.

    A comparison with slow peers takes hours: it may be cut off and begun again.
    """

    folder: Path | None

    def run(self, find: Any, job: tuple[Any, ...]) -> Search:
        """The search of a job, from its file or else from `find(job)`; safe in any process."""
        if self.folder is None:
            return find(job)
        source, *_, name, slots, seed = job
        file = self.folder / f"{source.name} {name} {slots} {seed}.json"
        if file.exists():
            known = json.loads(file.read_text())
            arrays = [np.array(known["course"][key]) for key in ("epochs", "seconds", "regret")]
            return Search(**{**known, "course": Course(*arrays)})
        one = find(job)
        words = {**vars(one), "course": {k: v.tolist() for k, v in vars(one.course).items()}}
        self.folder.mkdir(parents=True, exist_ok=True)
        partial_file = file.with_suffix(f".{os.getpid()}")
        partial_file.write_text(json.dumps(words))
        partial_file.rename(file)
        return one


def show(found: Sequence[Search], names: Sequence[str], slots: int) -> None:
    """Print the medians of each task, and their means over the tasks of each kind."""
    print(f"\n{DEFAULT}, from {GRACE}, {slots} slots: regret in points beside the best known")
    print(f"after the epochs of {BUDGETS} whole trainings, median (quartiles) of so many seeds")
    print("epochs: of the whole search\n")
    medians: dict[tuple[str, str], list[list[float]]] = {}
    dearer: dict[str, list[str]] = {}
    for task in dict.fromkeys(one.task for one in found):
        best = max(one.best for one in found if one.task == task)
        max_t = _max_t(task)
        whole: dict[int, Course] = {}
        for name in names:
            mine = [o for o in found if (o.task, o.searcher, o.slots) == (task, name, slots)]
            courses = {one.seed: one.beside(best) for one in mine}
            if not courses:
                continue
            spreads = [after_epochs(courses, budget * max_t) for budget in BUDGETS]
            if name == FULL:
                whole = courses
            elif len(courses) == len(whole):
                dearer.setdefault(name, []).append(times_dearer(whole, courses, max_t))
            epochs = np.median([one.course.epochs[-1] for one in mine])
            line = " ".join(f"{one!s:>20}" for one in spreads)
            print(f"{task:18}{name:24}{len(courses):4}{epochs:8.0f} {line}")
            kind = task.split()[0]
            medians.setdefault((kind, name), []).append([one.median for one in spreads])
    for (kind, name), rows in medians.items():
        line = " ".join(f"{value:20.2f}" for value in np.mean(rows, axis=0))
        print(f"{kind + ', means':18}{name:24}{'':12} {line}")
    tasks = dict.fromkeys(one.task for one in found)
    print(f"\ntimes as many epochs that {FULL} takes for the regret after {REACHED} trainings")
    print(f"{'':18}" + "".join(f"{name:>25}" for name in dearer) + f"   goal: >= {CHEAPER:g}")
    for task, cells in zip(tasks, zip(*dearer.values(), strict=True), strict=True):
        print(f"{task:18}" + "".join(f"{cell:>25}" for cell in cells))


def beside_peers(found: Sequence[Search], ours: str, peers: Sequence[str], slots: int) -> None:
    """Print on how many tasks one of our searchers has a lower median than each peer, and surely.

    Surely: the bootstrap's 95% interval of the difference of means excludes 0; each side is drawn
    by itself, since a peer may have fewer seeds. A task counts after each budget that both reached.
    """
    print(f"\n{ours} beside each peer, {slots} slots: tasks on which its median is lower, of those")
    print(f"that both reached; surely better/open/worse; after {BUDGETS} whole trainings")
    rng = np.random.default_rng(0)
    for peer in peers:
        cells = []
        for at, budget in enumerate(BUDGETS):
            lower = reached = 0
            sure = [0, 0, 0]
            for task in dict.fromkeys(one.task for one in found):
                one, other = (_regrets(found, task, name, slots) for name in (ours, peer))
                spent = _least_epochs(found, task, peer, slots)
                if not len(other) or spent < budget * _max_t(task):
                    continue
                reached += 1
                one, other = one[:, at], other[:, at]
                lower += np.median(one) < np.median(other)
                means = [rng.choice(v, (RESAMPLES, len(v))).mean(axis=1) for v in (one, other)]
                low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
                sure[0 if high < 0 else 2 if low > 0 else 1] += 1
            cells.append(f"{lower:3}/{reached}  {sure[0]}/{sure[1]}/{sure[2]}")
        print(f"{peer:26}" + "   ".join(cells))


def _least_epochs(found: Sequence[Search], task: str, name: str, slots: int) -> float:
    mine = [o for o in found if (o.task, o.searcher, o.slots) == (task, name, slots)]
    return min((one.course.epochs[-1] for one in mine), default=0.0)


def _max_t(task: str) -> int:
    return 52 if task.startswith("LCBench") else 200


def picture(found: Sequence[Search], names: Sequence[str], slots: int, path: Path) -> None:
    """Draw the median regret of each searcher against whole trainings, a panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(one.task for one in found))
    columns = min(4, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(tasks) :]:
        axis.axis("off")
    grid = np.geomspace(1, BUDGETS[-1], 100)
    lines: dict[str, Any] = {}
    for axis, task in zip(axes, tasks, strict=False):
        best = max(one.best for one in found if one.task == task)
        for number, name in enumerate(names):
            mine = [o for o in found if (o.task, o.searcher, o.slots) == (task, name, slots)]
            if not mine:
                continue
            most = min(one.course.epochs[-1] for one in mine) / _max_t(task)
            at = np.array(BUDGETS) if name == SIMPLEST else grid[grid <= most]
            values = [one.beside(best).at_epochs(at * _max_t(task)) for one in mine]
            low, middle, high = np.maximum(np.percentile(values, [25, 50, 75], axis=0), 0.01)
            style = "o" if name == SIMPLEST else "-" if name in SEARCHERS or name == FULL else "--"
            (line,) = axis.plot(at, middle, style, color=f"C{number % 10}", label=name)
            lines.setdefault(name, line)
            if name == "mfgp":
                axis.fill_between(at, low, high, color=line.get_color(), alpha=0.15)
        axis.set(xscale="log", yscale="log", title=task, xlim=(1, BUDGETS[-1]))
        axis.grid(alpha=0.3)
    figure.suptitle(
        f"Median regret (points of accuracy) against epochs, in whole trainings; {slots} slots; "
        "area: quartiles of mfgp"
    )
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=90)
    print(f"\n{path}")


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
    epochs = np.array(BUDGETS) * _max_t(task)
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
    text.add_argument("--searchers", nargs="*", default=["random", "bohb", "tpe", "mfgp"])
    text.add_argument("--whole", nargs="*", default=[], help="searchers, also stopping nothing")
    text.add_argument("--slots", type=int, nargs="+", default=SLOTS)
    text.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    text.add_argument("--peers-python", nargs="*", default=[], help="interpreters with peers")
    text.add_argument("--peers", nargs="*", help="only these of the peers")
    text.add_argument("--peer-seeds", type=int, default=3)
    text.add_argument("--peer-trainings", type=float, default=20, help="whole ones, of a search")
    text.add_argument("--picture", type=Path, help="draw the first number of slots to this file")
    text.add_argument("--kept", type=Path, help="a folder of searches, which are not run again")
    given = text.parse_args()
    sources = sources_in(given.data, given.tasks)
    if not sources:
        print("nothing to play: there is no table of learning curves")
        return
    names = [FULL, *(name + WHOLE for name in given.whole), *given.searchers]
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
        kept = Kept(given.kept)
        find = partial(kept.run, partial(search, trials=given.trials, folder=folder))
        found = list(pool.map(find, jobs))
        peers = peers_of(given.peers_python)
        peers = {
            n: python
            for n, python in peers.items()
            if given.peers in (None, []) or n in given.peers
        }
        asked = [
            (source, python, name, slots, seed)
            for seed in range(given.peer_seeds)
            for source in sources
            for name, python in peers.items()
            for slots in given.slots
        ]
        find = partial(kept.run, partial(search_by_peer, trainings=given.peer_trainings))
        found += pool.map(find, asked)
    found += [
        simplest(source, seed, slots)
        for source in sources
        for slots in given.slots
        for seed in range(given.seeds)
    ]
    for slots in given.slots:
        show(found, [*names, SIMPLEST, *peers], slots)
        compare(found, names, slots)
        beside_peers(found, names[-1], [*peers, SIMPLEST], slots)
    if given.picture is not None:
        picture(found, [*names, SIMPLEST, *peers], given.slots[0], given.picture)
    print("\nmilliseconds of one core for a suggestion, mean:")
    for name in [*names, *peers]:
        thinking_ms = np.mean([one.thinking_ms for one in found if one.searcher == name])
        print(f"    {name:14}{thinking_ms:6.1f}")


if __name__ == "__main__":
    main()
