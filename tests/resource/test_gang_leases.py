"""Slots of gangs: all or nothing, without a deadlock, a starved gang, or nodes that idle."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from distsearch.errors import ResourceError
from distsearch.resource.leases import LeaseQueue
from distsearch.resource.node import NodeFacts
from distsearch.resource.resource import Resource
from distsearch.resource.slots import NodeResourceManager
from tests.resource.test_manager import asker, manager_of, node, places


def gang(manager, leases, world_size, cpus=1, **rest):
    return manager.request(Resource(cpus, world_size=world_size, **rest), leases.append)


def release(manager, leases, host):
    """Give back the oldest lease on a node."""
    lease = next(one for one in leases if one.held[0].remote.remote_id == host)
    leases.remove(lease)
    manager.release(lease)


def test_a_gang_has_all_its_slots_or_none():
    manager = manager_of(node(0, cpus=2), node(1, cpus=2))
    ask, small = asker(manager)
    ask(), ask()
    gangs = []
    gang(manager, gangs, 4)
    assert not gangs
    release(manager, small, 0)
    assert not gangs
    release(manager, small, 1)
    assert sorted(places(gangs)) == [0, 0, 1, 1]


def test_a_gang_goes_where_all_of_it_has_room_and_is_spread_only_if_it_must():
    manager = manager_of(node(0, cpus=2), node(1, cpus=4), node(2, cpus=2))
    gangs = []
    gang(manager, gangs, 4)
    assert places(gangs) == [1, 1, 1, 1]
    gang(manager, gangs, 4)
    assert sorted(places(gangs)[4:]) == [0, 0, 2, 2]


def test_ranks_per_node_takes_so_many_slots_of_each_of_its_nodes():
    manager = manager_of(node(0, cpus=8), node(1, cpus=8))
    gangs = []
    gang(manager, gangs, 4, ranks_per_node=2)
    assert sorted(places(gangs)) == [0, 0, 1, 1]


def test_each_rank_has_gpus_of_its_own():
    manager = manager_of(node(0, cpus=8, gpus=4))
    gangs = []
    manager.request(Resource(1, 2, world_size=2), gangs.append)
    assert [held.allocation.gpus for held in gangs[0].held] == [("0", "1"), ("2", "3")]


def test_two_gangs_that_want_the_same_slots_run_one_after_the_other():
    manager = manager_of(node(0, cpus=2), node(1, cpus=2))
    ask, small = asker(manager)
    for _ in range(4):
        ask()
    gangs = []
    gang(manager, gangs, 2, cpus=2, ranks_per_node=1)
    gang(manager, gangs, 4)
    for host in (0, 1, 0, 1):
        assert not gangs
        release(manager, small, host)
    assert len(gangs) == 1
    manager.release(gangs[0])
    assert len(gangs) == 2


def test_small_trials_do_not_starve_a_gang():
    manager = manager_of(node(0, cpus=2), node(1, cpus=2))
    ask, small = asker(manager)
    for _ in range(4):
        ask()
    gangs = []
    gang(manager, gangs, 4)
    for ended in range(4):
        assert not gangs
        ask()
        release(manager, small, ended % 2)
    assert len(gangs) == 1


def test_a_node_on_which_a_gang_has_its_share_serves_others_with_the_rest():
    manager = manager_of(node(0, cpus=4), node(1, cpus=4))
    ask, large = asker(manager)
    ask(cpus=4)
    other = 1 - places(large)[0]
    gangs = []
    gang(manager, gangs, 2, cpus=2, ranks_per_node=1)
    ask_small, small = asker(manager)
    ask_small(), ask_small(), ask_small()
    assert places(small) == [other, other]
    assert not gangs


def test_a_gang_that_the_nodes_cannot_hold_any_more_keeps_nobody_off_them():
    lost = node(1, cpus=2)
    manager = manager_of(node(0, cpus=2), lost)
    ask, small = asker(manager)
    ask(cpus=2)
    gangs = []
    gang(manager, gangs, 2, cpus=2)
    ask(), ask()
    assert len(small) == 1
    manager.remove(lost)
    release(manager, small, places(small)[0])
    assert len(small) == 2
    manager.add(node(1, cpus=2))
    assert not gangs
    for lease in small:
        manager.release(lease)
    assert sorted(places(gangs)) == [0, 1]


def test_a_gang_of_which_a_node_is_lost_holds_the_rest_until_it_is_given_back():
    lost = node(1, cpus=1)
    manager = manager_of(node(0, cpus=1), lost)
    gangs = []
    gang(manager, gangs, 2)
    manager.remove(lost)
    assert manager.remotes[0].slots.used == (1, 0)
    manager.release(gangs[0])
    manager.release(gangs[0])
    assert manager.remotes[0].slots.used == (0, 0)


def test_a_gang_that_never_fits_is_refused_with_what_the_nodes_have():
    manager = manager_of(node(0, cpus=2), node(1, cpus=1))
    manager.check(Resource(world_size=3))
    with pytest.raises(ResourceError) as refusal:
        manager.check(Resource(world_size=4))
    assert "needs 4 ranks, and there is room for 3" in str(refusal.value)
    assert "host0 has 2 CPUs" in str(refusal.value)
    with pytest.raises(ResourceError, match=r"needs 2 nodes .* 2 ranks each.*room for 1"):
        manager.check(Resource(world_size=4, ranks_per_node=2))
    with pytest.raises(ResourceError, match="needs 2 ranks, and there is room for 0"):
        manager.check(Resource(num_gpus=1, world_size=2))


def test_the_room_for_gangs_is_that_of_all_nodes():
    manager = manager_of(node(0, cpus=4), node(1, cpus=3))
    assert manager.room_for(Resource(world_size=2)) == 3
    assert manager.room_for(Resource(world_size=8)) == 0


class SharedNodes:
    """Three searches on four nodes of two slots, which die and come back; the clock is a number.

    A trial that has lost a node is tried again, and has ended when its lease ran to its end.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.queue = LeaseQueue()
        self.events, self.numbers, self.now = [], itertools.count(), 0.0
        self.managers = [manager_of(queue=self.queue) for _ in range(3)]
        self.running, self.ended, self.lost = {}, [], 0
        for host in range(4):
            self.start(host)

    def after(self, seconds, act, *about):
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), act, about))

    def start(self, host):
        """A node joins all searches; it dies some time later."""
        slots = NodeResourceManager(NodeFacts(2, (), 16 * 10**9))
        for manager in self.managers:
            manager.add(node(host, slots=slots))
        self.after(self.random.uniform(2, 60), self.die, host)

    def die(self, host):
        """One search after the other takes note of it, and tries again what it had there."""
        for manager in self.managers:
            gone = [
                trial
                for trial, lease in self.running.items()
                if self.manager_of(trial) is manager and host in places([lease])
            ]
            leases = [self.running.pop(trial) for trial in gone]
            manager.remove(manager.remotes[host])
            for trial, lease in zip(gone, leases, strict=True):
                self.lost += 1
                manager.release(lease)
                self.ask(trial)
        self.after(self.random.uniform(1, 5), self.start, host)

    def manager_of(self, trial):
        return self.managers[trial[0] % 3]

    def ask(self, trial):
        _, ranks = trial

        def granted(lease):
            assert trial not in self.running
            assert len(lease.held) == ranks
            self.running[trial] = lease
            self.after(self.random.uniform(1, 8), self.end, trial, lease)

        self.manager_of(trial).request(Resource(1, world_size=ranks), granted)

    def end(self, trial, lease):
        if self.running.get(trial) is not lease:  # it has lost a node meanwhile
            return
        del self.running[trial]
        self.ended.append(trial)
        self.manager_of(trial).release(lease)

    def run(self, trials):
        for trial in trials:
            self.ask(trial)
        while len(self.ended) < len(trials):
            self.now, _, act, about = heapq.heappop(self.events)
            act(*about)
            assert self.now < 2000, f"{len(self.ended)} of {len(trials)} trials have ended"
            for host in range(4):
                here = sum(places([lease]).count(host) for lease in self.running.values())
                assert here <= 2


def test_thirty_gangs_and_single_trials_of_three_searches_end_once_each_while_nodes_die():
    lost = 0
    for seed in range(20):
        nodes = SharedNodes(seed)
        trials = [(number, nodes.random.choice([1, 1, 2, 3, 4])) for number in range(30)]
        nodes.run(trials)
        assert sorted(nodes.ended) == trials
        assert not nodes.running
        for manager in nodes.managers:
            assert all(remote.slots.used == (0, 0) for remote in manager.remotes.values())
        lost += nodes.lost
    assert lost > 50
