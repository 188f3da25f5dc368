"""All nodes of a search: what one of them does wrong is not the others' problem."""

from __future__ import annotations

import asyncio

import pytest
from distributed import Client, LocalCluster

from distsearch.errors import NodeError, UploadError
from distsearch.resource.fleet import Fleet
from distsearch.resource.node import Node, NodeFacts
from distsearch.resource.remote import Remote

FILE = "data.txt"


class Pretended(Remote):
    """A node that takes, refuses or never answers uploads; `ends_for_sure` is what close() says."""

    def __init__(self, number, answer="", ends_for_sure=True, machine="", gpus=()):
        facts = NodeFacts(1, gpus, 10**9, machine)
        super().__init__(number, f"node{number}", f"fake://{number}", facts)
        self.answer = answer
        self.ends_for_sure = ends_for_sure
        self.asked = asyncio.Event()
        self.pieces = []
        self.closed = False

    def send(self, message):
        self.asked.set()
        self.pieces.append(message["data"])
        if message["done"] and self.answer is not None:
            loop = asyncio.get_running_loop()
            loop.call_soon(self.on_uploaded, message["path"], self.answer)

    async def close(self):
        self.closed = True
        return self.ends_for_sure


class Owner:
    """Notes what the fleet tells the experiment."""

    def __init__(self):
        self.came, self.retired, self.lost = [], [], []

    def add_remote(self, remote):
        self.came.append(remote.host)

    def retire(self, remote):
        self.retired.append(remote.host)

    def on_messages(self, remote, messages):
        raise AssertionError(messages)

    def on_lost(self, remote, reason, confirmed_dead):
        self.lost.append((remote.host, confirmed_dead))


@pytest.fixture
def story(tmp_path):
    """Run `story(fleet, owner, said, files)` in a loop."""
    (tmp_path / FILE).write_text("data")

    def run(story):
        async def bounded():
            owner, said = Owner(), []
            fleet = Fleet(tmp_path, owner, tunnel=None, ssh_config=None, say=said.append)
            await asyncio.wait_for(story(fleet, owner, said, {FILE: tmp_path / FILE}), 30)

        asyncio.run(bounded())

    return run


@pytest.mark.parametrize("certain", [True, False])
def test_the_trials_of_a_removed_node_wait_unless_it_is_sure_that_they_ended(story, certain):
    async def removal(fleet, owner, said, files):
        remote = Pretended(0, ends_for_sure=certain)
        await fleet._welcome_or_say(remote)
        await fleet.remove([Node("node0")])
        assert owner.retired == ["node0"] and remote.closed
        assert owner.lost == [("node0", certain)]

    story(removal)


def test_a_new_node_that_cannot_take_the_uploads_is_left_out_and_the_others_come(story):
    async def joining(fleet, owner, said, files):
        await fleet.upload(files)
        full, good = Pretended(0, answer="no space left on device"), Pretended(1)
        error, nothing = await asyncio.gather(*map(fleet._welcome_or_say, (full, good)))
        assert isinstance(error, NodeError) and "no space left" in str(error) and nothing is None
        assert owner.came == ["node1"] and list(fleet.remotes) == [1]
        assert full.closed and "'node0'" in said[0] and "no space left" in said[0]

    story(joining)


def test_a_node_that_is_lost_during_an_upload_does_not_fail_it_for_the_others(story):
    async def losing(fleet, owner, said, files):
        dying, good = Pretended(0, answer=None), Pretended(1)
        for remote in (dying, good):
            await fleet._welcome_or_say(remote)
        uploading = asyncio.create_task(fleet.upload(files))
        await dying.asked.wait()
        fleet.on_lost(dying, "cut", False)
        await uploading
        assert owner.lost == [("node0", False)]
        assert good.pieces == [b"data"]

    story(losing)


