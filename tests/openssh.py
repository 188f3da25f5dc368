"""A test host with OpenSSH's own server, as users have it: `sshd`, on a port of loopback.

    with OpenSSH(folder) as host:
        Node.parse(host.address), host.config      # '127.0.0.1:40123', an ssh_config file

It needs no root, but Debian's package openssh-server: `SSHD` is None where that is missing.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import asyncssh

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
UP_S = 10


class OpenSSH:
    """One `sshd` that takes one key of its own making; `settings` are lines for sshd_config."""

    def __init__(self, folder: Path, *settings: str) -> None:
        if SSHD is None:
            raise FileNotFoundError("there is no sshd here: apt install openssh-server")
        self.folder = folder
        self.config = folder / "config"
        self.settings = settings

    @property
    def address(self) -> str:
        """`'127.0.0.1:40123'`."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> OpenSSH:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("host_key", "user_key"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(str(self.folder / name))
            (self.folder / name).chmod(0o600)
            key.write_public_key(str(self.folder / f"{name}.pub"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        public = (self.folder / "host_key.pub").read_text()
        known = f"[127.0.0.1]:{self.port} {public}"
        (self.folder / "known_hosts").write_text(known)
        with open(self.folder.parent / "known_hosts", "a") as together:
            together.write(known)  # of all hosts beside it, so that their configs can be joined
        self.config.write_text(
            f"IdentityFile {self.folder}/user_key\n"
            f"UserKnownHostsFile {self.folder}/known_hosts {self.folder.parent}/known_hosts\n"
            "GlobalKnownHostsFile none\nIdentityAgent none\n"
        )
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host_key",
            f"AuthorizedKeysFile {self.folder}/user_key.pub",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            *self.settings,
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)  # where its unprivileged part lives
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self._log = open(self.folder / "log", "wb")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._log)
        self._wait_until_up()
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + UP_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    log = (self.folder / "log").read_text()
                    raise RuntimeError(f"sshd does not come up: {log}") from None
                time.sleep(0.02)
