"""Trials per second that do nothing but report once, on 2 local slots, beside three peers.

    python -m benchmarks.trivial_trials
    python -m benchmarks.trivial_trials --ray-python peers/bin/python   # with ray[tune] and psutil

In every repeat, one after the other, each in an interpreter of its own: Dask windows of 32 and of 8
no-op tasks on 2 worker processes (no search, no log, no isolation), trials in fresh processes,
trials in reused ones, Optuna with 2 processes over a journal, and Ray Tune. Each has started, and
has run some trials, before its clock runs. CPU time is that of the driver and of all its
descendants. How each peer was chosen: "How peers are set up" in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import distsearch as ag

from .common import CPUClock, Figure, Run, parser, ratio, scratch, show

SLOTS, BOUND_S = 2, 120
WARM_UP = 20
GOALS = {  # how many times as many trials per second
    ("fresh processes", "Dask's window of 32"): 1,
    ("fresh processes", "Dask's window of 8"): 1,
    ("fresh processes", "Ray Tune"): 10,
    ("reused processes", "Dask's window of 32"): 5,
    ("reused processes", "Dask's window of 8"): 5,
    ("reused processes", "Optuna"): 5,
}


@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=args.x)


def search(isolation: str, trials: int) -> Run:
    """What a trial costs; each is logged durably before it starts and when it ends."""
    node = ag.Node("localhost", num_cpus=SLOTS)
    with ag.scheduler.FIFOScheduler(
        train_fn, resource={"num_cpus": 1}, local=node, isolation=isolation, verbose=0
    ) as scheduler:
        scheduler.run(num_trials=WARM_UP)
        scheduler.join_jobs(BOUND_S)
        cpu, begin = CPUClock(), time.perf_counter()
        scheduler.run(num_trials=trials)
        assert scheduler.join_jobs(BOUND_S), "the search did not end"
        seconds = time.perf_counter() - begin
        found = Run.of(trials, seconds, cpu.seconds())
        assert {trial.status.value for trial in scheduler.trials} == {"finished"}
    return found


def alone(script: str, *arguments: str, python: str = sys.executable) -> Run | None:
    """One contender in an interpreter of its own; None, with a message, where it does not run."""
    here = Path(__file__)
    command = [python, str(here.with_name(script)), *arguments]
    if script == here.name:
        command = [python, "-m", "benchmarks.trivial_trials", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"without {script}: {error}")
        return None
    if done.returncode != 0:
        print(f"without {script}: {python} said {done.stderr.strip()[-300:]}")
        return None
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def contenders(trials: int, ray_python: str | None) -> dict[str, Callable[[], Run | None]]:
    """Their names, and what runs each once."""
    one, five, slots = str(trials), str(5 * trials), str(SLOTS)
    here = Path(__file__).name
    found = {
        "Dask's window of 32": partial(alone, "dask_peer.py", one, slots),
        "Dask's window of 8": partial(alone, "dask_peer.py", one, slots, "--window", "8"),
        "fresh processes": partial(alone, here, "--once", "fresh", "--trials", one),
        "reused processes": partial(alone, here, "--once", "reuse", "--trials", five),
        "Optuna": partial(alone, "optuna_peer.py", one, slots),
    }
    if ray_python:
        found["Ray Tune"] = partial(alone, "ray_peer.py", one, slots, python=ray_python)
    else:
        print("without Ray Tune: give --ray-python=PYTHON, with ray[tune] and psutil installed")
    return found


def compare(given: argparse.Namespace) -> None:
    """Run all in turns, and print the figures."""
    once = contenders(given.trials, given.ray_python)
    runs: dict[str, list[Run]] = {name: [] for name in once}
    for _ in range(given.repeats):
        for name, run in once.items():
            found = run()
            runs[name].extend([] if found is None else [found])
    whole = {name: found for name, found in runs.items() if len(found) == given.repeats}
    rates = {
        name: Figure(name, [run.per_second for run in found], "per second")
        for name, found in whole.items()
    }
    figures = list(rates.values())
    figures += [
        Figure(f"{name}: CPU time", [run.cpu_ms for run in found], "ms each")
        for name, found in whole.items()
    ]
    figures += [
        ratio(f"{own} / {peer}", rates[own], rates[peer], at_least=goal)
        for (own, peer), goal in GOALS.items()
        if own in rates and peer in rates
    ]
    show(f"Trivial trials on {SLOTS} slots", figures, given.json)


def main() -> None:
    options = parser(__doc__, repeats=9)
    options.add_argument("--trials", type=int, default=400, help="of each run (reused: 5 times)")
    options.add_argument("--ray-python", help="an interpreter with ray[tune] and psutil installed")
    options.add_argument("--once", choices=("fresh", "reuse"), help="this alone, printed as JSON")
    given = options.parse_args()
    with scratch():
        if given.once:
            print(json.dumps(search(given.once, given.trials).as_dict()))
        else:
            compare(given)


if __name__ == "__main__":
    main()
