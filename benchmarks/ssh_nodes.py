"""Seconds until 8 and 32 nodes are up that are reached over SSH on loopback, and until closed.

python -m benchmarks.ssh_nodes                   # needs sshd: apt install openssh-server
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import distsearch as ag

from .common import CPUClock, Figure, parser, scratch, show
from .ssh_hosts import ssh_nodes

GOALS = {8: 2.2, 32: 6.0}  # nodes -> seconds


@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=args.x)


def up_and_closed(folder: Path, count: int, repeats: int) -> Iterator[Figure]:
    """How long it takes until all nodes are up, and until nothing is left of them."""
    up, cpu, closed = [], [], []
    with ssh_nodes(folder, count, num_cpus=1) as nodes:
        for _ in range(repeats):
            clock, begin = CPUClock(), time.perf_counter()
            scheduler = ag.scheduler.FIFOScheduler(train_fn, verbose=0, **nodes)
            try:
                wait_for(scheduler, count)
                ready = time.perf_counter()
                cpu.append(clock.seconds())
            finally:
                scheduler.close()
            up.append(ready - begin)
            closed.append(time.perf_counter() - ready)
    yield Figure(f"{count} nodes up", up, "s", at_most=GOALS.get(count))
    yield Figure(f"{count} nodes up: CPU time of all processes", cpu, "s")
    yield Figure(f"{count} nodes closed", closed, "s")


def interpreters(count: int, repeats: int) -> Figure:
    """How long as many interpreters take that import what a Dask worker is made of, all at once."""
    took = []
    for _ in range(repeats):
        begin = time.perf_counter()
        command = [sys.executable, "-c", "import distributed"]
        started = [subprocess.Popen(command) for _ in range(count)]
        assert all(process.wait(60) == 0 for process in started)
        took.append(time.perf_counter() - begin)
    return Figure(f"{count} interpreters import distributed, and nothing else", took, "s")


def wait_for(scheduler: ag.scheduler.FIFOScheduler, count: int, bound_s: float = 60) -> None:
    """Until all have come: the constructor goes on without those that take more than 5 s."""
    deadline = time.perf_counter() + bound_s
    while len(scheduler.manager.remotes) < count:
        assert time.perf_counter() < deadline, f"{len(scheduler.manager.remotes)} of {count} are up"
        time.sleep(0.01)


def main() -> None:
    options = parser(__doc__, repeats=9)
    options.add_argument("--nodes", type=int, nargs="*", default=list(GOALS))
    given = options.parse_args()
    figures: list[Figure] = []
    with scratch() as folder:
        for count in given.nodes:
            figures += up_and_closed(folder / str(count), count, given.repeats)
            figures.append(interpreters(count, given.repeats))
    show("SSH nodes on loopback", figures, given.json)


if __name__ == "__main__":
    main()
