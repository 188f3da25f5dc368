"""What waits to be taken to a node."""

from __future__ import annotations

import asyncio

from distsearch.resource.outbox import Outbox, size_of
from distsearch.resource.pace import SMALLEST_PIECE, Pace


def test_messages_leave_in_order_and_signs_of_life_overtake_them():
    outbox = Outbox(Pace())
    for op in ("start", "stop", "ping"):
        outbox.put({"op": op})
    assert [message["op"] for message in outbox.take()] == ["ping", "start", "stop"]
    assert outbox.take() == []


def test_a_large_message_goes_in_parts_that_signs_of_life_overtake():
    outbox, data = Outbox(Pace()), bytes(range(256)) * 200
    outbox.put({"op": "function", "data": data})
    taken = outbox.take()
    outbox.put({"op": "ping"})
    ping, *rest = outbox.take()
    assert len(taken) == 1 and ping["op"] == "ping"
    while batch := outbox.take():
        rest += batch
    parts = [*taken, *rest]
    assert b"".join(part["data"] for part in parts) == data
    assert [part["offset"] for part in parts] == list(range(0, len(data), SMALLEST_PIECE))
    assert [part["done"] for part in parts] == [False, False, False, True]


def test_who_waits_for_room_goes_on_when_a_batch_is_taken_or_the_outbox_is_closed():
    async def fill_and_take():
        outbox = Outbox(Pace(2 * size_of({"op": "start"})))
        for _ in range(3):
            outbox.put({"op": "start"})
        waiting = asyncio.create_task(outbox.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        outbox.take()
        await asyncio.wait_for(waiting, 5)
        for _ in range(3):
            outbox.put({"op": "start"})
        waiting = asyncio.create_task(outbox.room())
        outbox.close()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(fill_and_take())
