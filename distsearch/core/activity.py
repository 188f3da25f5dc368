"""Whether a search has anything left to do, since when it runs, and when it comes to rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .attempts import Attempts
from .children import Children
from .ends import CLOSED
from .keeper import Keeper
from .ledger import Ledger
from .search import Search
from .shortage import Shortage
from .source import Source


class Activity:
    """Watches a search until nothing runs and nothing will be launched; used in the loop's thread.

        activity.begin_run(time_out_s=60.0)
        activity.look()                  # whenever the last thing to do may have been done
        await activity.wait()            # until the search has come to rest
        activity.begin()                 # a single trial is to run after that

    `started_at`, `ended_at`, `deadline`: when the search first ran in this driver, came to rest,
    and is to end, in seconds of `time.monotonic()`. `only_held()` is called where nothing is left
    but what is paused by request, `when_durable(call)` calls once all that was logged is on the
    disk.
    """

    def __init__(
        self,
        search: Search,
        ledger: Ledger,
        attempts: Attempts,
        children: Children,
        source: Source,
        keeper: Keeper,
        shortage: Shortage,
        *,
        only_held: Callable[[], None],
        when_durable: Callable[[Callable[[], None]], None],
    ) -> None:
        self._search = search
        self._ledger = ledger
        self._attempts = attempts
        self._children = children
        self._keeper = keeper
        self._shortage = shortage
        self._source = source
        self._only_held = only_held
        self._when_durable = when_durable
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None  # ends the search at its deadline
        self._idle = asyncio.Event()
        self._idle.set()

    def begin_run(self, time_out_s: float | None) -> None:
        """A run() begins, which ends the search after so many seconds, if it still goes on."""
        self._cancel_timer()
        self.deadline = None
        self.begin()
        if time_out_s is not None:
            self.deadline = time.monotonic() + time_out_s
            self._timer = asyncio.get_running_loop().call_later(
                time_out_s, self._search.end, f"time_out={time_out_s:g} s is over"
            )

    def begin(self) -> None:
        """Something is to run from now on."""
        self.started_at = self.started_at or time.monotonic()
        self.ended_at = None
        self._idle.clear()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing is to be launched."""
        return self._idle.is_set()

    async def wait(self) -> None:
        """Return when nothing runs and nothing more will be launched."""
        await self._idle.wait()

    def look(self) -> None:
        """Come to rest when nothing runs and nothing is to be launched."""
        if self._attempts:
            self._shortage.look()
            return
        if self._children and not self._is_busy:  # the parents that they wait for will not go on
            before = len(self._children)
            self._search.queue_children(stuck=True)
            if len(self._children) < before:
                self._search.wake()
                return
        if self._is_busy:
            self._shortage.look()
            if not self._source.expects_more and not self._search.ending:
                self._only_held()
            return
        self._shortage.end()
        self._cancel_timer()
        ending = self._search.ending
        if ending and ending != CLOSED and self._source.has_queued:  # queued after the end
            self._search.run_given_only()
        elif not self.is_idle:
            self.ended_at = time.monotonic()
            self._when_durable(self._rest)

    @property
    def _is_busy(self) -> bool:
        comes = (self._source.expects_more or self._ledger.held) and not self._search.ending
        return bool(self._attempts or comes or self._keeper.is_busy)

    def _rest(self) -> None:
        if not self._is_busy:
            self.give_up()

    def give_up(self) -> None:
        """Come to rest at once, whatever is not in the log yet."""
        self._search.in_run = False
        self._idle.set()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
