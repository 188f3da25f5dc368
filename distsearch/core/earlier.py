"""What an earlier run has left: attempts that ended with it, and trials that have not ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import nodes
from .attempt import Verdict
from .children import Children
from .ends import Ends
from .keeper import Keeper
from .ledger import Ledger
from .phrases import counted
from .queue import Queue
from .rule import Rule, replay
from .store import Event
from .words import Status, Trial

DRIVER_GONE = "its driver was gone"


class Earlier:
    """Takes up an earlier run from its log: nothing that has ended runs again, the rest does.

        earlier.restore(store.read(folder), rule, keeper)    # before the first run()
        earlier.close_attempts()                             # at the first run() or single trial
        earlier.queue_unfinished()                           # at each run()

    `ended`: how many trials had ended by then, or were paused.
    """

    def __init__(
        self,
        ledger: Ledger,
        queue: Queue,
        children: Children,
        ends: Ends,
        say: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._children = children
        self._ends = ends
        self._say = say
        self.ended = 0
        # When no agent of the last driver can run anything any more; None: nothing is to be closed.
        self._lease_until: float | None = None

    def restore(self, events: Iterable[Event], rule: Rule, keeper: Keeper) -> None:
        """Let ledger, rule and keeper hear the events of an earlier run, in their order."""
        for event in events:
            replay(event, self._ledger, rule)
            keeper.leftovers.hears(event)
        keeper.leftovers.heard_all()
        self.ended = self._ledger.counts.ended + self._ledger.counts.paused
        self._lease_until = time.monotonic() + nodes.NODE_LEASE_S + nodes.LEASE_GRACE_S

    @property
    def has_open_attempts(self) -> bool:
        """Whether the log has attempts of the last driver for which `close_attempts` is due."""
        return self._lease_until is not None

    def close_attempts(self) -> None:
        """Log what became of the attempts that the last driver left, and carry out its decisions.

        A trial that may still run on another node starts only when that node's lease is over.
        """
        if self._lease_until is None:
            return
        lease_s = max(0.0, self._lease_until - time.monotonic())
        self._lease_until = None
        unconfirmed = [self._ledger.trials[trial_id] for trial_id in self._ledger.unconfirmed]
        for trial in unconfirmed:
            self._queue.ends(trial, lease_s)
        for trial in list(self._ledger.open.values()):
            if trial.status is Status.RUNNING:
                self._close_attempt(trial)
        waiting = [trial for trial in unconfirmed if trial.status is Status.WAITING]
        if waiting and lease_s:
            self._say(
                f"{counted(len(waiting))} may still run on nodes that the last driver did not "
                "close: they go on when that is over for sure"
            )

    def _close_attempt(self, trial: Trial) -> None:
        facts: dict[str, Any] = {"seconds": 0.0}  # for how long it ran is not known
        if trial.id in self._ledger.unconfirmed:
            facts["is_over"] = False
        if trial.id in self._ledger.decided:
            self._ends.carry_out(trial, Verdict(Status.STOPPED, DRIVER_GONE), facts)
        else:
            self._ends.interrupted(trial, DRIVER_GONE, facts)

    def queue_unfinished(self) -> None:
        """Queue the trials that an interrupted run left; `run_with_config` takes up its own."""
        for trial in self._in_no_queue():
            if trial.is_final or trial in self._children:
                continue
            if trial.parents and trial.inherits is None:
                self._children.add(trial)
            else:
                self._queue.put(trial)

    def unfinished_final(self, config: Mapping[str, Any]) -> Trial | None:
        """The trial of an interrupted `run_with_config` with this configuration."""
        for trial in self._in_no_queue():
            if trial.is_final and dict(trial.config) == dict(config):
                return trial
        return None

    def _in_no_queue(self) -> list[Trial]:
        waiting = (one for one in self._ledger.open.values() if one.status is Status.WAITING)
        return [trial for trial in waiting if trial not in self._queue]
