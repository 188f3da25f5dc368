"""Machines of their own on this one: network namespaces, the links between them, and their faults.

    with Net(folder) as net:
        one = net.node("one")                  # its own address, an sshd on port 22, a firewall
        driver = net.drive(script)             # a program on the driver's machine
        one.cut()                              # nothing comes through any more, in silence
        one.power_off()                        # and nothing runs there any more

There is a link between the driver and each node, and none between nodes. Unless `is_open`, the
firewall of both ends lets only the nodes' port 22 through. `delay_s`: a link that takes so long,
with jitter. Everything is gone at the end: processes, by their ids, then the namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import asyncssh

ROOT = Path(__file__).resolve().parents[2]
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
BOUND_S = 30.0


def why_not() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "it needs root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"it needs {program!r} (apt-get install iproute2 nftables)"
    name = f"ds{os.getpid()}-probe"
    try:
        sh("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"this machine makes no network namespaces: {error.output.strip()}"
    try:
        sh("ip", "netns", "exec", name, "nft", "list", "ruleset")
    except subprocess.CalledProcessError as error:
        return f"this machine has no nftables: {error.output.strip()}"
    finally:
        sh("ip", "netns", "del", name)
    return ""


def sh(*words: str, text: str | None = None) -> str:
    """Run a command; raises CalledProcessError with what it said."""
    return subprocess.run(
        words,
        check=True,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND_S,
    ).stdout


class Machine:
    """A network namespace, and what runs in it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        sh("ip", "netns", "add", namespace)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words: str, text: str | None = None) -> str:
        """Run a command there."""
        return sh("ip", "netns", "exec", self.namespace, *words, text=text)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program there, in a session of its own."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            start_new_session=True,
            **options,
        )

    def pids(self) -> list[int]:
        """What runs there."""
        return [int(pid) for pid in sh("ip", "netns", "pids", self.namespace).split()]

    def kill_all(self) -> None:
        """SIGKILL to all that runs there, until nothing does."""
        deadline = time.monotonic() + BOUND_S
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def rule(self, table: str, rules: str) -> None:
        """Add a table of the firewall."""
        self.run("nft", "-f", "-", text=f"table inet {table} {{\n{rules}\n}}\n")

    def remove(self) -> None:
        """Leave nothing of it."""
        self.kill_all()
        sh("ip", "netns", "del", self.namespace)


