"""The link over Dask: order, loss, liveness, and the workers of a user's cluster."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import math
import os
import sys
import threading
import time
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster, get_client

from distsearch.errors import NodeError
from distsearch.resource import agent, dask_link, dask_remote, outbox
from distsearch.resource.dask_agent import stop_agent
from distsearch.resource.dask_link import EVENTS_KEPT, Cluster, keep_few_events
from distsearch.resource.dask_remote import DaskRemote
from distsearch.resource.node import NodeFacts
from distsearch.resource.pace import SMALLEST_PIECE


class Listening:
    """A listener that notes what it hears, and can be awaited."""

    def __init__(self):
        self.messages, self.lost, self.news = [], [], asyncio.Event()

    def on_messages(self, remote, messages):
        self.messages += messages
        self.news.set()

    def retire(self, remote):
        pass

    def on_lost(self, remote, reason, confirmed_dead):
        self.lost.append((remote, reason, confirmed_dead))
        self.news.set()

    async def until(self, condition, timeout_s=20):
        async def wait():
            while not condition(self):
                self.news.clear()
                await self.news.wait()

        await asyncio.wait_for(wait(), timeout_s)


class Echo:
    """An agent that says back what it is told, and obeys a few words."""

    closed: list[Path] = []

    def __init__(self, *, folder, send):
        self.folder, self.send = folder, send

    async def start(self):
        self.send([{"op": "started"}])

    def handle(self, messages):
        for message in messages:
            if "sleep_s" in message:
                time.sleep(message["sleep_s"])
            if message["op"] == "fail":
                raise RuntimeError("no such thing")
            if message["op"] == "twice":
                self.send([{"op": "first"}])
        self.send([message for message in messages if message["op"] != "ping"])

    async def close(self):
        self.closed.append(self.folder)


@pytest.fixture
def echo(monkeypatch):
    monkeypatch.setattr(agent, "Agent", Echo)


@pytest.fixture(scope="module")
def local():
    """A cluster of threads in this process, so that a test can look into its workers."""
    with (
        LocalCluster(
            n_workers=1, processes=False, threads_per_worker=3, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


@pytest.fixture
def alone():
    """Such a cluster for one test, which may change it."""
    with (
        LocalCluster(
            n_workers=1, processes=False, threads_per_worker=3, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


def search(test, client):
    """Run `test(listening, remote, cluster)` over a cluster's first worker."""

    async def run():
        listening, later = Listening(), []
        async with Cluster(listening, client=client) as cluster:
            (remote,) = await cluster.attach_workers(later.append)
            await test(listening, remote, cluster)

    asyncio.run(asyncio.wait_for(run(), 60))


def ops(listening):
    return [message["op"] for message in listening.messages]


def test_messages_arrive_once_and_in_order_both_ways(local, echo):
    async def test(listening, remote, cluster):
        for number in range(3000):
            remote.send({"op": "say", "number": number})
            if number % 100 == 0:
                await asyncio.sleep(0)
        await listening.until(lambda heard: len(heard.messages) >= 3001)
        numbers = [message["number"] for message in listening.messages[1:]]
        assert ops(listening)[0] == "started" and numbers == list(range(3000))

    search(test, local[1])


def test_any_value_of_json_survives_the_way(local, echo):
    values = {"op": "say", "big": 2**70, "inf": -math.inf, "text": "é\n", "deep": [{"a": None}]}

    async def test(listening, remote, cluster):
        remote.send(values)
        await listening.until(lambda heard: values in heard.messages)

    search(test, local[1])


def test_much_data_goes_in_several_calls(local, echo, monkeypatch):
    monkeypatch.setattr(outbox, "MESSAGE_BYTES", 1000)

    async def test(listening, remote, cluster):
        remote.pace.piece_bytes = 2500
        for _ in range(10):
            remote.send({"op": "say"})
        remote.send({"op": "last"})
        assert len(remote._outbox.take()) == 3
        await listening.until(lambda heard: "last" in ops(heard))

    search(test, local[1])


def test_an_error_in_the_agent_loses_the_node_once(local, echo):
    async def test(listening, remote, cluster):
        remote.send({"op": "fail"})
        await listening.until(lambda heard: heard.lost)
        remote.lose("again")
        ((lost, reason, confirmed_dead),) = listening.lost
        assert lost is remote and "no such thing" in reason and confirmed_dead

    search(test, local[1])


def test_a_batch_that_never_came_loses_the_node(local, echo):
    async def test(listening, remote, cluster):
        remote.receive({"number": 17, "batch": "[]"})
        await listening.until(lambda heard: heard.lost)
        assert "never came" in listening.lost[0][1]

    search(test, local[1])


def test_a_node_that_stands_still_is_lost_after_three_pings(local, echo, monkeypatch):
    async def test(listening, remote, cluster):
        remote.send({"op": "say", "sleep_s": 1.5})
        await listening.until(lambda heard: heard.lost)
        assert "nothing was heard" in listening.lost[0][1]

    monkeypatch.setattr(dask_link, "PING_S", 0.1)
    search(test, local[1])


