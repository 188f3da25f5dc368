"""Where the ranks of a trial meet: a port on the node of rank 0, which the other nodes reach.

    point = await Network().open(alone=False)                     # on the node of rank 0
    await Network().reach(["10.0.0.7"], point.port, point.token)  # on another node: {address: ...}
    point.give_way()                                              # rank 0 starts, and listens there

Until the ranks start, the port answers with a token: so a node that reaches it knows that it has
come to the node of rank 0, and not to another machine with the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import psutil

MEETING_S = 30.0  # so long the port is kept for ranks that do not start
REACH_S = 4.0  # so long a node tries to reach the port of rank 0
VISITORS = 64  # so many may be connected to a port at once; then the first of them has to go
LOOPBACK = "127.0.0.1"


async def _read_to_the_end(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has closed; drop what it says."""
    while await reader.read(1 << 16):
        pass


class MeetingPoint:
    """A port of this node that no other program gets, and that shows a token."""

    def __init__(self, reserved: socket.socket) -> None:
        self.port: int = reserved.getsockname()[1]
        self.token = os.urandom(16).hex()
        self._host = reserved.getsockname()[0]
        self._socket = reserved
        self._server: asyncio.Server | None = None
        self._visitors: list[asyncio.StreamWriter] = []  # in the order in which they came

    async def listen(self) -> None:
        """Show the token to each that connects."""
        self._server = await asyncio.start_server(self._show, sock=self._socket)

    async def _show(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._visitors) >= VISITORS:
            self._visitors.pop(0).close()
        self._visitors.append(writer)
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            writer.write(self.token.encode())
            # (The side that closes first has its port in use for a minute more: not this side.)
            await asyncio.wait_for(_read_to_the_end(reader), REACH_S)
        if writer in self._visitors:
            self._visitors.remove(writer)
        writer.close()

    def give_way(self) -> None:
        """Let rank 0 listen on the port, which stays reserved for it."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        # A socket that does not listen keeps the system from giving the port to other programs; a
        # socket with SO_REUSEADDR, as PyTorch's, can listen there nevertheless.
        with contextlib.suppress(OSError):
            self._socket = reserve(self._host, self.port)

    def close(self) -> None:
        """Give the port up."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._socket.close()


class Network:
    """The network of this node, as meetings need it."""

    async def open(self, alone: bool) -> MeetingPoint:
        """Choose a port; `alone`: all ranks are on this node, and meet on its loopback interface.

        Raises OSError when there is none.
        """
        point = MeetingPoint(reserve(LOOPBACK if alone else "", 0))
        if not alone:
            await point.listen()
        return point

    def interfaces(self) -> dict[str, str]:
        """The interface of each address of this node."""
        return {
            one.address.partition("%")[0]: name
            for name, its in psutil.net_if_addrs().items()
            for one in its
            if one.family in (socket.AF_INET, socket.AF_INET6)
        }

    async def reach(self, addresses: Sequence[str], port: int, token: str) -> dict[str, str]:
        """The addresses at which a port is reached from here, and the interface of each."""
        found = await asyncio.gather(*(_reach(one, port, token) for one in addresses))
        return {
            address: interface
            for address, interface in zip(addresses, found, strict=True)
            if interface is not None
        }


