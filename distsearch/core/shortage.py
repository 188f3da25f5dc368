"""Says, from time to time, that no node could run a trial, as long as that is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..resource.manager import DistributedResourceManager
from ..resource.resource import Resource

SOON_S = 0.5  # a node that is lost for a moment is not worth a line
AGAIN_S = 60.0


class Shortage:
    """Watches whether any node could run a trial.

        shortage = Shortage(manager, resource, say=print, is_over=lambda: False)
        shortage.look()          # whenever something may have changed
        shortage.end()           # nothing is to run any more

    `is_over()`: whether nothing is to run any more, so that nothing is said.
    """

    def __init__(
        self,
        manager: DistributedResourceManager,
        resource: Resource,
        *,
        say: Callable[[str], None],
        is_over: Callable[[], bool],
    ) -> None:
        self._manager = manager
        self._resource = resource
        self._say = say
        self._is_over = is_over
        self._timer: asyncio.TimerHandle | None = None
        self._seen = -1, ""  # how often nodes had changed at the last look, and what was missing

    def look(self) -> None:
        """While no node could run a trial, say so: soon, and then from time to time."""
        if self._timer is None and self._missing:
            self._say_in(SOON_S)

    def end(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._say_now)

    def _say_now(self) -> None:
        self._timer = None
        if not self._is_over() and (missing := self._missing):
            self._say(f"{missing}: waiting for one to come back or for add_remote(...)")
            self._say_in(AGAIN_S)

    @property
    def _missing(self) -> str:
        """What is missing where no node could run a trial, in words; else ''."""
        changes, missing = self._seen
        if changes != self._manager.changes:
            missing = self._looked_for()
            self._seen = self._manager.changes, missing
        return missing

    def _looked_for(self) -> str:
        if self._manager.can_meet(self._resource):
            return ""
        if not self._manager.remotes:
            return "no node is left"
        several = self._resource.world_size > 1
        which = "nodes are left that have" if several else "node is left that has"
        return f"no {which} {self._resource}"
