"""The nodes of a search come and go; what a lost node may still run starts elsewhere, later."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..resource.manager import DistributedResourceManager
from ..resource.remote import Remote
from .attempts import Attempts
from .phrases import counted
from .search import Search
from .supplies import Supplies

NODE_LEASE_S, LEASE_GRACE_S = 30.0, 5.0


class Nodes:
    """Logs which nodes come and go, and tells the parts of the search that deal with nodes.

        nodes.came(remote)
        nodes.went(remote, "no answer for 15 s", confirmed_dead=False)

    `forget(remote)` is called for a lost node: what was known of it counts no longer.
    """

    def __init__(
        self,
        search: Search,
        manager: DistributedResourceManager,
        attempts: Attempts,
        supplies: Supplies,
        *,
        forget: Callable[[Remote], None],
    ) -> None:
        self._search = search
        self._manager = manager
        self._attempts = attempts
        self._supplies = supplies
        self._forget = forget

    def came(self, remote: Remote) -> None:
        """Use a node: send it the train function, then fill its slots."""
        self._supplies.send(remote)
        self._attempts.node_came(remote)
        about = {"came": remote.host, "address": remote.address, **remote.facts.to_dict()}
        self._search.log("node", body=about)
        if self._search.in_run:
            self._supplies.ask_for_modules(remote)
        self._manager.add(remote)

    def went(self, remote: Remote, reason: str, confirmed_dead: bool) -> bool:
        """A node is gone, and its slots are; its attempts are over. False if that was known.

        Unless the node is `confirmed_dead`, it may go on with them until its lease is surely over.
        """
        attempts = self._attempts.node_went(remote)
        if attempts is None:
            return False
        self._manager.remove(remote)
        self._forget(remote)
        self._search.log("node", body={"went": remote.host, "reason": reason})
        delay_s = 0.0 if confirmed_dead else NODE_LEASE_S + LEASE_GRACE_S
        text = f"node {remote.host} is gone: {reason}; {counted(len(attempts))} ran on it"
        if attempts and delay_s:  # users should know what the search waits for
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + delay_s))
            text += f", and may still do: they start elsewhere at {until}, in {delay_s:g} s"
        self._search.say(text)
        for attempt in attempts:
            attempt.lose(remote, reason, delay_s)
            self._search.rank_over(attempt)
        return True
