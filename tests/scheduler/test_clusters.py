"""Dask clusters that are the user's: adaptive ones, and ones that live in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

import distsearch as ag
from distsearch.core import nodes
from distsearch.core.store import read
from tests.scheduler.conftest import WAIT_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def short_leases(monkeypatch):
    """What may still run on a lost node ends with its worker here; nobody has to wait for it."""
    monkeypatch.setattr(nodes, "NODE_LEASE_S", 0.5)
    monkeypatch.setattr(nodes, "LEASE_GRACE_S", 0.5)


@pytest.fixture
def waiting(tmp_path, mailbox):
    """A train function whose trials say that they are here, and end when `go` is there."""

    @ag.args(x=ag.Real(0, 1), mailbox=mailbox.path, go=str(tmp_path / "go"))
    def train_fn(args, reporter):
        with open(args.mailbox, "w") as box:
            print(args.task_id, file=box)
        while not os.path.exists(args.go):
            time.sleep(0.01)
        reporter(epoch=1, accuracy=args.x)

    return train_fn


def until_there(path, _number=0):
    deadline = time.monotonic() + WAIT_S
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)


def one_is_lost(scheduler):
    """Wait until a trial has lost its node; its id."""
    deadline = time.monotonic() + WAIT_S
    while not (lost := list(read(scheduler.folder, "lost"))):
        assert time.monotonic() < deadline, "no trial has lost its node"
        time.sleep(0.05)
    (only,) = lost
    return only.trial


def all_end_well(scheduler, tmp_path):
    (tmp_path / "go").touch()
    assert scheduler.join_jobs(timeout=60)
    return [trial.status.value for trial in scheduler.trials] == ["finished"] * 3


def test_workers_of_an_adaptive_cluster_come_and_go_while_the_search_runs(
    search, waiting, mailbox, tmp_path
):
    enough = str(tmp_path / "enough")
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        local.adapt(minimum=1, maximum=2, interval="50 ms", wait_count=2, target_duration="1 s")
        scheduler = search(waiting, local=None, client=client, num_trials=3)
        scheduler.run()
        assert mailbox.take() == "0"
        work = client.map(until_there, [enough] * 20, range(20))  # it grows for Dask's own tasks
        assert mailbox.take() == "1"  # and the search uses what has come
        Path(enough).touch()
        client.gather(work)
        again = one_is_lost(scheduler)
        assert all_end_well(scheduler, tmp_path)  # on the worker that stayed
        assert scheduler.trials[again].attempt == 2
        scheduler.close()


def test_a_cluster_of_other_processes_serves_a_search_and_its_workers_may_be_killed(
    search, waiting, mailbox, tmp_path
):
    file, started = tmp_path / "scheduler.json", []

    def start(kind, *options):
        command = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(file), *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL))
        return started[-1]

    worker = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        doomed = start("worker", *worker)
        with Client(scheduler_file=str(file), timeout=WAIT_S, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=WAIT_S)
            scheduler = search(waiting, local=None, client=client, num_trials=3)
            scheduler.run()
            assert mailbox.take() == "0"
            start("worker", *worker)
            assert mailbox.take() == "1"
            doomed.kill()
            assert one_is_lost(scheduler) == 0
            assert all_end_well(scheduler, tmp_path)
            assert scheduler.trials[0].attempt == 2
            scheduler.close()
    finally:
        for process in reversed(started):
            process.kill()
            process.wait(10)