def test_a_node_that_refuses_an_upload_is_an_error_that_names_it(story):
    async def refusing(fleet, owner, said, files):
        for remote in (Pretended(0), Pretended(1, answer="no space left on device")):
            await fleet._welcome_or_say(remote)
        with pytest.raises(UploadError, match="node1: no space left"):
            await fleet.upload(files)

    story(refusing)


def test_the_same_file_uploaded_twice_at_once_arrives_twice(story):
    async def twice(fleet, owner, said, files):
        remote = Pretended(0)
        await fleet._welcome_or_say(remote)
        await asyncio.gather(fleet.upload(files), fleet.upload(files))
        assert remote.pieces == [b"data", b"data"]

    story(twice)


def join(fleet, remote, node=None):
    """Let a node join that the user has named so."""
    fleet._note(remote, node or Node(remote.host))
    return fleet._welcome_or_say(remote)


def test_a_machine_that_is_named_twice_counts_once_and_goes_by_either_name(story):
    async def joining(fleet, owner, said, files):
        first, again, other = (Pretended(n, machine="a" if n < 2 else "b") for n in range(3))
        assert [await join(fleet, one) for one in (first, again, other)] == [None] * 3
        assert owner.came == ["node0", "node2"] and fleet.failed == []
        assert again.closed and not first.closed
        (line,) = said
        assert "node 'node1' is the same machine as 'node0'" in line and "num_cpus=" in line
        await fleet.remove([Node("node1")])
        assert first.closed and owner.lost == [("node0", True)]
        assert await join(fleet, Pretended(3, machine="a")) is None
        assert owner.came == ["node0", "node2", "node3"]

    story(joining)


def test_nodes_of_unknown_machines_and_shares_that_were_declared_all_count(story):
    async def joining(fleet, owner, said, files):
        for number in range(2):
            await join(fleet, Pretended(number))
        for number in range(2, 4):
            share = Node(f"node{number}", num_cpus=1)
            await join(fleet, Pretended(number, machine="a"), share)
        assert owner.came == ["node0", "node1", "node2", "node3"] and said == []
        whole = Pretended(4, machine="a")  # it has the CPUs of the others too
        await join(fleet, whole)
        assert whole.closed and len(said) == 1

    story(joining)


def test_no_gpu_is_in_two_nodes_of_a_machine(story):
    async def joining(fleet, owner, said, files):
        for number, gpus in enumerate([("0", "1"), ("1", "2"), ("0",)]):
            remote = Pretended(number, machine="a", gpus=gpus)
            declared = {"num_gpus": 1} if number == 2 else {}
            error = await join(fleet, remote, Node(f"node{number}", num_cpus=1, **declared))
            assert remote.facts.gpus == (("0", "1"), ("2",), ("0",))[number]
            assert len(remote.slots.facts.gpus) == len(remote.facts.gpus)
        assert "its GPUs 1 belong to node0" in said[0] and "used without them" in said[0]
        assert remote.closed and "declare num_gpus=" in str(error)
        assert owner.came == ["node0", "node1"]

    story(joining)


class Returning:
    """How lost nodes come up again: `come_up(fleet)` has the next ones come, in this order."""

    def __init__(self, *remotes):
        self.remotes = list(remotes)
        self.asked = asyncio.Event()

    async def start_all(self, nodes):
        self.asked.set()
        return [asyncio.create_task(self.next()) for _ in nodes]

    async def next(self):
        return self.remotes.pop(0)

    def come_up(self, fleet):
        fleet._start_all = self.start_all


@pytest.mark.parametrize("what", ["remove", "add"])
def test_a_lost_node_that_is_just_coming_back_when_it_is_removed_or_added_is_there_once(
    story, what
):
    async def returning(fleet, owner, said, files):
        first, half = Pretended(0, machine="a"), Pretended(1, answer=None, machine="a")
        await join(fleet, first, Node("node0"))
        await fleet.upload(files)
        back = Returning(half, Pretended(2, machine="a"))
        back.come_up(fleet)
        fleet.on_lost(first, "cut", True)
        await half.asked.wait()  # it takes the uploads
        await getattr(fleet, what)([Node("node0")])
        assert half.closed and owner.came == ["node0"] + ["node2"] * (what == "add")
        assert list(fleet.remotes) == [2] * (what == "add") and not fleet._comebacks
        await fleet.close()

    story(returning)