def test_time_in_which_the_driver_stood_still_does_not_count(local, echo, monkeypatch):
    async def test(listening, remote, cluster):
        for _ in range(2):
            await asyncio.sleep(0.15)
            time.sleep(0.5)  # as when the process is suspended
        remote.send({"op": "say"})
        await listening.until(lambda heard: "say" in ops(heard))
        assert not listening.lost

    monkeypatch.setattr(dask_link, "PING_S", 0.1)
    search(test, local[1])


def test_a_worker_that_joins_while_those_that_are_there_are_listed_is_one_node(local, echo):
    address = next(iter(local[0].workers.values())).address
    came = []

    async def test():
        async with Cluster(Listening(), client=local[1]) as cluster:
            attaching = asyncio.create_task(cluster.attach_workers(came.append))
            await asyncio.sleep(0)  # it waits for the list, in which the worker will be
            cluster._hear_scheduler((0.0, {"action": "add-worker", "worker": address}))
            there = await attaching
            while not (there or came):
                await asyncio.sleep(0.01)
            assert len(cluster.remotes) == len(there + came) == 1

    asyncio.run(asyncio.wait_for(test(), 60))


def test_closing_ends_the_agent_and_removes_its_folder_in_silence(local, echo):
    Echo.closed.clear()

    async def test(listening, remote, cluster):
        await remote.close()
        (folder,) = Echo.closed
        assert not folder.exists() and not listening.lost and not cluster.remotes

    search(test, local[1])


def test_the_nodes_have_what_the_workers_may_use(local, echo):
    worker = next(iter(local[0].workers.values()))

    async def test(listening, remote, cluster):
        assert remote.facts.num_cpus == 3
        assert remote.facts.memory_bytes == worker.memory_manager.memory_limit
        assert remote.remote_id == 1 and repr(worker.address) in repr(remote)

    search(test, local[1])


