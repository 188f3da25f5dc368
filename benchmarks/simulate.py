"""What the driver costs with many trials on many nodes, which are simulated.

    python -m benchmarks.simulate                 # up to 100,000 trials and 10,000 nodes
    python -m benchmarks.simulate --trials 1000000 --nodes 10000

The experiment, the slot manager, the searcher (random), the leases, the messages and the log are
the project's own; there is no process but this one, and no network: a node says at its turn that
its oldest trial has started, reported twice and ended. What is measured is therefore all that the
driver does itself. Each line is an interpreter of its own; times are CPU time of all its
threads; "early" and "late" are the second and the ninth tenth of its trials. An event is a row of
the log: five for a trial ("per CPU s": so many of them in a second of CPU time).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import psutil

from distsearch.core.decorators import args
from distsearch.core.experiment import Experiment, Settings
from distsearch.core.store import Store
from distsearch.core.travel import Packed
from distsearch.core.words import Continue, Launch
from distsearch.resource.leases import LeaseQueue
from distsearch.resource.manager import DistributedResourceManager
from distsearch.resource.node import NodeFacts
from distsearch.resource.remote import Remote
from distsearch.resource.resource import Resource
from distsearch.searcher.random import RandomSearcher
from distsearch.space import Real

from .common import machine, scratch

EVENTS = 5
TURN = 50  # trials that end before the loop turns
DISK_S = 0.0003  # a look whether the disk has taken what nodes wait for
BOUND_S = 3600


@args(lr=Real(1e-4, 1e-1, log=True), x=Real(0, 1))
def train_fn(args, reporter):
    """Runs nowhere: its space is what counts."""


class FirstInFirstOut:
    """What a scheduler is to an experiment (see `distsearch.core.rule.Rule`), and not more."""

    paused_may_go_on = True
    keeps_only_needed = False

    def __init__(self):
        self.searcher = RandomSearcher(train_fn.space)
        self.numbers = itertools.count()

    def next_launch_on(self, node):
        return Launch(self.searcher.ask(next(self.numbers)))

    def next_resume(self):
        return None

    def may_need(self, trial):
        return True

    def due_at(self, trial):
        return None

    def on_report(self, trial, report):
        return Continue()

    def on_end(self, trial):
        self.searcher.tell(trial.id, trial.config, trial.best_reward)

    def on_pause(self, trial):
        pass


class SimulatedNode(Remote):
    """A node that takes what it is sent; its trials wait in the queue of all."""

    def __init__(self, number, started):
        facts = NodeFacts(num_cpus=1, gpus=(), memory_bytes=10**9)
        super().__init__(number, f"node{number}", f"simulated://{number}", facts)
        self.started = started

    def send(self, message):
        if message["op"] == "start":
            self.started.append((self, message["trial"], message["attempt"]))


async def search(trials, nodes, folder):
    """Run one search; CPU time per event, early and late, and bytes of memory."""
    store = Store(folder)
    manager = DistributedResourceManager(LeaseQueue())
    packed = Packed(b"", "f.pickle", (), "")
    experiment = Experiment(
        FirstInFirstOut(), Settings(packed, packed, Resource()), manager, store, lambda line: None
    )
    started = deque()
    for number in range(nodes):
        experiment.add_remote(SimulatedNode(number, started))
    await store.flush()
    process = psutil.Process()
    before = process.memory_info().rss
    begun, times = time.perf_counter(), [time.process_time()]
    experiment.run(trials, None)
    done, tenth = 0, max(1, trials // 10)
    while done < trials:
        for _ in range(min(TURN, len(started))):
            node, trial, attempt = started.popleft()
            name = {"trial": trial, "attempt": attempt, "rank": 0}
            reports = [
                {
                    "op": "report",
                    **name,
                    "seq": epoch,
                    "due": False,
                    "body": f'{{"epoch": {epoch}, "accuracy": {trial % 97 / 97 + epoch}}}',
                }
                for epoch in (1, 2)
            ]
            end = {"op": "ended", **name, "status": "finished", "reason": "", "traceback": ""}
            experiment.on_messages(node, [*reports, end])
            done += 1
            if done % tenth == 0:
                times.append(time.process_time())
        if experiment.error is not None:
            raise experiment.error
        await asyncio.sleep(0 if started else DISK_S)  # to spin would count as work of the driver
    await experiment.wait()
    times.append(time.process_time())
    memory = process.memory_info().rss
    store.close()
    seconds = [b - a for a, b in itertools.pairwise(times)]
    return {
        "trials": trials,
        "nodes": nodes,
        "per_second": EVENTS * trials / (times[-1] - times[0]),
        "seconds": time.perf_counter() - begun,
        "early_us": 1e6 * seconds[1] / tenth / EVENTS,
        "late_us": 1e6 * seconds[8] / tenth / EVENTS,
        "mb": memory / 1e6,
        "grown_mb": (memory - before) / 1e6,
        "log_mb": sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6,
    }


def sizes(most_trials, most_nodes):
    """All powers of ten up to the most: trials on 1,000 nodes, then nodes for the fewest."""
    powers = [10**n for n in range(3, 1 + round(math.log10(most_trials)))]
    few = min(100_000, most_trials)
    yield from ((trials, min(1000, most_nodes)) for trials in powers)
    yield from ((few, 10**n) for n in range(1, 1 + round(math.log10(most_nodes))) if n != 3)
    if most_trials > few:
        yield most_trials, most_nodes


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--trials", type=int, default=100_000, help="at most")
    options.add_argument("--nodes", type=int, default=10_000, help="at most")
    options.add_argument("--once", action="store_true", help="this size alone, printed as JSON")
    options.add_argument("--json", type=Path, help="append the figures to this file, one line")
    given = options.parse_args()
    if given.once:
        with scratch() as folder:
            print(json.dumps(asyncio.run(search(given.trials, given.nodes, folder))))
        return
    print(f"\nThe driver with simulated nodes ({machine()})")
    print(
        "   trials   nodes  per CPU s  us per event: early  late  MB in all  bytes/trial  MB of log"
    )
    for trials, nodes in sizes(given.trials, given.nodes):
        command = [sys.executable, "-m", "benchmarks.simulate", "--once"]
        command += ["--trials", str(trials), "--nodes", str(nodes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=BOUND_S)
        found = json.loads(done.stdout)
        print(
            f"{trials:9,} {nodes:7,} {found['per_second']:10,.0f} {found['early_us']:20.0f} "
            f"{found['late_us']:5.0f} {found['mb']:10.0f} "
            f"{1e6 * found['grown_mb'] / trials:12.0f} {found['log_mb']:10.0f}",
            flush=True,
        )
        if given.json is not None:
            with open(given.json, "a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
