"""Bounds what other users of a machine can do at its loopback ports: few connections, not for long.

They get past no handshake, but each of their connections takes a descriptor of this process, of
which there are about a thousand. All that is used here is private to Dask: see docs/design.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from typing import Any

HANDSHAKES = 64  # so many may be under way at a port; then the oldest is ended
HANDSHAKE_S = 10.0


def bound_strangers(server: Any) -> None:
    """Bound the handshakes at the ports of a Dask scheduler or worker, and close its HTTP port.

        await Scheduler(...); bound_strangers(scheduler)

    To be called again after it listens at one more address; a second call does no harm.
    """
    server.http_server.stop()  # (Dask always opens it; nobody needs it)
    for listener in server.listeners:
        if "_prepare_stream" not in vars(listener):
            listener._prepare_stream = _Bounded(listener._prepare_stream)


class _Bounded:
    """The TLS handshakes of one listener."""

    def __init__(self, prepare: Any) -> None:
        self._prepare = prepare
        self._streams: OrderedDict[int, Any] = OrderedDict()  # the oldest first

    async def __call__(self, stream: Any, address: str) -> Any:
        if len(self._streams) >= HANDSHAKES:
            self._streams.popitem(last=False)[1].close()
        self._streams[id(stream)] = stream
        try:
            return await asyncio.wait_for(self._prepare(stream, address), HANDSHAKE_S)
        except asyncio.TimeoutError:
            stream.close()
            return None
        finally:
            self._streams.pop(id(stream), None)


def is_own(from_port: int, to_port: int) -> bool:
    """Whether a connection between two loopback ports of this machine is this user's, or root's.

    True also where nobody can tell: on systems other than Linux, and when it is closed already.
    """
    ends = [f"0100007F:{from_port:04X}", f"0100007F:{to_port:04X}"]
    with contextlib.suppress(OSError), open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            words = line.split()
            if words[1:3] == ends:
                return int(words[7]) in (0, os.getuid())
    return True
