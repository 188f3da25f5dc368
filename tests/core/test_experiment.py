"""The loop of a search, against fake nodes.

A `FakeRemote` runs nothing: the test says what the agent of such a node would say. The store is
real, so that what is durable when a message leaves the driver can be looked up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import math
import re
import sqlite3
import sys
import tracemalloc
from collections import Counter
from functools import partial

import pytest

from distsearch.core import checkpoint, source
from distsearch.core import nodes as nodes_module
from distsearch.core import rests as rests_module
from distsearch.core import store as store_module
from distsearch.core.experiment import Experiment
from distsearch.core.failures import ALIKE
from distsearch.core.objectives import Objectives
from distsearch.core.settings import Settings, retries_of
from distsearch.core.storage import Storage
from distsearch.core.store import FILE, Store, read
from distsearch.core.travel import Packed
from distsearch.core.words import Continue, Launch, Pause, Status, Stop, Wait
from distsearch.errors import SearchFailed
from distsearch.resource.cache import CheckpointCache
from distsearch.resource.leases import LeaseQueue
from distsearch.resource.manager import DistributedResourceManager
from distsearch.resource.node import NodeFacts
from distsearch.resource.remote import Remote
from distsearch.resource.resource import Resource

WAIT_S = 20.0


class FakeRemote(Remote):
    """A node that does nothing by itself; `sent` is what the driver told it."""

    def __init__(self, world, number, cpus):
        facts = NodeFacts(num_cpus=cpus, gpus=(), memory_bytes=10**9)
        super().__init__(number, f"node{number}", f"fake://{number}", facts)
        self.world = world
        self.sent, self.asked = [], []
        self.answer = lambda message: None

    def send(self, message):
        self.sent.append(message)
        self.world.watch(message)
        self.world.news.set()
        self.answer(message)

    async def close(self):
        pass

    async def use_cache(self, *question):
        self.asked.append(question)  # there is no checkpoint

    def says(self, *messages):
        """Let the experiment hear messages of this node's agent, in one batch."""
        self.world.experiment.on_messages(self, list(messages))

    def told(self, op):
        """What the driver sent so far under this word."""
        return [message for message in self.sent if message["op"] == op]

    async def hears(self, op, trial, attempt=1):
        """Wait until the driver has sent this."""

        def found():
            for message in self.told(op):
                if (message["trial"], message.get("attempt", attempt)) == (trial, attempt):
                    return message
            return None

        return await self.world.until(found)


class DiskRemote(FakeRemote):
    """One that has real checkpoints on a real disk."""

    def __init__(self, world, number, cpus):
        super().__init__(world, number, cpus)
        self.cache = CheckpointCache(world.folder / f"node{number}")

    async def use_cache(self, verb, *arguments):
        self.asked.append((verb, *arguments))
        answer = getattr(self.cache, verb)(*arguments)
        self.world.news.set()
        return answer

    def save(self, trial, step):
        checkpoint.save({"step": step}, self.cache.folder(trial), step, attempt=1, keep=2)

    def names(self, trial):
        return [path.name for path in checkpoint.checkpoints(self.cache.folder(trial))]


def report(trial, seq, attempt=1, due=False, **metrics):
    body = json.dumps(metrics)
    return {
        "op": "report",
        "trial": trial,
        "attempt": attempt,
        "seq": seq,
        "due": due,
        "body": body,
    }


def ended(trial, attempt=1, status="finished", reason="", traceback="", returned=None):
    return {
        "op": "ended",
        "trial": trial,
        "attempt": attempt,
        "rank": 0,
        "status": status,
        "reason": reason,
        "traceback": traceback,
        "returned": returned,
    }


class Script:
    """A rule that launches numbered configurations and remembers what it hears."""

    def __init__(self, count=math.inf):
        self.count = count
        self.launched = 0
        self.reports, self.ends = [], []
        self.decide = lambda trial, report: Continue()

    def next_launch(self):
        if self.launched >= self.count:
            return None
        self.launched += 1
        return Launch({"n": self.launched - 1})

    def next_launch_on(self, node):
        return self.next_launch()

    keeps_only_needed = False
    planned = None

    def read_on(self, trial):
        return ()

    def on_report(self, trial, report):
        self.reports.append((trial.id, trial.attempt, report.sequence))
        return self.decide(trial, report)

    def on_end(self, trial):
        self.ends.append((trial.id, trial.status.value))

    def on_pause(self, trial):
        pass

    def next_resume(self):
        return None

    paused_may_go_on = True

    def due_at(self, trial):
        return "every"

    def replay_known(self, points):
        pass

    def replay_resume(self, trial_id):
        pass

    def replay_launch(self, trial_id, config, given, told=None):
        pass


PACKED = Packed(b"function", "f.pickle", (), "")


class World:
    """An experiment with its store, and fake nodes."""

    def __init__(self, folder, rule, **settings):
        self.folder = folder
        self.news = asyncio.Event()
        self.said, self.early = [], []
        self.rule = rule
        self.store = Store(folder)
        self.manager = DistributedResourceManager(LeaseQueue())
        self.experiment = Experiment(
            rule,
            Settings(PACKED, PACKED, **{"resource": Resource(), **settings}),
            self.manager,
            self.store,
            self.say,
        )
        self.watch = lambda message: None

    def say(self, line):
        self.said.append(line)
        self.news.set()

    def node(self, cpus=1, number=None, kind=FakeRemote):
        """A new fake node, in use."""
        remote = kind(self, len(self.manager.remotes) if number is None else number, cpus)
        self.experiment.add_remote(remote)
        return remote

    async def until(self, condition):
        """Wait for messages or lines until the condition gives something; that."""

        async def wait():
            while not (found := condition()):
                self.news.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.news.wait(), 0.05)
            return found

        return await asyncio.wait_for(wait(), WAIT_S)

    async def end(self):
        await asyncio.wait_for(self.experiment.wait(), WAIT_S)

    @property
    def statuses(self):
        return [trial.status.value for trial in self.experiment.ledger.trials.values()]

    def events(self, *kinds):
        return list(read(self.folder, *kinds))


@pytest.fixture
def play(tmp_path):
    """Run a coroutine that is given a new world; close its store."""

    def run(scene, rule=None, **settings):
        async def story():
            world = World(tmp_path, rule or Script(), **settings)
            try:
                return await scene(world)
            finally:
                world.store.close()

        return asyncio.run(story())

    return run


@pytest.fixture
def short_lease(monkeypatch):
    """Leases of nodes that end soon; how long until a trial may run elsewhere."""
    monkeypatch.setattr(nodes_module, "NODE_LEASE_S", 0.3)
    monkeypatch.setattr(nodes_module, "LEASE_GRACE_S", 0.1)
    return 0.4


def test_trials_are_launched_in_order_as_slots_become_free(play):
    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(4, None)
        await node.hears("start", 1)
        assert [message["trial"] for message in node.told("start")] == [0, 1]
        node.says(report(1, 1, accuracy=0.5), ended(1))
        assert (await node.hears("start", 2))["job"]["config"] == {"n": 2}
        node.says(ended(0), ended(2))
        await node.hears("start", 3)
        node.says(ended(3))
        await world.end()
        assert world.rule.launched == 4
        assert world.statuses == ["no_metric", "finished", "no_metric", "no_metric"]

    play(scene)


def saved(trial, step, attempt=1, size=100):
    name = f"{attempt}00000{step}-step-{step}"
    about = {"step": step, "name": name, "bytes": size}
    return {"op": "saved", "trial": trial, "attempt": attempt, **about}


