"""Nodes that cannot start trials are left alone for a while, then asked again, ever less often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..resource.manager import DistributedResourceManager
from ..resource.remote import Remote

LONGEST_REST_S = 60.0


class Rests:
    """Which nodes rest, and after how many failures; used in the loop's thread.

        rests.failed(remote, "[Errno 28] No space left on device")   # it gets no trial for 1 s
        rests.began(remote)                                          # a trial has begun there
        rests.close()

    A node that fails again and again rests for 1, 2, 4, ... and at most 60 s. The user hears of
    each rest.
    """

    def __init__(self, manager: DistributedResourceManager, say: Callable[[str], None]) -> None:
        self._manager = manager
        self._say = say
        self._failures: dict[int, int] = {}  # how many in a row, by the id of a node
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def failed(self, remote: Remote, reason: str) -> None:
        """Let a node rest that could not start a trial, unless it rests already."""
        number = remote.remote_id
        if number in self._timers:
            return
        failures = self._failures[number] = self._failures.get(number, 0) + 1
        rest_s = min(LONGEST_REST_S, 2.0 ** (failures - 1))
        self._manager.rest(remote)
        self._timers[number] = asyncio.get_running_loop().call_later(rest_s, self._over, remote)
        self._say(
            f"{remote.host} cannot run trials: {reason}; it gets none for {rest_s:g} s, then it is "
            "tried again"
        )

    def _over(self, remote: Remote) -> None:
        del self._timers[remote.remote_id]
        self._manager.wake(remote)

    def began(self, remote: Remote) -> None:
        """Take note that a node can start trials."""
        if self._failures:
            self._failures.pop(remote.remote_id, None)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
