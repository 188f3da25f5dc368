"""Nodes reached over SSH: log in, start the starter, join its Dask worker to the cluster.

    nodes = await bring_up(cluster, [Node("gpu1"), Node("gpu2", user="ada")])

In tunnel mode (the default) nothing but the node's SSH port is needed: the node's worker and the
driver's scheduler listen on loopback and meet through the connection. In direct mode
(`tunnel=False`) they listen on the addresses that the SSH connection uses. Both speak mutual TLS.
Host keys are always checked; nothing turns that off.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import shlex
import socket
import sys
import uuid
import zlib
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import asyncssh

from ..errors import HostKeyError, NodeError, printable
from . import starter
from .dask_link import Cluster, DaskRemote, bracketed, not_lost
from .detect import declared
from .node import Node
from .node_process import READY
from .parcel import parcel
from .strangers import is_own
from .versions import NODE_PACKAGES, compare, own_versions

if TYPE_CHECKING:
    from .pipe import MakeConnection, PipeConnection

LOGINS_AT_ONCE = 10  # at one host; of more at once sshd drops some
CONNECT_S = 10
LOGIN_AGAIN_AFTER_S = (0.5, 1.0, 2.0, 4.0)
HELLO_S = 30  # some take 20 s to log in: a cold home on a network, `module load`
START_S = 40
PIECE = 1 << 16  # characters of the driver's distsearch that are sent at once
PIECE_S = 30  # the slowest link takes one in so long
LEASE_S = 30
GRACE_S = 5
PING_S = 5
LINE_LIMIT = 1000  # characters of a line that a node says, or that its login says

# Preferred, unless the configuration names ciphers: twice as fast as asyncssh's first choice.
FAST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
NOT_SENT_BYTES = 1 << 17  # so much of a connection the system may hold ahead of the network
DEFAULT_CONFIG = "~/.ssh/config"
DEFAULT_KNOWN_HOSTS = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
GLOBAL_KNOWN_HOSTS = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]


async def bring_up(
    cluster: Cluster,
    nodes: Sequence[Node],
    *,
    ssh_config: Sequence[str] | None = None,
    tunnel: bool | None = None,
) -> list[DaskRemote | NodeError]:
    """Bring up nodes at once; for each the remote or what went wrong, in the order of `nodes`.

    `ssh_config`: files to read instead of ~/.ssh/config. `tunnel` is for nodes that say nothing
    themselves. Later calls add nodes; `await remote.close()` takes one away.
    """
    return not_lost(await asyncio.gather(*start_all(cluster, nodes, ssh_config, tunnel)))


def start_all(
    cluster: Cluster,
    nodes: Sequence[Node],
    ssh_config: Sequence[str] | None = None,
    tunnel: bool | None = None,
) -> list[asyncio.Task[DaskRemote | NodeError]]:
    """The same, with a task for each: one that is slow holds up no other."""
    logins: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOGINS_AT_ONCE))

    async def one(node: Node, remote_id: int) -> DaskRemote | NodeError:
        try:
            async with logins[node.host]:
                connections = await log_in(node, config_files(ssh_config))
            process = await NodeProcess.start(node, connections)
            return await _join(cluster, process, remote_id, tunnel)
        except NodeError as error:
            return error
        except Exception as error:  # whatever it is, it must not fail the other nodes
            failure = NodeError(f"node {str(node)!r}: {error or repr(error)}")
            failure.__cause__ = shown_cause(error)
            return failure

    return [asyncio.create_task(one(node, next(cluster.remote_ids))) for node in nodes]


async def _join(
    cluster: Cluster, process: NodeProcess, remote_id: int, tunnel: bool | None
) -> DaskRemote:
    """Let a greeted node join the cluster; leave nothing of it when that fails."""
    node = process.node
    if node.tunnel is not None:
        tunnel = node.tunnel
    try:
        process.refuse_if_different()
        await process.send_distsearch()
        worker = await process.start_worker(cluster, tunnel is not False)
        remote = await cluster.attach(
            worker,
            remote_id=remote_id,
            host=node.host,
            address=process.address,
            lifeline=process,
            adapt=lambda facts, pinned: declared(node, facts),
        )
    except BaseException as error:
        await process.end()
        if isinstance(error, NodeError) and tunnel is False:
            hint = "with tunnel=True nothing but SSH's port is needed"
            raise NodeError(f"{error}; {hint}") from shown_cause(error)
        raise
    process.over.add_done_callback(lambda over: remote.lose(over.result()[1]))
    return remote


class NodeProcess:
    """The starter on a node, and the SSH connections on which its life hangs; a `Lifeline`."""

    def __init__(
        self,
        node: Node,
        connections: list[asyncssh.SSHClientConnection],
        process: asyncssh.SSHClientProcess[str],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.node = node
        self.address: str | None = None
        self.over: asyncio.Future[tuple[bool, str]] = loop.create_future()
        self._connections = connections
        self._process = process
        self.tunnels = False
        self._is_free = watch(connections[-1])
        self._hello: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._ready: asyncio.Future[str] = loop.create_future()
        self._output: deque[str] = deque(maxlen=30)
        self._tasks = [loop.create_task(self._listen()), loop.create_task(self._say_i_am_here())]
        self._end: asyncio.Task[tuple[bool, str]] | None = None

    @classmethod
    async def start(
        cls, node: Node, connections: list[asyncssh.SSHClientConnection]
    ) -> NodeProcess:
        """Run the starter and wait for its hello. Raises NodeError."""
        try:
            process = await asyncio.wait_for(
                connections[-1].create_process(
                    starter_command(node.python),
                    stderr=asyncssh.STDOUT,
                    request_pty=False,
                    errors="replace",
                ),
                HELLO_S,
            )
        except BaseException as error:
            await hang_up(connections)
            if not isinstance(error, (asyncssh.Error, OSError, asyncio.TimeoutError)):
                raise
            raise NodeError(
                f"node {str(node)!r} accepted the login but starts no process: "
                f"{str(error) or f'no answer in {HELLO_S} s'}; try: {ssh(node)} true"
            ) from shown_cause(error)
        self = cls(node, connections, process)
        try:
            await self._wait_for(self._hello, HELLO_S)
        except BaseException:
            await self.end()
            raise
        return self

    def refuse_if_different(self) -> None:
        """Raise NodeError if the node's Python or packages do not go with the driver's."""
        hello = self._hello.result()
        if problem := compare(own_versions(), hello, self.node.host, hello["executable"]):
            raise NodeError(problem)

    async def send_distsearch(self) -> None:
        """Send this very distsearch, if the node does not have it. Raises NodeError."""
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
            pass  # the node is gone; why is told by whoever waits for its answer

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
        self._write(
            {
                "command": ["-m", "distsearch.resource.node_process"],
                "spec": spec,
                "lease_s": LEASE_S,
                "grace_s": GRACE_S,
            }
        )
        worker: str = await self._wait_for(self._ready, START_S)
        self.address = f"tls://{self.node.host}:{port}" if tunnel else worker
        return worker

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
            self._process.stdin.write_eof()  # at which the starter ends all, and says so
        # A starter that has not said hello has nothing to end.
        await asyncio.wait([self.over], timeout=GRACE_S + 5 if self._hello.done() else 1)
        for task in self._tasks:
            task.cancel()
        await hang_up(self._connections)
        return self.over.result() if self.over.done() else (False, "")

    async def _through_tunnel(self, cluster: Cluster, port: int) -> dict[str, Any]:
        """Two forwards, both ends on loopback: node -> scheduler, driver -> the node's worker."""
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
            raise NodeError(
                f"node {str(self.node)!r} forwards no ports: {error}; allow it there "
                "(AllowTcpForwarding yes in sshd_config) or use Node(..., tunnel=False)"
            ) from shown_cause(error)
        return {
            "scheduler": f"tls://127.0.0.1:{to_driver.get_port()}",
            "host": "127.0.0.1",
            "port": port,
            "contact": f"tls://127.0.0.1:{to_node.get_port()}",
        }

    async def _directly(self, cluster: Cluster) -> dict[str, Any]:
        """No forwards: node and driver listen on the addresses that the SSH connection uses."""
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

    def _write(self, message: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(message) + "\n")

    async def _say_i_am_here(self) -> None:
        await asyncio.wait([self._hello])  # a start-up file of a slow login may read what comes
        while True:
            await asyncio.sleep(PING_S)
            with contextlib.suppress(OSError, asyncssh.Error):
                self._process.stdin.write("\n")

    async def _listen(self) -> None:
        """Take what the starter says until it is gone; what is no message is output."""
        over = (False, "the SSH connection was lost")
        try:
            async for line in self._process.stdout:
                message = _message(line)
                if message["op"] == "ready":
                    self._write(
                        {
                            "env": dict(self.node.env),
                            "packages": list(NODE_PACKAGES),
                            "distsearch": parcel().content,
                        }
                    )
                elif message["op"] == "hello":
                    self._hello.set_result(message)
                elif message["op"] == "gone":
                    asked_to = message["reason"] == starter.ASKED_TO
                    reason = str(message["reason"])[:LINE_LIMIT]
                    over = (True, "" if asked_to else reason + self._last_words())
                elif message["line"].startswith(READY):
                    self._ready.set_result(message["line"][len(READY) :].strip())
                elif message["line"].strip():
                    self._output.append(str(message["line"])[:LINE_LIMIT].rstrip())
            await asyncio.wait_for(self._process.wait_closed(), 2)
            if not over[0] and self._process.exit_status is not None:
                over = (False, f"the starter ended with exit code {self._process.exit_status}")
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
        name, tried = str(self.node), interpreters(self.node.python)
        if not self.over.done():
            raise NodeError(
                f"node {name!r} accepted the login but said nothing for {timeout_s:g} s"
                f"{self._last_words()}; does this work? {ssh(self.node)} {tried[-1]} --version"
            )
        if answer is self._hello and self._process.exit_status in (126, 127):
            raise NodeError(
                f"node {name!r} has no {' and no '.join(map(repr, tried))}: name its interpreter "
                f"with Node({self.node.host!r}, python='/path/to/python3'){self._last_words()}"
            )
        _, reason = self.over.result()
        raise NodeError(f"node {name!r} did not come up: {reason}{self._last_words()}")

    def _last_words(self) -> str:
        """The last lines of output, to be put at the end of an error."""
        return "".join(f"\n    | {line}" for line in list(self._output)[-15:])


