"""Trials of several ranks: how soon they work, beside torchrun; how soon again after a death.

    python -m benchmarks.gangs                 # on two loopback nodes over SSH, about 3 minutes
    python -m benchmarks.gangs --ranks 2       # of two ranks alone

A start is the time from the lease (for torchrun: from the command) to the end of the first
all-reduce, of the same function and with gloo. Nodes have imported PyTorch before, as they do it
once for all trials of a search; torchrun does it in each process, which imports nothing else.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import distsearch as ag
from distsearch.core.store import read
from tests.hosts import Hosts

from .common import Figure, parser, scratch, show
from .torchrun_peer import first_collective

STEPS = 60
STARTS = (2, 4, 8)


@ag.args(x=ag.Real(0, 1))
def starts(args, reporter):
    import torch  # noqa: F401  # nodes import what they see here, before any trial

    done, _ = first_collective()
    reporter(accuracy=args.x, done=done)


@ag.args(x=ag.Real(0, 1), folder="")
def dies_once(args, reporter):
    """The last rank is killed at its second step; the others have saved what they go on from."""
    import signal

    import torch
    import torch.distributed as dist

    from distsearch.train import process_group

    died = Path(args.folder) / f"died{args.task_id}"
    state = reporter.load()
    with process_group():
        for epoch in range(1 if state is None else state["epoch"] + 1, 3):
            if epoch == 2 and state is None and args.rank == args.world_size - 1:
                # Not before the checkpoint is known.
                time.sleep(0.5)
                died.write_text(repr(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)
            dist.all_reduce(torch.ones(1))
            took = time.time() - float(died.read_text()) if died.exists() else 0.0
            reporter(epoch=epoch, accuracy=args.x, took=took)
            reporter.save({"epoch": epoch}, step=epoch)


@ag.args(x=ag.Real(0, 1))
def learns(args, reporter):
    """Steps of data-parallel training, a batch of 256 for each rank."""
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    from distsearch.train import process_group

    with process_group():
        torch.manual_seed(args.rank)
        network = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
        network = DistributedDataParallel(network)
        optimizer = torch.optim.SGD(network.parameters(), 0.01)
        images, labels = torch.randn(256, 256), torch.randint(10, (256,))
        seconds = []
        for _ in range(STEPS):
            begin = time.perf_counter()
            loss = nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seconds.append(time.perf_counter() - begin)
        reporter(accuracy=args.x, step_ms=1000 * statistics.median(seconds[STEPS // 3 :]))


def search(hosts, addresses, train_fn, ranks, trials):
    """The bodies of the last reports of each trial, and when their slots were leased."""
    here = max(1, ranks // 2)
    resource = {"num_cpus": 1, "world_size": ranks, "ranks_per_node": here}
    nodes = [  # with room for one trial
        ag.Node("127.0.0.1", port=port, python=sys.executable, num_cpus=here) for port in addresses
    ]
    with ag.scheduler.FIFOScheduler(
        train_fn,
        resource=resource,
        num_trials=trials,
        dist_ip_addrs=nodes,
        local=False,
        ssh_config=[str(hosts.config)],
        verbose=0,
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        assert {trial.status.value for trial in scheduler.trials} == {"finished"}, scheduler.trials
        leased, last = {}, {}
        for event in read(scheduler.folder):
            if event.kind == "started":
                leased[event.trial] = event.time
            elif event.kind == "report":
                last[event.trial] = event.body
        return [(leased[trial], body) for trial, body in last.items()]


def torchrun(ranks: int) -> float:
    """Seconds until torchrun's processes, of two commands as on two nodes, have worked together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "done"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
            *("--nproc-per-node", str(ranks // 2), "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", f"127.0.0.1:{port}"),
            *(str(Path(__file__).with_name("torchrun_peer.py")), str(written)),
        ]
        begin = time.time()
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        commands = [subprocess.Popen(command, env=env, **quiet) for _ in range(2)]
        for one in commands:
            assert one.wait(120) == 0, "torchrun has failed"
        return float(written.read_text()) - begin


def main() -> None:
    options = parser(__doc__, repeats=5)
    options.add_argument("--ranks", type=int, nargs="*", default=STARTS)
    given = options.parse_args()
    figures = []
    with scratch() as folder, Hosts() as hosts:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        nodes = [hosts.start(env=env).port for _ in range(2)]
        for ranks in given.ranks:
            # (The first one waits for the imports.)
            found = search(hosts, nodes, starts, ranks, given.repeats + 1)[1:]
            here = [body["done"] - leased for leased, body in found]
            there = [torchrun(ranks) for _ in range(given.repeats)]
            figures += [
                Figure(f"start of {ranks} ranks", here, "s", at_most=statistics.median(there)),
                Figure(f"start of {ranks} ranks by torchrun", there, "s"),
            ]
        dies_once.update(folder=str(folder))
        found = search(hosts, nodes, dies_once, 2, given.repeats)
        figures.append(
            Figure(
                "first step after a rank has died", [b["took"] for _, b in found], "s", at_most=2
            )
        )
        for ranks in (1, 2):
            found = search(hosts, nodes, learns, ranks, given.repeats)
            figures.append(
                Figure(f"training step, {ranks} ranks", [b["step_ms"] for _, b in found], "ms")
            )
    show("Trials of several ranks", figures, given.json)


if __name__ == "__main__":
    main()
