"""Checkpoints of real trials: in a storage that all nodes see, or copied; within one budget."""

from __future__ import annotations

import sys

import pytest
from distributed import Client, LocalCluster

import distsearch as ag
from distsearch.core import store
from distsearch.core.checkpoint import checkpoints
from distsearch.core.progress import Progress
from distsearch.core.words import Launch, Status, Wait
from distsearch.errors import CheckpointError, NothingReported, StoreError
from distsearch.resource.remote import Remote
from distsearch.scheduler import FIFOScheduler
from tests.hosts import Hosts

WAIT_S = 90


class Family(FIFOScheduler):
    """A father, and children that start once he has ended."""

    def next_launch(self):
        trials = self.experiment.ledger.trials
        if not trials:
            return Launch({"x": 0.0})
        if not trials[0].status.is_end:
            return Wait()
        return Launch({"x": float(len(trials))}, parents=(0,))

    def replay_launch(self, trial_id, config, given, told=None):
        """The next one depends on the trials alone."""


@ag.args(x=ag.Real(0, 100))
def train_fn(args, reporter):
    import hashlib

    import numpy

    if args.x == 0:
        reporter.save({"w": numpy.random.rand(50_000), "n": 1}, step=1)
    state = reporter.load()
    digest = hashlib.sha256(state["w"].tobytes()).hexdigest()
    if args.x > 0:
        reporter.save({**state, "n": state["n"] + 1}, step=1)
    reporter(epoch=1, accuracy=args.x, digest=digest, n=reporter.load()["n"])


@pytest.fixture
def two_nodes():
    with Hosts() as hosts:
        nodes = [
            ag.Node("127.0.0.1", port=hosts.start().port, python=sys.executable, num_cpus=1)
            for _ in range(2)
        ]
        yield {"dist_ip_addrs": nodes, "ssh_config": [hosts.config], "local": False}


@pytest.mark.parametrize("place", [None, "path", "url"])
def test_children_on_two_nodes_get_their_fathers_very_bytes(
    tmp_path, search, two_nodes, monkeypatch, place
):
    moved = []
    for name in ("fetch_checkpoint", "put_checkpoint"):
        real = getattr(Remote, name)

        def counted(self, *arguments, real=real, name=name):
            moved.append(name)
            return real(self, *arguments)

        monkeypatch.setattr(Remote, name, counted)
    shared = tmp_path / "shared"
    storage = {None: None, "path": shared, "url": f"file://{shared}"}[place]
    scheduler = search(
        train_fn, Family, storage=storage, checkpoint=tmp_path / "search", **two_nodes
    )
    scheduler.run(num_trials=7)
    assert scheduler.join_jobs(timeout=WAIT_S)
    reports = {event.trial: event.body for event in store.read(tmp_path / "search", "report")}
    assert len(reports) == 7
    assert len({report["digest"] for report in reports.values()}) == 1
    assert [reports[trial]["n"] for trial in range(7)] == [1, 2, 2, 2, 2, 2, 2]
    kept = list((tmp_path / "search" / "trials").glob("*/checkpoints/*/manifest.json"))
    stored = list(shared.glob("*/*/*-step-1/manifest.json"))
    if place is None:
        assert len(kept) == 7 and "put_checkpoint" in moved
    else:
        assert len(stored) == 7, "each trial has its own there"
        assert not kept and not moved, "it went through the driver"


class TwoParents(FIFOScheduler):
    """Two trials, and then children of both."""

    def next_launch(self):
        number = len(self.experiment.ledger.trials)
        return Launch({"x": float(number)}, parents=(1, 0) if number > 1 else ())

    def replay_launch(self, trial_id, config, given, told=None):
        """The next one depends on the trials alone."""


@ag.args(x=ag.Real(0, 100))
def average(args, reporter):
    if not reporter.parents:
        reporter.save({"w": args.x + 10}, step=1)
        reporter(epoch=1, accuracy=args.x)
        return
    each = {parent: reporter.load(parent=parent)["w"] for parent in reporter.parents}
    first = reporter.load()["w"]
    reporter.save({"w": sum(each.values()) / 2}, step=1)
    own = reporter.load()["w"]
    again = reporter.load(parent=0)["w"]
    reporter(epoch=1, accuracy=args.x, each=list(each.items()), said=[first, own, again])


@pytest.mark.parametrize("place", [None, "path", "url"])
def test_a_child_of_two_loads_the_weights_of_each_parent_by_its_number(
    tmp_path, search, two_nodes, place
):
    storage = {None: None, "path": tmp_path / "s", "url": f"file://{tmp_path / 's'}"}[place]
    scheduler = search(
        average, TwoParents, storage=storage, checkpoint=tmp_path / "search", **two_nodes
    )
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(timeout=WAIT_S)
    reports = {event.trial: event.body for event in store.read(tmp_path / "search", "report")}
    for child in (2, 3):
        assert reports[child]["each"] == [[1, 11.0], [0, 10.0]]
        assert reports[child]["said"] == [11.0, 10.5, 10.0]