class NodeMachine(Machine):
    """A node: `address` is that of its sshd, `own` the driver's on this link."""

    def __init__(self, net: Net, name: str, number: int, is_open: bool, delay_s: float) -> None:
        super().__init__(f"{net.prefix}-{name}")
        net.nodes.append(self)  # from now on it is removed, however far it comes
        self.net = net
        self.name = name
        self.sshd: subprocess.Popen[str] | None = None
        self.address, self.own = f"10.213.{number}.2", f"10.213.{number}.1"
        self.wire: Wire | None = None
        here, there = f"{net.prefix}d{number}", f"{net.prefix}n{number}"
        if delay_s:
            self.wire = Wire(here, there, delay_s)
        else:
            sh("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        self.device = here
        for machine, device, address in (
            (net.driver, here, self.own),
            (self, there, self.address),
        ):
            sh("ip", "link", "set", device, "netns", machine.namespace)
            machine.run("ip", "address", "add", f"{address}/24", "dev", device)
            machine.run("ip", "link", "set", device, "up")
        if not is_open:
            self.rule("only_ssh", _chains("tcp dport 22 accept;", "tcp sport 22 accept;"))
            net.driver.rule(
                f"only_ssh_{name}",
                _chains(
                    f'iifname != "{here}" accept; tcp sport 22 accept;',
                    f'oifname != "{here}" accept; tcp dport 22 accept;',
                ),
            )
        self.folder = net.folder / name
        self.folder.mkdir()
        shutil.copy(net.folder / "authorized_keys", self.folder)
        self.start_sshd()

    def start_sshd(self) -> None:
        """Start its SSH server, with a new key that the driver knows."""
        environment = f"TMPDIR={self.folder}", f"NODE={self.name}"
        command = [sys.executable, "-m", "tests.netns.sshd", str(self.folder), self.address]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.sshd = self.start("env", *environment, *command, cwd=ROOT, **pipes)
        assert self.sshd.stdout is not None
        with open(self.net.folder / "known_hosts", "a") as file:
            file.write(self.sshd.stdout.readline())

    @property
    def left(self) -> list[int]:
        """What runs there except its sshd."""
        assert self.sshd is not None
        return [pid for pid in self.pids() if pid != self.sshd.pid]

    def cut(self, *, to: bool = True, back: bool = True) -> None:
        """Let nothing through any more `to` the node, `back` from it, or both; nobody is told."""
        chains = _chains("drop;" if to else "accept;", "drop;" if back else "accept;", "accept")
        self.rule("cut", chains)

    def link(self, state: str) -> None:
        """Take the link 'down' or 'up', as when a cable is pulled."""
        self.net.driver.run("ip", "link", "set", self.device, state)

    def power_off(self) -> None:
        """End all that runs there, so that nobody hears of it."""
        self.cut()
        self.kill_all()

    def remove(self) -> None:
        super().remove()
        if self.sshd is not None:
            self.sshd.communicate(timeout=BOUND_S)
        if self.wire is not None:
            self.wire.close()


def _chains(incoming: str, outgoing: str, policy: str = "drop") -> str:
    return (
        f"chain in {{ type filter hook input priority 0; policy {policy}; "
        f'iifname "lo" accept; {incoming} }}\n'
        f"chain out {{ type filter hook output priority 0; policy {policy}; "
        f'oifname "lo" accept; {outgoing} }}'
    )


class Wire:
    """Two network devices; what goes into one comes out of the other, `delay_s` later or more."""

    def __init__(self, one: str, other: str, delay_s: float) -> None:
        self.ends = [self._device(one), self._device(other)]
        self.delay_s = delay_s
        self.wake, self._closing = os.pipe()
        self.thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self.thread.start()

    def _device(self, name: str) -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
        return descriptor

    def _carry(self) -> None:
        one, other = self.ends
        rng = random.Random(0)
        travelling: list[tuple[float, int, int, bytes]] = []
        number = 0
        selector = selectors.DefaultSelector()
        for descriptor in (one, other, self.wake):
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            until = max(0.0, travelling[0][0] - time.monotonic()) if travelling else None
            for key, _ in selector.select(until):
                if key.fd == self.wake:
                    return
                with contextlib.suppress(OSError):  # the device is down, or nothing is there
                    frame = os.read(key.fd, 1 << 16)
                    number += 1
                    due = time.monotonic() + self.delay_s * rng.uniform(1, 1.5)
                    heapq.heappush(
                        travelling, (due, number, other if key.fd == one else one, frame)
                    )
            while travelling and travelling[0][0] <= time.monotonic():
                _due, _number, end, frame = heapq.heappop(travelling)
                with contextlib.suppress(OSError):
                    os.write(end, frame)

    def close(self) -> None:
        os.write(self._closing, b"x")
        self.thread.join(BOUND_S)
        for descriptor in (*self.ends, self.wake, self._closing):
            os.close(descriptor)


class Net:
    """The driver's machine and its nodes."""

    count = 0

    def __init__(self, folder: Path) -> None:
        Net.count += 1
        self.prefix = f"ds{os.getpid()}{chr(96 + Net.count)}"  # device names have 15 letters
        self.folder = folder
        self.nodes: list[NodeMachine] = []

    def __enter__(self) -> Net:
        self.folder.mkdir(exist_ok=True)
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(self.folder / "key"))
        (self.folder / "authorized_keys").write_bytes(key.export_public_key())
        (self.folder / "known_hosts").touch()
        (self.folder / "config").write_text(
            f"IdentityFile {self.folder / 'key'}\nUserKnownHostsFile {self.folder / 'known_hosts'}"
            "\nGlobalKnownHostsFile none\nIdentityAgent none\n"
        )
        self.driver = Machine(f"{self.prefix}-driver")
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.ExitStack() as stack:  # each is removed, whatever happens to the others
            stack.callback(self.driver.remove)
            for node in self.nodes:
                stack.callback(node.remove)

    def node(self, name: str, *, is_open: bool = False, delay_s: float = 0.0) -> NodeMachine:
        """Make a node's machine."""
        return NodeMachine(self, name, 10 * Net.count + len(self.nodes), is_open, delay_s)

    def drive(self, script: str) -> subprocess.Popen[str]:
        """Run a program on the driver's machine; what it says is in `output`."""
        (self.folder / "driver.py").write_text(script)
        with open(self.folder / "output.txt", "a") as output:
            return self.driver.start(
                sys.executable, "driver.py", cwd=self.folder, stdout=output, stderr=output
            )

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()
