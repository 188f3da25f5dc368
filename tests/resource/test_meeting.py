"""The port at which the ranks of a trial meet, and who else comes there."""

from __future__ import annotations

import asyncio
import tracemalloc

from distsearch.resource import meeting
from distsearch.resource.meeting import LOOPBACK, Network

MANY_MB = 64


def test_a_stranger_who_sends_without_end_takes_no_memory_and_keeps_nobody_out():
    async def flood():
        point = await Network().open(alone=False)
        tracemalloc.start()
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, point.port)
            piece = bytes(1 << 20)
            for _ in range(MANY_MB):
                writer.write(piece)
                await writer.drain()
            assert LOOPBACK in await Network().reach([LOOPBACK], point.port, point.token)
            assert tracemalloc.get_traced_memory()[1] < MANY_MB << 18
            writer.close()
        finally:
            tracemalloc.stop()
            point.close()

    asyncio.run(asyncio.wait_for(flood(), 30))


def test_of_many_who_connect_and_say_nothing_the_first_have_to_go(monkeypatch):
    monkeypatch.setattr(meeting, "VISITORS", 5)

    async def crowd():
        point = await Network().open(alone=False)
        visitors = [await asyncio.open_connection(LOOPBACK, point.port) for _ in range(20)]
        for reader, _ in visitors[:15]:
            assert await asyncio.wait_for(reader.read(), 2) == point.token.encode()
        assert LOOPBACK in await Network().reach([LOOPBACK], point.port, point.token)
        for _, writer in visitors:
            writer.close()
        point.close()

    asyncio.run(asyncio.wait_for(crowd(), 30))
