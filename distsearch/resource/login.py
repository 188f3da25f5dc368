"""Logging in to a node over SSH: the user's own configuration, and what each refusal means.

    connections = await log_in(Node("gpu1"), config_files(None))

Host keys are always checked; nothing turns that off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh

from ..errors import HostKeyError, NodeError, printable
from .node import Node

CONNECT_S = 10  # so long a host has to answer
LOGIN_S = 30  # so long it has then for the login: it may ask a slow directory
LOGIN_AGAIN_AFTER_S = (0.5, 1.0, 2.0, 4.0)
LINE_LIMIT = 1000  # so many characters of a line of a node, or of its login, are kept

# Preferred unless the configuration names ciphers; twice as fast as asyncssh's first choice.
FAST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
NOT_SENT_BYTES = 1 << 17  # the system may hold so much of a connection that is not sent yet
DEFAULT_CONFIG = "~/.ssh/config"
DEFAULT_KNOWN_HOSTS = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
GLOBAL_KNOWN_HOSTS = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]


async def log_in(
    node: Node,
    config: list[str],
    through: asyncssh.SSHClientConnection | None = None,
    on_the_way_to: tuple[Node, ...] = (),
) -> list[asyncssh.SSHClientConnection]:
    """Log in to a node; returns the connections, to its jump hosts first, to the node last.

    Raises NodeError or HostKeyError, with the command that mends it.
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

    asyncssh takes 2 MB for each channel before a writer has to wait. On a slow link the pings that
    keep a node alive would wait behind that for longer than its lease. Private to asyncssh: the
    connection is the protocol of its transport, which calls the two methods that are replaced here.
    """
    is_free = asyncio.Event()
    is_free.set()
    connection.pause_writing = is_free.clear  # type: ignore[method-assign]
    connection.resume_writing = is_free.set  # type: ignore[method-assign]
    own_socket = connection.get_extra_info("socket")
    if own_socket is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # (the system's buffer would hold up pings, too)
            own_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
    return is_free


async def hang_up(connections: list[asyncssh.SSHClientConnection]) -> None:
    """Close connections, the last one first, within a bound."""
    for connection in reversed(connections):
        connection.close()
        try:
            await asyncio.wait_for(connection.wait_closed(), 2)
        except asyncio.TimeoutError:
            connection.abort()


class _Login:
    """A login to one host: its settings, and the meaning of its errors."""

    def __init__(self, node: Node, config: list[str]) -> None:
        self.node = node
        self.offered: asyncssh.SSHKey | None = None
        self.connection: asyncssh.SSHClientConnection | None = None  # once it is made
        self.known = asyncssh.SSHKnownHosts()
        self.known_hosts_file = DEFAULT_KNOWN_HOSTS[0]
        self.options: asyncssh.SSHClientConnectionOptions | None = None
        self.settings: dict[str, Any] = {
            "host": node.host,
            "config": config,
            "connect_timeout": None,  # (`connect` has its own bounds)
            "login_timeout": 0,
            "keepalive_interval": 5,
            "keepalive_count_max": 3,
            "ignore_encrypted": True,  # (locked keys may be in the SSH agent)
            "agent_forwarding": False,
            "client_factory": lambda: _Witness(self),
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
        """Connect, and try again if the server drops the connection.

        sshd takes only some of many logins at once (MaxStartups), and a jump host has the logins of
        all nodes behind it.
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
        """Connect and authenticate, each within its bound."""
        self.connection = None
        connecting = asyncio.ensure_future(
            asyncssh.connect(known_hosts=self.known, tunnel=through, **self.settings)
        )
        try:
            await asyncio.wait([connecting], timeout=CONNECT_S)
            if not connecting.done() and not self._has_greeted():
                raise asyncio.TimeoutError
            return await asyncio.wait_for(connecting, LOGIN_S)
        except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost):
            host, port = self._where()
            if self._known_keys(host, port):  # (perhaps the host has no key of this kind any more)
                look = asyncssh.get_server_host_key(host, port, tunnel=through, config=None)
                with contextlib.suppress(asyncssh.Error, OSError, asyncio.TimeoutError):
                    self.offered = await asyncio.wait_for(look, CONNECT_S)
            raise
        finally:
            connecting.cancel()

    def _has_greeted(self) -> bool:
        connection = self.connection
        return connection is not None and bool(connection.get_extra_info("server_version"))

    def _where(self) -> tuple[str, int]:
        if self.options is None:
            return self.node.host, self.node.port or 22
        return self.options.host, self.options.port

    def _configured(self, name: str, default: Any) -> Any:
        assert self.options is not None
        return self.options.config.get(name, default)

    def explain(self, error: Exception) -> NodeError:
        """The NodeError for an error of the login: what it means, and what mends it."""
        if isinstance(error, NodeError):
            return error
        name, (host, port) = f"node {str(self.node)!r}", self._where()
        where = f"{host}:{port}" if port != 22 else host
        if self._has_a_new_key() or isinstance(error, asyncssh.HostKeyNotVerifiable):
            return self._explain_host_key(error, host, port)
        if isinstance(error, asyncssh.PermissionDenied):
            return self._explain_denial(name)
        if isinstance(error, ConnectionRefusedError):
            told = f"{name}: nothing listens at {where}; is sshd running there?"
            return NodeError(told, "sudo systemctl start ssh")
        if isinstance(error, socket.gaierror):
            told = f"{name}: the name {host!r} is not known here; check its spelling"
            return NodeError(told, f"getent hosts {host}")
        if isinstance(error, asyncio.TimeoutError) and self._has_greeted():
            return NodeError(
                f"{name}: {where} has answered, but let nobody in within {LOGIN_S} s; what is slow "
                f"there? {ssh(self.node)} -v true",
                f"{ssh(self.node)} -v true",
            )
        if isinstance(error, asyncio.TimeoutError):
            return NodeError(
                f"{name}: no login at {where} within {CONNECT_S} s; is the machine up, and its "
                f"port {port} open? Try: {ssh(self.node)} true",
                f"{ssh(self.node)} true",
            )
        if isinstance(error, asyncssh.KeyImportError | FileNotFoundError) and self.node.key:
            return NodeError(f"{name}: the key {self.node.key!r} cannot be used: {error}")
        return NodeError(
            f"{name}: no login at {where}: {(str(error) or type(error).__name__)[:LINE_LIMIT]}; "
            f"what does this say? {ssh(self.node)} true",
            f"{ssh(self.node)} true",
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
            forget = f"ssh-keygen -R {shlex.quote(pattern)} -f {file}"
            return HostKeyError(
                f"node {str(self.node)!r}: THE HOST KEY HAS CHANGED; it is now {shown}. Somebody "
                "may be listening in, or the machine was installed anew. Only if you know why it "
                f"changed: {forget}, then {ssh(self.node)}",
                forget,
            )
        trust = f"ssh-keyscan -p {port} {host} >> {file}"
        return HostKeyError(
            f"node {str(self.node)!r}: its host key is not known yet; it is {shown}. Compare it, "
            f"then: {trust} (or log in once: {ssh(self.node)})",
            trust,
        )

    def _explain_denial(self, name: str) -> NodeError:
        files = [self.node.key] if self.node.key else self._configured("IdentityFile", [])
        locked = [file for file in files if file and _is_locked(Path(file).expanduser())]
        tried = ", ".join(map(str, files)) or "the default keys of ~/.ssh"
        if os.environ.get("SSH_AUTH_SOCK"):
            tried += " and those of the SSH agent"
        user = self.options.username if self.options is not None else self.node.user
        if locked:
            unlock = f"ssh-add {locked[0]}"
            return NodeError(
                f"{name}: the key {locked[0]} is locked with a passphrase; "
                f"unlock it for the SSH agent: {unlock}",
                unlock,
            )
        copy = f"ssh-copy-id{ssh(self.node)[3:]}"
        return NodeError(
            f"{name} refused user {user!r} with {tried}; put the public key there: "
            f"{copy}, or give Node(..., user=..., key=...)",
            copy,
        )


class _Witness(asyncssh.SSHClient):
    """Keeps what explains errors: how far the connection came, and an unknown host key."""

    def __init__(self, login: _Login) -> None:
        self._login = login

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._login.connection = conn

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self._login.offered = key
        return False


def config_files(ssh_config: Sequence[str] | None) -> list[str]:
    """The configuration files to read: the given ones, else ~/.ssh/config if it is there."""
    if ssh_config is not None:
        return [str(Path(file).expanduser()) for file in ssh_config]
    default = Path(DEFAULT_CONFIG).expanduser()
    return [str(default)] if default.is_file() else []


def ssh(node: Node) -> str:
    """The `ssh` command that a user would type for a node."""
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


def shown_cause(error: BaseException) -> BaseException | None:
    """The cause of an error; None if its text has control characters.

    Whoever answers at an address may write into such a text, before it is known who that is, and
    Python shows causes as they are.
    """
    return error if printable(str(error)) == str(error) else None