def test_the_bytes_get_there_through_a_cluster_of_the_users_too(tmp_path, search):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        scheduler = search(train_fn, Family, local=False, client=client, checkpoint=tmp_path / "s")
        scheduler.run(num_trials=5)
        assert scheduler.join_jobs(timeout=WAIT_S)
        scheduler.close()
    digests = [event.body["digest"] for event in store.read(tmp_path / "s", "report")]
    assert len(digests) == 5 and len(set(digests)) == 1
    assert len(stored_trials(tmp_path / "s", False)) == 5


@ag.args(x=ag.Real(0, 1), epochs=9)
def in_turns(args, reporter):
    import numpy

    state = reporter.load() or {"epoch": 0, "weights": numpy.zeros(1000)}
    for epoch in range(state["epoch"], args.epochs):
        state = {"epoch": epoch + 1, "weights": state["weights"] + epoch}
        reporter.save(state, step=epoch + 1)
        reporter(epoch=epoch + 1, accuracy=args.x, total=float(state["weights"].sum()))


def test_paused_trials_go_on_from_the_storage_on_whichever_node_is_free(
    tmp_path, search, two_nodes
):
    scheduler = search(
        in_turns,
        ag.scheduler.HyperbandScheduler,
        type="promotion",
        seed=3,
        storage=tmp_path / "shared",
        checkpoint=tmp_path / "search",
        **two_nodes,
    )
    scheduler.run(num_trials=12)
    assert scheduler.join_jobs(timeout=WAIT_S)
    reports, resumed = {}, False
    for event in store.read(tmp_path / "search", "report"):
        reports.setdefault(event.trial, []).append(event.body)
        resumed |= event.attempt > 1
    assert resumed, "no trial was promoted after a pause"
    for of_trial in reports.values():
        assert [report["epoch"] for report in of_trial] == list(range(1, len(of_trial) + 1))
        assert of_trial[-1]["total"] == 1000 * sum(range(len(of_trial)))
    for folder in (tmp_path / "shared").glob("*/[0-9]*"):
        assert 1 <= len(checkpoints(folder)) <= 2


def test_a_node_that_does_not_see_the_storage_says_so_in_its_trial(tmp_path, search):
    scheduler = search(train_fn, Family, storage=tmp_path / "shared")
    (mark,) = (tmp_path / "shared").glob("*/distsearch.json")
    mark.unlink()  # as on a node on which it is not mounted
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=WAIT_S)
    (trial,) = scheduler.trials
    assert trial.status is Status.FAILED
    assert f"node localhost cannot find the storage {mark.parent}" in trial.error
    assert "it is not mounted there" in trial.reason


def test_a_storage_that_this_process_cannot_write_to_is_refused_at_once(tmp_path, search):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"node of the driver cannot write to .*file/below"):
        search(train_fn, storage=tmp_path / "file" / "below")


def test_a_search_goes_on_in_its_storage_and_with_no_other(tmp_path, search):
    def start(**options):
        return search(train_fn, Family, checkpoint=tmp_path / "search", **options)

    first = start(storage=tmp_path / "shared")
    first.run(num_trials=2)
    assert first.join_jobs(timeout=WAIT_S)
    first.close()
    for other in ({}, {"storage": tmp_path / "elsewhere"}):
        with pytest.raises(StoreError, match=r"are in storage=.*shared'.*give the same one"):
            start(**other)
    second = start(storage=tmp_path / "shared")
    second.run(num_trials=4)
    assert second.join_jobs(timeout=WAIT_S)
    (place,) = (tmp_path / "shared").iterdir()
    assert len(list(place.glob("*/*-step-1/manifest.json"))) == 4
    digests = {event.body["digest"] for event in store.read(tmp_path / "search", "report")}
    assert len(digests) == 1


@ag.args(epochs=5)
def saves_often(args, reporter):
    for epoch in range(args.epochs):
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=epoch)


@pytest.mark.parametrize("is_shared", [False, True])
def test_the_user_gets_the_weights_of_the_best_trial(tmp_path, search, is_shared):
    scheduler = search(train_fn, Family, storage=tmp_path / "shared" if is_shared else None)
    scheduler.run(num_trials=3)
    assert scheduler.join_jobs(timeout=WAIT_S)
    scheduler.close()
    father, best = scheduler.load_checkpoint(0), scheduler.load_checkpoint()
    assert (father["n"], best["n"]) == (1, 2)
    assert (father["w"] == best["w"]).all()
    with pytest.raises(NothingReported, match="there is no trial 99"):
        scheduler.load_checkpoint(99)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("is_shared", [False, True])
def test_keep_says_how_many_checkpoints_a_trial_has(tmp_path, search, keep, is_shared):
    shared = tmp_path / "shared"
    scheduler = search(saves_often, keep=keep, storage=shared if is_shared else None)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=WAIT_S)
    scheduler.close()
    pattern = "*/0" if is_shared else "trials/0/checkpoints"
    (folder,) = (shared if is_shared else scheduler.folder).glob(pattern)
    steps = [int(path.name.rpartition("-")[2]) for path in checkpoints(folder)]
    assert steps == list(range(5))[-keep:]


