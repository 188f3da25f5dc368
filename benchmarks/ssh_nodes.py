"""Seconds until 8 nodes are up that are reached over SSH on loopback, and until they are closed.

python -m benchmarks.ssh_nodes
"""

from __future__ import annotations

import dataclasses
import sys
import time

import distsearch as ag
from tests.hosts import Hosts

from .common import Figure, parser, scratch, show


@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=args.x)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, default=8)
    given = options.parse_args()
    up, closed = [], []
    with scratch(), Hosts() as hosts:
        nodes = [
            dataclasses.replace(
                ag.Node.parse(hosts.start().address),
                python=sys.executable,
                num_cpus=1,  # else hosts of one machine count once
            )
            for _ in range(given.nodes)
        ]
        for _ in range(given.repeats):
            begin = time.perf_counter()
            scheduler = ag.scheduler.FIFOScheduler(
                train_fn,
                dist_ip_addrs=nodes,
                local=False,
                ssh_config=[hosts.config],
                verbose=0,
            )
            ready = time.perf_counter()
            try:
                got = len(scheduler.manager.remotes)
                assert got == given.nodes, f"{got} of {given.nodes} nodes came up"
            finally:
                scheduler.close()
            up.append(ready - begin)
            closed.append(time.perf_counter() - ready)
    figures = [
        Figure(f"{given.nodes} nodes up", up, "s", at_most=4),
        Figure(f"{given.nodes} nodes closed", closed, "s"),
    ]
    show("SSH nodes on loopback", figures, given.json)


if __name__ == "__main__":
    main()
