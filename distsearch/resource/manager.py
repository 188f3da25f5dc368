"""Slots leased over all nodes: all-or-nothing, in order of request, starving none.

A request has a part for each node that it needs at once: one, or several for a gang. A part that
fits on no node now fences one off: the node on which the least is missing. Later requests keep off
that node, so it drains until the part fits, and use all others meanwhile. What a part has got is
held until all parts have; an older request that turns to a node takes it from younger ones there.
So the oldest waits for nothing but trials that run, and no two gangs wait for each other.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from ..errors import ResourceError
from .remote import Remote
from .resource import Resource
from .slots import Allocation, Level, NodeResourceManager


class Held(NamedTuple):
    """The slots of one process, and their node."""

    remote: Remote
    allocation: Allocation


@dataclass(frozen=True)
class Lease:
    """Slots held from the grant until `DistributedResourceManager.release`.

    `held`: of each rank, those of one node one after the other; one for a trial of one process.
    """

    number: int
    held: tuple[Held, ...]


@dataclass(eq=False)
class Part:
    """What a request needs of one node at once; `fence` is the node that it keeps others off."""

    request: LeaseRequest
    ranks: int
    resource: Resource  # what all these ranks need
    fence: NodeResourceManager | None = None
    held: tuple[Held, ...] = ()


@dataclass(eq=False)
class LeaseRequest:
    """A request in the queue. `is_parked`: all nodes together could not meet it."""

    number: int
    manager: DistributedResourceManager
    resource: Resource
    granted: Callable[[Lease], None]
    avoid: Collection[int] = ()  # ids of nodes
    waits: bool = True
    is_parked: bool = False
    parts: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        count, ranks = self.resource.parts
        resource = self.resource.of_ranks(ranks)
        self.parts = [Part(self, ranks, resource) for _ in range(count)]

    @property
    def fences(self) -> list[NodeResourceManager]:
        """The nodes that it keeps later requests off."""
        return [part.fence for part in self.parts if part.fence is not None]

    def cancel(self) -> None:
        """Leave the queue; nothing happens when the lease was handed over already."""
        self.manager.queue.withdraw(self)


class LeaseQueue:
    """Requests of all managers of a process, oldest first, so that searches share fairly.

    To be used from one thread. Grants are handed over before the outermost call returns, and never
    from inside another grant: what a callback asks for is served after it has returned.
    """

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self._waiting: dict[int, LeaseRequest] = {}
        self._fences: dict[NodeResourceManager, Part] = {}
        self._members: dict[NodeResourceManager, set[DistributedResourceManager]] = {}
        # Parts that hold slots of a node while others of their requests wait.
        self._holders: dict[NodeResourceManager, list[Part]] = {}
        # Nodes that may have room which nobody was offered, parts that have yet to look at the
        # nodes, and leases that are not handed over yet.
        self._changed: deque[NodeResourceManager] = deque()
        self._unplaced: deque[Part] = deque()
        self._granted: dict[int, tuple[LeaseRequest, Lease]] = {}
        self._serving = False

    def submit(self, request: LeaseRequest) -> None:
        """Put a request at the end of the queue."""
        self._unplaced.extend(request.parts)
        self._park(request)
        self.serve()

    def withdraw(self, request: LeaseRequest) -> None:
        """Take a request out of the queue."""
        request.waits = False
        self._waiting.pop(request.number, None)
        self._give_all_up(request)
        if request.number in self._granted:
            _, lease = self._granted.pop(request.number)
            request.manager.release(lease)
        self.serve()

    def join(self, slots: NodeResourceManager, manager: DistributedResourceManager) -> None:
        """Offer a node to the requests of a manager."""
        self._members.setdefault(slots, set()).add(manager)
        for request in self._waiting.values():
            if request.is_parked and request.manager is manager and not self._park(request):
                self._unplaced.extend(request.parts)
        self.freed(slots)

    def keep_off(self, slots: NodeResourceManager, manager: DistributedResourceManager) -> None:
        """Let the requests of a manager wait for other nodes than this one."""
        holder = self._fences.get(slots)
        for part in [*self._holders.get(slots, ()), *([holder] if holder else [])]:
            if part.request.manager is manager:
                self._give_up(part)
                self._unplaced.append(part)

    def leave(self, slots: NodeResourceManager, manager: DistributedResourceManager) -> None:
        """Keep the requests of a manager off a node that it has given up."""
        self._members[slots].discard(manager)
        if not self._members[slots]:
            del self._members[slots]
        self.keep_off(slots, manager)
        for request in list(self._waiting.values()):
            if request.manager is manager:
                self._park(request)
        self.freed(slots)

    def freed(self, slots: NodeResourceManager) -> None:
        """Serve whoever waits for what became free on a node."""
        self._moved(slots)
        self._changed.append(slots)
        self.serve()

    def serve(self) -> None:
        """Grant what can be granted."""
        if self._serving:  # a callback has called this: the loop below, which called it, goes on
            return
        self._serving = True
        try:
            while True:
                if self._changed:
                    self._offer(self._changed.popleft())
                elif self._unplaced:
                    self._place(self._unplaced.popleft())
                elif self._granted:
                    request, lease = self._granted.pop(next(iter(self._granted)))
                    request.granted(lease)
                else:
                    break
        finally:
            self._serving = False

    def _offer(self, slots: NodeResourceManager) -> None:
        """Offer a node to those who wait, oldest first, up to the one that has it fenced off."""
        for request in list(self._waiting.values()):
            remote = request.manager.remote_with(slots)
            if remote is None or request.is_parked or remote.remote_id in request.avoid:
                continue
            # What has it fenced off comes first: it drains for that.
            parts = _missing_parts(request)
            if len(parts) > 1:
                parts.sort(key=lambda part: part.fence is not slots)
            for part in parts:
                if slots.free(part.resource) and _could_hold(part, slots):
                    self._hold(part, remote)
                elif part.fence is slots:
                    return
                elif self._may_fence(part, slots) and (
                    part.fence is None or _lack(slots, part) < _lack(part.fence, part)
                ):
                    self._fence(part, slots)
                    return

    def _place(self, part: Part) -> None:
        """Have a part hold slots, or fence the node off on which the least is missing."""
        request = part.request
        if not request.waits or part.held or part.fence is not None:
            return
        self._waiting[request.number] = request
        if request.is_parked:
            return
        for remote in self._choices(part):
            slots = remote.slots
            if (
                self._open_to(part, remote)
                and slots.free(part.resource)
                and _could_hold(part, slots)
            ):
                self._hold(part, remote)
                return
        for remote in request.manager.prospects(part.resource):
            if self._may_fence(part, remote.slots) and remote.remote_id not in request.avoid:
                self._fence(part, remote.slots)
                return

    def _choices(self, part: Part) -> Iterator[Remote]:
        """Nodes with room for a part, the best first: where its gang is, or all of it could be."""
        request = part.request
        if len(request.parts) > 1 and request.resource.ranks_per_node is None:
            yield from dict.fromkeys(one.held[0].remote for one in request.parts if one.held)
            left = sum(one.ranks for one in _missing_parts(request))
            yield from request.manager.choices(request.resource.of_ranks(left))
        yield from request.manager.choices(part.resource)

    def _open_to(self, part: Part, remote: Remote) -> bool:
        if remote.remote_id in part.request.avoid:
            return False
        holder = self._fences.get(remote.slots)
        return holder is None or holder.request.number >= part.request.number

    def _may_fence(self, part: Part, slots: NodeResourceManager) -> bool:
        """Whether a node could hold a part beside what its own gang has there."""
        holder = self._fences.get(slots)
        if holder is not None and holder.request.number <= part.request.number:
            return False
        return _could_hold(part, slots)

    def _fence(self, part: Part, slots: NodeResourceManager) -> None:
        """Keep later requests off a node; what they have there they have to look for elsewhere."""
        self._unfence(part)
        holder = self._fences.get(slots)
        for other in [*self._holders.get(slots, ()), *([holder] if holder else [])]:
            if other.request.number > part.request.number:
                self._give_up(other)
                self._unplaced.append(other)
        self._fences[slots] = part
        part.fence = slots

    def _unfence(self, part: Part) -> None:
        """Open the node that a part has fenced off."""
        if part.fence is None:
            return
        del self._fences[part.fence]
        self._changed.append(part.fence)
        part.fence = None

    def _hold(self, part: Part, remote: Remote) -> None:
        """Have a part hold slots; its request is granted when no other part is missing."""
        self._unfence(part)
        request, slots = part.request, remote.slots
        each = request.resource
        part.held = tuple([Held(remote, slots.allocate(each)) for _ in range(part.ranks)])
        self._moved(slots)
        if not _missing_parts(request):
            self._grant(request)
        else:
            self._holders.setdefault(slots, []).append(part)

    def _give_up(self, part: Part) -> None:
        """Have a part neither hold nor fence off anything."""
        self._unfence(part)
        if not part.held:
            return
        slots = part.held[0].remote.slots
        self._let_go(part, slots)
        for _, allocation in part.held:
            slots.release(allocation)
        part.held = ()
        self._moved(slots)
        self._changed.append(slots)

    def _let_go(self, part: Part, slots: NodeResourceManager) -> None:
        holders = self._holders.get(slots, [])
        if part in holders:
            holders.remove(part)
            if not holders:
                del self._holders[slots]

    def _give_all_up(self, request: LeaseRequest) -> None:
        for part in request.parts:
            self._give_up(part)

    def _park(self, request: LeaseRequest) -> bool:
        """Let a gang that all nodes together could not hold keep nobody off any; whether it is so.

        (A request of one part has a fence only where it fits.)
        """
        if len(request.parts) > 1 and request.waits:
            request.is_parked = not request.manager.can_meet(request.resource)
            if request.is_parked:
                self._give_all_up(request)
        return request.is_parked

    def _grant(self, request: LeaseRequest) -> None:
        held = tuple(itertools.chain.from_iterable(part.held for part in request.parts))
        if len(held) > 1:  # the ranks of a node one after the other, where most of them are first
            ranks = Counter(remote.remote_id for remote, _ in held)
            held = tuple(sorted(held, key=lambda one: (-ranks[one.remote.remote_id], _id(one))))
        lease = Lease(request.number, held)
        request.waits = False
        del self._waiting[request.number]
        for part in request.parts:  # what they have held is the lease's
            self._let_go(part, part.held[0].remote.slots)
            part.held = ()
        request.parts.clear()  # which know it: two that know each other stay until gc finds them
        for remote, _ in held:
            request.manager.leases[remote.remote_id][request.number] = lease
        self._granted[request.number] = request, lease

    def _moved(self, slots: NodeResourceManager) -> None:
        for manager in self._members.get(slots, ()):
            manager.note_level(slots)


class DistributedResourceManager:
    """The slots of all nodes of one search.

        manager = DistributedResourceManager()
        manager.add(remote)
        manager.check(resource)                                # could it ever run?
        request = manager.request(resource, granted=launch)    # launch(lease), now or later
        manager.release(lease)                                 # when the trial has ended

    `remotes` maps remote ids to nodes, `changes` is how often one came or was to go. Managers share
    one queue (that of the process when it is None), and may share nodes: whoever asked first is
    served first. To be used from one thread.
    """

    def __init__(self, queue: LeaseQueue | None = None) -> None:
        self.queue = shared_queue() if queue is None else queue
        self.remotes: dict[int, Remote] = {}
        self.changes = 0
        self.leases: dict[int, dict[int, Lease]] = {}
        self._by_slots: dict[NodeResourceManager, Remote] = {}
        # Nodes that are equally full stand together: few levels to look at, however many nodes.
        self._at_level: dict[Level, dict[int, Remote]] = {}
        self._level_of: dict[int, Level] = {}
        self._resting: set[int] = set()
        self._draining: set[int] = set()  # of those that rest: they are to go

    def add(self, remote: Remote) -> None:
        """Take a node in and serve who waits for it; ResourceError if its id is taken."""
        if remote.remote_id in self.remotes:
            raise ResourceError(f"remote id {remote.remote_id} is taken; give each node its own")
        self.remotes[remote.remote_id] = remote
        self.changes += 1
        self.leases[remote.remote_id] = {}
        self._by_slots[remote.slots] = remote
        self.queue.join(remote.slots, self)

    def remove(self, remote: Remote) -> None:
        """Give a node up, if it is known; its leases are void, releasing them later is harmless."""
        if self.remotes.get(remote.remote_id) is not remote:
            return
        del self.remotes[remote.remote_id], self._by_slots[remote.slots]
        self.changes += 1
        self._resting.discard(remote.remote_id)
        self._draining.discard(remote.remote_id)
        self._forget_level(remote)
        # Another search may go on with this node, so its slots have to be free.
        for lease in self.leases.pop(remote.remote_id).values():
            for where, allocation in lease.held:
                if where is remote:
                    remote.slots.release(allocation)
        self.queue.leave(remote.slots, self)

    def rest(self, remote: Remote) -> None:
        """Lease nothing more of a node until `wake`; what is leased stays so."""
        if self.remotes.get(remote.remote_id) is remote:
            self._resting.add(remote.remote_id)
            self._forget_level(remote)
            self.queue.keep_off(remote.slots, self)
            self.queue.serve()

    def wake(self, remote: Remote) -> None:
        """Lease of a node again, if it is still there, and serve who waits for it."""
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
        """Use a node again that was to go."""
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
        """Raise ResourceError, which says what every node has, if they can never meet this."""
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
        """How many parts of a request like this one all nodes can hold at once."""
        _, ranks = resource.parts
        needed, most = resource.of_ranks(ranks), resource.ranks_per_node is None
        held = (remote.slots.most(needed) for remote in self._staying)
        return sum(each if most else min(each, 1) for each in held)

    def room_for(self, resource: Resource) -> int:
        """How many requests like this one all nodes can meet at once, when nothing else runs."""
        count, ranks = resource.parts
        needed = resource.of_ranks(ranks)  # other threads ask, too: of a copy
        return sum(remote.slots.most(needed) for remote in self._staying) // count

    def request(
        self,
        resource: Resource,
        granted: Callable[[Lease], None],
        avoid: Collection[int] = (),
    ) -> LeaseRequest:
        """Ask for slots; `granted(lease)` is called when they are leased, at once or later.

        All or nothing, in order of request, on none of the nodes to `avoid` (ids). A request that
        fits on no node waits for one that is added: use `check` to refuse it.
        """
        request = LeaseRequest(next(self.queue.numbers), self, resource, granted, avoid)
        self.queue.submit(request)
        return request

    def release(self, lease: Lease) -> None:
        """Give slots back and serve who waits; harmless for a lease that is void."""
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
        """The node whose slots these are, if it belongs to this manager."""
        remote = self._by_slots.get(slots)
        return None if remote is None or remote.remote_id in self._resting else remote

    def choices(self, resource: Resource) -> Iterator[Remote]:
        """Nodes with free CPUs and GPUs for this, the best first."""
        levels = [level for level in self._at_level if level.admits(resource)]
        if len(levels) > 1:
            levels.sort(key=lambda level: level.preference(resource))
        return itertools.chain.from_iterable(self._at_level[level].values() for level in levels)

    def prospects(self, resource: Resource) -> Iterator[Remote]:
        """All nodes, those on which the least is missing for this first."""
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


@lru_cache(maxsize=1)
def shared_queue() -> LeaseQueue:
    """The queue of this process."""
    return LeaseQueue()


os.register_at_fork(after_in_child=shared_queue.cache_clear)


def _missing_parts(request: LeaseRequest) -> list[Part]:
    return [part for part in request.parts if not part.held]


def _could_hold(part: Part, slots: NodeResourceManager) -> bool:
    """Whether the empty node could hold a part beside those of its gang that are there."""
    request = part.request
    if len(request.parts) == 1:
        return slots.fits(part.resource)
    there = [
        one
        for one in request.parts
        if one is not part and one.held and one.held[0].remote.slots is slots
    ]
    if request.resource.ranks_per_node is not None:
        fenced = any(one.fence is slots for one in request.parts if one is not part)
        return not there and not fenced and slots.fits(part.resource)
    ranks = part.ranks + sum(one.ranks for one in there)
    return slots.fits(request.resource.of_ranks(ranks))


def _lack(slots: NodeResourceManager, part: Part) -> float:
    return slots.level.missing(part.resource)


def _id(held: Held) -> int:
    return held.remote.remote_id


def _describe(remote: Remote) -> str:
    facts = remote.facts
    gigabytes = facts.memory_bytes / 1e9
    return f"{remote.host} has {facts.num_cpus} CPUs, {len(facts.gpus)} GPUs, {gigabytes:.1f} GB"
