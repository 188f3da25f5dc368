"""One node behind Dask, as the driver speaks with it.

To the node, messages go by `Client.run(deliver)` on its worker, one call at a time: what gathers
meanwhile goes with the next call. From the node, the agent's messages come in batches, which are
numbered, so that a missing one is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from distributed import rpc
from distributed.protocol.pickle import dumps

from ..errors import NodeError
from .dask_agent import deliver, open_pipe, stop_agent, use_cache
from .messages import Message
from .node import NodeFacts
from .outbox import Outbox, size_of
from .pipe import MakeConnection, PipeClient, PipeConnection
from .remote import Listener, Remote

ANSWER_S = 120
STOP_S = 6


class Lifeline(Protocol):
    """What keeps a node's process up and can end it."""

    tunnels: bool  # whether everything to and from the node goes through it

    async def end(self) -> tuple[bool, str]:
        """End all that runs on the node, within a bound.

        Returns whether surely nothing is left there, and, if the node ended by itself, why.
        """

    async def connect(self, path: str, make: MakeConnection) -> PipeConnection:
        """Connect to a Unix socket of the node. Raises OSError."""


class Link(Protocol):
    """The cluster to which a node belongs: see `Cluster`. `remotes`: its nodes, by their agents."""

    listener: Listener
    remotes: dict[str, DaskRemote]

    async def run_on(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of this package in the event loop of a worker."""

    def directly_to(self, worker: str) -> rpc | None:
        """Calls to a worker that do not pass Dask's scheduler, None where there are none."""


class DaskRemote(Remote):
    """A node whose agent lives in a Dask worker; `Cluster.attach` makes it.

    The listener hears once of a node that is lost, and not of one that `close()` has ended.
    """

    def __init__(
        self,
        link: Link,
        remote_id: int,
        host: str,
        address: str,
        facts: NodeFacts,
        *,
        worker: str,
        agent_id: str,
        lifeline: Lifeline | None,
    ) -> None:
        super().__init__(remote_id, host, address, facts)
        self.worker = worker
        self.worker_left = False
        self.agent_id = agent_id
        self.heard = time.monotonic()
        self.link = link
        self._lifeline = lifeline
        self._outbox = Outbox(self.pace)
        self._next_number = 0
        self._ending: asyncio.Task[tuple[bool, str]] | None = None
        self._direct = link.directly_to(worker)
        self._pipe: asyncio.Task[PipeClient | None] | None = None
        self._pump = asyncio.create_task(self._deliver_all())

    def send(self, message: Message) -> None:
        """Send a message to the agent, in the order of `Outbox`; for a lost node it is dropped."""
        if self._ending is None:
            self._outbox.put(message)

    async def room(self) -> None:
        """Wait until little waits to be taken to the node, or the node is lost."""
        await self._outbox.room()

    async def use_cache(self, verb: str, *arguments: Any) -> Any:
        """Call a method of the node's `CheckpointCache`, beside the messages.

        Pieces go through the pipe, past Dask, where there is one. Through Dask nobody sees how far
        a piece has come, so each has `ANSWER_S`; the pipe sees when nothing moves. Raises
        NodeError.
        """
        if verb in ("read", "write") and (pipe := await self._working_pipe()):
            with contextlib.suppress(OSError):
                return await getattr(pipe, verb)(*arguments)
        try:
            return await asyncio.wait_for(self._use_cache_through_dask(verb, arguments), ANSWER_S)
        except asyncio.TimeoutError:
            raise NodeError(f"no answer in {ANSWER_S:g} s") from None

    async def _use_cache_through_dask(self, verb: str, arguments: tuple[Any, ...]) -> Any:
        about = (self.agent_id, verb, arguments)
        if self._direct is None:
            return await self.link.run_on(self.worker, use_cache, *about)
        answer = await self._direct.run(
            function=dumps(use_cache), args=dumps(about), kwargs=dumps({})
        )
        if answer["status"] != "OK":
            raise NodeError(answer["exception_text"])
        return answer["result"]

    async def _working_pipe(self) -> PipeClient | None:
        """The pipe past Dask, opened when it is first needed; None where there is none."""
        if self._pipe is None and self._ending is None:
            self._pipe = asyncio.create_task(self._open_pipe())
        if self._pipe is None:
            return None
        await asyncio.wait([self._pipe])
        pipe = None if self._pipe.cancelled() else self._pipe.result()
        return pipe if pipe is not None and pipe.works else None

    async def _open_pipe(self) -> PipeClient | None:
        if self._lifeline is None or not self._lifeline.tunnels:
            return None
        with contextlib.suppress(Exception):  # (without a pipe, Dask carries the pieces)
            opening = self.link.run_on(self.worker, open_pipe, self.agent_id)
            path = await asyncio.wait_for(opening, ANSWER_S)
            return PipeClient(partial(self._lifeline.connect, path))
        return None

    def receive(self, event: Mapping[str, Any]) -> None:
        """Take a batch of the agent's messages."""
        self.heard = time.monotonic()
        if self._ending is not None:
            return
        if event["number"] != self._next_number:
            self.lose(f"batch {self._next_number} of its messages never came")
            return
        self._next_number += 1
        # The listener is called in another turn of the loop, so that its errors are not Dask's.
        messages = json.loads(event["batch"])
        asyncio.get_running_loop().call_soon(self.link.listener.on_messages, self, messages)

    def lose(self, reason: str) -> None:
        """Give the node up: end what can still be ended there, then tell the listener."""
        if self._ending is None:
            self.lost_because = reason
            self.link.listener.retire(self)
            self._ending = asyncio.create_task(self._lose(reason))

    async def close(self) -> bool:
        """End every trial on the node and all that was started there (bounded, about 15 s)."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.wait([self._ending])
        nothing_left, _why = self._ending.result()
        return nothing_left

    async def _lose(self, reason: str) -> tuple[bool, str]:
        nothing_left, why = await self._end()
        self.lost_because = why or reason
        self.link.listener.on_lost(self, self.lost_because, nothing_left)
        return nothing_left, why

    async def _end(self) -> tuple[bool, str]:
        self.link.remotes.pop(self.agent_id, None)
        self._pump.cancel()
        self._outbox.close()
        if self._pipe is not None:
            self._pipe.cancel()
            await asyncio.wait([self._pipe])
            if not self._pipe.cancelled() and (pipe := self._pipe.result()):
                pipe.close()
        if self._direct is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._direct.close_rpc(), 2)
        if self._lifeline is not None:
            return await self._lifeline.end()
        if self.worker_left:
            return False, ""
        try:
            stop = self.link.run_on(self.worker, stop_agent, self.agent_id)
            return await asyncio.wait_for(stop, STOP_S), ""
        except Exception:  # (where the node cannot be reached, its agent ends with its lease)
            return False, ""

    async def _deliver_all(self) -> None:
        while True:
            await self._outbox.filled()
            while batch := self._outbox.take():
                try:
                    with self.pace.timed(sum(map(size_of, batch))):
                        there = await self.link.run_on(self.worker, deliver, self.agent_id, batch)
                except Exception as error:
                    self.lose(f"it could not be reached: {error or type(error).__name__}")
                    return
                if not there:
                    self.lose("its agent has ended, as its Dask worker does")
                    return
                self.heard = time.monotonic()
