"""Bytes moved and seconds for a child to get its parent's checkpoint, by size and by place.

python -m benchmarks.inheritance                 # 1 MB and 100 MB, 5 repeats
python -m benchmarks.inheritance --mb 1000 --repeats 3

Two nodes on loopback, each with a folder of its own, behind OpenSSH's sshd; beside them, in every
repeat and with as many bytes: the disk (write and fsync, read), a plain socket on loopback, and
OpenSSH's own `ssh`, which copies a file from and to the same sshd.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

import distsearch as ag
from distsearch.core import checkpoint
from distsearch.core.loop import loop
from distsearch.core.storage import Shelf, Storage
from distsearch.resource.cache import inherit
from distsearch.resource.login import FAST_CIPHERS
from distsearch.resource.remote import Remote
from tests.openssh import SSHD, OpenSSH

from .common import Figure, parser, ratio, scratch, show

MB = 10**6
BLOCK = b"x" * (1 << 20)


@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=args.x)


class Stopwatch:
    """Seconds and megabytes moved of named things, one value a repeat."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.moved: dict[str, list[float]] = defaultdict(list)

    def time(self, name: str, work: Callable[[], object], moved: int = 0) -> None:
        begin = time.perf_counter()
        work()
        self.seconds[name].append(time.perf_counter() - begin)
        self.moved[name].append(moved / MB)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--mb", type=int, nargs="+", default=[1, 100])
    given = options.parse_args()
    if SSHD is None or shutil.which("ssh") is None:
        print(
            "inheritance: left out, needs ssh and sshd: apt install openssh-client openssh-server"
        )
        return
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        hosts = [stack.enter_context(OpenSSH(folder / name)) for name in ("one", "two")]
        one, two = stack.enter_context(nodes(hosts))
        for size in given.mb:
            for repeat in range(given.repeats + 1):
                if repeat < 2:  # the first is a warm-up
                    watch = Stopwatch()
                place = folder / f"{size}-{repeat}"
                references(watch, size * MB, place, hosts[0])
                inheritances(watch, size * MB, place, repeat, one, two)
                shutil.rmtree(place)
            show(f"A checkpoint of {size} MB", figures(watch, size), given.json)


def inheritances(
    watch: Stopwatch, size: int, place: Path, repeat: int, one: Remote, two: Remote
) -> None:
    """What becomes of a new checkpoint: kept by the driver, and got by children elsewhere.

    Each copy is deleted once it is measured: the next one finds memory that was used before. Where
    it does not, a virtual machine has to ask its host for it, which is ten times as slow.
    """
    trial = size + repeat  # so that no node has had it before
    parent = place / "trials" / str(trial) / "checkpoints"
    state = {"w": np.frombuffer(os.urandom(size), np.uint8)}
    made = checkpoint.save(state, parent, 1)
    loop().call(one.put_checkpoint(trial, made))
    kept = place / "driver"
    watch.time("to the driver", lambda: loop().call(one.fetch_checkpoint(trial, kept)), size)
    loop().call(one.delete_checkpoint(trial, made.name))
    brought = kept / made.name
    watch.time("to another node", lambda: loop().call(two.put_checkpoint(trial, brought)), size)
    watch.time("to it again", lambda: loop().call(two.put_checkpoint(trial, brought)))
    loop().call(two.delete_checkpoint(trial, made.name))
    shutil.rmtree(kept)
    child = place / "trials" / "child" / "checkpoints"
    watch.time("same node: linked", lambda: inherit(child, [parent.parent]))
    watch.time("same node: loaded", lambda: checkpoint.load(child))
    shutil.rmtree(place / "trials")
    storage = Storage(str(place / "shared"))
    storage.begin()
    name = Shelf(storage.url, "one", place / "one", 0, 1).save(state, 1)[0].name
    heir = Shelf(storage.url, "two", place / "two", 1, 1, parents={0: [name]})
    watch.time("shared path: loaded", heir.load)


