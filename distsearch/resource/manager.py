"""The slots of all nodes of one search: which are free, and requests for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator

from ..errors import ResourceError
from .leases import Lease, LeaseQueue, LeaseRequest, shared_queue
from .remote import Remote
from .resource import Resource
from .slots import Level, NodeResourceManager


class DistributedResourceManager:
    """The slots of all nodes of one search.

        manager = DistributedResourceManager()
        manager.add(remote)
        manager.check(resource)                                # could it ever run?
        request = manager.request(resource, granted=launch)    # launch(lease), now or later
        manager.release(lease)                                 # when the trial has ended

    `remotes` maps ids to nodes. `changes` counts how often a node came or was to go. All managers
    of a process share one queue, unless they are given one, and may share nodes: who asks first is
    served first. To be used from one thread.
    """

    def __init__(self, queue: LeaseQueue | None = None) -> None:
        self.queue = shared_queue() if queue is None else queue
        self.remotes: dict[int, Remote] = {}
        self.changes = 0
        self.leases: dict[int, dict[int, Lease]] = {}
        self._by_slots: dict[NodeResourceManager, Remote] = {}
        # The nodes by how full they are: there are few such levels, however many nodes there are.
        self._at_level: dict[Level, dict[int, Remote]] = {}
        self._level_of: dict[int, Level] = {}
        self._resting: set[int] = set()
        self._draining: set[int] = set()  # those of the resting nodes that are to go

    def add(self, remote: Remote) -> None:
        """Take a node in, and serve requests that wait; ResourceError if its id is taken."""
        if remote.remote_id in self.remotes:
            raise ResourceError(f"remote id {remote.remote_id} is taken; give each node its own")
        self.remotes[remote.remote_id] = remote
        self.changes += 1
        self.leases[remote.remote_id] = {}
        self._by_slots[remote.slots] = remote
        self.queue.join(remote.slots, self)

    def remove(self, remote: Remote) -> None:
        """Give a node up, if it is known: its leases are void, and to release them does no harm."""
        if self.remotes.get(remote.remote_id) is not remote:
            return
        del self.remotes[remote.remote_id], self._by_slots[remote.slots]
        self.changes += 1
        self._resting.discard(remote.remote_id)
        self._draining.discard(remote.remote_id)
        self._forget_level(remote)
        # (Another search may use the node, so that its slots have to be free.)
        for lease in self.leases.pop(remote.remote_id).values():
            for where, allocation in lease.held:
                if where is remote:
                    remote.slots.release(allocation)
        self.queue.leave(remote.slots, self)

    def rest(self, remote: Remote) -> None:
        """Lease nothing more of a node until `wake`; its leases stay."""
        if self.remotes.get(remote.remote_id) is remote:
            self._resting.add(remote.remote_id)
            self._forget_level(remote)
            self.queue.keep_off(remote.slots, self)
            self.queue.serve()

    def wake(self, remote: Remote) -> None:
        """Lease slots of a resting node again, if it is there, and serve requests that wait."""
        number = remote.remote_id
        if number in self._draining:
            return
        if number in self._resting and self.remotes.get(number) is remote:
            self._resting.discard(remote.remote_id)
            self.queue.freed(remote.slots)

    def drain(self, remote: Remote) -> None:
        """Lease nothing more of a node, which is to go once nothing runs there."""
        self._draining.add(remote.remote_id)
        self.changes += 1
        self.rest(remote)

    def keep(self, remote: Remote) -> None:
        """Use a node again that `drain` was called for."""
        self._draining.discard(remote.remote_id)
        self.changes += 1
        self.wake(remote)

    def is_draining(self, remote: Remote) -> bool:
        """Whether a node is to go once nothing runs there."""
        return remote.remote_id in self._draining

    def is_resting(self, remote: Remote) -> bool:
        """Whether nothing more is leased of a node, for whatever reason."""
        return remote.remote_id in self._resting

    @property
    def _staying(self) -> list[Remote]:
        """The nodes that are not to go."""
        remotes = list(self.remotes.values())
        if not self._draining:
            return remotes
        return [one for one in remotes if not self.is_draining(one)]

    def check(self, resource: Resource) -> None:
        """Raise ResourceError, which says what each node has, if they can never meet a request."""
        if self.can_meet(resource):
            return
        if not self.remotes:
            raise ResourceError(f"a trial with {resource} finds no room: no node is up; add one")
        has = [_describe(remote) for remote in itertools.islice(self.remotes.values(), 16)]
        more = f"; and {len(self.remotes) - 16} more" if len(self.remotes) > 16 else ""
        fits = "fits on no node"
        if resource.world_size > 1:
            count, ranks = resource.parts
            wanted = (
                f"{count} ranks"
                if resource.ranks_per_node is None
                else (f"{count} nodes with room for {ranks} ranks each")
            )
            fits = f"needs {wanted}, and there is room for {self._parts(resource)}"
        raise ResourceError(
            f"a trial with {resource} {fits}: {'; '.join(has)}{more}. Ask for less, or add a node"
        )

    def can_meet(self, resource: Resource) -> bool:
        """Whether the nodes could ever meet a request, when nothing else runs."""
        count, ranks = resource.parts
        if count == 1:
            needed = resource.of_ranks(ranks)
            return any(remote.slots.fits(needed) for remote in self._staying)
        return self._parts(resource) >= count

    def _parts(self, resource: Resource) -> int:
        """How many parts of such a request all nodes can hold at once."""
        _, ranks = resource.parts
        needed, most = resource.of_ranks(ranks), resource.ranks_per_node is None
        held = (remote.slots.most(needed) for remote in self._staying)
        return sum(each if most else min(each, 1) for each in held)

    def room_for(self, resource: Resource) -> int:
        """How many such requests all nodes can meet at once, when nothing else runs."""
        count, ranks = resource.parts
        needed = resource.of_ranks(ranks)  # (`_staying` is a copy, as other threads ask, too)
        return sum(remote.slots.most(needed) for remote in self._staying) // count

    def request(
        self,
        resource: Resource,
        granted: Callable[[Lease], None],
        avoid: Collection[int] = (),
    ) -> LeaseRequest:
        """Ask for slots; `granted(lease)` is called when they are leased, at once or later.

        A request gets all its slots or none, in the order of requests, and none on the nodes to
        `avoid` (ids). A request that fits on no node waits for one that is added: `check` refuses
        it.
        """
        request = LeaseRequest(next(self.queue.numbers), self, resource, granted, avoid)
        self.queue.submit(request)
        return request

    def release(self, lease: Lease) -> None:
        """Give slots back, and serve requests that wait; no harm is done for a void lease."""
        left = [one for one in lease.held if self._is_valid(lease, one.remote)]
        for remote, allocation in left:
            self.leases[remote.remote_id].pop(lease.number, None)
            remote.slots.release(allocation)
        for slots in dict.fromkeys(remote.slots for remote, _ in left):
            self.queue.freed(slots)

    def _is_valid(self, lease: Lease, remote: Remote) -> bool:
        if self.remotes.get(remote.remote_id) is not remote:
            return False
        return self.leases[remote.remote_id].get(lease.number) is lease

    def remote_with(self, slots: NodeResourceManager) -> Remote | None:
        """The node whose slots these are, unless it rests, or is none of this manager."""
        remote = self._by_slots.get(slots)
        return None if remote is None or remote.remote_id in self._resting else remote

    def choices(self, resource: Resource) -> Iterator[Remote]:
        """The nodes with free CPUs and GPUs for a request, the best first."""
        levels = [level for level in self._at_level if level.admits(resource)]
        if len(levels) > 1:
            levels.sort(key=lambda level: level.preference(resource))
        return itertools.chain.from_iterable(self._at_level[level].values() for level in levels)

    def prospects(self, resource: Resource) -> Iterator[Remote]:
        """All nodes, those first on which the least is missing for a request."""
        levels = list(self._at_level)
        if len(levels) > 1:
            levels.sort(key=lambda level: level.missing(resource))
        return itertools.chain.from_iterable(self._at_level[level].values() for level in levels)

    def note_level(self, slots: NodeResourceManager) -> None:
        """Take note of how full a node is now."""
        remote = self._by_slots[slots]
        self._forget_level(remote)
        if remote.remote_id in self._resting:
            return
        self._level_of[remote.remote_id] = slots.level
        self._at_level.setdefault(slots.level, {})[remote.remote_id] = remote

    def _forget_level(self, remote: Remote) -> None:
        level = self._level_of.pop(remote.remote_id, None)
        if level is None:
            return
        equally_full = self._at_level[level]
        del equally_full[remote.remote_id]
        if not equally_full:
            del self._at_level[level]

    def __repr__(self) -> str:
        lines = "".join(f"{remote!r}\n" for remote in self.remotes.values())
        return f"DistributedResourceManager{{\n{lines}}}"


def _describe(remote: Remote) -> str:
    facts = remote.facts
    gigabytes = facts.memory_bytes / 1e9
    return f"{remote.host} has {facts.num_cpus} CPUs, {len(facts.gpus)} GPUs, {gigabytes:.1f} GB"
