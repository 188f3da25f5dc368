"""How long searchers take to suggest, and how much slot time is lost to waiting for them.

    python -m benchmarks.suggest
    python -m benchmarks.suggest --slow    # the Gaussian process after 1,000 results too: minutes

Suggestion time, of one core: after 1,000 results, with 15 running trials, in a space of 10
parameters: reals, integers, choices and a flag. Lost slot time: trials of 1 s on 16 declared slots;
the share of the slots' time, from the first start of a trial to the last, in which a free slot
waited for the searcher, and in which a slot had no trial for whatever reason.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np

import distsearch as ag
from distsearch.core import store
from distsearch.searcher import SEARCHERS

from .common import Figure, parser, scratch, show

SLOTS, TRIAL_S, RESULTS, BOUND_S = 16, 1.0, 1000, 600
SPACE = ag.Dict(
    lr=ag.Real(1e-5, 1e-1, log=True),
    wd=ag.Real(1e-6, 1e-2, log=True),
    momentum=ag.Real(0.0, 0.99),
    dropout=ag.Real(0.0, 0.5),
    width=ag.Int(16, 1024, log=True),
    depth=ag.Int(1, 12),
    batch=ag.Choice(32, 64, 128, 256),
    optimizer=ag.Choice("sgd", "adam", "adamw"),
    activation=ag.Choice("relu", "gelu", "tanh"),
    nesterov=ag.Bool(),
)


def reward_of(config):
    return -abs(math.log10(config["lr"]) + 3) - config["dropout"] + 0.1 * config["depth"]


@ag.args(**SPACE)
def train_fn(args, reporter):
    time.sleep(TRIAL_S)
    reporter(epoch=1, accuracy=reward_of(args))


def seconds_per_suggestion(name: str, results: int, repeats: int) -> list[float]:
    """Each of some suggestions, with 15 trials running, told their results in turn."""
    searcher = SEARCHERS[name](SPACE, seed=0, points_to_evaluate=[])
    for number in range(results):
        config = SPACE.sample(np.random.default_rng(number))
        searcher.tell(-1 - number, config, reward_of(config))
    running = [(number, searcher.ask(number)) for number in range(SLOTS - 1)]
    seconds = []
    for number in range(SLOTS - 1, SLOTS - 1 + repeats):
        begin = time.thread_time()  # so that others on the machine do not count
        config = searcher.ask(number)
        seconds.append(time.thread_time() - begin)
        running.append((number, config))
        told, config = running.pop(0)
        searcher.tell(told, config, reward_of(config))
    return seconds


def lost(name: str, rounds: int) -> tuple[float, float]:
    """The shares of slot time, in per cent: without a trial, and waiting for the searcher.

    A slot waits for the searcher from when the rule had to say so until it has its trial.
    """
    node = ag.Node("localhost", num_cpus=SLOTS)
    with ag.scheduler.FIFOScheduler(train_fn, searcher=name, local=node, verbose=0) as scheduler:
        waits = WaitClock(scheduler)
        scheduler.run(num_trials=SLOTS * rounds)
        assert scheduler.join_jobs(BOUND_S), "the search did not end"
        events = list(store.read(scheduler.folder, "started", "ended"))
    begin = min(event.time for event in events)
    last_start = max(event.time for event in events if event.kind == "started")
    busy = 0.0
    started = {event.trial: event.time for event in events if event.kind == "started"}
    for event in events:
        if event.kind == "ended":
            busy += min(event.time, last_start) - started[event.trial]
    whole = SLOTS * (last_start - begin)
    return 100 * (1 - busy / whole), 100 * waits.slot_s / whole


class WaitClock:
    """Adds up how long free slots wait for the searcher while there are trials to launch."""

    def __init__(self, scheduler) -> None:
        self.slot_s = 0.0
        self._since = None
        self._scheduler = scheduler
        experiment = scheduler.experiment
        next_launch, something = scheduler.next_launch, experiment.source.something_happened

        def launch():
            found = next_launch()
            self._note(isinstance(found, ag.scheduler.Wait))
            return found

        def happened():
            self._note(self._since is not None)
            something()

        scheduler.next_launch, experiment.source.something_happened = launch, happened

    def _note(self, waits: bool) -> None:
        now = time.perf_counter()
        if self._since is not None:
            at, slots = self._since
            self.slot_s += slots * (now - at)
        free = SLOTS - len(self._scheduler.experiment.running)
        self._since = (now, free) if waits else None


def main() -> None:
    options = parser(__doc__, repeats=20)
    options.add_argument("--rounds", type=int, default=20, help="trials that each slot runs")
    options.add_argument("--slow", action="store_true", help="GP after 1,000 results too")
    given = options.parse_args()
    figures = []
    for name in SEARCHERS:
        few = name == "gp" and not given.slow
        results = 100 if few else RESULTS
        repeats = 3 if name == "gp" else given.repeats
        values = [1000 * s for s in seconds_per_suggestion(name, results, repeats)]
        figures.append(Figure(f"{name}, {results} results", values, "ms"))
    show("Time of a suggestion", figures, given.json)
    shares = []
    with scratch():
        for name in ("random", "evolution", "bohb", "mfgp", "tpe", "cmaes", "qmc", "nsga2"):
            idle, waiting = lost(name, given.rounds)
            shares.append(Figure(f"{name}: waiting for it", [waiting], "%", at_most=1))
            shares.append(Figure(f"{name}: without a trial", [idle], "%"))
    show(f"Slot time lost, trials of {TRIAL_S:g} s on {SLOTS} slots", shares, given.json)


if __name__ == "__main__":
    sys.exit(main())