def test_a_node_that_is_back_takes_no_gpu_that_another_has_meanwhile(story):
    async def returning(fleet, owner, said, files):
        nodes = [Node(f"node{number}", num_cpus=1) for number in range(2)]
        first = Pretended(0, machine="a", gpus=("0",))
        second = Pretended(1, machine="a", gpus=("0", "1"))
        for remote, node in zip((first, second), nodes, strict=True):
            await join(fleet, remote, node)
        again = Pretended(2, machine="a", gpus=("0", "1"))
        Returning(again).come_up(fleet)
        fleet.on_lost(second, "cut", True)
        while "node2" not in owner.came:
            await asyncio.sleep(0.01)
        assert again.facts.gpus == ("1",)
        await fleet.close()

    story(returning)


def test_a_machine_that_has_come_under_another_name_meanwhile_does_not_come_back_as_well(story):
    async def returning(fleet, owner, said, files):
        first, again = Pretended(0, machine="a"), Pretended(2, machine="a")
        await join(fleet, first, Node("node0"))
        await join(fleet, Pretended(3))
        Returning(again).come_up(fleet)
        fleet.on_lost(first, "cut", True)
        await join(fleet, Pretended(1, machine="a"), Node("node1"))
        while not again.closed or fleet._comebacks:
            await asyncio.sleep(0.01)
        assert "same machine" in said[-1] and "node2" not in owner.came
        await fleet.close()

    story(returning)


def test_of_two_users_on_a_machine_both_are_removed_though_one_is_lost(story):
    async def removing(fleet, owner, said, files):
        lost, there = Pretended(0, ends_for_sure=False), Pretended(1)
        await join(fleet, lost, Node("host", user="ada"))
        await join(fleet, there, Node("host", user="bob"))
        fleet.on_lost(lost, "cut", False)
        await fleet.remove([Node("host")])
        assert there.closed and not fleet.remotes and not fleet._comebacks

    story(removing)


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of the user's, of one worker, and a client to it."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local) as client,
    ):
        yield client


async def until(is_so):
    """Wait for something that should come at once; `story` has a bound."""
    while not is_so():
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("breaks", ["the node", "the connection"])
def test_a_worker_of_the_users_cluster_that_was_lost_is_a_node_again_with_a_word(
    breaks, story, cluster, monkeypatch
):
    monkeypatch.setattr("distsearch.resource.fleet.LEASE_OVER_S", 0.1)

    async def check(fleet, owner, said, files):
        await fleet.start(local=False, addresses=[], client=cluster)
        try:
            (first,) = fleet.remotes.values()
            if breaks == "the connection":  # as Dask does after half a minute without one
                await fleet._client_cluster._client.close()
            first.lose("nothing was heard of it")
            await until(lambda: len(owner.came) == 2)
            (second,) = fleet.remotes.values()
            assert owner.lost[0][0] == first.host
            assert second.remote_id != first.remote_id
            await until(lambda: f"node {second.host} is back" in said)
            assert await second.use_cache("newest", 0) is None  # it answers
        finally:
            await fleet.close()

    story(check)


def test_a_worker_of_the_users_cluster_that_was_removed_stays_away(story, cluster):
    async def check(fleet, owner, said, files):
        await fleet.start(local=False, addresses=[], client=cluster)
        try:
            (first,) = fleet.remotes.values()
            await fleet.remove([Node(first.host)])
            await fleet._client_cluster.hear_again()  # it has had the time to come back
            assert not fleet.remotes
            assert not fleet._tasks - {task for task in fleet._tasks if task.done()}
        finally:
            await fleet.close()

    story(check)
