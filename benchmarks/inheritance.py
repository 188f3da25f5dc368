"""Bytes moved and seconds for a child to get its parent's checkpoint, by size and by place.

python -m benchmarks.inheritance                 # 1 MB and 100 MB, 5 repeats
python -m benchmarks.inheritance --mb 1000 --repeats 3

Two nodes over SSH on loopback, each with a folder of its own, whose servers are another process;
beside them, in every repeat and with the same bytes: the disk (write and fsync, read), a plain
socket on loopback, and the same socket through a forward of asyncssh.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import numpy as np

import distsearch as ag
from distsearch.core import checkpoint
from distsearch.core.loop import loop
from distsearch.core.storage import Shelf, Storage
from distsearch.resource.remote import Remote
from distsearch.resource.ssh import FAST_CIPHERS
from tests.hosts import Hosts

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
    options.add_argument("--serve", action="store_true", help="be the process of the SSH servers")
    given = options.parse_args()
    if given.serve:
        serve()
        return
    with scratch() as folder, hosts() as (config, ports), nodes(config, ports) as (one, two):
        for size in given.mb:
            watch = Stopwatch()
            for repeat in range(given.repeats):
                place = folder / f"{size}-{repeat}"
                references(watch, size * MB, place, config, ports[0])
                inheritances(watch, size * MB, place, repeat, one, two)
                shutil.rmtree(place)
            show(f"A checkpoint of {size} MB", figures(watch, size), given.json)


def inheritances(
    watch: Stopwatch, size: int, place: Path, repeat: int, one: Remote, two: Remote
) -> None:
    """What becomes of a new checkpoint: kept by the driver, and got by children elsewhere."""
    trial = size + repeat  # so that no node has had it before
    parent = place / "trials" / str(trial) / "checkpoints"
    state = {"w": np.frombuffer(os.urandom(size), np.uint8)}
    made = checkpoint.save(state, parent, 1)
    loop().call(one.put_checkpoint(trial, made))
    kept = place / "driver"
    watch.time("to the driver", lambda: loop().call(one.fetch_checkpoint(trial, kept)), size)
    brought = kept / made.name
    watch.time("to another node", lambda: loop().call(two.put_checkpoint(trial, brought)), size)
    watch.time("to it again", lambda: loop().call(two.put_checkpoint(trial, brought)))
    child = place / "trials" / "child" / "checkpoints"
    watch.time("same node: linked", lambda: checkpoint.inherit(child, [parent.parent]))
    watch.time("same node: loaded", lambda: checkpoint.load(child))
    storage = Storage(str(place / "shared"))
    storage.begin()
    name = Shelf(storage.url, "one", place / "one", 0, 1).save(state, 1)[0].name
    heir = Shelf(storage.url, "two", place / "two", 1, 1, parents={0: [name]})
    watch.time("shared path: loaded", heir.load)
    for node in (one, two):  # else each repeat would fill other memory than the references do
        loop().call(node.drop_checkpoint(trial, made.name))


def references(watch: Stopwatch, size: int, place: Path, config: str, port: int) -> None:
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

        options = {"config": [config], "encryption_algs": FAST_CIPHERS}  # as the search has it

        async def through_ssh() -> None:
            async with asyncssh.connect("127.0.0.1", port, **options) as connection:
                forward = await connection.forward_local_port("127.0.0.1", 0, *address)
                begin = time.perf_counter()
                near = ("127.0.0.1", forward.get_port())
                await asyncio.to_thread(drain, near, size)
                watch.seconds["SSH: forward"].append(time.perf_counter() - begin)

        asyncio.run(through_ssh())


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
        speed("to the driver", "SSH: forward", goal),
        speed("to another node", "SSH: forward", goal),
        speed("to another node", "loopback: socket", goal),
        speed("to another node", "disk: write, fsync", goal),
        speed("same node: loaded", "disk: read (cached)"),
        speed("shared path: loaded", "same node: loaded", goal),
    ]


@contextmanager
def hosts() -> Iterator[tuple[str, list[int]]]:
    """Two SSH servers in a process of their own: an ssh_config file and their ports."""
    command = [sys.executable, "-m", "benchmarks.inheritance", "--serve"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        config, *ports = process.stdout.readline().split()
        yield config, [int(port) for port in ports]
    finally:
        process.stdin.close()
        process.wait(30)


def serve() -> None:
    with Hosts() as servers:
        ports = [servers.start().port for _ in range(2)]
        print(servers.config, *ports, flush=True)
        sys.stdin.read()


@contextmanager
def nodes(config: str, ports: list[int]) -> Iterator[list[Remote]]:
    """Two nodes of a search, as the driver has them."""
    addresses = [ag.Node("127.0.0.1", port=port, python=sys.executable) for port in ports]
    options = {"dist_ip_addrs": addresses, "local": False, "ssh_config": [config], "verbose": 0}
    with ag.scheduler.FIFOScheduler(train_fn, **options) as scheduler:
        yield list(scheduler.manager.remotes.values())


if __name__ == "__main__":
    main()