def test_workers_that_join_or_leave_later_are_nodes_that_come_and_go(alone, echo):
    local, client = alone

    async def run():
        listening, joined = Listening(), []

        def on_joined(remote):
            joined.append(remote)
            listening.news.set()

        async with Cluster(listening, client=client) as cluster:
            (first,) = await cluster.attach_workers(on_joined)
            local.scale(2)
            await listening.until(lambda heard: joined)
            assert joined[0].worker != first.worker and joined[0].remote_id == 2
            gone = next(w for w in local.workers.values() if w.address == joined[0].worker)
            asyncio.run_coroutine_threadsafe(gone.close(), local.loop.asyncio_loop)
            await listening.until(lambda heard: heard.lost)
            assert [lost for lost, _, _ in listening.lost] == joined

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize(
    ("workers", "visible", "counted"), [(1, None, 2), (2, None, 0), (2, "0,1", 2)]
)
def test_gpus_count_only_where_no_other_worker_takes_them(
    echo, monkeypatch, workers, visible, counted
):
    facts = NodeFacts(8, ("0", "1"), 10**9)
    monkeypatch.setattr("distsearch.resource.detect.detect", lambda: facts)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    async def run(client):
        async with Cluster(Listening(), client=client) as cluster:
            for remote in await cluster.attach_workers(print):
                assert len(remote.facts.gpus) == counted

    with (
        LocalCluster(n_workers=workers, processes=False, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        asyncio.run(asyncio.wait_for(run(client), 60))


def test_an_agent_that_cannot_start_is_a_node_error_with_the_reason(local, monkeypatch):
    class Broken(Echo):
        async def start(self):
            raise OSError("no space left on device")

    monkeypatch.setattr(agent, "Agent", Broken)

    async def test(listening, remote, cluster):
        assert isinstance(remote, NodeError) and "no space left" in str(remote)

    search(test, local[1])


def test_worker_processes_of_a_users_cluster_run_the_real_agent():
    async def test(listening, remote, cluster):
        remote.send({"op": "upload", "path": "/etc/passwd", "data": b"x", "done": True})
        await listening.until(lambda heard: "uploaded" in ops(heard))
        assert isinstance(remote, DaskRemote) and remote.facts.num_cpus == 2

    with (
        LocalCluster(
            n_workers=1, processes=True, threads_per_worker=2, dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        search(test, client)


def test_a_users_scheduler_keeps_only_a_few_of_the_events(local, echo):
    """It would keep the last 100,000 for good."""

    async def test(listening, remote, cluster):
        for number in range(3 * EVENTS_KEPT):
            remote.send({"op": "say", "number": number})
            await listening.until(lambda heard, n=number: len(heard.messages) > n)
        assert len(local[1].get_events(cluster._topic)) == EVENTS_KEPT

    local[1].run_on_scheduler(keep_few_events, "a topic")
    search(test, local[1])


def test_other_messages_overtake_a_large_upload(local, monkeypatch, tmp_path):
    """An agent whose beats are answered too late would end its trials."""
    monkeypatch.setattr("distsearch.resource.remote.PIECE_BYTES", 10)
    monkeypatch.setattr("distsearch.resource.pace.LARGEST_PIECE", 2000)

    class Slow(Echo):
        def handle(self, messages):
            for message in messages:
                time.sleep(0.002)
                if message["op"] == "upload":
                    self.send([{"op": "piece", "done": message["done"]}])
                elif message["op"] == "say":
                    self.send([message])

    monkeypatch.setattr(agent, "Agent", Slow)
    (tmp_path / "large").write_bytes(bytes(2000))

    async def test(listening, remote, cluster):
        remote.pace.piece_bytes = 2000
        uploading = asyncio.create_task(remote.upload("large", tmp_path / "large"))
        await listening.until(lambda heard: heard.messages)
        remote.send({"op": "say"})
        await listening.until(lambda heard: heard.messages[-1].get("done"))
        assert ops(listening).count("piece") == 200
        assert ops(listening).index("say") < 100
        remote.on_uploaded("large", "")
        await uploading

    search(test, local[1])


def test_a_sign_of_life_overtakes_a_large_train_function(local, monkeypatch):
    """On a slow link a node would end for want of it before the function is there."""

    class Noting(Echo):
        def handle(self, messages):
            self.send([{**message, "data": ""} for message in messages])

    monkeypatch.setattr(agent, "Agent", Noting)

    async def test(listening, remote, cluster):
        remote.send({"op": "function", "name": "f", "data": bytes(20 * SMALLEST_PIECE)})
        await listening.until(lambda heard: heard.messages)
        remote.send({"op": "beat", "number": 1})
        await listening.until(lambda heard: heard.messages[-1].get("done"))
        assert ops(listening).count("function") == 20
        assert ops(listening).index("beat") < 20

    search(test, local[1])


def test_a_node_whose_disk_never_answers_is_given_up(local, echo, monkeypatch, tmp_path):
    monkeypatch.setattr(dask_remote, "ANSWER_S", 0.3)
    may_end = threading.Event()

    class Hanging:
        def newest(self, trial):
            may_end.wait(20)

    monkeypatch.setattr(Echo, "checkpoints", Hanging(), raising=False)

    async def test(listening, remote, cluster):
        with pytest.raises(NodeError, match=r"no answer in 0.3 s"):
            await remote.fetch_checkpoint(3, tmp_path)
        may_end.set()

    search(test, local[1])


def test_an_agent_that_has_ended_is_told_as_that(local, echo):
    async def test(listening, remote, cluster):
        await cluster.run_on(remote.worker, stop_agent, remote.agent_id)
        remote.send({"op": "say"})
        await listening.until(lambda heard: heard.lost)
        assert "its agent has ended" in listening.lost[0][1]

    search(test, local[1])


def test_the_own_scheduler_leaves_no_folder_and_uses_none_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def run():
        async with Cluster(Listening()) as cluster:
            (folder,) = tmp_path.iterdir()
            assert folder.stat().st_mode & 0o777 == 0o700
            assert cluster.scheduler.local_directory.startswith(str(folder))

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_the_own_scheduler_keeps_only_a_few_events_and_opens_nothing_off_loopback():
    import psutil

    async def run():
        before = set(psutil.Process().net_connections())
        async with Cluster(Listening()) as cluster:
            for number in range(2 * EVENTS_KEPT):
                cluster.scheduler.log_event("topic", number)
            assert len(cluster.scheduler.get_events("topic")) == EVENTS_KEPT
            opened = set(psutil.Process().net_connections()) - before
            assert {c.laddr.ip for c in opened if c.status == "LISTEN"} == {"127.0.0.1"}

    asyncio.run(run())


def test_dasks_settings_and_the_users_client_are_left_as_they_were(local):
    settings = dict(dask.config.config)

    async def run():
        async with Cluster(Listening()):
            assert dask.config.config == settings
            with pytest.raises(ValueError, match="client"):
                get_client()

    asyncio.run(run())
    assert dask.config.config == settings


def test_what_dask_logs_for_us_stays_silent_and_what_it_logs_for_the_user_does_not():
    logger, root = logging.getLogger("distributed.scheduler"), logging.getLogger("distributed")
    before = [(one.level, list(one.filters)) for one in (logger, root)]
    heard = logging.handlers.BufferingHandler(1000)

    async def run():
        async with Cluster(Listening()):
            logger.warning("ours")
            await asyncio.to_thread(logger.warning, "the user's")

    root.addHandler(heard)
    try:
        asyncio.run(run())
    finally:
        root.removeHandler(heard)
    assert [record.getMessage() for record in heard.buffer] == ["the user's"]
    assert before == [(one.level, one.filters) for one in (logger, root)]


def test_importing_the_package_imports_neither_dask_nor_asyncssh():
    code = "import sys, distsearch; assert not {'distributed', 'asyncssh'} & set(sys.modules)"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0
