"""Slots leased all-or-nothing, in order of request, starving none: the queue of all who wait.

A request has a part for each node that it needs at once: one, or several for a gang. A part that
fits on no node now fences one off: the node on which the least is missing. Later requests keep off
that node, so it drains until the part fits, and use all others meanwhile. What a part has got is
held until all parts have their slots; an older request that turns to a node takes it from younger
ones there. So the oldest waits for nothing but trials that run, and no two gangs wait for each
other.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

from .remote import Remote
from .resource import Resource
from .slots import Allocation, NodeResourceManager


class Held(NamedTuple):
    """The slots of one process, and their node."""

    remote: Remote
    allocation: Allocation


@dataclass(frozen=True)
class Lease:
    """Slots, from when they are granted until `DistributedResourceManager.release`.

    `held`: the slots of each rank; ranks on one node stand one after the other.
    """

    number: int
    held: tuple[Held, ...]


class Manager(Protocol):
    """The nodes of one search, as the queue sees them: see `DistributedResourceManager`.

    `queue`: where its requests wait. `leases`: the leases of each node, by the node's id and their
    numbers.
    """

    queue: LeaseQueue
    leases: dict[int, dict[int, Lease]]

    def remote_with(self, slots: NodeResourceManager) -> Remote | None:
        """The node whose slots these are, if the search may lease of it."""

    def choices(self, resource: Resource) -> Iterator[Remote]:
        """The nodes with free CPUs and GPUs for a request, the best first."""

    def prospects(self, resource: Resource) -> Iterator[Remote]:
        """All nodes, those first on which the least is missing for a request."""

    def can_meet(self, resource: Resource) -> bool:
        """Whether the nodes could ever meet a request, when nothing else runs."""

    def release(self, lease: Lease) -> None:
        """Give slots back, and serve requests that wait for them."""

    def note_level(self, slots: NodeResourceManager) -> None:
        """Take note of how full a node is now."""


@dataclass(eq=False)
class Part:
    """What a request needs at once on one node.

    `fence`: the node off which the part keeps later requests. `held`: the slots that it has.
    """

    request: LeaseRequest
    ranks: int
    resource: Resource  # what all ranks of the part need together
    fence: NodeResourceManager | None = None
    held: tuple[Held, ...] = ()


@dataclass(eq=False)
class LeaseRequest:
    """A request for slots; `is_parked`: all nodes together could not meet it."""

    number: int
    manager: Manager
    resource: Resource
    granted: Callable[[Lease], None]
    avoid: Collection[int] = ()  # ids of nodes on which it wants no slots
    waits: bool = True
    is_parked: bool = False
    parts: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        count, ranks = self.resource.parts
        resource = self.resource.of_ranks(ranks)
        self.parts = [Part(self, ranks, resource) for _ in range(count)]

    @property
    def fences(self) -> list[NodeResourceManager]:
        """The nodes off which the request keeps later requests."""
        return [part.fence for part in self.parts if part.fence is not None]

    def cancel(self) -> None:
        """Leave the queue; nothing happens once `granted` was called."""
        self.manager.queue.withdraw(self)


class LeaseQueue:
    """The requests of all managers of a process, oldest first, so that searches share fairly.

        queue = LeaseQueue()
        first, second = DistributedResourceManager(queue), DistributedResourceManager(queue)

    To be used from one thread. `granted` is called before the outermost call returns, and never
    inside another `granted`: what that asks for is served after it has returned.
    """

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self._waiting: dict[int, LeaseRequest] = {}
        self._fences: dict[NodeResourceManager, Part] = {}
        self._members: dict[NodeResourceManager, set[Manager]] = {}
        # By node: the parts that hold slots there while other parts of their requests wait.
        self._holders: dict[NodeResourceManager, list[Part]] = {}
        # Nodes that may have room for requests that wait; parts that have yet to look at the nodes;
        # and leases for which `granted` was not called yet.
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

    def join(self, slots: NodeResourceManager, manager: Manager) -> None:
        """Offer a node to the requests of a manager."""
        self._members.setdefault(slots, set()).add(manager)
        for request in self._waiting.values():
            if request.is_parked and request.manager is manager and not self._park(request):
                self._unplaced.extend(request.parts)
        self.freed(slots)

    def keep_off(self, slots: NodeResourceManager, manager: Manager) -> None:
        """Let the requests of a manager neither hold slots of a node nor wait for it."""
        holder = self._fences.get(slots)
        for part in [*self._holders.get(slots, ()), *([holder] if holder else [])]:
            if part.request.manager is manager:
                self._give_up(part)
                self._unplaced.append(part)

    def leave(self, slots: NodeResourceManager, manager: Manager) -> None:
        """Offer a node to a manager no longer, which has given it up."""
        self._members[slots].discard(manager)
        if not self._members[slots]:
            del self._members[slots]
        self.keep_off(slots, manager)
        for request in list(self._waiting.values()):
            if request.manager is manager:
                self._park(request)
        self.freed(slots)

    def freed(self, slots: NodeResourceManager) -> None:
        """Serve the requests that wait for what has become free on a node."""
        self._moved(slots)
        self._changed.append(slots)
        self.serve()

    def serve(self) -> None:
        """Grant what can be granted."""
        if self._serving:  # (called by a callback of the loop below, which goes on)
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
        """Offer a node to the requests, oldest first, up to the one that has it fenced off."""
        for request in list(self._waiting.values()):
            remote = request.manager.remote_with(slots)
            if remote is None or request.is_parked or remote.remote_id in request.avoid:
                continue
            # The part that has fenced the node off comes first: for it the node drains.
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
        """Let a part hold slots, or else fence off the node on which the least is missing."""
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
        """Nodes with room for a part, the best first: where its gang is, or could be as a whole."""
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
        """Whether a part may fence off a node, which could hold it beside its gang's others."""
        holder = self._fences.get(slots)
        if holder is not None and holder.request.number <= part.request.number:
            return False
        return _could_hold(part, slots)

    def _fence(self, part: Part, slots: NodeResourceManager) -> None:
        """Let a part keep later requests off a node; what they hold there, they give up."""
        self._unfence(part)
        holder = self._fences.get(slots)
        for other in [*self._holders.get(slots, ()), *([holder] if holder else [])]:
            if other.request.number > part.request.number:
                self._give_up(other)
                self._unplaced.append(other)
        self._fences[slots] = part
        part.fence = slots

    def _unfence(self, part: Part) -> None:
        """Let a part keep no requests off its node any more."""
        if part.fence is None:
            return
        del self._fences[part.fence]
        self._changed.append(part.fence)
        part.fence = None

    def _hold(self, part: Part, remote: Remote) -> None:
        """Let a part hold slots of a node; with the last part its request is granted."""
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
        """Let a part neither hold slots nor fence off a node."""
        self._unfence(part)
        if not part.held:
            return
        slots = part.held[0].remote.slots
        self._forget_holder(part, slots)
        for _, allocation in part.held:
            slots.release(allocation)
        part.held = ()
        self._moved(slots)
        self._changed.append(slots)

    def _forget_holder(self, part: Part, slots: NodeResourceManager) -> None:
        """Take note that a part does not hold slots of a node while others of its gang wait."""
        holders = self._holders.get(slots, [])
        if part in holders:
            holders.remove(part)
            if not holders:
                del self._holders[slots]

    def _give_all_up(self, request: LeaseRequest) -> None:
        for part in request.parts:
            self._give_up(part)

    def _park(self, request: LeaseRequest) -> bool:
        """Park a gang that all nodes together could not hold: it keeps no request off; True if so.

        (A request of one part has a fence only where it fits.)
        """
        if len(request.parts) > 1 and request.waits:
            request.is_parked = not request.manager.can_meet(request.resource)
            if request.is_parked:
                self._give_all_up(request)
        return request.is_parked

    def _grant(self, request: LeaseRequest) -> None:
        held = tuple(itertools.chain.from_iterable(part.held for part in request.parts))
        if len(held) > 1:  # ranks of one node stand together; the node with most of them first
            ranks = Counter(remote.remote_id for remote, _ in held)
            held = tuple(sorted(held, key=lambda one: (-ranks[one.remote.remote_id], _id(one))))
        lease = Lease(request.number, held)
        request.waits = False
        del self._waiting[request.number]
        for part in request.parts:  # their slots are the lease's now
            self._forget_holder(part, part.held[0].remote.slots)
            part.held = ()
        request.parts.clear()  # (parts and request refer to each other: only gc would free them)
        for remote, _ in held:
            request.manager.leases[remote.remote_id][request.number] = lease
        self._granted[request.number] = request, lease

    def _moved(self, slots: NodeResourceManager) -> None:
        for manager in self._members.get(slots, ()):
            manager.note_level(slots)


@lru_cache(maxsize=1)
def shared_queue() -> LeaseQueue:
    """The queue of this process."""
    return LeaseQueue()


os.register_at_fork(after_in_child=shared_queue.cache_clear)


def _missing_parts(request: LeaseRequest) -> list[Part]:
    return [part for part in request.parts if not part.held]


def _could_hold(part: Part, slots: NodeResourceManager) -> bool:
    """Whether a node, if nothing else ran there, could hold a part beside its gang's others."""
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
