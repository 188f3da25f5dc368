"""The driver's own machine as a node: its agent lives in the driver, without Dask or a port."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from ..errors import NodeError
from .agent import Agent
from .detect import declared, detect
from .lacks import with_remedy
from .messages import Message
from .node import Node, NodeFacts
from .pace import LARGEST_PIECE, Pace
from .remote import Listener, Remote
from .slots import NodeResourceManager

_shared_slots: dict[NodeFacts, NodeResourceManager] = {}
os.register_at_fork(after_in_child=_shared_slots.clear)  # (the parent frees what it has leased)


class LocalRemote(Remote):
    """This machine; two searches of one process share its slots."""

    is_local = True

    def __init__(self, remote_id: int, facts: NodeFacts, folder: Path, listener: Listener) -> None:
        super().__init__(remote_id, "localhost", f"local://{folder.name}", facts)
        self.pace = Pace(LARGEST_PIECE)
        self.slots = _shared_slots.setdefault(facts, self.slots)
        self.agent = Agent(
            folder=folder,
            send=lambda messages: listener.on_messages(self, messages),
            lease_s=None,
        )
        self._inbox: list[Message] = []

    @classmethod
    async def start(
        cls, remote_id: int, folder: Path, listener: Listener, node: Node | None = None
    ) -> LocalRemote:
        """Start this machine's agent; its slots are detected, or those that `node` declares.

        Raises NodeError where that is not possible.
        """
        facts = detect() if node is None else declared(node, detect())
        remote = cls(remote_id, facts, folder, listener)
        try:
            await remote.agent.start()
        except OSError as error:
            reason = with_remedy(str(error), error.errno)
            raise NodeError(f"this machine cannot run trials: {reason}") from error
        return remote

    def send(self, message: Message) -> None:
        """Give a message to the agent, in the loop's next turn."""
        if not self._inbox:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._inbox.append(message)

    def _deliver(self) -> None:
        messages, self._inbox = self._inbox, []
        self.agent.handle(messages)

    async def close(self) -> bool:
        """End every trial on this machine."""
        await self.agent.close()
        return True
