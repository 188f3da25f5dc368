"""Trials whose ranks run on several nodes over SSH: where they meet, and what keeps them apart."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

import distsearch as ag
from distsearch import Node
from distsearch.core.store import read
from distsearch.core.words import Status
from distsearch.scheduler import FIFOScheduler
from tests.hosts import Hosts

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
APART = {"num_cpus": 1, "world_size": 2, "ranks_per_node": 1}


@pytest.fixture(scope="module")
def nodes():
    """Two nodes over SSH on this machine."""
    with Hosts() as hosts:
        started = [hosts.start(env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(2)]
        yield (
            hosts,
            [
                {"host": "127.0.0.1", "port": one.port, "python": sys.executable, "num_cpus": 2}
                for one in started
            ],
        )


@pytest.fixture
def search(nodes):
    made = []

    def make(train_fn, *, addresses=(None, None), **options):
        hosts, about = nodes
        named = [Node(**one, address=a) for one, a in zip(about, addresses, strict=True)]
        options = {"local": False, "dist_ip_addrs": named, "verbose": 0, **options}
        made.append(FIFOScheduler(train_fn, ssh_config=[str(hosts.config)], **options))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


@ag.args()
def adds_up(args, reporter):
    import os
    import signal

    import torch
    import torch.distributed as dist

    from distsearch.train import process_group

    state = reporter.load()
    with process_group() as device:
        for epoch in range(1 if state is None else state["epoch"] + 1, 4):
            if epoch == 3 and state is None and args.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            total = torch.ones(1, device=device) * (args.rank + 1)
            dist.all_reduce(total)
            reporter(epoch=epoch, accuracy=total.item(), groups=int(os.environ["GROUP_WORLD_SIZE"]))
            reporter.save({"epoch": epoch}, step=epoch)


@needs_torch
def test_two_nodes_have_one_rank_each_and_go_on_after_one_was_killed(search, tmp_path):
    scheduler = search(adds_up, resource=APART, num_trials=1, checkpoint=tmp_path / "search")
    scheduler.run()
    assert scheduler.join_jobs(timeout=90)
    (trial,) = scheduler.trials
    assert trial.status is Status.FINISHED and trial.best_reward == 3.0, trial
    log = list(read(scheduler.folder))
    reports = [event.body for event in log if event.kind == "report"]
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    assert {report["groups"] for report in reports} == {2}
    (lost,) = [event.body for event in log if event.kind == "lost"]
    assert lost["status"] == "killed" and lost["reason"].startswith("rank 1: killed by SIGKILL")


@ag.args()
def reports_once(args, reporter):
    reporter(accuracy=args.rank)


def test_nodes_that_do_not_reach_each_other_are_named_with_what_to_open(search, tmp_path):
    # Nothing listens there, whoever has it: it is an address of documentation.
    scheduler = search(
        reports_once,
        addresses=("192.0.2.1", "192.0.2.1"),
        resource=APART,
        num_trials=1,
        max_failures=0,
        checkpoint=tmp_path / "search",
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=60)
    (trial,) = scheduler.trials
    assert trial.status is Status.NODE_LOST
    assert "127.0.0.1 does not reach 127.0.0.1, where rank 0 of the trial runs" in trial.reason
    assert "at 192.0.2.1. Open TCP between" in trial.reason and "address=" in trial.reason
    assert not any(slots.slots.used[0] for slots in scheduler.manager.remotes.values())