async def _raise_if_prohibited(connection: asyncssh.SSHClientConnection, port: int) -> None:
    """Raise ChannelOpenError where sshd lets nobody through to a node's port.

    Forwarding from here to there is refused only when somebody comes; the other way at once. Nobody
    listens there yet, so that the connection fails in any case.
    """
    try:
        _, writer = await connection.open_connection("127.0.0.1", port)
        writer.close()
    except asyncssh.ChannelOpenError as error:
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            raise


def _message(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict) and "op" in message:
            return message
    return {"op": "output", "line": line}  # what a shell prints: a greeting, or a complaint


def shown_cause(error: BaseException) -> BaseException | None:
    """The cause of an error, unless its text could do something to a terminal.

    Whoever answers at an address may write into it, before it is known who that is; Python shows
    causes as they are.
    """
    return error if printable(str(error)) == str(error) else None


# Runs before the starter, which an older Python cannot even compile; Python 2 too reads this.
_FIRST_LOOK = """
import sys
sys.path[:] = [path for path in sys.path if path]
import json
if sys.version_info < (3, 8):
    hello = {"op": "hello", "python": list(sys.version_info[:3]), "packages": {}}
    hello["executable"] = sys.executable
    sys.stdout.write("\\n" + json.dumps(hello) + "\\n")
    sys.stdout.flush()
    sys.exit(0)
"""
# Becomes the first of some interpreters that is there, with some code.
_FIRST_OF = (
    'code="$1"; shift; for python in "$@"; do '
    'command -v "$python" >/dev/null 2>&1 && exec "$python" -u -c "$code"; done; exit 127'
)


