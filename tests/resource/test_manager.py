"""Leases over all nodes: all-or-nothing, in order, starving none, never oversubscribed."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distsearch.errors import ResourceError
from distsearch.resource.leases import LeaseQueue, _could_hold, shared_queue
from distsearch.resource.manager import DistributedResourceManager
from distsearch.resource.node import NodeFacts
from distsearch.resource.remote import Remote
from distsearch.resource.resource import Resource
from distsearch.resource.slots import NodeResourceManager


def node(remote_id, cpus=4, gpus=0, memory_gb=16, slots=None):
    names = tuple(str(index) for index in range(gpus))
    facts = NodeFacts(cpus, names, memory_gb * 10**9)
    remote = Remote(remote_id, f"host{remote_id}", f"tls://host{remote_id}:8700", facts)
    if slots is not None:
        remote.slots = slots
    return remote


def manager_of(*nodes, queue=None):
    manager = DistributedResourceManager(queue or LeaseQueue())
    for remote in nodes:
        manager.add(remote)
    return manager


def asker(manager):
    """A function that requests, and the list of leases that were granted to it."""
    leases = []

    def ask(cpus=1, gpus=0, memory_gb=None):
        return manager.request(Resource(cpus, gpus, memory_gb), leases.append)

    return ask, leases


def places(leases):
    return [held.remote.remote_id for lease in leases for held in lease.held]


def test_a_request_that_fits_is_granted_at_once():
    manager = manager_of(node(0))
    ask, leases = asker(manager)
    request = ask(cpus=2)
    assert leases[0].held[0].remote is manager.remotes[0]
    assert leases[0].held[0].allocation.cpus == 2
    request.cancel()  # too late, so it is harmless
    assert manager.remotes[0].slots.used == (2, 0)


def test_a_waiting_request_is_granted_when_all_its_slots_are_free():
    manager = manager_of(node(0, cpus=4))
    ask, leases = asker(manager)
    ask(cpus=2), ask(cpus=2), ask(cpus=4)
    manager.release(leases[0])
    assert len(leases) == 2
    manager.release(leases[1])
    assert leases[2].held[0].allocation.cpus == 4
    assert len({lease.number for lease in leases}) == 3


def test_requests_are_served_in_order():
    manager = manager_of(node(0, cpus=1))
    order = []
    for name in "abcd":
        manager.request(Resource(), lambda lease, name=name: order.append((name, lease)))
    for served in range(1, 4):
        manager.release(order[served - 1][1])
    assert [name for name, _ in order] == ["a", "b", "c", "d"]


def test_ten_tenths_of_a_gpu_fit_and_eleven_do_not():
    manager = manager_of(node(0, cpus=100, gpus=1))
    ask, leases = asker(manager)
    for _ in range(11):
        ask(gpus=0.1)
    assert len(leases) == 10
    manager.release(leases[3])
    assert len(leases) == 11


def test_a_large_request_is_not_starved_by_a_stream_of_small_ones():
    manager = manager_of(node(0, cpus=4))
    ask, small = asker(manager)
    ask_large, large = asker(manager)
    for _ in range(4):
        ask()
    ask_large(cpus=4)
    for done in range(4):
        assert not large
        ask()
        manager.release(small[done])
    assert len(large) == 1
    assert len(small) == 4
    manager.release(large[0])
    assert len(small) == 8


def test_small_requests_use_the_nodes_that_a_large_one_does_not_wait_for():
    manager = manager_of(node(0, cpus=4), node(1, cpus=2))
    ask, leases = asker(manager)
    ask(cpus=3), ask(cpus=2), ask(cpus=4)
    ask(cpus=1)  # would fit on node 0, which is kept for the large request
    manager.release(leases[1])
    assert places(leases) == [0, 1, 1]


def test_a_large_request_waits_for_the_node_where_the_least_is_missing():
    manager = manager_of(node(0, cpus=4), node(1, cpus=4))
    ask, leases = asker(manager)
    ask(cpus=4), ask(cpus=3)
    large = ask(cpus=4)
    assert large.fences == [manager.remotes[1].slots]
    manager.release(leases[1])
    assert places(leases) == [0, 1, 1]


def test_a_large_request_turns_to_a_node_that_becomes_freer_and_opens_the_other():
    manager = manager_of(node(0, cpus=4), node(1, cpus=4))
    ask, leases = asker(manager)
    ask(cpus=3), ask(cpus=3), ask(cpus=1)
    full = leases[2].held[0].remote
    other = manager.remotes[1 - full.remote_id]
    large, small = ask(cpus=4), ask(cpus=1)
    assert large.fences == [other.slots]
    assert small.waits
    manager.release(next(lease for lease in leases if lease.held[0].remote is full))
    assert large.fences == [full.slots]
    assert leases[-1].held[0].remote is other
    assert large.waits and not small.waits


def test_cpu_trials_spread_and_leave_gpu_nodes_alone():
    manager = manager_of(node(0, cpus=8, gpus=2), node(1, cpus=2), node(2, cpus=2))
    ask, leases = asker(manager)
    for _ in range(5):
        ask()
    assert sorted(places(leases)[:2]) == [1, 2]
    assert sorted(places(leases)[:4]) == [1, 1, 2, 2]
    assert places(leases)[4] == 0


def test_shares_of_gpus_are_packed_on_one_node():
    manager = manager_of(node(0, gpus=1), node(1, gpus=1))
    ask, leases = asker(manager)
    for _ in range(4):
        ask(gpus=0.25)
    assert len(set(places(leases))) == 1
    ask(gpus=1)
    assert len(set(places(leases))) == 2


def test_impossible_requests_are_refused_and_told_what_each_node_has():
    manager = manager_of(node(0, cpus=4), node(1, cpus=2, gpus=1))
    manager.check(Resource(num_cpus=4))
    with pytest.raises(ResourceError) as refusal:
        manager.check(Resource(num_cpus=4, num_gpus=1))
    assert "num_cpus=4, num_gpus=1" in str(refusal.value)
    assert "host0 has 4 CPUs, 0 GPUs, 16.0 GB" in str(refusal.value)
    assert "host1 has 2 CPUs, 1 GPUs, 16.0 GB" in str(refusal.value)


def test_without_nodes_a_request_is_refused_as_such():
    with pytest.raises(ResourceError, match="no node is up"):
        manager_of().check(Resource())


def test_a_refusal_of_many_nodes_stays_readable():
    manager = manager_of(*(node(remote_id) for remote_id in range(100)))
    with pytest.raises(ResourceError, match="and 84 more"):
        manager.check(Resource(num_cpus=5))


def test_the_room_for_a_resource_is_that_on_all_nodes_whatever_runs():
    manager = manager_of(node(0, cpus=4), node(1, cpus=8, gpus=2))
    ask, _ = asker(manager)
    ask(cpus=4)
    assert manager.room_for(Resource(2)) == 6
    assert manager.room_for(Resource(1, 1)) == 2
    assert manager.room_for(Resource(0, 0.5)) == 4
    assert manager.room_for(Resource(16)) == 0


def test_a_new_node_serves_the_request_that_waits():
    manager = manager_of(node(0, cpus=1))
    ask, leases = asker(manager)
    ask(cpus=8)
    assert not leases
    manager.add(node(1, cpus=8))
    assert places(leases) == [1]


def test_an_id_is_taken_once():
    with pytest.raises(ResourceError, match="0 is taken"):
        manager_of(node(0), node(0))


def test_leases_of_a_removed_node_are_void():
    lost = node(0, cpus=1)
    manager = manager_of(lost)
    ask, leases = asker(manager)
    ask()
    manager.remove(lost)
    manager.remove(lost)
    manager.add(node(0, cpus=1))
    ask()
    manager.release(leases[0])  # of the lost node, though the id is the same
    assert manager.remotes[0].slots.used == (1, 0)
    manager.release(leases[1])
    manager.release(leases[1])
    assert manager.remotes[0].slots.used == (0, 0)


def test_a_request_looks_for_another_node_when_the_one_it_waits_for_is_lost():
    manager = manager_of(node(0, cpus=4), node(1, cpus=4))
    ask, leases = asker(manager)
    ask(cpus=4), ask(cpus=3)
    large = ask(cpus=4)
    manager.remove(manager.remotes[1])
    assert large.fences == [manager.remotes[0].slots]
    manager.release(leases[0])
    assert places(leases)[-1] == 0
    assert not large.waits


def test_a_cancelled_request_makes_way():
    manager = manager_of(node(0, cpus=2))
    ask, leases = asker(manager)
    ask(cpus=1)
    large = ask(cpus=2)
    ask(cpus=1)
    assert len(leases) == 1
    large.cancel()
    large.cancel()
    assert len(leases) == 2


def test_two_searches_share_the_local_node_in_turn():
    queue = LeaseQueue()
    local = NodeResourceManager(NodeFacts(1, (), 10**9))
    searches = {name: manager_of(node(0, slots=local), queue=queue) for name in "ab"}
    turns = []

    def take(name):
        searches[name].request(Resource(), lambda lease: turns.append((name, lease)))

    take("a"), take("b")
    for turn in range(7):
        name, lease = turns[turn]
        take(name)
        searches[name].release(lease)
    assert "".join(name for name, _ in turns) == "abababab"


def test_a_search_that_closes_leaves_the_shared_node_to_the_other():
    queue = LeaseQueue()
    local = NodeResourceManager(NodeFacts(2, (), 10**9))
    first, second = (manager_of(node(0, slots=local), queue=queue) for _ in range(2))
    ask_first, _ = asker(first)
    ask_second, leases = asker(second)
    ask_first(cpus=1), ask_first(cpus=2), ask_second(cpus=2)
    first.remove(first.remotes[0])
    assert len(leases) == 1
    assert local.used == (2, 0)


def test_managers_share_the_queue_of_the_process():
    assert DistributedResourceManager().queue is DistributedResourceManager().queue
    assert DistributedResourceManager().queue is shared_queue()


def test_a_callback_may_request_release_and_cancel():
    manager = manager_of(node(0, cpus=1))
    granted = []

    def again(lease):
        granted.append(lease)
        manager.release(lease)
        if len(granted) < 5000:  # deeper than Python's stack
            manager.request(Resource(), again)

    manager.request(Resource(), again)
    assert len(granted) == 5000
    assert manager.remotes[0].slots.used == (0, 0)


def test_what_a_callback_requests_is_looked_for_on_every_node():
    manager = manager_of(node(0, cpus=2), node(1, cpus=1))
    leases = []

    def cause(lease):
        manager.release(lease)
        manager.request(Resource(2), leases.append)
        manager.request(Resource(1), leases.append)

    manager.request(Resource(1), cause)
    assert sorted(places(leases)) == [0, 1]


def test_a_grant_that_was_not_handed_over_yet_can_be_cancelled():
    manager = manager_of(node(0, cpus=1))
    ask, leases = asker(manager)
    ask()
    requests = []
    manager.request(Resource(), lambda lease: requests[0].cancel())
    requests.append(ask())
    manager.add(node(1, cpus=2))
    assert len(leases) == 1
    assert manager.remotes[1].slots.used == (1, 0)


def test_a_callback_that_fails_leaves_the_queue_in_order():
    manager = manager_of(node(0, cpus=2))
    ask, leases = asker(manager)
    with pytest.raises(ZeroDivisionError):
        manager.request(Resource(), lambda lease: 1 / 0)
    ask()
    assert len(leases) == 1


def test_it_shows_every_node():
    manager = manager_of(node(0, cpus=8, memory_gb=64), node(1, cpus=2))
    assert repr(manager) == (
        "DistributedResourceManager{\n"
        "(Remote: Remote REMOTE_ID: 0,\n"
        "\t<Remote: 'tls://host0:8700' processes=1 threads=8, memory=64.00 GB>, "
        "Resource: NodeResourceManager(8 CPUs, 0 GPUs))\n"
        "(Remote: Remote REMOTE_ID: 1,\n"
        "\t<Remote: 'tls://host1:8700' processes=1 threads=2, memory=16.00 GB>, "
        "Resource: NodeResourceManager(2 CPUs, 0 GPUs))\n"
        "}"
    )


class CountedSlots(NodeResourceManager):
    """Slots that count how often they were looked at."""

    looks = 0

    def free(self, resource):
        CountedSlots.looks += 1
        return super().free(resource)

    def fits(self, resource):
        CountedSlots.looks += 1
        return super().fits(resource)


def test_a_request_does_not_look_at_every_node():
    facts = NodeFacts(4, ("0",), 10**9)
    manager = manager_of(*(node(i, slots=CountedSlots(facts)) for i in range(3000)))
    ask, leases = asker(manager)
    CountedSlots.looks = 0
    for _ in range(3000):
        ask(cpus=3, gpus=0.5)
    assert CountedSlots.looks <= 3 * 3000
    for lease in leases[:100]:  # and none when all are full and one waits
        ask(cpus=3, gpus=0.5)
        manager.release(lease)
    assert len(leases) == 3100
    assert CountedSlots.looks <= 3 * 3000 + 10 * 100


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(4, 8), min_size=1, max_size=4),
    large=st.integers(1, 4),
)
def test_under_any_endless_stream_a_large_request_starts_within_a_bound(seed, sizes, large):
    """Small trials of 1 to 10 ticks; each tick two more are asked for than can run."""
    rng = random.Random(seed)
    manager = manager_of(*(node(i, cpus=cpus) for i, cpus in enumerate(sizes)))
    running, waiting, big = [], [0], []

    def started(lease):
        waiting[0] -= 1
        running.append([rng.randint(1, 10), lease])

    def tick():
        while waiting[0] < 2:
            waiting[0] += 1
            manager.request(Resource(rng.randint(1, 3)), started)
        for entry in list(running):
            entry[0] -= 1
            if entry[0] <= 0:
                running.remove(entry)
                manager.release(entry[1])

    for _ in range(20):
        tick()
    for _ in range(large):
        manager.request(Resource(max(sizes)), big.append)
    for _ in range(large * 10 * (max(sizes) + 1)):
        tick()
        while big:
            large -= 1
            manager.release(big.pop())
    assert large == 0


processes = st.builds(
    Resource,
    num_cpus=st.integers(0, 5).map(lambda cpus: cpus or 1),
    num_gpus=st.sampled_from([0, 0, 0.1, 0.5, 1, 2]),
    memory_gb=st.sampled_from([None, None, 2, 12]),
)
gangs = st.builds(
    lambda ranks, each, **rest: Resource(world_size=ranks * each, **rest),
    ranks=st.integers(1, 3),
    each=st.just(2),
    num_cpus=st.integers(1, 3),
    num_gpus=st.sampled_from([0, 0, 1]),
    memory_gb=st.sampled_from([None, None, 2]),
    ranks_per_node=st.sampled_from([None, 1, 2]),
)
resources = st.one_of(processes, gangs)


class SharedCluster(RuleBasedStateMachine):
    """Two searches with nodes of their own and the local node that they share."""

    def __init__(self):
        super().__init__()
        self.queue = LeaseQueue()
        self.local = NodeResourceManager(NodeFacts(4, ("0",), 16 * 10**9))
        self.ids = itertools.count(1)
        self.requests = []
        self.held = []

    @initialize()
    def start(self):
        self.managers = [manager_of(node(0, slots=self.local), queue=self.queue) for _ in "ab"]

    @rule(which=st.integers(0, 1), resource=resources, endless=st.booleans())
    def request(self, which, resource, endless):
        manager = self.managers[which]

        def granted(lease):
            assert len(lease.held) == resource.world_size
            assert all(held.allocation.cpus == resource.num_cpus for held in lease.held)
            ranks = [held.remote.remote_id for held in lease.held]
            nodes = list(dict.fromkeys(ranks))
            assert ranks == sorted(ranks, key=nodes.index), "the ranks of a node are neighbours"
            if resource.ranks_per_node is not None:
                assert {ranks.count(one) for one in nodes} == {resource.ranks_per_node}
            self.held.append((manager, resource, lease))
            if endless and len(self.requests) < 300 and len(self.waiting()) < 6:
                self.request(which, resource, endless)

        self.requests.append(manager.request(resource, granted))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        index = data.draw(st.integers(0, len(self.held) - 1))
        manager, _, lease = self.held.pop(index)
        manager.release(lease)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def cancel(self, data):
        data.draw(st.sampled_from(self.waiting())).cancel()

    @rule(
        which=st.integers(0, 1),
        cpus=st.integers(1, 6),
        gpus=st.integers(0, 2),
        memory_gb=st.sampled_from([4, 16]),
    )
    def add(self, which, cpus, gpus, memory_gb):
        self.managers[which].add(node(next(self.ids), cpus, gpus, memory_gb))

    @rule(which=st.integers(0, 1), data=st.data())
    def remove(self, which, data):
        remotes = list(self.managers[which].remotes.values())
        if not remotes:
            return
        lost = data.draw(st.sampled_from(remotes))
        void = [entry for entry in self.held if any(one.remote is lost for one in entry[2].held)]
        # out of the books first: what is removed may be granted to somebody at once
        self.held = [entry for entry in self.held if entry not in void]
        self.managers[which].remove(lost)
        for manager, _, lease in void:
            manager.release(lease)

    @rule(which=st.integers(0, 1), data=st.data())
    def rest_or_wake(self, which, data):
        manager = self.managers[which]
        if not manager.remotes:
            return
        remote = data.draw(st.sampled_from(list(manager.remotes.values())))
        if data.draw(st.booleans()):
            manager.rest(remote)
        else:
            manager.wake(remote)

    def awake(self, manager):
        return [r for r in manager.remotes.values() if manager.remote_with(r.slots)]

    def waiting(self):
        return [request for request in self.requests if request.waits]

    def all_slots(self):
        return {r.slots for manager in self.managers for r in manager.remotes.values()}

    @invariant()
    def nothing_is_oversubscribed_or_lost(self):
        for slots in self.all_slots():
            leased = [(r, one) for _, r, lease in self.held for one in lease.held]
            kept = [(r.resource, one) for r in self.waiting() for p in r.parts for one in p.held]
            here = [(r, one) for r, one in [*leased, *kept] if one.remote.slots is slots]
            assert sum(r.num_cpus for r, _ in here) == slots.used[0] <= slots.facts.num_cpus
            assert slots.used[1] == pytest.approx(sum(r.num_gpus for r, _ in here))
            assert sum(r.memory_bytes or 0 for r, _ in here) <= slots.facts.memory_bytes
            for gpu in slots.facts.gpus:
                assert sum(r.gpu_share for r, one in here if gpu in one.allocation.gpus) <= 1
            assert len(slots.facts.gpus) >= slots.used[1]

    @invariant()
    def nobody_waits_for_what_is_free(self):
        fenced = set()
        for request in self.waiting():
            if request.is_parked:
                assert not request.manager.can_meet(request.resource)
                assert not request.fences and not any(part.held for part in request.parts)
                continue
            for part in request.parts:
                for remote in self.awake(request.manager):
                    if part.held or remote.slots in fenced:
                        continue
                    could = _could_hold(part, remote.slots)
                    assert not (could and remote.slots.free(part.resource))
                    if could and remote.slots not in request.fences:
                        assert part.fence is not None
            for fence in request.fences:
                assert fence not in fenced
                fenced.add(fence)

    @invariant()
    def shelves_hold_every_node_once_at_its_level(self):
        for manager in self.managers:
            placed = [
                (remote, level)
                for level, nodes in manager._at_level.items()
                for remote in nodes.values()
            ]
            assert len(placed) == len(self.awake(manager))
            assert all(remote.slots.level == level for remote, level in placed)

    def teardown(self):
        """Nothing waits for ever: when all that runs ends, all that fits has run."""
        if not hasattr(self, "managers"):
            return
        for manager in self.managers:
            for remote in manager.remotes.values():
                manager.wake(remote)
        while self.held:
            manager, _, lease = self.held.pop(0)
            manager.release(lease)
        for request in self.waiting():
            assert not request.manager.can_meet(request.resource)
        assert all(slots.used == (0, 0) for slots in self.all_slots())


TestSharedCluster = SharedCluster.TestCase
TestSharedCluster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
