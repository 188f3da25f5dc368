"""Test hosts: SSH servers on loopback that run real processes, in a thread of this process.

    with Hosts() as hosts:
        one, two = hosts.start(), hosts.start()
        Node.parse(one.address), hosts.config      # '127.0.0.1:40123', an ssh_config file

Each has its own host key, written to `hosts.known_hosts`, which `hosts.config` names together with
the user's key. Nothing outside the folder of the hosts is read or written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import asyncssh


class Host:
    """One SSH server; `hangs` accepts logins, each after `login_s`, and then starts no process."""

    def __init__(
        self, hosts: Hosts, *, env: Mapping[str, str], hangs: bool, login_s: float
    ) -> None:
        self.hosts = hosts
        self.env = env
        self.hangs = hangs
        self.login_s = login_s
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.running: set[asyncio.Task[None] | None] = set()  # processes
        self.logins = 0
        self.forwards_sockets = True
        self.port = 0
        self.server: asyncssh.SSHAcceptor | None = None

    @property
    def address(self) -> str:
        """`'127.0.0.1:40123'`."""
        return f"127.0.0.1:{self.port}"

    def known_hosts_line(self, key: asyncssh.SSHKey | None = None) -> str:
        """What ~/.ssh/known_hosts would hold about it."""
        public = (key or self.key).export_public_key().decode().strip()
        return f"[127.0.0.1]:{self.port} {public}\n"

    def cut(self) -> None:
        """Cut all its connections, as when the network breaks."""
        self.hosts.call(self._cut())

    def is_left(self, timeout_s: float = 10) -> bool:
        """Wait until nobody is connected any more; whether that came true in time."""
        deadline = time.monotonic() + timeout_s
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self.connections

    def refuse(self) -> None:
        """Stop listening: new connections are refused."""
        self.hosts.call(self._refuse())

    async def _cut(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    async def _refuse(self) -> None:
        assert self.server is not None
        self.server.close()

    async def listen(self, address: str = "127.0.0.1", port: int = 0) -> None:
        host = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.connection = conn
                host.connections.add(conn)

            def connection_lost(self, exc: Exception | None) -> None:
                host.connections.discard(self.connection)

            async def begin_auth(self, username: str) -> bool:
                await asyncio.sleep(host.login_s)
                return True

            def auth_completed(self) -> None:
                host.logins += 1

            def connection_requested(self, *_whereto: Any) -> bool:
                return True

            def unix_connection_requested(self, *_whereto: Any) -> bool:
                return host.forwards_sockets

            def server_requested(self, *_where: Any) -> bool:
                return True

        self.server = await asyncssh.listen(
            address,
            port,
            server_factory=Server,
            server_host_keys=[self.key],
            authorized_client_keys=str(self.hosts.folder / "authorized_keys"),
            process_factory=self._run,
            encoding=None,
        )
        self.port = self.server.get_port()

    async def _run(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        if self.hangs:
            await channel.wait_closed()
            return
        peer, own = channel.get_extra_info("peername"), channel.get_extra_info("sockname")
        process = await asyncio.create_subprocess_shell(
            channel.command or "exit 1",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.hosts.folder,
            env={
                **os.environ,
                "SSH_CONNECTION": f"{peer[0]} {peer[1]} {own[0]} {own[1]}",
                **self.env,
            },
            start_new_session=True,
        )
        feeding = asyncio.ensure_future(copy_and_close(channel.stdin, process.stdin))
        self.running.add(asyncio.current_task())
        try:
            await asyncio.gather(
                copy(process.stdout, channel.stdout), copy(process.stderr, channel.stderr)
            )
            channel.exit(await process.wait())
        finally:
            feeding.cancel()
            process._transport.close()  # asyncio would close it after the loop
            self.running.discard(asyncio.current_task())


async def copy(source: Any, target: Any) -> None:
    """Copy until the source ends; when the target breaks go on reading, as sshd does."""
    while chunk := await source.read(1 << 16):
        with contextlib.suppress(OSError, asyncssh.Error):
            target.write(chunk)
            await target.drain()


async def copy_and_close(source: Any, target: Any) -> None:
    """Copy, then close the target: the end of the connection is the end of a process's input."""
    with contextlib.suppress(asyncssh.Error):
        await copy(source, target)
    target.close()


class Hosts:
    """A few test hosts that one user can reach; as a context manager it ends them all."""

    def __enter__(self) -> Hosts:
        self._temporary = tempfile.TemporaryDirectory(prefix="hosts-")
        self.folder = Path(self._temporary.name)
        self.known_hosts = self.folder / "known_hosts"
        self.key_file = self.folder / "id_ed25519"
        self.config = self.folder / "config"
        self.hosts: list[Host] = []
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key.write_private_key(str(self.key_file))
        (self.folder / "authorized_keys").write_bytes(self.user_key.export_public_key())
        self.known_hosts.touch()
        self.config.write_text(
            f"IdentityFile {self.key_file}\nUserKnownHostsFile {self.known_hosts}\n"
            "GlobalKnownHostsFile none\nIdentityAgent none\n"
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test hosts")
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for host in self.hosts:
            host.refuse()
            host.cut()
        self.call(self._end_running())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._temporary.cleanup()

    def start(
        self,
        *,
        env: Mapping[str, str] | None = None,
        hangs: bool = False,
        known: bool = True,
        login_s: float = 0,
    ) -> Host:
        """Start a host whose processes have `env` added; `known`: its key is in known_hosts."""
        host = Host(self, env=env or {}, hangs=hangs, login_s=login_s)
        self.call(host.listen())
        self.hosts.append(host)
        if known:
            with open(self.known_hosts, "a") as file:
                file.write(host.known_hosts_line())
        return host

    def trust(self, port: int, host: Host) -> None:
        """Expect a host's key behind another port too, as when something passes it on."""
        with open(self.known_hosts, "a") as file:
            file.write(host.known_hosts_line().replace(str(host.port), str(port)))

    async def _end_running(self) -> None:
        """Give processes a moment to end, as their input has; then let go of them."""
        running = [task for host in self.hosts for task in host.running if task is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=5)
            for task in late:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the hosts' loop, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
