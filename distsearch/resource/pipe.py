"""A short way for the pieces of checkpoints: a Unix socket on the node, reached through SSH.

Dask would encrypt each piece inside of SSH once more, and copy it through two event loops. Here
it passes SSH alone, straight between the node's socket and the driver's memory. The socket is a
file in a private folder, so that nobody else reaches it. A request is a length in 4 bytes and so
much JSON, `["read", trial, name, path, offset, size]`, or the same with `"write"` and `size` bytes
after it. An answer is a byte (1: what follows is an error's text), a length in 4 bytes, and so
many bytes.

    server = PipeServer(checkpoints, "/tmp/private/pipe")                          # on the node
    client = PipeClient(partial(lifeline.connect, server.path))                    # here
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

SILENT_S: float = 60  # a connection on which nothing moves for so long is given up
# What is written to a connection at once: on a slow link, other messages wait for so much. (With
# large chunks asyncssh would be slow: it copies the rest of a chunk after each packet.)
CHUNK_BYTES = 1 << 16
ERROR_BYTES = 1 << 14
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
        """Take no more connections. (Open ones end when the driver closes them.)"""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # at which `accept` returns
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _accept(self) -> None:
        # Close the listener however this ends: nobody must wait for an answer that never comes.
        with self._listener, contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # Serve until the client has ended, sends no request, or asks for more than memory holds.
        with connection, contextlib.suppress(OSError, ValueError, MemoryError):
            connection.setblocking(True)  # whatever socket.setdefaulttimeout says
            while True:
                (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
                verb, trial, name, path, offset, size = json.loads(_receive(connection, length))
                data = _receive(connection, size) if verb == "write" else b""
                try:
                    answer = self._do(verb, trial, name, path, offset, size, data)
                except (
                    Exception
                ) as error:  # mostly an error of the disk, which the driver tells the user
                    text = (str(error) or repr(error)).encode(errors="replace")[:ERROR_BYTES]
                    connection.sendall(ANSWER.pack(True, len(text)) + text)
                else:
                    connection.sendall(ANSWER.pack(False, len(answer)))
                    connection.sendall(answer)

    def _do(
        self, verb: str, trial: int, name: str, path: str, offset: int, size: int, data: Data
    ) -> Data:
        if verb == "write":
            self._checkpoints.write(trial, name, path, offset, data)
            return b""
        if verb == "read":
            return self._checkpoints.read(trial, name, path, offset, size)
        raise ValueError(f"{verb!r} is neither 'read' nor 'write'")


def _receive(connection: socket.socket, size: int) -> bytearray:
    """Receive so many bytes, by one call of the system if possible."""
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

    It is a protocol for transports of asyncio and a session for channels of asyncssh, which call it
    alike. An answer goes straight to its buffer, copied once. `link_is_free` is set while the link
    below takes more: pieces wait for it, so that other messages on that link need not.
    """

    def __init__(self, link_is_free: asyncio.Event | None = None) -> None:
        self._link_is_free = link_is_free
        self._transport: Any = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._moved_at = 0.0  # when a byte last moved in either direction, by the loop's clock
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[tuple[bool, bytearray]] | None = None
        self._most = 0  # so many bytes an answer may have
        self._failed: bool | None = None  # None until the head of an answer has arrived
        self._buffer = bytearray(ANSWER.size)
        self._room = memoryview(self._buffer)  # the part of the buffer that is still to be filled

    async def ask(self, request: list[Any], data: Data) -> tuple[bool, bytearray]:
        """Send a request and `data`; return whether the answer is an error's text, and the answer.

        Raises OSError when the connection has ended, or nothing has moved for SILENT_S.
        """
        loop = asyncio.get_running_loop()
        asking = asyncio.ensure_future(self._ask(request, data))
        ends: list[asyncio.Future[Any]] = [asking, self._ended]
        self._moved_at = loop.time()
        try:
            while not asking.done():
                if self._ended.done():
                    raise ConnectionResetError(self._ended.result())
                patience = self._moved_at + SILENT_S - loop.time()
                if patience <= 0:
                    raise ConnectionError(f"the node has been silent for {SILENT_S:g} s")
                await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            return asking.result()
        finally:
            asking.cancel()

    async def _ask(self, request: list[Any], data: Data) -> tuple[bool, bytearray]:
        answer: asyncio.Future[tuple[bool, bytearray]]
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._most = ERROR_BYTES + request[-1]
        text = json.dumps(request).encode()
        self._write(LENGTH.pack(len(text)) + text)
        for begin in range(0, len(data), CHUNK_BYTES):
            if self._link_is_free is not None:
                await self._link_is_free.wait()
            await self._may_write.wait()
            self._write(memoryview(data)[begin : begin + CHUNK_BYTES])
            await asyncio.sleep(0)  # other work of the loop must not wait for all chunks
        return await answer

    def abort(self) -> None:
        """End the connection at once; who waits for an answer is told."""
        self._transport.abort()
        self.connection_lost(None)  # asyncssh calls it only when the other end has closed too

    def _write(self, data: bytes | memoryview) -> None:
        self._transport.write(data)
        self._note_movement()

    def _note_movement(self) -> None:
        self._moved_at = asyncio.get_running_loop().time()

    # Called by the transport

    def connection_made(self, transport: Any) -> None:
        """Take the transport (or the channel of asyncssh) to write to."""
        self._transport = transport

    def session_started(self) -> None:
        """Hear from asyncssh that the channel is open; nobody asks before that."""

    def data_received(self, data: bytes, _datatype: int | None = None) -> None:
        """Fill the buffer of the answer that is awaited."""
        self._note_movement()
        rest = memoryview(data)
        while rest and not self._ended.done():
            here = self._room[: len(rest)]
            here[:] = rest[: len(here)]
            self._room, rest = self._room[len(here) :], rest[len(here) :]
            if not self._room:
                self._filled()

    def _filled(self) -> None:
        if self._failed is None:
            self._failed, size = ANSWER.unpack(self._buffer)
            if size > self._most:
                self.abort()  # the answer is longer than what was asked for
                return
            self._expect(size)
            if size:
                return
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((bool(self._failed), self._buffer))
        self._failed = None
        self._expect(ANSWER.size)

    def _expect(self, size: int) -> None:
        """Make a buffer for the next so many bytes."""
        self._buffer = bytearray(size)
        self._room = memoryview(self._buffer)

    def connection_lost(self, error: Exception | None) -> None:
        """Let who waits for an answer fail."""
        if not self._ended.done():
            self._ended.set_result(str(error or "the connection has ended"))

    def pause_writing(self) -> None:
        """Stop writing: the other end does not read as fast."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Go on with writing."""
        self._may_write.set()
        self._note_movement()


