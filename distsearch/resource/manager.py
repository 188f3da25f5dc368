"""Slots leased over all nodes: all-or-nothing, in order of request, starving none.

A request that fits on no node now fences one off: the node on which the least is missing. Later
requests keep off that node, so it drains until the request fits, and use all others meanwhile.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..errors import ResourceError
from .remote import Remote
from .resource import Resource
from .slots import Allocation, Level, NodeResourceManager


@dataclass(frozen=True)
class Lease:
    """Slots of one node, held from the grant until `DistributedResourceManager.release`."""

    remote: Remote
    allocation: Allocation
    number: int


@dataclass(eq=False)
class LeaseRequest:
    """A request in the queue; `fence` is the node that it keeps later requests off."""

    number: int
    manager: DistributedResourceManager
    resource: Resource
    granted: Callable[[Lease], None]
    avoid: Collection[int] = ()  # ids of nodes
    waits: bool = True
    fence: NodeResourceManager | None = None

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
        self._fences: dict[NodeResourceManager, LeaseRequest] = {}
        self._members: dict[NodeResourceManager, set[DistributedResourceManager]] = {}
        # Nodes that may have room which nobody was offered, requests that have yet to look at the
        # nodes, and leases that are not handed over yet.
        self._changed: deque[NodeResourceManager] = deque()
        self._unplaced: deque[LeaseRequest] = deque()
        self._granted: dict[int, tuple[LeaseRequest, Lease]] = {}
        self._serving = False

    def submit(self, request: LeaseRequest) -> None:
        """Put a request at the end of the queue."""
        self._unplaced.append(request)
        self.serve()

    def withdraw(self, request: LeaseRequest) -> None:
        """Take a request out of the queue."""
        request.waits = False
        self._waiting.pop(request.number, None)
        self.unfence(request)
        if request.number in self._granted:
            _, lease = self._granted.pop(request.number)
            request.manager.release(lease)
        self.serve()

    def join(self, slots: NodeResourceManager, manager: DistributedResourceManager) -> None:
        """Offer a node to the requests of a manager."""
        self._members.setdefault(slots, set()).add(manager)
        self.freed(slots)

    def leave(self, slots: NodeResourceManager, manager: DistributedResourceManager) -> None:
        """Keep the requests of a manager off a node that it has given up."""
        holder = self._fences.get(slots)
        if holder is not None and holder.manager is manager:
            self.unfence(holder)
            self._unplaced.append(holder)
        self._members[slots].discard(manager)
        if not self._members[slots]:
            del self._members[slots]
        self.freed(slots)

    def freed(self, slots: NodeResourceManager) -> None:
        """Serve whoever waits for what became free on a node."""
        self._moved(slots)
        self._changed.append(slots)
        self.serve()

    def unfence(self, request: LeaseRequest) -> None:
        """Open the node that a request has fenced off."""
        if request.fence is None:
            return
        del self._fences[request.fence]
        self._changed.append(request.fence)
        request.fence = None

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
            if remote is None or remote.remote_id in request.avoid:
                continue
            if slots.free(request.resource):
                self._grant(request, remote)
            elif request.fence is slots:
                return
            elif slots.fits(request.resource) and (
                request.fence is None or _missing(slots, request) < _missing(request.fence, request)
            ):
                self._fence(request, slots)
                return

    def _place(self, request: LeaseRequest) -> None:
        """Grant a request, or fence the node off on which the least is missing."""
        if not request.waits or request.fence is not None:
            return
        self._waiting[request.number] = request
        for remote in request.manager.choices(request.resource):
            if self._open_to(request, remote) and remote.slots.free(request.resource):
                self._grant(request, remote)
                return
        for remote in request.manager.prospects(request.resource):
            if self._open_to(request, remote) and remote.slots.fits(request.resource):
                self._fence(request, remote.slots)
                return

    def _open_to(self, request: LeaseRequest, remote: Remote) -> bool:
        if remote.remote_id in request.avoid:
            return False
        holder = self._fences.get(remote.slots)
        return holder is None or holder.number >= request.number

    def _fence(self, request: LeaseRequest, slots: NodeResourceManager) -> None:
        self.unfence(request)
        holder = self._fences.get(slots)
        if holder is not None:  # a later request: it has to look for another node
            holder.fence = None
            self._unplaced.append(holder)
        self._fences[slots] = request
        request.fence = slots

    def _grant(self, request: LeaseRequest, remote: Remote) -> None:
        lease = Lease(remote, remote.slots.allocate(request.resource), request.number)
        self._moved(remote.slots)
        request.waits = False
        del self._waiting[request.number]
        self.unfence(request)
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

    `remotes` maps remote ids to nodes. Managers share one queue (that of the process when it is
    None), and may share nodes: whoever asked first is served first. To be used from one thread.
    """

    def __init__(self, queue: LeaseQueue | None = None) -> None:
        self.queue = shared_queue() if queue is None else queue
        self.remotes: dict[int, Remote] = {}
        self.leases: dict[int, dict[int, Lease]] = {}
        self._by_slots: dict[NodeResourceManager, Remote] = {}
        # Nodes that are equally full stand together: few levels to look at, however many nodes.
        self._at_level: dict[Level, dict[int, Remote]] = {}
        self._level_of: dict[int, Level] = {}

    def add(self, remote: Remote) -> None:
        """Take a node in and serve who waits for it; ResourceError if its id is taken."""
        if remote.remote_id in self.remotes:
            raise ResourceError(f"remote id {remote.remote_id} is taken; give each node its own")
        self.remotes[remote.remote_id] = remote
        self.leases[remote.remote_id] = {}
        self._by_slots[remote.slots] = remote
        self.queue.join(remote.slots, self)

    def remove(self, remote: Remote) -> None:
        """Give a node up, if it is known; its leases are void, releasing them later is harmless."""
        if self.remotes.get(remote.remote_id) is not remote:
            return
        del self.remotes[remote.remote_id], self._by_slots[remote.slots]
        self._forget_level(remote)
        # Another search may go on with this node, so its slots have to be free.
        for lease in self.leases.pop(remote.remote_id).values():
            remote.slots.release(lease.allocation)
        self.queue.leave(remote.slots, self)

    def check(self, resource: Resource) -> None:
        """Raise ResourceError, which says what every node has, if no node can ever meet this."""
        if any(remote.slots.fits(resource) for remote in self.remotes.values()):
            return
        if not self.remotes:
            raise ResourceError(f"{resource} cannot be met: no node is up; add one")
        has = [_describe(remote) for remote in itertools.islice(self.remotes.values(), 16)]
        more = f"; and {len(self.remotes) - 16} more" if len(self.remotes) > 16 else ""
        raise ResourceError(
            f"{resource} fits on no node: {'; '.join(has)}{more}. Ask for less, or add a node"
        )

    def room_for(self, resource: Resource) -> int:
        """How many requests like this one all nodes can meet at once, when nothing else runs."""
        total = 0
        for remote in list(self.remotes.values()):  # other threads ask, too
            fits = [math.inf]
            if resource.num_cpus:
                fits.append(remote.facts.num_cpus // resource.num_cpus)
            if resource.num_gpus:
                fits.append(math.floor(len(remote.facts.gpus) / resource.num_gpus))
            total += int(min(fits))
        return total

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
        remote = lease.remote
        if self.remotes.get(remote.remote_id) is not remote:
            return
        if self.leases[remote.remote_id].pop(lease.number, None) is None:
            return
        remote.slots.release(lease.allocation)
        self.queue.freed(remote.slots)

    def remote_with(self, slots: NodeResourceManager) -> Remote | None:
        """The node whose slots these are, if it belongs to this manager."""
        return self._by_slots.get(slots)

    def choices(self, resource: Resource) -> Iterator[Remote]:
        """Nodes with free CPUs and GPUs for this, the best first."""
        levels = [level for level in self._at_level if level.admits(resource)]
        levels.sort(key=lambda level: level.preference(resource))
        return itertools.chain.from_iterable(self._at_level[level].values() for level in levels)

    def prospects(self, resource: Resource) -> Iterator[Remote]:
        """All nodes, those on which the least is missing for this first."""
        levels = sorted(self._at_level, key=lambda level: level.missing(resource))
        return itertools.chain.from_iterable(self._at_level[level].values() for level in levels)

    def note_level(self, slots: NodeResourceManager) -> None:
        """Take note of how full a node is now."""
        remote = self._by_slots[slots]
        self._forget_level(remote)
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


def _missing(slots: NodeResourceManager, request: LeaseRequest) -> float:
    return slots.level.missing(request.resource)


def _describe(remote: Remote) -> str:
    facts = remote.facts
    gigabytes = facts.memory_bytes / 1e9
    return f"{remote.host} has {facts.num_cpus} CPUs, {len(facts.gpus)} GPUs, {gigabytes:.1f} GB"
