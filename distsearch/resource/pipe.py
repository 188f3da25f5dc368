"""A short way for the pieces of checkpoints: a Unix socket on the node, reached through SSH.

Dask would encrypt each piece inside of SSH once more, and copy it through two event loops. Here
it passes SSH alone, straight between the node's socket and the driver's memory. The socket is a
file in a private folder, so that nobody else reaches it. A request is a length in 4 bytes and so
much JSON, `["read", trial, name, path, offset, size]`, or the same with `"write"` and `size` bytes
after it. An answer is a byte (1: what follows is an error's text), a length in 4 bytes, and so
many bytes.

    server = PipeServer(checkpoints, "/tmp/private/pipe")                          # on the node
    client = PipeClient(lambda make: lifeline.connect(server.path, make))          # here
    data = await client.read(3, "10001-step-1", "w", 0, 4096)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import NodeError
from .cache import CheckpointCache, Data

SILENT_S: float = 60
AT_ONCE = 4  # of one client
# So much is given to SSH at a time: it cuts it into packets, and copies what is left after each.
CHUNK_BYTES = 1 << 18
LENGTH = struct.Struct("!I")
ANSWER = struct.Struct("!?I")


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
            connection.setblocking(True)  # whatever socket.setdefaulttimeout says
            while True:
                (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
                request = json.loads(_receive(connection, length))
                try:
                    answer = self._do(connection, *request)
                except ConnectionError:
                    raise
                except Exception as error:  # of the disk; the driver says it to the user
                    text = (str(error) or repr(error)).encode()
                    connection.sendall(ANSWER.pack(True, len(text)) + text)
                else:
                    connection.sendall(ANSWER.pack(False, len(answer)))
                    connection.sendall(answer)

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


def _receive(connection: socket.socket, size: int) -> bytearray:
    """So many bytes, by one call of the system if it can be."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        got = connection.recv_into(rest, flags=socket.MSG_WAITALL)
        if not got:
            raise ConnectionResetError("the connection has ended")
        rest = rest[got:]
    return data


class PipeConnection(asyncio.Protocol):
    """A connection to a `PipeServer`, which takes one request after the other.

    A protocol for transports of asyncio and a session for channels of asyncssh, which call it
    alike: what it is sent goes straight to where it is wanted, copied once.
    """

    def __init__(self) -> None:
        self._transport: Any = None
        self._lost = False
        self._moved = 0  # bytes, both ways
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._answer: asyncio.Future[tuple[bool, bytearray]] | None = None
        self._failed: bool | None = None  # until the head of an answer has arrived
        self._buffer = bytearray(ANSWER.size)
        self._room = memoryview(self._buffer)  # what of it is still to come

    async def ask(self, request: list[Any], data: Data) -> tuple[bool, bytearray]:
        """Send a request, and `data` after it; is the answer an error's text, and the answer.

        Raises OSError when the connection has ended, or nothing has moved for SILENT_S.
        """
        asking = asyncio.ensure_future(self._ask(request, data))
        try:
            moved = -1
            while not asking.done():
                if self._moved == moved:
                    raise ConnectionError(f"the node has been silent for {SILENT_S:g} s")
                moved = self._moved
                await asyncio.wait([asking], timeout=SILENT_S)
            return asking.result()
        finally:
            asking.cancel()

    async def _ask(self, request: list[Any], data: Data) -> tuple[bool, bytearray]:
        if self._lost:
            raise ConnectionResetError("the connection has ended")
        answer: asyncio.Future[tuple[bool, bytearray]]
        answer = self._answer = asyncio.get_running_loop().create_future()
        text = json.dumps(request).encode()
        try:
            self._write(LENGTH.pack(len(text)) + text)
            for begin in range(0, len(data), CHUNK_BYTES):
                self._write(memoryview(data)[begin : begin + CHUNK_BYTES])
                await asyncio.sleep(0)  # what else the loop has to do must not wait for all of it
                await self._may_write.wait()
                if answer.done():  # with the end of the connection
                    break
            return await answer
        finally:
            answer.cancel()

    def abort(self) -> None:
        """End it at once; who waits for an answer is told."""
        self._transport.abort()

    def _write(self, data: bytes | memoryview) -> None:
        self._transport.write(data)
        self._moved += len(data)

    # Called by the transport

    def connection_made(self, transport: Any) -> None:
        """Hear where to write."""
        self._transport = transport

    def session_started(self) -> None:
        """Hear from asyncssh that it may begin; until then nobody asks."""

    def data_received(self, data: bytes, _datatype: int | None = None) -> None:
        """Put it where it belongs."""
        self._moved += len(data)
        rest = memoryview(data)
        while rest:
            here = self._room[: len(rest)]
            here[:] = rest[: len(here)]
            self._room, rest = self._room[len(here) :], rest[len(here) :]
            if not self._room:
                self._filled()

    def _expect(self, size: int) -> None:
        """So many bytes are what comes next."""
        self._buffer = bytearray(size)
        self._room = memoryview(self._buffer)

    def _filled(self) -> None:
        if self._failed is None:
            self._failed, size = ANSWER.unpack(self._buffer)
            self._expect(size)
            if size:
                return
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((bool(self._failed), self._buffer))
        self._failed = None
        self._expect(ANSWER.size)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what is waiting."""
        self._lost = True
        if self._answer is not None and not self._answer.done():
            lost = ConnectionResetError(str(error or "the connection has ended"))
            self._answer.set_exception(lost)
        self._may_write.set()

    def pause_writing(self) -> None:
        """Write no more: the other end does not read as fast."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._may_write.set()


Connect = Callable[[Callable[[], PipeConnection]], Awaitable[PipeConnection]]


class PipeClient:
    """Asks a `PipeServer`, a few pieces at a time, in the running loop.

    `connect` opens a transport for a new `PipeConnection`, and raises OSError where there is no
    way. So do `read` and `write`, and then the pipe no longer `works`. What went wrong on the node
    itself they raise as NodeError.
    """

    def __init__(self, connect: Connect) -> None:
        self.works = True
        self._connect = connect
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._idle: list[PipeConnection] = []
        self._all: set[PipeConnection] = set()

    async def read(self, trial: int, name: str, path: str, offset: int, size: int) -> Data:
        """A piece of a held checkpoint, as of `CheckpointCache.read`."""
        return await self._ask(["read", trial, name, path, offset, size], b"")

    async def write(self, trial: int, name: str, path: str, offset: int, data: Data) -> None:
        """Write a piece of a checkpoint, as with `CheckpointCache.write`."""
        await self._ask(["write", trial, name, path, offset, len(data)], data)

    def close(self) -> None:
        """End all connections; what waits for an answer fails."""
        self.works = False
        for connection in self._all:
            connection.abort()
        self._all.clear()
        self._idle.clear()

    async def _ask(self, request: list[Any], data: Data) -> Data:
        async with self._turns:
            if not self.works:
                raise ConnectionError("the pipe is closed")
            try:
                connection = self._idle.pop() if self._idle else await self._open()
                failed, answer = await connection.ask(request, data)
            except BaseException:
                self.close()  # it is not known what of the answer is still to come
                raise
            self._idle.append(connection)
        if failed:
            raise NodeError(answer.decode())
        return answer

    async def _open(self) -> PipeConnection:
        connection = await self._connect(PipeConnection)
        self._all.add(connection)
        if not self.works:  # it was closed meanwhile
            connection.abort()
            raise ConnectionError("the pipe is closed")
        return connection