class WithAChild(FIFOScheduler):
    """Trial 0 is a father, trial 1 his child, and the others have nothing to do with them."""

    def next_launch(self):
        trials = self.experiment.ledger.trials
        if trials and not trials[0].status.is_end:
            return Wait()
        return Launch({"n": len(trials)}, parents=(0,) if len(trials) == 1 else ())


@ag.args(n=ag.Int(0, 100), gate=None)
def fills_the_disk(args, reporter):
    import numpy

    if args.n == 1:
        before = reporter.load()["n"]
        with open(args.gate) as gate:  # until the others are through
            gate.read()
        assert reporter.load()["n"] == before == 0
    reporter.save({"n": args.n, "w": numpy.zeros(10_000)}, step=1)
    reporter(epoch=1, accuracy=100 if args.n == 3 else -args.n)


def stored_trials(folder, is_shared):
    pattern = "*/*/*-step-1/manifest.json" if is_shared else "trials/*/checkpoints/*/manifest.json"
    up = 2 if is_shared else 3
    return sorted(int(path.parents[up - 1].name) for path in folder.glob(pattern))


@pytest.mark.parametrize("is_shared", [False, True])
def test_within_the_budget_the_oldest_go_but_never_what_a_child_or_the_user_needs(
    tmp_path, search, is_shared
):
    import os

    shared = tmp_path / "shared"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    scheduler = search(
        fills_the_disk,
        WithAChild,
        args={"gate": str(gate)},
        slots=2,
        max_bytes="350KB",  # of 80 KB each: four
        storage=shared if is_shared else None,
        checkpoint=tmp_path / "search",
    )
    folder = shared if is_shared else tmp_path / "search"
    scheduler.run(num_trials=9)
    ended = 0
    while ended < 8:  # all but the child
        assert not scheduler.join_jobs(timeout=0.2), "the child did not wait"
        ended = sum(trial.status.is_end for trial in scheduler.trials)
        assert not any(trial.status.is_failure for trial in scheduler.trials)
    there = stored_trials(folder, is_shared)
    assert {0, 3} <= set(there), "the father or the best is gone"
    with open(gate, "w") as open_gate:
        open_gate.write("go")
    assert scheduler.join_jobs(timeout=WAIT_S)
    scheduler.close()
    assert scheduler.trials[1].status is Status.FINISHED
    gone = [event.trial for event in store.read(tmp_path / "search", "deleted")]
    assert gone[:4] == [2, 4, 5, 6], "the oldest first"
    assert 3 not in gone
    left = stored_trials(folder, is_shared)
    assert len(left) == 4 and 3 in left
    assert sorted(set(range(9)) - set(left)) == sorted(gone)


class Keeps(FIFOScheduler):
    """A rule that may choose any trial as a parent."""

    def may_need(self, trial):
        return True


def test_a_budget_that_what_is_needed_exceeds_is_said_once_and_nothing_is_deleted(
    search, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(Progress, "say", lambda _, line: said.append(line))
    scheduler = search(fills_the_disk, Keeps, max_bytes=1000, checkpoint=tmp_path / "search")
    scheduler.searcher.ask = lambda trial: {"n": trial + 2}
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(timeout=WAIT_S)
    (text,) = [line for line in said if "max_bytes" in line]
    assert "more than max_bytes=1 KB, and all are needed" in text
    assert len(stored_trials(tmp_path / "search", False)) == 4
    assert not list(store.read(tmp_path / "search", "deleted"))


SCRIPT = """
import os, signal
import distsearch as ag
from distsearch.resource import cache
from tests.scheduler.test_storage_of_trials import fills_the_disk

if not os.path.exists("killed"):
    def killed(path, **options):
        if os.path.basename(path).endswith("-step-1"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    cache.shutil.rmtree = killed
with ag.scheduler.FIFOScheduler(
    fills_the_disk, max_bytes="200KB", checkpoint="search", seed=1,
    local=ag.Node("localhost", num_cpus=1), points_to_evaluate=[{"n": n} for n in range(2, 8)],
) as scheduler:
    scheduler.run(num_trials=6)
    scheduler.join_jobs()
print("through", flush=True)
"""


def test_a_driver_killed_between_a_manifest_and_its_files_goes_on_and_cleans_up(driver, tmp_path):
    first = driver(SCRIPT)
    first.end()
    assert first.process.returncode == -9
    folder = tmp_path / "search" / "trials"
    whole = {path.parent for path in folder.glob("*/checkpoints/*/manifest.json")}
    assert set(folder.glob("*/checkpoints/*-step-1")) - whole, "the kill came too late"
    second = driver(SCRIPT)
    assert "through" in second.end(WAIT_S)
    left = list(folder.glob("*/checkpoints/*-step-1"))
    assert len(left) == 2 and all((path / "manifest.json").exists() for path in left)
    assert stored_trials(tmp_path / "search", False)[0] == 1, "trial 1 with n=3 is the best"