def test_what_a_child_was_told_to_read_stays_in_the_storage_until_it_has_saved(play, tmp_path):
    storage = Storage(str(tmp_path / "shared"))
    deleted = []
    storage.delete = lambda trial, name: deleted.append(int(name[-1]))

    async def scene(world):
        node = world.node(cpus=2)
        child = Launch({"n": 1}, parents=(0,), wait_for="checkpoint")
        launches = [Launch({"n": 0}), Wait(), child, None]
        world.rule.next_launch = lambda: launches.pop(0)
        world.experiment.run(2, None)
        await node.hears("start", 0)
        node.says(report(0, 1, accuracy=0.1), saved(0, 1), saved(0, 2))
        world.experiment.wake()
        told = (await node.hears("start", 1))["job"]["storage"]
        assert told["url"] == storage.url and told["own"] == []
        assert told["sources"] == [(0, ["1000002-step-2", "1000001-step-1"])]
        node.says(saved(0, 3), saved(0, 4), saved(0, 5))
        await world.store.flush()
        assert world.experiment.keeper.budget.names(0)[:2] == ["1000001-step-1", "1000002-step-2"]
        node.says(saved(1, 1))
        node.says(ended(0), ended(1))
        await world.end()
        assert sorted(deleted) == [1, 2, 3], "the newest two are kept"

    play(scene, storage=storage)


def test_after_a_resume_no_deleted_checkpoint_is_given_to_a_trial(play, tmp_path):
    async def first(world):
        node = world.node()
        world.experiment.run(2, None)
        await node.hears("start", 0)
        node.says(report(0, 1, accuracy=0.1), saved(0, 1), ended(0))
        await node.hears("start", 1)
        node.says(report(1, 1, accuracy=0.2), saved(1, 1), ended(1))
        await world.end()
        assert [event.trial for event in world.events("deleted")] == [0]

    async def second(world):
        world.experiment.restore(world.events())
        assert world.experiment.keeper.budget.names(0) == []
        assert world.experiment.ledger.trials[0].saved_step is None
        assert world.experiment.keeper.budget.names(1) == ["1000001-step-1"]
        assert world.experiment.keeper.budget.total == 100

    def rule():
        script = Script()
        script.may_need = lambda trial: False
        return script

    play(first, rule(), max_bytes=150)
    play(second, rule(), max_bytes=150)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_copy_that_is_ahead_of_the_log_is_not_gone_on_from(play, keep):
    """The report of its epoch died with the node, and would be missing for ever."""

    async def scene(world):
        node = world.node(kind=DiskRemote)
        world.experiment.run(1, None)
        await node.hears("start", 0)
        here = world.experiment.keeper.folder_of(0)

        def copied(step):
            return lambda: any(path.name.endswith(f"-step-{step}") for path in here.glob("*-step*"))

        node.save(0, 1)
        node.says(saved(0, 1), report(0, 1, epoch=1))
        await world.until(copied(1))
        await world.until(lambda: not world.experiment.keeper.is_busy)
        for step in (2, 3, 4, 5):
            node.save(0, step)
        for step in (2, 3, 4):
            node.says(saved(0, step), report(0, step, epoch=step))
        await world.until(copied(5))
        await world.until(lambda: not world.experiment.keeper.is_busy)
        world.experiment.on_lost(node, "power cut", confirmed_dead=True)
        other = world.node(number=1, kind=DiskRemote)
        await other.hears("start", 0, attempt=2)
        (name,) = other.names(0)
        assert name.endswith("-step-1")

    play(scene, keep=keep)


def test_a_parent_whose_checkpoint_was_deleted_is_a_lost_one_and_one_that_is_waited_for_stays(play):
    async def scene(world):
        node = world.node(cpus=2)
        world.rule.may_need = lambda trial: False
        child = partial(Launch, {"n": 1}, wait_for="end")
        launches = [Launch({"n": 0}), Launch({"n": 0}), child((0, 1)), Launch({"n": 0}), None]
        world.rule.next_launch = lambda: launches.pop(0)
        world.experiment.run(4, None)
        await node.hears("start", 1)
        node.says(report(0, 1, accuracy=0.1), saved(0, 1), ended(0))  # trial 2 waits for 1 too
        await node.hears("start", 3)
        node.says(report(3, 1, accuracy=0.9), saved(3, 1), ended(3))
        assert world.experiment.keeper.budget.is_exceeded, "all are needed"
        node.says(report(1, 1, accuracy=0.2), saved(1, 1), ended(1))
        start = await node.hears("start", 2)
        assert start["job"]["parents"] == [(0, 0), (1, 1)]
        node.says(report(2, 1, accuracy=0.3), saved(2, 1), ended(2))
        await world.end()
        assert [event.trial for event in world.events("deleted")] == [0, 1, 2]
        launches[:] = [child((0,)), None]
        world.experiment.run(1, None)
        assert (await node.hears("start", 4))["job"]["parents"] == [(0, None)]

    play(scene, max_bytes=150)