class MeetingPoints:
    """The meeting points of a node: one for each attempt whose rank 0 is here.

        answer = await points.meet(message)      # rank 0 is here
        answer = await points.reach(message)     # other ranks are here
        points.give_way(7, attempt=1)            # the ranks start
        points.is_over(7, attempt=1)

    `begin_with(trial, step, parents)`, which is called in a thread, puts the checkpoints in place
    from which a trial goes on, the same on all nodes, and returns their names.
    """

    def __init__(
        self,
        network: Network,
        begin_with: Callable[[int, int | None, list[Any]], list[str]],
    ) -> None:
        self._network = network
        self._begin_with = begin_with
        self._points: dict[tuple[int, int], MeetingPoint] = {}  # by trial and attempt

    async def meet(self, message: dict[str, Any]) -> dict[str, Any]:
        """Choose a port for rank 0, which shows its token until the ranks start."""
        address = message["trial"], message["attempt"]
        answer: dict[str, Any] = {"port": 0, "token": "", "begins_with": [], "error": ""}
        answer["interfaces"] = self._network.interfaces()
        try:
            answer["begins_with"] = await self._goes_on(message)
            point = self._points[address] = await self._network.open(message["alone"])
            loop = asyncio.get_running_loop()
            loop.call_later(MEETING_S, self._forget, address, point)
            answer.update(port=point.port, token=point.token)
        except OSError as error:
            answer["error"] = str(error)
        return answer

    async def reach(self, message: dict[str, Any]) -> dict[str, Any]:
        """Try at which addresses of the node of rank 0 its port is reached from here."""
        answer: dict[str, Any] = {"interfaces": {}, "begins_with": [], "error": ""}
        try:
            answer["begins_with"] = await self._goes_on(message)
            answer["interfaces"] = await self._network.reach(
                message["addresses"], message["port"], message["token"]
            )
        except OSError as error:
            answer["error"] = str(error)
        return answer

    async def _goes_on(self, message: dict[str, Any]) -> list[str]:
        """Put the checkpoints in place with which the ranks here begin; returns their names."""
        goes_on = message["goes_on"]
        if goes_on is None:
            return []
        step, parents = goes_on["step"], goes_on["parents"]
        return await asyncio.to_thread(self._begin_with, message["trial"], step, parents)

    def give_way(self, trial: int, attempt: int) -> None:
        """Let rank 0 of an attempt listen on its port, if it has one."""
        if (point := self._points.get((trial, attempt))) is not None:
            point.give_way()

    def is_over(self, trial: int, attempt: int) -> None:
        """Give up the port of an attempt."""
        if (point := self._points.pop((trial, attempt), None)) is not None:
            point.close()

    def _forget(self, address: tuple[int, int], point: MeetingPoint) -> None:
        point.close()
        if self._points.get(address) is point:
            del self._points[address]

    def close(self) -> None:
        """Give up all ports."""
        for point in self._points.values():
            point.close()


def reserve(host: str, port: int) -> socket.socket:
    """A socket that is bound to a port (0: any free one), and does not listen."""
    family = socket.AF_INET6 if not host and has_ipv6() else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.bind((host, port))
    except OSError:
        reserved.close()
        raise
    return reserved


def has_ipv6() -> bool:
    """Whether this machine speaks IPv6."""
    if not socket.has_dualstack_ipv6():
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


async def _reach(address: str, port: int, token: str) -> str | None:
    """The interface through which a port shows this token; None if it does not in time."""
    try:
        return await asyncio.wait_for(_interface_to(address, port, token), REACH_S)
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
        return None


async def _interface_to(address: str, port: int, token: str) -> str | None:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        shown = await reader.readexactly(len(token))
        if shown != token.encode():
            return None
        own: str = writer.get_extra_info("sockname")[0]
        return Network().interfaces().get(own.partition("%")[0].removeprefix("::ffff:"), "")
    finally:
        writer.close()


def own_addresses() -> tuple[str, ...]:
    """The addresses at which other machines may reach this one, the likeliest first.

    None of them is sure to be reached: only a try tells.
    """
    names = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = {
        one.address: one.family
        for name, its in psutil.net_if_addrs().items()
        if name in names
        for one in its
        if one.family in (socket.AF_INET, socket.AF_INET6)
    }
    outside = [
        address
        for address in sorted(found, key=lambda one: found[one] is not socket.AF_INET)
        if not address.startswith(("127.", "::1", "fe80:"))
    ]
    first = _to_the_default_route()
    return tuple(dict.fromkeys([*([first] if first in outside else []), *outside, LOOPBACK]))


def _to_the_default_route() -> str | None:
    """The address from which this machine would speak to far machines; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # (an address for documentation)
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
