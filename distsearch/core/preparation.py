"""From an attempt's slots to its start: checkpoints are brought, ranks meet, nodes are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .attempt import Attempt
from .ends import NO_FACTS
from .keeper import Keeper
from .meeting import Meeting, Meetings
from .orders import starts_of
from .outcome import Outcome
from .settings import Settings
from .words import Status, Trial


class Preparation:
    """Has attempts start, once what they begin with is on their nodes; used in the loop's thread.

        preparation.prepare(attempt)             # when its event `started` is on the disk
        preparation.forget(attempt)              # when the attempt is over

    `due_at(trial)`: at which reports the trial waits for a decision. For an attempt that does not
    start, one of two is called: `on_failed(attempt, outcome)` where it was stopped meanwhile, or
    its ranks do not reach each other; `on_orphaned(attempt, parents)` where the weights of these
    parents are lost.
    """

    def __init__(
        self,
        settings: Settings,
        keeper: Keeper,
        *,
        due_at: Callable[[Trial], str | Sequence[float] | None],
        on_failed: Callable[[Attempt, Outcome], None],
        on_orphaned: Callable[[Attempt, Sequence[Trial]], None],
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._due_at = due_at
        self._on_failed = on_failed
        self._on_orphaned = on_orphaned
        self.meetings = Meetings(keeper, on_met=self._start, on_failed=self._cannot_meet)
        self._transports: set[asyncio.Task[None]] = set()

    def prepare(self, attempt: Attempt) -> None:
        """Have an attempt start, once the checkpoints that it needs are on its nodes."""
        if attempt.is_over or attempt.verdict is not None:
            self._start(attempt)
        elif self._keeper.is_ready(attempt):
            self.meetings.arrange(attempt)
        else:
            task = asyncio.get_running_loop().create_task(self._bring(attempt))
            self._transports.add(task)
            task.add_done_callback(self._transports.discard)

    async def _bring(self, attempt: Attempt) -> None:
        lost = await self._keeper.prepare(attempt)
        # A trial that has saved starts with what is there; a child needs its parents' weights.
        if attempt.is_over or attempt.verdict is not None:
            self._start(attempt)
        elif lost and attempt.trial.saved_step is None:
            self._on_orphaned(attempt, lost)
        else:
            self.meetings.arrange(attempt)

    def _start(self, attempt: Attempt, meeting: Meeting | None = None) -> None:
        """Tell the nodes to start an attempt, unless it is over or was stopped meanwhile."""
        if attempt.is_over:
            return
        due = None
        if attempt.verdict is None and not attempt.trial.is_final:
            due = self._due_at(attempt.trial)  # (where the rule fails, the attempt is stopped)
        if attempt.verdict is not None:
            self._on_failed(attempt, Outcome(*attempt.verdict, NO_FACTS))
            return
        storage = self._keeper.names_in_storage(attempt)
        attempt.begin(starts_of(self._settings, attempt, due, storage, meeting))

    def _cannot_meet(self, attempt: Attempt, reason: str) -> None:
        self._on_failed(attempt, Outcome(Status.NODE_LOST, reason, NO_FACTS))

    def forget(self, attempt: Attempt) -> None:
        """Take note that an attempt is over, so that its ranks need not meet any more."""
        self.meetings.forget(attempt)