def interpreters(python: str | None) -> list[str]:
    """Where a node's interpreter may be: as named, else where the driver's is, or on the path."""
    return [python] if python else [sys.executable, "python3"]


def starter_command(python: str | None) -> str:
    """The command that runs the starter's source, in one line that every shell reads alike."""
    first, source = map(_packed, (_FIRST_LOOK.encode(), Path(starter.__file__).read_bytes()))
    code = f"import base64,zlib;exec({first});exec({source})"
    if python is None:
        words = ["sh", "-c", _FIRST_OF, "sh", code, *interpreters(None)]
        return f"exec {shlex.join(words)}"
    home = "~/" if python.startswith("~/") else ""  # a shell replaces no ~ in quotes
    return f"exec {home}{shlex.quote(python[len(home) :])} -u -c {shlex.quote(code)}"


def _packed(source: bytes) -> str:
    """An expression of Python that gives a source text, without any sign that a shell reads."""
    packed = base64.b64encode(zlib.compress(source, 9)).decode()
    return f'zlib.decompress(base64.b64decode("{packed}"))'


# Logging in


async def log_in(
    node: Node,
    config: list[str],
    through: asyncssh.SSHClientConnection | None = None,
    on_the_way_to: tuple[Node, ...] = (),
) -> list[asyncssh.SSHClientConnection]:
    """Connect and authenticate: the connection to the node, after those to its jump hosts.

    Raises NodeError, or HostKeyError, with the command that mends it.
    """
    if node in on_the_way_to:
        raise NodeError(f"node {str(node)!r}: its jump hosts (ProxyJump) lead in a circle")
    connections: list[asyncssh.SSHClientConnection] = []
    login = _Login(node, config)
    try:
        await login.prepare()
        for hop in [] if through else login.jumps():
            last = connections[-1] if connections else None
            connections += await log_in(hop, config, last, (*on_the_way_to, node))
        connections.append(await login.insist(connections[-1] if connections else through))
    except (asyncssh.Error, OSError, ValueError, asyncio.TimeoutError) as error:
        await hang_up(connections)
        raise login.explain(error) from shown_cause(error)
    except BaseException:
        await hang_up(connections)
        raise
    return connections