def test_a_node_hears_of_its_function_before_any_trial(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        assert [message["op"] for message in node.sent] == ["preload", "function", "start"]

    play(scene)


def durable_seqs(folder, kind):
    connection = sqlite3.connect(folder / FILE)
    try:
        query = "select trial, attempt, seq from events where kind = ?"
        return set(connection.execute(query, (kind,)).fetchall())
    finally:
        connection.close()


def test_nothing_leaves_the_driver_before_what_it_follows_from_is_durable(play):
    """A start after `started`, a decision after its report, an acknowledgement after all of it."""

    async def scene(world):
        checked = []

        def watch(message):
            if message["op"] == "start":
                key = message["trial"], message["attempt"], None
                checked.append(("start", key in durable_seqs(world.folder, "started")))
            elif message["op"] in ("decide", "ack"):
                durable = {seq for _, _, seq in durable_seqs(world.folder, "report")}
                checked.append((message["op"], seen <= durable))

        world.watch = watch
        seen = set()
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        for seq in range(1, 20):
            seen.add(seq)
            node.says(report(0, seq, due=True, accuracy=0.1))
            await world.until(lambda seq=seq: len(node.told("decide")) == seq)
        await world.until(lambda: len(node.told("ack")) == 19)
        assert {op for op, _ in checked} == {"start", "decide", "ack"}
        assert all(fine for _, fine in checked)

    play(scene)


def test_with_a_full_disk_nothing_is_started_decided_or_acknowledged(play, monkeypatch):
    monkeypatch.setattr(store_module, "RETRY_S", 0.05)

    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(1, None)
        await node.hears("start", 0)
        commit, tries = world.store._commit, []

        def full(rows):
            tries.append(rows)
            raise sqlite3.OperationalError("database or disk is full")

        world.store._commit = full
        node.says(report(0, 1, due=True, accuracy=0.1))
        world.experiment.add({"n": -1})
        before = len(node.sent)
        await world.until(lambda: len(tries) >= 3)
        assert len(node.sent) == before
        assert "disk is full" in world.store.trouble
        world.store._commit = commit
        await node.hears("decide", 0)
        await node.hears("start", 1)
        await world.until(lambda: node.told("ack"))
        assert world.store.trouble == ""
        assert [(e.trial, e.seq) for e in world.events("report")] == [(0, 1)]

    play(scene)


def refused(trial, attempt=1, reason="no space", lacks=()):
    about = {"trial": trial, "attempt": attempt, "rank": 0, "reason": reason, "lacks": list(lacks)}
    return {"op": "refused", **about}


def test_a_start_that_never_began_costs_no_attempt_and_its_node_is_left_alone(play):
    async def scene(world):
        bad, good = world.node(), world.node()
        world.experiment.run(2, None)
        await bad.hears("start", 0)
        await good.hears("start", 1)
        good.says(report(1, 1, accuracy=0.1), ended(1))
        bad.says(refused(0))
        await good.hears("start", 0, attempt=2)
        trial = world.experiment.ledger.trials[0]
        assert not trial.failures and len(bad.told("start")) == 1
        expected = "node0 cannot run trials: no space; it gets none for 1 s, then it is tried again"
        assert world.said == [expected]
        good.says(report(0, 1, attempt=2, accuracy=0.2), ended(0, attempt=2))
        await world.end()
        assert world.statuses == ["finished", "finished"]
        world.experiment.close()

    play(scene)


def test_a_node_that_cannot_start_trials_is_asked_ever_less_often_and_the_search_goes_on(
    play, monkeypatch
):
    monkeypatch.setattr(rests_module, "LONGEST_REST_S", 0.05)

    async def scene(world):
        node = world.node()
        world.experiment.run(2, None)
        for attempt in range(1, 9):
            await node.hears("start", 0, attempt=attempt)
            node.says(refused(0, attempt))
        await node.hears("start", 0, attempt=9)
        node.says(report(0, 1, attempt=9, accuracy=0.1), ended(0, attempt=9))
        await node.hears("start", 1)
        node.says(report(1, 1, accuracy=0.1), ended(1))
        await world.end()
        assert world.statuses == ["finished", "finished"]
        assert len(world.said) == 8

    play(scene)


def test_what_a_trial_has_deleted_is_sent_again(play, monkeypatch):
    monkeypatch.setattr(rests_module, "LONGEST_REST_S", 0.05)

    async def scene(world):
        node = world.node()
        file = world.folder / "data.txt"
        file.write_text("3")
        node.answer = lambda message: (
            node.on_uploaded(message["path"], "") if message["op"] == "upload" else None
        )
        await node.upload("data.txt", file)
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(refused(0, lacks=["the train function", "the uploaded files"]))
        await node.hears("start", 0, attempt=2)
        assert len(node.told("function")) == 2 and len(node.told("upload")) == 2
        node.says(report(0, 1, attempt=2, accuracy=0.1), ended(0, attempt=2))
        await world.end()

    play(scene)


def test_a_trial_that_is_stopped_when_it_does_not_begin_is_stopped(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        world.experiment.end("enough")
        node.says(refused(0))
        await world.end()
        assert world.statuses == ["stopped"]
        world.experiment.close()

    play(scene)


def test_a_checkpoint_that_is_told_of_again_late_is_not_the_newest(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        for step in (1, 2):
            node.says(report(0, step, accuracy=0.1), saved(0, step))
        node.says(saved(0, 1))
        assert world.experiment.ledger.trials[0].saved_step == 2
        node.says(ended(0))
        await world.end()

    play(scene)


def test_a_report_that_arrives_twice_counts_once(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(report(0, 1, accuracy=0.1), report(0, 2, accuracy=0.2))
        node.says(report(0, 1, accuracy=0.9), report(0, 2, accuracy=0.9))
        node.says(report(0, 3, accuracy=0.3), ended(0), ended(0, status="failed"))
        await world.end()
        assert world.rule.reports == [(0, 1, 1), (0, 1, 2), (0, 1, 3)]
        assert [event.seq for event in world.events("report")] == [1, 2, 3]
        assert world.experiment.ledger.best.best_reward == 0.3
        assert world.rule.ends == [(0, "finished")]

    play(scene)


def test_what_an_attempt_that_is_over_says_is_ignored_but_acknowledged(play):
    async def scene(world):
        first = world.node()
        world.experiment.run(1, None)
        await first.hears("start", 0)
        second = world.node(number=1)
        world.experiment.on_lost(first, "power cut", confirmed_dead=True)
        await second.hears("start", 0, attempt=2)
        stale = report(0, 1, attempt=1, due=True, accuracy=0.99)
        first.says(stale, ended(0, attempt=1))
        second.says(report(0, 1, attempt=2, accuracy=0.5))
        second.says(stale)
        await world.until(lambda: first.told("ack"))
        second.says(ended(0, attempt=2))
        await world.end()
        assert world.rule.reports == [(0, 2, 1)]
        assert world.experiment.ledger.best.best_reward == 0.5
        assert not first.told("decide")
        assert sum(m["bytes"] for m in first.told("ack")) == len(stale["body"])

    play(scene)


def test_every_byte_of_every_report_is_acknowledged(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        reports = [report(0, seq, accuracy=seq, filler="x" * seq) for seq in range(1, 100)]
        for start in range(0, 99, 7):
            node.says(*reports[start : start + 7])
            await asyncio.sleep(0)
        total = sum(len(message["body"]) for message in reports)
        await world.until(lambda: sum(m["bytes"] for m in node.told("ack")) == total)

    play(scene)


def test_a_trial_of_a_lost_node_starts_again_only_when_the_nodes_lease_has_ended(play, short_lease):
    async def scene(world):
        first, second = world.node(), None
        world.experiment.run(1, None)
        await first.hears("start", 0)
        second = world.node(number=1)
        lost_at = asyncio.get_running_loop().time()
        world.experiment.on_lost(first, "no answer", confirmed_dead=False)
        assert world.statuses == ["waiting"]
        await second.hears("start", 0, attempt=2)
        assert asyncio.get_running_loop().time() - lost_at >= short_lease * 0.95
        assert not world.experiment.is_idle
        (line,) = [line for line in world.said if "node0 is gone: no answer; 1 trial ran" in line]
        assert re.search(r"they start elsewhere at \d\d:\d\d:\d\d, in ", line)

    play(scene)


def test_a_restored_trial_of_another_node_waits_for_that_nodes_lease(play, short_lease):
    """Its driver was killed, but the node may be cut off and train on; a local one cannot be."""

    async def scene(world):
        rows = [
            ("launched", None, {"config": {"n": n}, "given": False, "is_final": False})
            for n in range(4)
        ]
        rows = [(kind, n, attempt, body) for n, (kind, attempt, body) in enumerate(rows)]
        far = {"places": [{"rank": 0, "node": "gpu1", "gpus": [], "outlives_driver": True}]}
        here = {"places": [{"rank": 0, "node": "localhost", "gpus": [], "outlives_driver": False}]}
        rows += [
            ("started", 0, 1, far),
            ("started", 1, 1, here),
            ("started", 2, 1, far),
            ("lost", 2, 1, {"status": "killed", "reason": "its process had ended"}),
            ("started", 3, 1, far),
            ("lost", 3, 1, {"status": "node_lost", "reason": "no answer", "is_over": False}),
        ]
        loop = asyncio.get_running_loop()
        restored_at = loop.time()
        world.experiment.restore(
            store_module.Event(n, 0.0, kind, trial, attempt, None, body)
            for n, (kind, trial, attempt, body) in enumerate(rows)
        )
        node = world.node(cpus=4)
        world.experiment.run(4, None)
        for trial in range(4):
            await node.hears("start", trial, attempt=2)
        assert {message["trial"] for message in node.told("start")[:2]} == {1, 2}
        assert loop.time() - restored_at >= short_lease * 0.95
        assert any("2 trials may still run on nodes" in line for line in world.said)

    play(scene)


def test_the_lease_of_a_lost_node_is_longer_than_its_agents():
    from distsearch.resource.agent import Agent

    agents = Agent.__init__.__kwdefaults__["lease_s"]
    waits = nodes_module.NODE_LEASE_S + nodes_module.LEASE_GRACE_S
    assert waits >= agents + agents / 6  # it looks at its lease that often


def test_a_trial_of_a_node_that_is_surely_dead_starts_again_at_once(play):
    async def scene(world):
        first = world.node()
        world.experiment.run(2, None)
        await first.hears("start", 0)
        second = world.node(number=1)
        world.experiment.on_lost(first, "it said good-bye", confirmed_dead=True)
        world.experiment.on_lost(first, "it said good-bye", confirmed_dead=True)
        await asyncio.sleep(0)
        second.says(ended(1, attempt=1))
        await second.hears("start", 0, attempt=2)
        assert len(world.events("lost")) <= 1

    play(scene)


def test_a_trial_that_its_agent_ended_when_the_lease_ran_out_starts_again(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(ended(0, status="node_lost", reason="the node heard nothing"))
        await node.hears("start", 0, attempt=2)
        node.says(report(0, 1, attempt=2, accuracy=0.5), ended(0, attempt=2))
        await world.end()
        assert world.statuses == ["finished"]
        assert world.experiment.ledger.counts.failed == 0

    play(scene)


def test_a_trial_that_lost_its_node_too_often_is_given_up(play):
    async def scene(world):
        world.experiment.run(1, None)
        for attempt in (1, 2, 3):
            node = world.node(number=attempt)
            await node.hears("start", 0, attempt)
            world.experiment.on_lost(node, f"loss {attempt}", confirmed_dead=True)
        await world.end()
        (trial,) = world.experiment.ledger.trials.values()
        assert trial.status is Status.NODE_LOST
        assert trial.reason == "loss 3 (the last of 3 attempts that ended so)"
        assert world.rule.ends == [(0, "node_lost")]

    play(scene, retries={Status.NODE_LOST: 2})


@pytest.mark.parametrize("saves_first", [True, False])
def test_the_restart_goes_back_to_the_last_checkpoint_whose_report_the_log_has(play, saves_first):
    async def scene(world):
        first = world.node()
        world.experiment.run(1, None)
        assert (await first.hears("start", 0))["job"]["saved_step"] is None
        if saves_first:  # the report that belongs to the second is lost
            first.says(saved(0, 7), report(0, 1, accuracy=0.1), saved(0, 8))
        else:
            first.says(report(0, 1, accuracy=0.1), saved(0, 7))
        second = world.node(number=1)
        world.experiment.on_lost(first, "cut", confirmed_dead=True)
        assert (await second.hears("start", 0, attempt=2))["job"]["saved_step"] == 7

    play(scene)


def fails_at_once(node, message):
    """Let a trial that a node was told to start fail there at once."""
    if message["op"] == "start":
        error = ended(message["trial"], message["attempt"], "failed", "ImportError: no module")
        asyncio.get_running_loop().call_soon(node.says, error)


def test_a_bad_node_takes_a_few_attempts_and_all_trials_finish_on_the_other(play):
    async def scene(world):
        bad, good = world.node(cpus=2), world.node(number=1)
        bad.answer = partial(fails_at_once, bad)

        def finishes(message):
            if message["op"] == "start":
                told = report(message["trial"], 1, message["attempt"], accuracy=1)
                over = ended(message["trial"], message["attempt"])
                asyncio.get_running_loop().call_later(0.02, good.says, told, over)

        good.answer = finishes
        world.experiment.run(12, None)
        await world.end()
        assert world.statuses == ["finished"] * 12
        assert len(bad.told("start")) <= 5  # three in a row, and what ran meanwhile
        (line,) = [line for line in world.said if "set aside" in line]
        assert "node node0 is set aside" in line and "ImportError" in line
        assert any("on node0 failed: ImportError" in line for line in world.said)

    play(scene, rule=Script(12), retries=retries_of({Status.FAILED: 1}))


def test_a_failure_that_clears_a_node_leaves_the_search_its_time_limit(play):
    """The failure of the last trial that runs: for a moment nothing runs, and nothing waits."""

    async def scene(world):
        starts = Counter()

        def answer(node, message):
            if message["op"] not in ("start", "stop"):
                return
            starts[node] += message["op"] == "start"
            at = message["trial"], message["attempt"]
            over = [report(at[0], 1, at[1], accuracy=1), ended(*at)]
            if message["op"] == "stop":
                over = [ended(*at, "stopped")]
            elif starts[good] > 4:  # it goes on until it is stopped
                return
            elif node is bad or starts[good] == 4:
                over = [ended(*at, "failed", "ImportError: no module")]
            asyncio.get_running_loop().call_later(0.02 * (node is good), node.says, *over)

        bad, good = world.node(), world.node(number=1)
        bad.answer, good.answer = partial(answer, bad), partial(answer, good)
        world.experiment.run(4, 1.0)
        await world.end()
        assert starts[good] > 4 and "time" in world.experiment.ending

    play(scene, rule=Script(4), retries=retries_of({Status.FAILED: 9}))


def test_where_all_nodes_fail_all_the_search_ends_as_before(play):
    async def scene(world):
        for number in range(2):
            node = world.node(number=number)
            node.answer = partial(fails_at_once, node)
        world.experiment.run(50, None)
        await world.end()
        assert "all failed alike" in world.experiment.ending
        assert len(world.statuses) < 15

    play(scene)


def test_where_only_nodes_are_left_that_are_too_small_the_search_says_so(play):
    async def scene(world):
        experiment = world.experiment
        large = world.node(cpus=2)
        world.node(cpus=1, number=1)
        experiment.run(1, None)
        await large.hears("start", 0)
        experiment.on_lost(large, "cut", confirmed_dead=True)
        await world.until(
            lambda: [line for line in world.said if "no node is left that has num_cpus=2" in line]
        )
        await world.node(cpus=2, number=2).hears("start", 0, attempt=2)

    play(scene, resource=Resource(num_cpus=2))


def test_with_no_node_left_the_search_waits_says_so_and_goes_on_with_a_new_one(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(2, None)
        await node.hears("start", 0)
        world.experiment.on_lost(node, "cut", confirmed_dead=True)
        await world.until(lambda: [line for line in world.said if "no node is left" in line])
        assert not world.experiment.is_idle
        node = world.node(number=1)
        started = await world.until(lambda: node.told("start"))
        assert started[0]["trial"] == 0

    play(scene)


def test_a_trial_that_was_being_stopped_when_its_node_went_is_not_started_again(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(None, None)
        await node.hears("start", 0)
        world.experiment.end("enough")
        await node.hears("stop", 0)
        world.experiment.on_lost(node, "cut", confirmed_dead=False)
        await world.end()
        assert world.statuses == ["stopped"]

    play(scene)


def test_the_end_of_the_search_ends_trials_that_wait_for_another_node(play, short_lease):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        world.experiment.on_lost(node, "cut", confirmed_dead=False)
        world.experiment.end("enough")
        await asyncio.wait_for(world.experiment.wait(), short_lease / 2)
        assert world.rule.ends == [(0, "stopped")]

    play(scene)


def test_the_best_is_the_best_value_any_trial_reported_and_the_lower_id_of_equals(play):
    async def scene(world):
        node = world.node(cpus=3)
        world.experiment.run(3, None)
        await node.hears("start", 2)
        for trial, seq, accuracy in [
            (0, 1, 0.1),
            (2, 1, "0.99"),
            (1, 1, 0.8),
            (2, 2, math.nan),
            (0, 2, 0.8),
            (1, 2, 0.3),
            (2, 3, 0.7),
            (0, 3, None),
        ]:
            node.says(report(trial, seq, accuracy="NaN" if accuracy != accuracy else accuracy))
        node.says(ended(0), ended(1, status="failed", traceback="..."), ended(2))
        await world.end()
        assert world.experiment.ledger.best.id == 0
        assert [t.best_reward for t in world.experiment.ledger.trials.values()] == [0.8, 0.8, 0.7]
        assert world.statuses == ["finished", "failed", "finished"]

    play(scene)


def test_with_mode_min_the_smallest_is_best(play):
    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(2, None)
        await node.hears("start", 1)
        node.says(report(0, 1, loss=3.0), report(1, 1, loss=-2.0), report(1, 2, loss=5))
        assert world.experiment.ledger.best.id == 1
        assert world.experiment.ledger.best.best_reward == -2.0
        node.says(report(0, 2, loss=-7.5))
        node.says(ended(1))
        assert world.experiment.ledger.best.id == 0
        assert world.experiment.ending.startswith("trial 0 reached loss=-7.5")

    play(scene, objectives=Objectives.parse("loss", "min"), max_reward=-7)


def test_a_stop_of_the_rule_reaches_the_trial_in_the_answer_that_it_waits_for(play):
    async def scene(world):
        world.rule.decide = lambda trial, report: Stop() if report.time >= 3 else Continue()
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(report(0, 1, due=True, accuracy=0.1, epoch=1))
        node.says(report(0, 2, due=True, accuracy=0.1, epoch=3))
        await world.until(lambda: len(node.told("decide")) == 2)
        assert [message["decision"] for message in node.told("decide")] == ["continue", "stop"]

    play(scene)


def test_a_stop_of_the_rule_reaches_a_trial_that_does_not_wait_too(play):
    async def scene(world):
        world.rule.decide = lambda trial, report: Stop()
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(report(0, 1, accuracy=0.1), report(0, 2, accuracy=0.1))
        await node.hears("stop", 0)
        assert len(node.told("stop")) == 1

    play(scene)


class Mute(Exception):
    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


@pytest.mark.parametrize("error", [ZeroDivisionError("boom"), Mute()], ids=["plain", "mute"])
@pytest.mark.parametrize("when", ["next_launch", "on_report", "on_end"])
def test_a_rule_that_raises_ends_the_search_with_its_error(play, when, error):
    class Broken(Script):
        pass

    def boom(*arguments):
        raise error

    setattr(Broken, when, boom)

    async def scene(world):
        node = world.node()
        node.answer = lambda message: (
            asyncio.get_running_loop().call_soon(
                node.says, report(message["trial"], 1, accuracy=0.1), ended(message["trial"])
            )
            if message["op"] == "start"
            else None
        )
        world.experiment.run(3, None)
        await world.end()
        assert world.experiment.error is error
        assert ("Mute" if isinstance(error, Mute) else "boom") in world.experiment.ending
        assert all(trial.status.is_end for trial in world.experiment.ledger.trials.values())

    play(scene, Broken())


def test_when_the_first_trials_all_fail_alike_the_search_ends_and_shows_why(play):
    async def scene(world):
        node = world.node()
        traceback = 'Traceback:\n  File "train.py", line 3, in train_fn\nKeyError: {}'

        def answer(message):
            if message["op"] == "start":
                trial = message["trial"]
                text = traceback.format(trial)
                message = ended(trial, status="failed", reason=f"KeyError: {trial}", traceback=text)
                asyncio.get_running_loop().call_soon(node.says, message)

        node.answer = answer
        world.experiment.run(100, None)
        await world.end()
        assert len(world.experiment.ledger.trials) == ALIKE
        assert isinstance(world.experiment.error, SearchFailed)
        assert 'File "train.py", line 3' in str(world.experiment.error)
        shown = [line for line in world.said if "Traceback" in line]
        assert len(shown) == 1  # the others are only counted

    play(scene)


def fails(trial):
    return ended(trial, status="failed", reason="E: x", traceback="E")


def test_a_few_that_fail_first_do_not_end_a_search_in_which_more_still_run(play):
    async def scene(world):
        node = world.node(cpus=16)
        world.experiment.run(40, None)
        await world.until(lambda: len(node.told("start")) == 16)
        for trial in range(10):  # others are started in their place
            node.says(fails(trial))
            await world.until(lambda n=trial: len(node.told("start")) == 17 + n)
        for trial in range(10, 26):
            node.says(report(trial, 1, accuracy=1, epoch=1), ended(trial))
        await world.until(lambda: len(node.told("start")) == 40)
        for trial in range(26, 40):
            node.says(ended(trial))
        await world.end()
        assert world.experiment.error is None and len(world.experiment.ledger.trials) == 40

    play(scene)


def test_failures_do_not_end_a_search_of_which_a_trial_has_come_further_than_they(play):
    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(20, None)
        await world.until(lambda: len(node.told("start")) == 2)
        node.says(report(0, 1, accuracy=1, epoch=1), report(0, 2, accuracy=1, epoch=2))
        for trial in range(1, 20):
            await node.hears("start", trial)
            node.says(report(trial, 1, accuracy=1, epoch=1), fails(trial))
        node.says(ended(0))
        await world.end()
        assert world.experiment.error is None and len(world.experiment.ledger.trials) == 20

    play(scene)


def test_failures_do_not_end_a_search_in_which_as_many_trials_are_paused(play):
    """Under promotion those that are best at the first rung may all diverge after it."""
    rule = Script(30)
    rule.decide = lambda trial, report: Pause() if trial.id < 20 else Continue()

    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(30, None)
        for trial in range(30):
            await node.hears("start", trial)
            node.says(report(trial, 1, due=True, accuracy=1, epoch=1))
            node.says(ended(trial, status="paused") if trial < 20 else fails(trial))
        await world.end()
        assert world.experiment.error is None and world.experiment.ledger.counts.failed == 10

    play(scene, rule)


def test_what_the_user_should_know_of_a_node_is_said(play):
    async def scene(world):
        node = world.node()
        node.says({"op": "notice", "text": "the disk is slow"})
        assert f"{node.host}: the disk is slow" in world.said
        assert world.experiment.error is None

    play(scene)


def test_failures_at_the_same_epoch_end_the_search_though_all_have_reported(play):
    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(100, None)
        for trial in range(ALIKE):
            await node.hears("start", trial)
            node.says(report(trial, 1, accuracy=1, epoch=1), fails(trial))
        await world.until(lambda: world.experiment.error)
        assert isinstance(world.experiment.error, SearchFailed)
        node.says(*(fails(trial) for trial in range(ALIKE, len(node.told("start")))))
        await world.end()

    play(scene)


def test_a_search_of_which_one_trial_succeeded_goes_on_with_failures(play):
    async def scene(world):
        node = world.node()

        def answer(message):
            if message["op"] == "start":
                trial = message["trial"]
                end = fails(trial)
                if trial == ALIKE - 2:
                    node.says(report(trial, 1, accuracy=1))
                    end = ended(trial)
                asyncio.get_running_loop().call_soon(node.says, end)

        node.answer = answer
        world.experiment.run(30, None)
        await world.end()
        assert len(world.experiment.ledger.trials) == 30
        assert world.experiment.error is None

    play(scene)


def test_a_trial_without_the_metric_says_what_it_reported_instead(play):
    async def scene(world):
        node = world.node(cpus=3)
        world.experiment.run(3, None)
        await node.hears("start", 2)
        node.says(report(0, 1, acc=0.5, epoch=1), ended(0))
        node.says(report(1, 1, accuracy="high"), ended(1))
        node.says(ended(2))
        await world.end()
        reasons = [trial.reason for trial in world.experiment.ledger.trials.values()]
        assert world.statuses == ["no_metric"] * 3
        assert "'accuracy'" in reasons[0] and "acc, epoch" in reasons[0]
        assert "'high'" in reasons[1]
        assert "did not call reporter(..., accuracy=...)" in reasons[2]

    play(scene)


def test_the_log_tells_the_whole_story_in_order(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(report(0, 1, accuracy=0.5), saved(0, 1))
        node.says(ended(0, returned=[1, 2]))
        await world.end()
        assert node.asked == [("newest", 0)]  # the driver keeps what the trial has saved
        kinds = [event.kind for event in world.events()]
        assert kinds == ["node", "launched", "started", "report", "saved", "ended"]
        assert world.events("ended")[0].body["best"] == 0.5

    play(scene)


def test_the_rule_hears_of_a_trials_end_before_it_is_asked_for_the_next(play):
    async def scene(world):
        heard = []
        next_launch, on_end = world.rule.next_launch, world.rule.on_end
        world.rule.next_launch = lambda: (heard.append("ask"), next_launch())[1]
        world.rule.on_end = lambda trial: (heard.append("tell"), on_end(trial))
        answer_at_once(world.node(), reports=1)
        world.experiment.run(4, None)
        await world.end()
        assert heard == ["ask", "tell"] * 4

    play(scene)


def test_lines_of_a_remote_trial_carry_the_name_of_its_node(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says({"op": "output", "trial": 0, "attempt": 1, "rank": 0, "text": "one\ntwo\n"})
        assert world.said[-2:] == ["[ worker node0 ] : one", "[ worker node0 ] : two"]

    play(scene)


def answer_at_once(node, reports):
    """Let every trial of a node report and end as soon as it is started."""
    loop = asyncio.get_running_loop()

    def answer(message):
        if message["op"] == "start":
            trial = message["trial"]
            said = [report(trial, n + 1, accuracy=n / 10, epoch=n) for n in range(reports)]
            loop.call_soon(node.says, *said, ended(trial))

    node.answer = answer
    node.sent = type("Forgetful", (list,), {"append": lambda self, message: None})()


def test_neither_work_nor_memory_for_an_event_grows_with_the_number_of_trials(play):
    """10,000 trials on 8 slots: the last cost no more calls than the first, and stay small."""

    async def scene(world):
        world.rule.on_report = lambda trial, report: Continue()
        world.rule.on_end = lambda trial: None
        answer_at_once(world.node(cpus=8), reports=2)
        work, counting = [], 0

        def counter(frame, event, argument):
            nonlocal counting
            counting += event == "call"

        async def run(count, counted=False):
            nonlocal counting
            counting = 0
            world.experiment.run(count, None)
            sys.setprofile(counter if counted else None)
            try:
                await world.end()
            finally:
                sys.setprofile(None)
            work.append(counting / count)

        await run(200)
        await run(300, counted=True)
        early = work[-1]
        gc.collect()
        tracemalloc.start()
        try:
            await run(1500)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await run(2500)
            gc.collect()
            per_trial = (tracemalloc.get_traced_memory()[0] - before) / 2500
        finally:
            tracemalloc.stop()
        await run(5200)
        await run(300, counted=True)
        assert len(world.experiment.ledger.trials) == 10_000
        assert work[-1] < 1.2 * early
        assert per_trial < 3000

    play(scene)


def test_memory_does_not_grow_with_the_number_of_reports(play):
    async def scene(world):
        world.rule.on_report = lambda trial, report: Continue()
        node = world.node()
        node.sent = type("Forgetful", (list,), {"append": lambda self, message: None})()
        world.experiment.run(1, None)
        while not world.experiment.running:
            await asyncio.sleep(0)

        async def speak(first, last):
            for seq in range(first, last, 100):
                node.says(*(report(0, n, accuracy=n) for n in range(seq, seq + 100)))
                await world.store.flush()
            gc.collect()

        await speak(1, 2001)
        tracemalloc.start()
        try:
            await speak(2001, 3001)
            before = tracemalloc.get_traced_memory()[0]
            await speak(3001, 8001)
            assert tracemalloc.get_traced_memory()[0] - before < 100_000
        finally:
            tracemalloc.stop()
        assert world.experiment.ledger.trials[0].reports == 8000

    play(scene)


# Children


class OneFamily(Script):
    """The first trial is the parent of all others."""

    def next_launch(self):
        launch = super().next_launch()
        return launch and Launch(launch.config, (0,) if self.launched > 1 else ())


@pytest.mark.parametrize("policy", ["nearest_ancestor", "fail", "retry"])
def test_weights_that_went_with_their_node_are_not_taken_for_those_of_a_child(play, policy):
    async def scene(world):
        asked = asyncio.Event()

        async def no_answer(*question):
            asked.set()
            await asyncio.Event().wait()

        first = world.node()
        first.use_cache = no_answer
        world.experiment.run(1, None)
        await first.hears("start", 0)
        first.says(saved(0, 1), report(0, 1, accuracy=0.5), ended(0))
        await asked.wait()  # the driver would copy them, but hears no more
        first.on_gone("cut")
        world.experiment.on_lost(first, "cut", confirmed_dead=True)
        await world.end()
        second = world.node(number=1)
        world.experiment.run(1, None)
        if policy == "fail":
            await world.end()
            child = world.experiment.ledger.trials[1]
            assert child.status is Status.FAILED
            assert child.reason == "its parent 0 is finished and has no checkpoint"
        elif policy == "retry":
            await second.hears("start", 0, attempt=2)
            assert world.experiment.ledger.trials[1].status is Status.WAITING
            again = {"attempt": 2}
            second.says(saved(0, 1, **again), report(0, 1, **again, accuracy=0.5))
            second.says(ended(0, **again))
            start = await second.hears("start", 1, attempt=2)
            assert start["job"]["parents"] == [(0, 0)]
            assert world.experiment.ledger.counts.done == 1
        else:
            start = await second.hears("start", 1, attempt=2)
            assert start["job"]["parents"] == [(0, None)]
        assert all(start["attempt"] == 2 for start in second.told("start"))

    play(scene, OneFamily(), on_parent_failure=policy)


def test_the_last_checkpoint_of_a_finished_parent_counts_without_a_report_after_it(play):
    async def scene(world):
        node = world.node()
        node.is_local = True
        world.experiment.run(2, None)
        await node.hears("start", 0)
        checkpoint = world.store.folder / "trials" / "0" / "checkpoints" / "000002-step-2"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")
        node.says(saved(0, 1), report(0, 1, accuracy=0.5), saved(0, 2), ended(0))
        assert (await node.hears("start", 1))["job"]["parents"] == [(0, 0)]
        assert world.experiment.ledger.trials[0].saved_step == 2

    play(scene, OneFamily())


def test_a_rule_that_wants_children_without_end_is_asked_for_no_more_than_may_wait(
    play, monkeypatch
):
    monkeypatch.setattr(source, "MOST_CHILDREN", 5)

    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(None, None)
        await node.hears("start", 0)
        await world.until(lambda: world.rule.launched >= 6)
        assert world.rule.launched == 6, "the father and five who wait"
        node.says(report(0, 1, accuracy=0.5), saved(0, 1), ended(0))
        await node.hears("start", 2)
        assert [message["trial"] for message in node.told("start")] == [0, 1, 2]

    play(scene, OneFamily())


# What the rule has decided holds, and where the newest checkpoint is is known


class PausesAtOne(Script):
    """Pauses each trial at its first epoch, and lets it go on when it is told to."""

    def __init__(self, count=1):
        super().__init__(count)
        self.decide = lambda trial, report: Pause("at epoch 1") if report.time == 1 else Continue()
        self.resumed = []

    def next_resume(self):
        return self.resumed.pop(0) if self.resumed else None


def resume(world, trial):
    """Let the rule resume a paused trial."""
    world.rule.resumed.append(trial)
    world.experiment.wake()


class HomeRemote(DiskRemote):
    """The driver's own machine, whose trials save in the experiment's folder."""

    is_local = True

    def __init__(self, world, number, cpus):
        super().__init__(world, number, cpus)
        self.cache = CheckpointCache(world.folder / "trials")


def test_a_trial_that_comes_back_to_a_node_goes_on_from_where_it_was_meanwhile(play):
    """It saves on a node, then on the driver's machine, and finds on the node its newest."""

    async def scene(world):
        far = world.node(kind=DiskRemote)
        world.experiment.run(1, None)
        for attempt, kind in ((1, DiskRemote), (2, HomeRemote)):
            here = far if kind is DiskRemote else world.node(number=attempt, kind=kind)
            await here.hears("start", 0, attempt)
            checkpoint.save(
                {"step": attempt}, here.cache.folder(0), attempt, attempt=attempt, keep=2
            )
            here.says(
                saved(0, attempt, attempt),
                report(0, 1, attempt, due=True, epoch=1, accuracy=0.5),
                ended(0, attempt, status="paused"),
            )
            await world.until(lambda: not world.experiment.keeper.is_busy)
            world.experiment.retire(here)
            resume(world, 0)
        world.manager.add(far)
        await far.hears("start", 0, attempt=3)
        assert far.names(0)[-1].endswith("-step-2")

    play(scene, PausesAtOne())


@pytest.mark.parametrize("word", ["stop", "pause"])
def test_a_trial_killed_before_it_hears_of_the_decision_does_not_run_again(play, word):
    async def scene(world):
        node = world.node()
        decided = Stop("rank 3 of 3") if word == "stop" else Pause("rank 3 of 3")
        world.rule.decide = lambda trial, report: decided
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(report(0, 1, due=True, accuracy=0.1), ended(0, status="killed"))
        await world.end()
        (trial,) = world.experiment.ledger.trials.values()
        assert (trial.attempt, trial.status.value) == (1, {"stop": "stopped"}.get(word, "paused"))
        assert not world.events("lost")
        (event,) = world.events("decided")
        assert event.body == {"word": word, "reason": "rank 3 of 3", "report": 1}
        if word == "stop":
            assert trial.reason == "by the rule: rank 3 of 3"

    play(scene, Script(1))


def test_a_paused_trial_of_a_lost_node_stays_paused_over_ctrl_c_and_another_run(play, short_lease):
    async def scene(world):
        first = world.node()
        world.experiment.run(1, None)
        await first.hears("start", 0)
        first.says(report(0, 1, due=True, epoch=1, accuracy=0.1))
        lost_at = asyncio.get_running_loop().time()
        world.experiment.on_lost(first, "no answer", confirmed_dead=False)
        second = world.node(number=1)
        world.experiment.end("interrupted")
        await world.end()
        world.experiment.run(1, None)
        await world.end()
        assert world.statuses == ["paused"] and not second.told("start")
        resume(world, 0)  # promoted, but the lost node may still train it
        await second.hears("start", 0, attempt=2)
        assert asyncio.get_running_loop().time() - lost_at >= short_lease * 0.95

    play(scene, PausesAtOne())


def test_a_trial_of_a_lost_node_waits_for_its_lease_also_after_ctrl_c_and_another_run(
    play, short_lease
):
    async def scene(world):
        first = world.node()
        world.experiment.run(1, None)
        await first.hears("start", 0)
        lost_at = asyncio.get_running_loop().time()
        world.experiment.on_lost(first, "no answer", confirmed_dead=False)
        second = world.node(number=1)
        world.experiment.end("interrupted")
        await world.end()
        world.experiment.run(1, None)
        await second.hears("start", 0, attempt=2)
        assert asyncio.get_running_loop().time() - lost_at >= short_lease * 0.95

    play(scene, Script(1))


@pytest.mark.parametrize("decision", [Stop(), Pause()])
def test_a_trial_that_does_not_wait_is_ended_once_the_report_that_did_it_is_durable(play, decision):
    async def scene(world):
        checked = []

        def watch(message):
            if message["op"] == "stop":
                checked.append((0, 1, 1) in durable_seqs(world.folder, "report"))

        node = world.node()
        world.watch = watch
        world.rule.decide = lambda trial, report: decision
        world.experiment.run(1, None)
        await node.hears("start", 0)
        node.says(report(0, 1, accuracy=0.1))
        stop = await node.hears("stop", 0)
        assert checked == [True]
        assert stop["status"] == ("paused" if isinstance(decision, Pause) else "stopped")

    play(scene, Script(1))


def test_the_others_are_stopped_once_the_report_that_reached_the_goal_is_durable(play):
    async def scene(world):
        checked = []

        def watch(message):
            if message["op"] == "stop":
                checked.append((0, 1, 1) in durable_seqs(world.folder, "report"))

        node = world.node(cpus=2)
        world.watch = watch
        world.experiment.run(2, None)
        await node.hears("start", 1)
        node.says(report(0, 1, accuracy=0.99))
        await node.hears("stop", 1)
        assert set(checked) == {True}

    play(scene, Script(2), max_reward=0.9)


def test_a_driver_that_died_before_it_carried_out_a_decision_leaves_it_to_the_next(play):
    async def first(world):
        node = world.node(cpus=2)
        world.rule.decide = lambda trial, report: Pause() if trial.id else Stop("rank 3 of 3")
        world.experiment.run(2, None)
        await node.hears("start", 1)
        node.says(report(0, 1, due=True, accuracy=0.1), report(1, 1, due=True, accuracy=0.1))
        await world.store.flush()

    async def second(world):
        world.experiment.restore(world.events())
        assert world.statuses == ["running", "running"], "as the log has it"
        node = world.node()
        world.experiment.run(2, None)
        await world.end()
        assert world.statuses == ["stopped", "paused"]
        assert not node.told("start")
        assert world.experiment.ledger.trials[0].reason == "by the rule: rank 3 of 3"

    play(first, Script(2))
    play(second, Script(2))


def test_a_rule_that_names_a_paused_trial_again_before_it_can_start_holds_nothing_up(
    play, short_lease
):
    class NamesAllPaused(PausesAtOne):
        def next_resume(self):
            trials = self.world.experiment.ledger.trials.values()
            return next((t.id for t in trials if t.status is Status.PAUSED), None)

    async def scene(world):
        world.rule.world = world
        first = world.node()
        world.experiment.run(2, None)
        await first.hears("start", 0)
        first.says(report(0, 1, due=True, epoch=1, accuracy=0.1))
        second = world.node(number=1, cpus=2)
        world.experiment.on_lost(first, "no answer", confirmed_dead=False)
        await second.hears("start", 1)
        second.says(report(1, 1, epoch=2, accuracy=0.1), ended(1))
        await second.hears("start", 0, attempt=2)

    play(scene, NamesAllPaused(2))


@pytest.mark.parametrize(
    "body",
    ['{"epoch": 1, "accuracy": 0.', "[0.5]", '{"big": ' + "1" * 5000 + "}", "[" * 6000],
    ids=["cut in two", "no object", "a number of 5,000 digits", "nested too deep"],
)
def test_a_report_that_cannot_be_read_ends_its_trial_only_and_is_not_in_the_log(play, body):
    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(2, None)
        await node.hears("start", 1)
        node.says({**report(0, 1), "body": body}, report(1, 1, accuracy=0.5))
        stop = await node.hears("stop", 0)
        assert stop["status"] == "failed" and "cannot be read" in stop["reason"]
        node.says(ended(0, status="failed", reason=stop["reason"]), ended(1))
        await world.end()
        assert world.statuses == ["failed", "finished"] and world.experiment.error is None
        assert [(e.trial, e.seq) for e in world.events("report")] == [(1, 1)]

    play(scene, Script(2))


def test_output_that_cannot_be_kept_is_shown_and_ends_nothing(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        (world.folder / "trials/0").write_text("in the way")
        for text in ("one\n", "two\n"):
            node.says({"op": "output", "trial": 0, "attempt": 1, "rank": 0, "text": text})
        assert [line for line in world.said if "[ worker" in line] == [
            "[ worker node0 ] : one",
            "[ worker node0 ] : two",
        ]
        assert sum("cannot be kept" in line for line in world.said) == 1
        node.says(report(0, 1, accuracy=0.5), ended(0))
        await world.end()
        assert world.statuses == ["finished"]

    play(scene, Script(1))


# What comes at an odd moment, or from a rule that is odd


def is_paused(trial):
    return ended(trial, status="paused", reason="by the rule")


@pytest.mark.parametrize("why", ["time_out=1 s is over", "interrupted"])
def test_a_trial_that_is_resumed_while_it_is_still_ending_goes_on_in_the_next_run(play, why):
    async def scene(world):
        node = world.node(cpus=2)
        world.experiment.run(2, None)
        await node.hears("start", 1)
        node.says(*(report(n, 1, due=True, epoch=1, accuracy=0.1) for n in (0, 1)), is_paused(1))
        resume(world, 0)
        world.experiment.end(why)
        node.says(is_paused(0))
        await world.end()
        assert world.statuses == ["paused", "paused"] and world.experiment.error is None
        world.experiment.run(None, None)
        await node.hears("start", 0, attempt=2)

    play(scene, PausesAtOne(2))


def test_a_trial_that_ends_with_an_interrupted_run_after_the_next_has_begun_goes_on(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        world.experiment.end("interrupted", after_save_s=30)
        world.experiment.run(None, None)  # after a second Ctrl-C, which ended the waiting
        node.says(ended(0, status="stopped", reason="interrupted"))
        await node.hears("start", 0, attempt=2)

    play(scene, Script(1))


def test_a_final_trial_that_the_rule_would_pause_goes_on(play):
    async def scene(world):
        node = world.node()
        trial = world.experiment.add({"n": 9}, is_final=True)
        waiting = asyncio.ensure_future(world.experiment.wait_for(trial))
        decided = await node.hears("start", 0)
        node.says(report(0, 1, due=True, epoch=1, accuracy=0.1))
        decided = await node.hears("decide", 0)
        assert decided["decision"] == "continue"
        node.says(ended(0, returned=7))
        assert (await asyncio.wait_for(waiting, WAIT_S)).value == 7

    play(scene, PausesAtOne(0))


def test_only_the_final_trial_runs_after_a_search_that_ended_with_paused_ones(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(2, None)
        await node.hears("start", 0)
        node.says(report(0, 1, due=True, epoch=1, accuracy=0.1), is_paused(0))
        await node.hears("start", 1)
        world.experiment.end("time_out=1 s is over")
        node.says(ended(1, status="stopped", reason="time_out=1 s is over"))
        await world.end()
        world.rule.resumed.append(0)
        world.experiment.add({"n": 9}, is_final=True)
        await node.hears("start", 2)
        node.says(report(2, 1, epoch=9, accuracy=0.1), ended(2))
        await world.end()
        assert world.statuses == ["paused", "stopped", "finished"]

    play(scene, PausesAtOne(2))


def test_the_failure_of_the_first_of_a_long_line_of_children_ends_all_of_them(play, monkeypatch):
    monkeypatch.setattr(source, "RESPITE_S", 0.0)  # of which there is one for each child

    async def scene(world):
        node = world.node()
        count = itertools.count()

        def child():
            number = next(count)
            if number == 256:
                return None
            return Launch({"n": number}, parents=(number - 1,) if number else ())

        world.rule.next_launch = child
        world.experiment.run(256, None)
        await node.hears("start", 0)
        node.says(ended(0, status="exited", reason="sys.exit(1)"))
        await world.end()
        assert world.statuses == ["exited"] + ["failed"] * 255

    play(scene, on_parent_failure="fail")


def test_a_rule_that_names_an_ended_trial_for_ever_hangs_nothing(play):
    async def scene(world):
        node = world.node()
        world.rule.decide = lambda trial, report: Pause() if trial.id else Continue()
        world.rule.next_resume = lambda: 0
        world.experiment.run(2, None)
        await node.hears("start", 0)
        node.says(report(0, 1, accuracy=0.1), ended(0))
        await node.hears("start", 1)
        node.says(report(1, 1, due=True, accuracy=0.1), is_paused(1))
        await world.end()
        assert world.statuses == ["finished", "paused"]

    play(scene, Script(2))


@pytest.mark.parametrize(
    ("method", "answer", "says"),
    [
        ("due_at", {"a"}, "due_at returned {'a'}; return 'every', a list of times, or None"),
        ("next_launch", {"n": 1}, r"next_launch returned {'n': 1}; return Launch\(...\)"),
        ("on_report", "stop", r"on_report returned 'stop'; return Continue\(\), Stop\(\)"),
    ],
)
def test_an_answer_of_the_rule_that_is_none_ends_the_search_with_what_it_may_return(
    play, method, answer, says
):
    async def scene(world):
        node = world.node()
        setattr(world.rule, method, lambda *_: answer)
        node.answer = lambda message: (
            asyncio.get_running_loop().call_soon(
                node.says, report(0, 1, due=True, accuracy=0.1), ended(0, status="stopped")
            )
            if message["op"] == "start"
            else None
        )
        world.experiment.run(1, None)
        await world.end()
        with pytest.raises(TypeError, match=says):
            raise world.experiment.error

    play(scene, Script(1))


def test_what_is_added_while_a_search_ends_does_not_start_when_it_is_closed(play):
    async def scene(world):
        node = world.node()
        world.experiment.run(1, None)
        await node.hears("start", 0)
        world.experiment.end("time_out=1 s is over")
        added = world.experiment.add({"n": 9})
        world.experiment.end("closed")
        world.experiment.abandon("closed")
        await world.end()
        assert [message["trial"] for message in node.told("start")] == [0]
        assert added.status is Status.WAITING and world.statuses[0] == "stopped"

    play(scene, Script(1))
