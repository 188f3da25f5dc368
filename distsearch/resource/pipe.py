"""A short way for the pieces of checkpoints: a Unix socket on the node, forwarded by SSH.

Dask would encrypt each piece inside of SSH once more, and copy it through two event loops. Here
it passes SSH alone. The sockets are files in private folders at both ends, so that nobody else
reaches them. A request is one line of JSON, `["read", trial, name, path, offset, size]` or
`["write", trial, name, path, offset, size]` and so many bytes; the answer is the line
`[size, ""]` and so many bytes, or `[0, error]`.

    pipe = PipeServer(checkpoints, "/tmp/private/pieces")                 # on the node
    PipeClient("/tmp/forwarded").read(3, "10000001-step-1", "w.bin", 0, 4096)    # on the driver
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from typing import Any, BinaryIO

from ..errors import NodeError
from .cache import CheckpointCache

SILENT_S = 60.0


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
        threading.Thread(target=self._accept, name="pieces", daemon=True).start()

    def close(self) -> None:
        """Take no more connections. (Those there are end with their other ends.)"""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            while line := stream.readline():
                verb, *about = json.loads(line)
                data = _whole(stream, about.pop()) if verb == "write" else b""
                try:
                    answer = self._do(verb, about, data)
                except Exception as error:  # of the disk; the driver says it to the user
                    _send(connection, [0, str(error) or repr(error)], b"")
                else:
                    _send(connection, [len(answer), ""], answer)

    def _do(self, verb: str, about: list[Any], data: bytes) -> bytes:
        trial, name, path, offset, *size = about
        if verb == "read":
            return self._checkpoints.read(trial, name, path, offset, *size)
        if verb == "write":
            self._checkpoints.write(trial, name, path, offset, data)
            return b""
        raise ValueError(f"{verb!r} is neither 'read' nor 'write'")


class PipeClient:
    """Asks a `PipeServer`; from several threads at once, each over a connection of its own.

    Raises NodeError for what went wrong on the node, OSError when there is no way to it: then it
    no longer `works`.
    """

    def __init__(self, path: str) -> None:
        self.works = True
        self._path = path
        self._lock = threading.Lock()
        self._all: set[socket.socket] = set()
        self._idle: list[socket.socket] = []

    def read(self, trial: int, name: str, path: str, offset: int, size: int) -> bytes:
        """A piece of a held checkpoint, as of `CheckpointCache.read`."""
        return self._ask(["read", trial, name, path, offset, size], b"")

    def write(self, trial: int, name: str, path: str, offset: int, data: bytes) -> None:
        """Write a piece of a checkpoint, as with `CheckpointCache.write`."""
        self._ask(["write", trial, name, path, offset, len(data)], data)

    def close(self) -> None:
        """End all connections; what waits for an answer fails."""
        self.works = False
        with self._lock:
            for connection in self._all:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _ask(self, request: list[Any], data: bytes) -> bytes:
        with self._lock:
            connection = self._idle.pop() if self._idle else socket.socket(socket.AF_UNIX)
            is_new = connection not in self._all
            self._all.add(connection)
        try:
            if is_new:
                connection.settimeout(SILENT_S)
                connection.connect(self._path)
            _send(connection, request, data)
            with connection.makefile("rb") as stream:
                size, error = json.loads(_line(stream))
                answer = _whole(stream, size)
        except BaseException:
            self.works = False
            with self._lock:
                self._all.discard(connection)
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        if error:
            raise NodeError(error)
        return answer


def _send(connection: socket.socket, line: list[Any], data: bytes) -> None:
    connection.sendall(json.dumps(line).encode() + b"\n")
    connection.sendall(data)


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the connection has ended")
    return line


def _whole(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ConnectionResetError("the connection has ended")
    return data