def watch(connection: asyncssh.SSHClientConnection) -> asyncio.Event:
    """An event that is set while a connection takes more, and clear while data waits in it.

    asyncssh goes on taking what comes: 2 MB a channel. On a slow link the pings that keep a node
    alive would wait behind that for longer than its lease. Private to
    asyncssh: the connection is the protocol of its transport, which calls these two methods, and
    asyncssh has them do nothing.
    """
    is_free = asyncio.Event()
    is_free.set()
    connection.pause_writing = is_free.clear  # type: ignore[method-assign]
    connection.resume_writing = is_free.set  # type: ignore[method-assign]
    own_socket = connection.get_extra_info("socket")
    if own_socket is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # the system's buffer holds up pings as asyncssh's does
            own_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
    return is_free


async def hang_up(connections: list[asyncssh.SSHClientConnection]) -> None:
    """Close connections, the last first; bounded."""
    for connection in reversed(connections):
        connection.close()
        try:
            await asyncio.wait_for(connection.wait_closed(), 2)
        except asyncio.TimeoutError:
            connection.abort()


class _Login:
    """One login: its settings, and what its errors mean."""

    def __init__(self, node: Node, config: list[str]) -> None:
        self.node = node
        self.offered: asyncssh.SSHKey | None = None
        self.known = asyncssh.SSHKnownHosts()
        self.known_hosts_file = DEFAULT_KNOWN_HOSTS[0]
        self.options: asyncssh.SSHClientConnectionOptions | None = None
        self.settings: dict[str, Any] = {
            "host": node.host,
            "config": config,
            "connect_timeout": CONNECT_S,
            "login_timeout": CONNECT_S,
            "keepalive_interval": 5,
            "keepalive_count_max": 3,
            "ignore_encrypted": True,  # the SSH agent may hold the keys that are locked
            "agent_forwarding": False,
            "client_factory": lambda: _HostKeyWitness(self),
        }
        if node.user is not None:
            self.settings["username"] = node.user
        if node.port is not None:
            self.settings["port"] = node.port
        if node.key is not None:
            self.settings["client_keys"] = [str(Path(node.key).expanduser())]

    async def prepare(self) -> None:
        """Read the configuration for this host, and the keys that it may have."""
        self.options = await asyncssh.SSHClientConnectionOptions.construct(**self.settings)
        if not self._configured("Ciphers", ""):
            self.settings["encryption_algs"] = FAST_CIPHERS
        user = self._configured("UserKnownHostsFile", DEFAULT_KNOWN_HOSTS)
        if not user:
            raise HostKeyError(
                f"node {str(self.node)!r}: 'UserKnownHostsFile none' in the SSH configuration "
                "would turn off the check of host keys; name a file there"
            )
        self.known_hosts_file = user[0]
        files = user + self._configured("GlobalKnownHostsFile", GLOBAL_KNOWN_HOSTS)
        paths = [Path(file).expanduser() for file in files]
        self.known = asyncssh.read_known_hosts([str(path) for path in paths if path.is_file()])

    def jumps(self) -> list[Node]:
        """The jump hosts that the configuration names."""
        jumps = self._configured("ProxyJump", "none")
        return [] if jumps == "none" else [Node.parse(jump.strip()) for jump in jumps.split(",")]

    async def insist(
        self, through: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        """Connect, again if the server drops the connection: of many at once it takes but some.

        (MaxStartups of sshd; a jump host sees the logins of all nodes behind it.)
        """
        for pause_s in LOGIN_AGAIN_AFTER_S:
            try:
                return await self.connect(through)
            except (asyncssh.ConnectionLost, ConnectionResetError):
                if self._has_a_new_key():
                    raise
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        return await self.connect(through)

    async def connect(
        self, through: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        """Connect and authenticate."""
        connect = asyncssh.connect(known_hosts=self.known, tunnel=through, **self.settings)
        try:
            # `connect_timeout` does not cover everything that a hung server can do.
            return await asyncio.wait_for(connect, CONNECT_S + 5)
        except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost):
            host, port = self._where()
            if self._known_keys(host, port):  # perhaps the host has none of that kind any more
                look = asyncssh.get_server_host_key(host, port, tunnel=through, config=None)
                with contextlib.suppress(asyncssh.Error, OSError, asyncio.TimeoutError):
                    self.offered = await asyncio.wait_for(look, CONNECT_S)
            raise

    def _where(self) -> tuple[str, int]:
        if self.options is None:
            return self.node.host, self.node.port or 22
        return self.options.host, self.options.port

    def _configured(self, name: str, default: Any) -> Any:
        assert self.options is not None
        return self.options.config.get(name, default)

    def explain(self, error: Exception) -> NodeError:
        """Say what an error of the login means, and what mends it."""
        if isinstance(error, NodeError):
            return error
        name, (host, port) = f"node {str(self.node)!r}", self._where()
        where = f"{host}:{port}" if port != 22 else host
        if self._has_a_new_key() or isinstance(error, asyncssh.HostKeyNotVerifiable):
            return self._explain_host_key(error, host, port)
        if isinstance(error, asyncssh.PermissionDenied):
            return NodeError(self._explain_denial(name))
        if isinstance(error, ConnectionRefusedError):
            return NodeError(f"{name}: nothing listens at {where}; is sshd running there?")
        if isinstance(error, socket.gaierror):
            return NodeError(f"{name}: the name {host!r} is not known here; check its spelling")
        if isinstance(error, asyncio.TimeoutError):
            return NodeError(
                f"{name}: no login at {where} within {CONNECT_S} s; is the machine up, and its "
                f"port {port} open? Try: {ssh(self.node)} true"
            )
        if isinstance(error, asyncssh.KeyImportError | FileNotFoundError) and self.node.key:
            return NodeError(f"{name}: the key {self.node.key!r} cannot be used: {error}")
        return NodeError(
            f"{name}: no login at {where}: {(str(error) or type(error).__name__)[:LINE_LIMIT]}; "
            f"what does this say? {ssh(self.node)} true"
        )

    def _has_a_new_key(self) -> bool:
        return self.offered is not None and self.offered not in self._known_keys(*self._where())

    def _known_keys(self, host: str, port: int) -> Sequence[Any]:
        alias = self._configured("HostKeyAlias", host)
        return self.known.match(alias, "", port if port != 22 else None)[0]

    def _explain_host_key(self, error: Exception, host: str, port: int) -> HostKeyError:
        shown = self.offered.get_fingerprint() if self.offered else "revoked"
        pattern = host if port == 22 else f"[{host}]:{port}"
        file = self.known_hosts_file
        if "revoked" in str(error):
            return HostKeyError(f"node {str(self.node)!r}: its host key is revoked in {file}")
        if self._known_keys(host, port):
            return HostKeyError(
                f"node {str(self.node)!r}: THE HOST KEY HAS CHANGED; it is now {shown}. Somebody "
                "may be listening in, or the machine was installed anew. Only if you know why it "
                f"changed: ssh-keygen -R {shlex.quote(pattern)} -f {file}, then {ssh(self.node)}"
            )
        return HostKeyError(
            f"node {str(self.node)!r}: its host key is not known yet; it is {shown}. Compare it, "
            f"then: ssh-keyscan -p {port} {host} >> {file} (or log in once: {ssh(self.node)})"
        )

    def _explain_denial(self, name: str) -> str:
        files = [self.node.key] if self.node.key else self._configured("IdentityFile", [])
        locked = [file for file in files if file and _is_locked(Path(file).expanduser())]
        tried = ", ".join(map(str, files)) or "the default keys of ~/.ssh"
        if os.environ.get("SSH_AUTH_SOCK"):
            tried += " and those of the SSH agent"
        user = self.options.username if self.options is not None else self.node.user
        if locked:
            return (
                f"{name}: the key {locked[0]} is locked with a passphrase; "
                f"unlock it for the SSH agent: ssh-add {locked[0]}"
            )
        return (
            f"{name} refused user {user!r} with {tried}; put the public key there: "
            f"ssh-copy-id{ssh(self.node)[3:]}, or give Node(..., user=..., key=...)"
        )


class _HostKeyWitness(asyncssh.SSHClient):
    """Keeps the host key that is not trusted, to show it in the error."""

    def __init__(self, login: _Login) -> None:
        self._login = login

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self._login.offered = key
        return False


def config_files(ssh_config: Sequence[str] | None) -> list[str]:
    """The configuration files to read: those given, else ~/.ssh/config if it is there."""
    if ssh_config is not None:
        return [str(Path(file).expanduser()) for file in ssh_config]
    default = Path(DEFAULT_CONFIG).expanduser()
    return [str(default)] if default.is_file() else []


def ssh(node: Node) -> str:
    """The command that a user would type."""
    port = f" -p {node.port}" if node.port is not None else ""
    user = f"{node.user}@" if node.user is not None else ""
    return f"ssh{port} {user}{node.host}"


def _is_locked(path: Path) -> bool:
    try:
        asyncssh.read_private_key(path)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        return "passphrase" in str(error).lower()
    except OSError:
        return False
    return False
