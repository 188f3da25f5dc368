"""Many machines: the same search, on nodes that are reached over SSH.

    python tutorials/03_many_machines.py gpu1 ada@gpu2:2222       # your own machines
    python tutorials/03_many_machines.py                          # two pretended ones, on loopback

A node needs an SSH login that works without typing (a key or an agent, as in ~/.ssh/config), and a
Python with what distsearch and the trials import; `--python` names it if it is not where this
machine has its own, nor `python3`. distsearch itself comes from here and is kept in the node's
`~/.cache/distsearch`; nothing else is left on a node when the search ends. No port other than SSH's
is used.

Without addresses, two SSH servers are started on loopback ports of this machine. They stand for two
machines: login, encryption and processes are real.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import distsearch as ag

# What the trials need besides the train function: a file of data and a module with a helper. They
# stand for your own files; here they are written by the program, so that it runs anywhere.
DATA = "x,y\n" + "".join(f"{x / 10},{1.7 * x / 10 - 0.6}\n" for x in range(50))
HELPER = '''"""How far a line is from the points of a table."""


def mean_squared_error(rows, slope, offset):
    return sum((slope * x + offset - y) ** 2 for x, y in rows) / len(rows)
'''


@ag.args(slope=ag.Real(-3, 3), offset=ag.Real(-3, 3))
def train_fn(args, reporter):
    # Both were uploaded, so both are found under their own names, on every node.
    import line_helper

    with open("points.csv") as file:
        rows = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]
    slope, offset = args.slope, args.offset
    for step in range(1, 11):
        error = line_helper.mean_squared_error(rows, slope, offset)
        reporter(epoch=step, error=error)
        # One step downhill, by the formula of linear regression.
        slope -= 0.02 * sum(2 * (slope * x + offset - y) * x for x, y in rows) / len(rows)
        offset -= 0.02 * sum(2 * (slope * x + offset - y) for x, y in rows) / len(rows)
    print(f"task {args.task_id} in process {os.getpid()}: error {error:.3f}")


def main():
    parser = argparse.ArgumentParser(description="Search on several machines.")
    parser.add_argument("addresses", nargs="*", help="host, user@host or user@host:port")
    parser.add_argument("--python", help="the nodes' Python (default: python3)")
    parser.add_argument("--trials", type=int, default=16)
    options = parser.parse_args()

    with contextlib.ExitStack() as stack:
        if options.addresses:
            # A bare 'user@host:port' may be given to the scheduler as it is. A Node says more:
            # key=, python=, env=, num_cpus=, num_gpus=, memory_gb=.
            nodes = [
                dataclasses.replace(ag.Node.parse(address), python=options.python)
                for address in options.addresses
            ]
            ssh_config = None  # yours: ~/.ssh/config
        else:
            print("No addresses given: starting two test hosts on loopback, 'east' and 'west'.")
            nodes, ssh_config = stack.enter_context(loopback_hosts("east", "west"))

        # local=False: this machine only drives the search. Without it, it is one more node.
        scheduler = stack.enter_context(
            ag.scheduler.FIFOScheduler(
                train_fn,
                resource={"num_cpus": 1},
                reward_attr="error",
                mode="min",
                dist_ip_addrs=nodes,
                local=False,
                ssh_config=ssh_config,
                seed=0,
            )
        )
        print(scheduler)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "points.csv").write_text(DATA)
        (folder / "line_helper.py").write_text(HELPER)
        scheduler.upload_files([folder / "points.csv", folder / "line_helper.py"])

        scheduler.run(num_trials=options.trials)
        scheduler.join_jobs()

        print()
        for host, count in sorted(Counter(trial.host for trial in scheduler.trials).items()):
            tasks = [str(trial.id) for trial in scheduler.trials if trial.host == host]
            print(f"{host} ran {count} trials: {', '.join(tasks)}")
        best, error = scheduler.get_best_config(), scheduler.get_best_reward()
        print(f"best start: slope {best['slope']:.3f}, offset {best['offset']:.3f}")
        print(f"best error: {error:.4f} (task {scheduler.get_best_task_id()})")


@contextlib.contextmanager
def loopback_hosts(*names):
    """SSH servers on this machine, and an ssh_config that gives them names."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.hosts import Hosts

    with Hosts() as hosts:
        config = hosts.folder / "named_hosts"
        text = ""
        for name in names:
            host = hosts.start()
            text += f"Host {name}\n    HostName 127.0.0.1\n    Port {host.port}\n"
        config.write_text(f"{text}Host *\n{hosts.config.read_text()}")
        yield [ag.Node(name, python=sys.executable, num_cpus=1) for name in names], [config]


if __name__ == "__main__":
    main()
