"""What waits to be taken to a node: messages in order, signs of life first, large ones in parts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from .messages import Message
from .pace import SMALLEST_PIECE, Pace

MESSAGE_BYTES = 500  # what a message takes beside its data, about
SIGNS_OF_LIFE = ("ping", "beat")


class Outbox:
    """The messages to one node, until a batch of them is taken there; used in the loop's thread.

        outbox = Outbox(pace)
        outbox.put({"op": "ping"})
        await outbox.filled()
        batch = outbox.take()        # as much as goes at a time; [] when nothing is left
        await outbox.room()          # until little is left
        outbox.close()               # nothing is taken any more

    Signs of life overtake other messages, so that a node does not end for want of them; a large
    message goes in parts, of which they overtake what is left.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_closed = False

    def put(self, message: Message) -> None:
        """Have a message taken to the node, after those that were put before."""
        if message["op"] in SIGNS_OF_LIFE:
            self._messages.appendleft(message)
            self._bytes += size_of(message)
        else:
            for part in parts(message):
                self._messages.append(part)
                self._bytes += size_of(part)
        self._filled.set()

    async def filled(self) -> None:
        """Wait until a message was put since the last call."""
        await self._filled.wait()
        self._filled.clear()

    def take(self) -> list[Message]:
        """The next messages, as many as the link carries in a few seconds; [] when none is left."""
        batch: list[Message] = []
        size = 0
        while self._messages and size < self._pace.piece_bytes:
            batch.append(self._messages.popleft())
            size += size_of(batch[-1])
        self._bytes -= size
        if batch:
            self._taken.set()
        return batch

    async def room(self) -> None:
        """Wait until less waits than goes at a time, or the outbox is closed."""
        while not self._is_closed and self._bytes > self._pace.piece_bytes:
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """Take note that nothing is taken to the node any more."""
        self._is_closed = True
        self._taken.set()


def size_of(message: Message) -> int:
    """The bytes of a message, about: those of its data, and some for the rest."""
    return len(message.get("data", b"")) + MESSAGE_BYTES


def parts(message: Message) -> Iterator[Message]:
    """A message, in parts if it has much data: each says its offset, the last is `done`."""
    data = message.get("data", b"")
    if len(data) <= SMALLEST_PIECE or "done" in message:  # the message is a part already
        yield message
        return
    for offset in range(0, len(data), SMALLEST_PIECE):
        end = offset + SMALLEST_PIECE
        part = {"data": data[offset:end], "offset": offset, "done": end >= len(data)}
        yield {**message, **part}