def references(watch: Stopwatch, size: int, place: Path, host: OpenSSH) -> None:
    """What this machine does with as many bytes, without any of the project."""
    place.mkdir()
    data = os.urandom(size)

    def write() -> None:
        with open(place / "disk", "wb") as file:
            file.write(data)
            os.fsync(file.fileno())

    watch.time("disk: write, fsync", write)
    watch.time("disk: read (cached)", (place / "disk").read_bytes)
    with source(size) as address:
        watch.time("loopback: socket", lambda: drain(address, size))

    near, far = place / "near", place / "far"
    fetch, put = f"cat {place}/disk", f"cat >{far}"
    watch.seconds["ssh: to here"].append(through_ssh(host, fetch, b"", near, size))
    near.unlink()
    watch.seconds["ssh: from here"].append(through_ssh(host, put, data))
    far.unlink()
    (place / "disk").unlink()


def through_ssh(
    host: OpenSSH, command: str, data: bytes, into: str | Path = os.devnull, size: int = 0
) -> float:
    """Seconds in which a command of the host takes `data`, and gives `size` bytes for a file.

    Without the login: the command says when it runs, and when it is through.
    """
    ssh = ["ssh", "-F", str(host.config), "-p", str(host.port), "127.0.0.1"]
    ssh += ["-o", f"Ciphers={FAST_CIPHERS}", f"echo; {command}; echo"]  # as the search has it
    with subprocess.Popen(ssh, stdin=-1, stdout=-1, bufsize=0) as process, open(into, "wb") as file:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.read(1)
        begin = time.perf_counter()
        rest = memoryview(data)
        while rest:
            rest = rest[process.stdin.write(rest[: len(BLOCK)]) :]
        process.stdin.close()
        while file.tell() < size + 1:
            block = process.stdout.read(len(BLOCK))
            assert block, "ssh has ended before it had all"
            file.write(block)
        return time.perf_counter() - begin


@contextmanager
def source(size: int) -> Iterator[tuple[str, int]]:
    """A server that sends so many bytes to whoever connects."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                for sent in range(0, size, len(BLOCK)):
                    connection.sendall(BLOCK[: size - sent])

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def drain(address: tuple[str, int], size: int) -> None:
    with socket.create_connection(address) as connection:
        got = 0
        while block := connection.recv(1 << 20):
            got += len(block)
        assert got == size


def figures(watch: Stopwatch, size: int) -> list[Figure]:
    """Seconds of everything, what was moved, and the speeds as ratios."""
    seconds = {name: Figure(name, values, "s") for name, values in watch.seconds.items()}
    moved = [
        Figure(f"{name}: moved", values, "MB")
        for name, values in watch.moved.items()
        if any(values)
    ]

    def speed(of: str, over: str, at_least: float | None = None) -> Figure:
        return ratio(f"speed: {of} / {over}", seconds[over], seconds[of], at_least)

    goal = 0.6 if size >= 100 else None
    return [
        *seconds.values(),
        *moved,
        speed("to the driver", "ssh: to here", goal),
        speed("to another node", "ssh: from here", goal),
        speed("ssh: to here", "loopback: socket"),
        speed("to another node", "loopback: socket", goal),
        speed("to another node", "disk: write, fsync", goal),
        speed("same node: loaded", "disk: read (cached)"),
        speed("shared path: loaded", "same node: loaded", goal),
    ]


@contextmanager
def nodes(hosts: list[OpenSSH]) -> Iterator[list[Remote]]:
    """Two nodes of a search, as the driver has them."""
    addresses = [
        ag.Node("127.0.0.1", port=host.port, python=sys.executable, num_cpus=1) for host in hosts
    ]
    config = hosts[0].folder / "both"
    known = " ".join(str(host.folder / "known_hosts") for host in hosts)
    keys = "".join(f"IdentityFile {host.folder}/user_key\n" for host in hosts)
    config.write_text(f"UserKnownHostsFile {known}\n{keys}")
    options = {
        "dist_ip_addrs": addresses,
        "local": False,
        "ssh_config": [str(config)],
        "verbose": 0,
    }
    with ag.scheduler.FIFOScheduler(train_fn, **options) as scheduler:
        yield list(scheduler.manager.remotes.values())


if __name__ == "__main__":
    main()
