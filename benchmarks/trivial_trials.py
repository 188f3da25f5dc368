"""Trials per second that do nothing but report once, on 2 local slots, beside two peers.

    python -m benchmarks.trivial_trials
    python -m benchmarks.trivial_trials --peers-python peers/bin/python    # with ray[tune] in it

In every repeat, one after the other: a Dask sliding window of 8 no-op tasks on 2 worker processes
(no search, no log, no isolation), trials in fresh processes, trials in reused ones, and Ray Tune.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from distributed import Client, LocalCluster

import distsearch as ag

from .common import Figure, parser, ratio, scratch, show

SLOTS, WINDOW, BOUND_S = 2, 8, 120


@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=args.x)


def no_op(number: int) -> int:
    return number


def dask_window(tasks: int) -> float:
    """Tasks per second of a loop that keeps 8 of them submitted."""
    with (
        LocalCluster(
            n_workers=SLOTS, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster, timeout=BOUND_S) as client,
    ):

        def go(count: int) -> None:
            waiting = deque()
            for number in range(count):
                if len(waiting) == WINDOW:
                    waiting.popleft().result(BOUND_S)
                waiting.append(client.submit(no_op, number, pure=False))
            while waiting:
                waiting.popleft().result(BOUND_S)

        go(50)
        begin = time.perf_counter()
        go(tasks)
        return tasks / (time.perf_counter() - begin)


def search(isolation: str, trials: int) -> float:
    """Trials per second of a search; each is logged durably before it starts and when it ends."""
    node = ag.Node("localhost", num_cpus=SLOTS)
    with ag.scheduler.FIFOScheduler(
        train_fn, resource={"num_cpus": 1}, local=node, isolation=isolation, verbose=0
    ) as scheduler:
        scheduler.run(num_trials=20)
        scheduler.join_jobs(BOUND_S)
        begin = time.perf_counter()
        scheduler.run(num_trials=trials)
        assert scheduler.join_jobs(BOUND_S), "the search did not end"
        seconds = time.perf_counter() - begin
        assert {trial.status.value for trial in scheduler.trials} == {"finished"}
    return trials / seconds


def ray_tune(python: str, trials: int) -> float | None:
    """Trials per second of Ray Tune, run by another interpreter; None where it does not run."""
    command = [python, str(Path(__file__).with_name("ray_peer.py")), str(trials), str(SLOTS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"without Ray Tune: {error}")
        return None
    if done.returncode != 0:
        print(f"without Ray Tune: {python} said {done.stderr.strip()[-300:]}")
        return None
    return float(done.stdout.split()[-1])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--trials", type=int, default=400, help="of each run (reused: 5 times)")
    options.add_argument("--peers-python", help="an interpreter with ray[tune] installed")
    given = options.parse_args()
    dask, fresh, reuse, ray = [], [], [], []
    with scratch():
        for _ in range(given.repeats):
            dask.append(dask_window(given.trials))
            fresh.append(search("fresh", given.trials))
            reuse.append(search("reuse", 5 * given.trials))
            if given.peers_python and len(ray) == len(dask) - 1:
                rate = ray_tune(given.peers_python, given.trials)
                ray.extend([] if rate is None else [rate])
    window = Figure("Dask window of 8 no-ops", dask, "tasks/s")
    own = Figure("fresh processes", fresh, "trials/s")
    reused = Figure("reused processes", reuse, "trials/s")
    figures = [window, own, reused]
    figures.append(ratio("fresh / Dask window", own, window, at_least=0.8))
    figures.append(ratio("reused / Dask window", reused, window, at_least=4))
    if len(ray) == given.repeats:
        peer = Figure("Ray Tune, actors reused", ray, "trials/s")
        figures += [peer, ratio("fresh / Ray Tune", own, peer, at_least=5)]
    elif not given.peers_python:
        print("without Ray Tune: give --peers-python=PYTHON, with ray[tune] installed")
    show(f"Trivial trials on {SLOTS} slots", figures, given.json)


if __name__ == "__main__":
    sys.exit(main())
