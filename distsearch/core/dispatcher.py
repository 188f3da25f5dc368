"""Free slots get trials: the manager is asked for slots, and the source for who takes them."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import shown
from ..resource.leases import Lease, LeaseRequest
from ..resource.manager import DistributedResourceManager
from ..resource.remote import Remote
from ..resource.resource import Resource
from .attempt import Attempt, Verdict
from .queue import Queue
from .source import Source
from .suspects import Suspects
from .words import Status, Trial


class Dispatcher:
    """Fills the slots of all nodes, except nodes on which trials have just failed.

        dispatcher.fill()                        # something may start now
        dispatcher.withdraw()                    # nothing is to start any more
        dispatcher.ended_on_node(attempt, verdict)

    `may_start()`: whether the search starts anything now. `start(trial, lease)` is called for a
    trial that has its slots, `on_error(reason, error)` when the rule or the searcher fails,
    `on_filled()` when nothing more fits.
    """

    def __init__(
        self,
        manager: DistributedResourceManager,
        resource: Resource,
        source: Source,
        queue: Queue,
        *,
        may_start: Callable[[], bool],
        start: Callable[[Trial, Lease], None],
        on_error: Callable[[str, BaseException], None],
        on_filled: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._manager = manager
        self._resource = resource
        self._source = source
        self._queue = queue
        self._may_start = may_start
        self._start = start
        self._on_error = on_error
        self._on_filled = on_filled
        self.suspects = Suspects(say, self._ask_anew)
        self.request: LeaseRequest | None = None  # the request for slots that waits for room
        self._is_filling = False

    def fill(self) -> None:
        """Launch what fits; ask for one slot more than there are."""
        self._is_filling = True
        while self.request is None and self._may_start() and self._source.has_more:
            request = self._manager.request(self._resource, self._granted, self._avoided())
            if request.waits:
                self.request = request
        self._is_filling = False
        self._on_filled()

    def withdraw(self) -> None:
        """Take back the request for slots."""
        if self.request is not None:
            self.request.cancel()
            self.request = None

    def _ask_anew(self) -> None:
        """Ask for slots again: other nodes may be used now."""
        self.withdraw()
        self.fill()

    def _granted(self, lease: Lease) -> None:
        self.request = None
        trial = self._next_trial(lease.held[0].remote) if self._may_start() else None
        if trial is None:
            self._manager.release(lease)
        else:
            self._start(trial, lease)
        if not self._is_filling:
            self.fill()

    def _next_trial(self, remote: Remote) -> Trial | None:
        def suits(trial: Trial) -> bool:
            avoided = self.suspects.avoided(trial, self._usable) if self.suspects else ()
            return remote.remote_id not in avoided

        try:
            return self._source.next(remote.host, suits)
        except BaseException as error:  # sys.exit() too: it would end the loop's thread
            self._on_error(f"the searcher or the rule failed: {shown(error)}", error)
            return None

    # Nodes to avoid

    @property
    def _usable(self) -> dict[int, Remote]:
        """The nodes that have what a trial needs, by their ids."""
        remotes = self._manager.remotes.items()
        return {number: one for number, one in remotes if one.slots.fits(self._resource)}

    def _avoided(self) -> set[int]:
        """The ids of the nodes on which no trial that could start now is to start."""
        if not self.suspects:
            return set()
        usable = self._usable
        if self._source.may_have_another:
            return self.suspects.avoided(None, usable)
        each = [self.suspects.avoided(trial, usable) for trial in self._queue.ready]
        return set.intersection(*each) if each else set()

    def ended_on_node(self, attempt: Attempt, verdict: Verdict) -> None:
        """Take note of how a trial has ended on its node, which may be to blame."""
        (status, reason), remote = verdict, attempt.remotes[0]
        # (Where ranks ran on several nodes, nobody knows which node was to blame.)
        if status is Status.NODE_LOST or len(attempt.remotes) > 1:
            return
        if not status.is_failure:
            self.suspects.did_well(remote)
            return
        others = [one for one in self._usable.values() if one is not remote]
        self.suspects.failed(attempt.trial, remote, status, reason, others)
        if self.request is not None and self.request.avoid != self._avoided():
            self.withdraw()
