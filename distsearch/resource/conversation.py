"""The conversation with a node's starter, and the SSH connections on which its life hangs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import asyncssh

from ..errors import NodeError, printable
from . import starter
from .dask_link import Cluster, bracketed
from .interpreter import in_words, interpreters
from .login import CONNECT_S, LINE_LIMIT, hang_up, shown_cause, ssh, watch
from .node import Node
from .node_process import READY
from .parcel import parcel
from .strangers import is_own
from .versions import NODE_PACKAGES, compare, own_versions

if TYPE_CHECKING:
    from .pipe import MakeConnection, PipeConnection

HELLO_S = 30  # some logins take 20 s: a cold home on a network, `module load`
START_S = 40
PIECE = 1 << 16  # so many characters of the driver's distsearch are sent at a time
PIECE_S = 30  # the slowest link takes so long for a piece
LEASE_S = 30
GRACE_S = 5
GREETING_LIMIT = 1 << 18  # characters before the first word of the starter
PING_S = 5


class NodeProcess:
    """A starter on a node: what it runs there, and the connections that keep it; a `Lifeline`."""

    def __init__(
        self,
        node: Node,
        connections: list[asyncssh.SSHClientConnection],
        process: asyncssh.SSHClientProcess[str],
        packages: Sequence[str] = tuple(NODE_PACKAGES),
        hangs_up: bool = True,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.node = node
        self.address: str | None = None
        self.over: asyncio.Future[tuple[bool, str]] = loop.create_future()
        self._connections = connections
        self._packages = packages
        self._hangs_up = hangs_up
        self._process = process
        self.tunnels = False
        self._is_free = watch(connections[-1])
        self._hello: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._ready: asyncio.Future[str] = loop.create_future()
        self._output: deque[str] = deque(maxlen=30)
        # What the module that runs there prints.
        self._said: asyncio.Queue[dict[str, Any]] | None = None
        self._tasks = [loop.create_task(self._listen()), loop.create_task(self._say_i_am_here())]
        self._end: asyncio.Task[tuple[bool, str]] | None = None

    @classmethod
    async def start(
        cls,
        node: Node,
        connections: list[asyncssh.SSHClientConnection],
        command: str,
        *,
        packages: Sequence[str] = tuple(NODE_PACKAGES),
        hangs_up: bool = True,
    ) -> NodeProcess:
        """Run the starter by this command and wait for its hello. Raises NodeError.

        `packages`: the packages whose versions the hello tells. `hangs_up`: whether the connections
        are closed when the starter ends.
        """
        try:
            process = await asyncio.wait_for(
                connections[-1].create_process(
                    command,
                    stderr=asyncssh.STDOUT,
                    request_pty=False,
                    errors="replace",
                ),
                HELLO_S,
            )
        except BaseException as error:
            if hangs_up:
                await hang_up(connections)
            if not isinstance(error, (asyncssh.Error, OSError, asyncio.TimeoutError)):
                raise
            raise NodeError(
                f"node {str(node)!r} accepted the login but starts no process: "
                f"{str(error) or f'no answer in {HELLO_S} s'}; try: {ssh(node)} true",
                f"{ssh(node)} true",
            ) from shown_cause(error)
        self = cls(node, connections, process, packages, hangs_up)
        try:
            await self._wait_for(self._hello, HELLO_S)
        except BaseException:
            await self.end()
            raise
        return self

    def refuse_if_different(self) -> None:
        """Raise NodeError if the node's Python or packages do not fit the driver's."""
        hello = self._hello.result()
        if problem := compare(own_versions(), hello, self.node.host, hello["executable"]):
            raise NodeError(f"{problem}; or: distsearch setup {self.node}")

    async def send_distsearch(self) -> None:
        """Send the driver's distsearch, unless the node has the same. Raises NodeError."""
        if self._hello.result()["has_distsearch"]:
            return
        text = base64.b64encode(parcel().zipped).decode()
        try:
            for start in range(0, len(text), PIECE):
                self._write({"piece": text[start : start + PIECE]})
                await asyncio.wait_for(self._process.stdin.drain(), PIECE_S)
        except asyncio.TimeoutError:
            raise NodeError(
                f"node {str(self.node)!r}: its link is too slow or hangs: {PIECE // 1000} KB of "
                f"distsearch itself, which it lacks, have not arrived in {PIECE_S} s"
            ) from None
        except (OSError, asyncssh.Error):
            pass  # the node is gone; `_wait_for` tells why

    async def start_worker(self, cluster: Cluster, tunnel: bool) -> str:
        """Start the node's Dask worker; return its address once it has joined."""
        port = self._hello.result()["port"]
        spec: dict[str, Any] = {
            "name": f"{self.node.host}-{uuid.uuid4().hex[:8]}",
            "tls": cluster.authority.issue(self.node.host),
            "start_timeout_s": START_S,
        }
        self.tunnels = tunnel
        spec |= await (self._through_tunnel(cluster, port) if tunnel else self._directly(cluster))
        self._order("distsearch.resource.node_process", spec)
        worker: str = await self._wait_for(self._ready, START_S)
        self.address = f"tls://{self.node.host}:{port}" if tunnel else worker
        return worker

    @property
    def hello(self) -> dict[str, Any]:
        """What the starter has said of its interpreter."""
        return self._hello.result()

    async def run(self, module: str, spec: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Run a module of distsearch there, and yield the JSON objects that it prints.

        The module gets `spec` as a line on its standard input, and a further line for each `tell`.
        """
        said = self._said = asyncio.Queue()
        self._order(module, spec)
        while not (self.over.done() and said.empty()):
            coming: asyncio.Future[Any] = asyncio.ensure_future(said.get())
            await asyncio.wait([coming, self.over], return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                yield coming.result()
            else:
                coming.cancel()

    async def try_forwards(self) -> None:
        """Try whether tunnel mode would work. Raises NodeError."""
        connection = self._connections[-1]
        try:
            there = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 9)
            there.close()
            await asyncio.wait_for(_raise_if_prohibited(connection, self.hello["port"]), CONNECT_S)
        except (asyncssh.Error, asyncssh.ChannelListenError, OSError) as error:
            raise self._without_forwards(error) from shown_cause(error)

    def tell(self, message: dict[str, Any]) -> None:
        """Give the module that runs another line."""
        self._write({"input": message})

    async def end(self) -> tuple[bool, str]:
        """End all that runs on the node, then the connection (bounded, about 12 s)."""
        if self._end is None:
            self._end = asyncio.create_task(self._end_node())
        return await asyncio.shield(self._end)

    async def connect(self, path: str, make: MakeConnection) -> PipeConnection:
        """Connect to a Unix socket of the node. Raises OSError."""
        if self._end is not None:
            raise ConnectionError("the node is being closed")
        session: Any = partial(make, self._is_free)
        try:
            _, connection = await self._connections[-1].create_unix_connection(session, path)
        except asyncssh.Error as error:
            raise ConnectionError(printable(f"no way to {path}: {error}")) from None
        return cast("PipeConnection", connection)

    async def _end_node(self) -> tuple[bool, str]:
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()  # (the starter then ends all, and says so)
        # (A starter that has not said hello has nothing to end.)
        await asyncio.wait([self.over], timeout=GRACE_S + 5 if self._hello.done() else 1)
        for task in self._tasks:
            task.cancel()
        if self._hangs_up:
            await hang_up(self._connections)
        return self.over.result() if self.over.done() else (False, "")

    async def _through_tunnel(self, cluster: Cluster, port: int) -> dict[str, Any]:
        """Join by two forwards on loopback: node to scheduler, driver to the node's worker."""
        connection = self._connections[-1]
        scheduler_port = int(cluster.own_address.rpartition(":")[2])
        try:
            to_driver = await connection.forward_remote_port(
                "127.0.0.1", 0, "127.0.0.1", scheduler_port
            )
            own_port: list[int] = []
            to_node = await connection.forward_local_port(
                "127.0.0.1", 0, "127.0.0.1", port, lambda _, from_: is_own(from_, own_port[0])
            )
            own_port.append(to_node.get_port())
            await asyncio.wait_for(_raise_if_prohibited(connection, port), CONNECT_S)
        except (asyncssh.Error, asyncssh.ChannelListenError, OSError) as error:
            raise self._without_forwards(error) from shown_cause(error)
        return {
            "scheduler": f"tls://127.0.0.1:{to_driver.get_port()}",
            "host": "127.0.0.1",
            "port": port,
            "contact": f"tls://127.0.0.1:{to_node.get_port()}",
        }

    def _without_forwards(self, error: Exception) -> NodeError:
        return NodeError(
            f"node {str(self.node)!r} forwards no ports: {error}; allow it there "
            "(AllowTcpForwarding yes in sshd_config) or use Node(..., tunnel=False)",
            "echo AllowTcpForwarding yes | sudo tee -a /etc/ssh/sshd_config; "
            "sudo systemctl reload ssh",
        )

    async def _directly(self, cluster: Cluster) -> dict[str, Any]:
        """Join without forwards: node and driver listen on the addresses of the SSH connection."""
        connection = self._connections[-1]
        own_address = connection.get_extra_info("sockname")[0]
        its_address = self._hello.result()["address"] or connection.get_extra_info("peername")[0]
        return {
            "scheduler": await cluster.listen_on(own_address),
            "host": bracketed(its_address),
            "port": 0,
            "contact": None,
        }

    # The conversation with the starter

    def _order(self, module: str, spec: dict[str, Any]) -> None:
        command = ["-m", module]
        self._write({"command": command, "spec": spec, "lease_s": LEASE_S, "grace_s": GRACE_S})

    def _write(self, message: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(message) + "\n")

    async def _say_i_am_here(self) -> None:
        await asyncio.wait([self._hello])  # before that, a start-up file might read it
        while True:
            await asyncio.sleep(PING_S)
            with contextlib.suppress(OSError, asyncssh.Error):
                self._process.stdin.write("\n")

    async def _listen(self) -> None:
        """Take what the starter says, until it is gone; a line that is no message is output."""
        over = (False, "the SSH connection was lost")
        unanswered = 0
        try:
            async for line in self._process.stdout:
                unanswered += 0 if self._hello.done() else len(line)
                if unanswered > GREETING_LIMIT:  # and would keep the loop from all other nodes
                    over = (False, "its login prints without end")
                    break
                message = _message(line)
                if message["op"] == "ready":
                    self._write(
                        {
                            "env": dict(self.node.env),
                            "packages": list(self._packages),
                            "distsearch": parcel().content,
                        }
                    )
                elif message["op"] == "hello":
                    self._hello.set_result(message)
                elif message["op"] == "gone":
                    over = (True, self._why_gone(str(message["reason"])[:LINE_LIMIT]))
                elif self._said is not None and (said := json_object(message["line"])):
                    self._said.put_nowait(said)
                elif message["line"].startswith(READY):
                    self._ready.set_result(message["line"][len(READY) :].strip())
                elif message["line"].strip():
                    self._output.append(str(message["line"])[:LINE_LIMIT].rstrip())
            else:
                await asyncio.wait_for(self._process.wait_closed(), 2)
                if not over[0] and self._process.exit_status is not None:
                    code = self._process.exit_status
                    over = (False, f"the starter ended with exit code {code}")
        except (asyncssh.Error, OSError, asyncio.TimeoutError) as error:
            over = (False, f"the SSH connection was lost: {error}"[:LINE_LIMIT])
        finally:
            self.over.set_result(over)

    async def _wait_for(self, answer: asyncio.Future[Any], timeout_s: float) -> Any:
        """Wait for the starter to say something; NodeError when it ends or stays silent."""
        await asyncio.wait(
            [answer, self.over], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if answer.done():
            return answer.result()
        name = str(self.node)
        if not self.over.done():
            raise NodeError(
                f"node {name!r} accepted the login but said nothing for {timeout_s:g} s"
                f"{self._last_words()}; does this work? {ssh(self.node)} "
                f"{self.node.python or 'python3'} --version"
            )
        if answer is self._hello and self._process.exit_status in (126, 127):
            tried = " and no ".join(map(in_words, interpreters(self.node)))
            raise NodeError(
                f"node {name!r} has no {tried}: name its interpreter "
                f"with Node({self.node.host!r}, python='/path/to/python3'){self._last_words()}",
                "" if self.node.python else "sudo apt install python3 python3-venv",
            )
        has_ended, reason = self.over.result()
        words = "" if has_ended else self._last_words()
        raise NodeError(f"node {name!r} did not come up: {reason}{words}")

    def _why_gone(self, reason: str) -> str:
        """The starter's reason, with the last words of a node whose end that does not explain."""
        if reason == starter.ASKED_TO:
            return ""
        return reason if reason.startswith(starter.NO_WORD) else reason + self._last_words()

    def _last_words(self) -> str:
        """The last lines of output, to be put at the end of an error."""
        return "".join(f"\n    | {line}" for line in list(self._output)[-15:])


async def _raise_if_prohibited(connection: asyncssh.SSHClientConnection, port: int) -> None:
    """Raise ChannelOpenError where sshd lets no connection through to a node's port.

    sshd refuses a forward from here to the node only when a connection comes (one in the other
    direction at once). Nobody listens on the port yet, so the connection fails in any case.
    """
    try:
        _, writer = await connection.open_connection("127.0.0.1", port)
        writer.close()
    except asyncssh.ChannelOpenError as error:
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            raise


def _message(line: str) -> dict[str, Any]:
    message = json_object(line)
    if "op" in message:
        return message
    return {"op": "output", "line": line}  # from a shell: a greeting, or a complaint


def json_object(line: str) -> dict[str, Any]:
    """The JSON object in a line, or {} where the line is no JSON object."""
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    return {}
