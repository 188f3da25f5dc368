"""A short way for the pieces of checkpoints: a Unix socket on the node, forwarded by SSH.

Dask would encrypt each piece inside of SSH once more, and copy it through two event loops. Here
it passes SSH alone. The sockets are files in private folders at both ends, so that nobody else
reaches them. Both ways go frames: a length in 4 bytes, so much JSON, and the bytes of a piece. A
request is `["read", trial, name, path, offset, size]`, or the same with `"write"` and `size` bytes
after it; an answer is `[size, error]`, and so many bytes.

    server = PipeServer(checkpoints, "/tmp/private/pipe")                          # on the node
    data = await PipeClient("/tmp/forwarded").read(3, "10001-step-1", "w", 0, 4096)    # here
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import NodeError
from .cache import CheckpointCache, Data

SILENT_S = 60
AT_ONCE = 4  # of one client
LENGTH = struct.Struct("!I")


class PipeServer:
    """Reads and writes pieces for whoever connects; in threads, until it is closed.

    Raises OSError when it cannot listen there, as where the path is too long (108 bytes).
    """

    def __init__(self, checkpoints: CheckpointCache, path: str) -> None:
        self._checkpoints = checkpoints
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(path)
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        threading.Thread(target=self._accept, name="pipe", daemon=True).start()

    def close(self) -> None:
        """Take no more connections. (Those there are end with their other ends.)"""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _accept(self) -> None:
        # However it ends, nobody must wait for an answer that never comes.
        with self._listener, contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):  # it has ended, or is no client
            while True:
                request = _receive_json(connection)
                try:
                    answer = self._do(connection, *request)
                except ConnectionError:
                    raise
                except Exception as error:  # of the disk; the driver says it to the user
                    _send(connection, [0, str(error) or repr(error)])
                else:
                    _send(connection, [len(answer), ""], answer)

    def _do(
        self,
        connection: socket.socket,
        verb: str,
        trial: int,
        name: str,
        path: str,
        offset: int,
        size: int,
    ) -> Data:
        if verb == "write":
            self._checkpoints.write(trial, name, path, offset, _receive(connection, size))
            return b""
        if verb == "read":
            return self._checkpoints.read(trial, name, path, offset, size)
        raise ValueError(f"{verb!r} is neither 'read' nor 'write'")


class PipeClient:
    """Asks a `PipeServer`, in threads of its own, a few pieces at a time.

    Raises NodeError for what went wrong on the node, OSError when there is no way to it: then it
    no longer `works`.
    """

    def __init__(self, path: str) -> None:
        self.works = True
        self._path = path
        self._threads = ThreadPoolExecutor(AT_ONCE, "distsearch-pipe")
        self._lock = threading.Lock()
        self._all: set[socket.socket] = set()
        self._idle: list[socket.socket] = []

    async def read(self, trial: int, name: str, path: str, offset: int, size: int) -> Data:
        """A piece of a held checkpoint, as of `CheckpointCache.read`."""
        return await self._ask(["read", trial, name, path, offset, size], b"")

    async def write(self, trial: int, name: str, path: str, offset: int, data: Data) -> None:
        """Write a piece of a checkpoint, as with `CheckpointCache.write`."""
        await self._ask(["write", trial, name, path, offset, len(data)], data)

    def close(self) -> None:
        """End all connections; what waits for an answer fails."""
        with self._lock:
            self.works = False
            for connection in self._all:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for connection in self._idle:
                connection.close()
            self._all.difference_update(self._idle)
            self._idle.clear()
        self._threads.shutdown(wait=False)

    async def _ask(self, request: list[Any], data: Data) -> Data:
        if not self.works:
            raise ConnectionError("the pipe is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._ask_now, request, data)

    def _ask_now(self, request: list[Any], data: Data) -> Data:
        connection = self._take()
        try:
            _send(connection, request, data)
            size, error = _receive_json(connection)
            answer = _receive(connection, size)
        except BaseException:
            self._give_up(connection)
            raise
        with self._lock:
            if self.works:
                self._idle.append(connection)
        if not self.works:
            self._give_up(connection)
        if error:
            raise NodeError(error)
        return answer

    def _take(self) -> socket.socket:
        """An idle connection, or a new one."""
        with self._lock:
            if not self.works:
                raise ConnectionError("the pipe is closed")
            if self._idle:
                return self._idle.pop()
            connection = socket.socket(socket.AF_UNIX)
            self._all.add(connection)
        try:
            _limit_silence(connection)
            connection.connect(self._path)
        except BaseException:
            self._give_up(connection)
            raise
        return connection

    def _give_up(self, connection: socket.socket) -> None:
        with self._lock:
            self.works = False
            self._all.discard(connection)
            connection.close()


# Pieces are sent and received by one call of the system each, during which the interpreter's other
# threads run: with Python's own timeouts, every 200 KB would wait for their lock anew.


def _limit_silence(connection: socket.socket) -> None:
    connection.setblocking(True)  # whatever socket.setdefaulttimeout says
    silence = struct.pack("ll", SILENT_S, 0)  # a struct timeval
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, silence)


def _send(connection: socket.socket, header: list[Any], data: Data = b"") -> None:
    text = json.dumps(header).encode()
    rest = memoryview(LENGTH.pack(len(text)) + text)
    while rest:
        rest = rest[connection.send(rest) :]
    rest = memoryview(data)
    while rest:
        rest = rest[connection.send(rest) :]


def _receive_json(connection: socket.socket) -> Any:
    (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
    return json.loads(_receive(connection, length))


def _receive(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        got = connection.recv_into(rest, flags=socket.MSG_WAITALL)
        if not got:
            raise ConnectionResetError("the connection has ended")
        rest = rest[got:]
    return data