MakeConnection = Callable[[asyncio.Event | None], PipeConnection]


class PipeClient:
    """Asks a `PipeServer`, one piece at a time through each of its connections.

    `connect(make)` opens a transport for a connection that `make` returns; where there is no way
    it raises OSError. So do `read` and `write`, after which the pipe no longer `works`; an error on
    the node itself is a NodeError. To be used in one loop.
    """

    def __init__(self, connect: Callable[[MakeConnection], Awaitable[PipeConnection]]) -> None:
        self.works = True
        self._connect = connect
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
        if not self.works:
            raise ConnectionError("the pipe is closed")
        try:
            connection = self._idle.pop() if self._idle else await self._open()
        except OSError:
            self.close()
            raise
        try:
            failed, answer = await connection.ask(request, data)
        except BaseException as error:
            connection.abort()  # the rest of an answer may still be on its way through it
            self._all.discard(connection)
            if isinstance(error, OSError):
                self.close()
            raise
        self._idle.append(connection)
        if failed:
            raise NodeError(answer.decode(errors="replace"))
        return answer

    async def _open(self) -> PipeConnection:
        opening = asyncio.ensure_future(self._connect(PipeConnection))
        try:
            await asyncio.wait([opening], timeout=SILENT_S)
            if not opening.done():
                raise ConnectionError(f"no connection in {SILENT_S:g} s")
            connection = opening.result()
            if not self.works:
                raise ConnectionError("the pipe was closed meanwhile")
        except BaseException:
            opening.add_done_callback(_abort_late)  # the connection may come up yet
            raise
        self._all.add(connection)
        return connection


def _abort_late(opening: asyncio.Future[PipeConnection]) -> None:
    """End a connection that has come up when nobody wants it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()
