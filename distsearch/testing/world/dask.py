"""The fake Dask: workers, a client per driver, and the wires between them.

See the package's text for what it promises. Functions that the driver sends are run as Dask would
run them, in the worker's loop, and what they are given is a copy.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import pickle
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .machines import Machine, World, running_machine

Handler = Callable[[tuple[float, Any]], None]
READS_AFTER_S = 0.05  # how long a process that wakes up takes to read what has come meanwhile
NOTICED_S = 0.05  # how soon the end of a process is seen where its wire is up


class Wire:
    """One direction of a connection: in order, once, or never."""

    def __init__(self, world: World, delay_s: float) -> None:
        self.world = world
        self.delay_s = delay_s
        self.is_blocked = False
        self.was_blocked = False
        self.is_broken = False
        self._last = 0.0
        self._held: list[Callable[[], object]] = []

    def send(self, deliver: Callable[[], object]) -> None:
        """Let a message arrive, after those before it; `deliver` hands it over."""
        if self.is_broken:
            return
        if self.is_blocked:
            self._held.append(deliver)
            return
        slow = self.world.random.random() < 0.01
        delay_s = self.delay_s * self.world.random.expovariate(1) * (50 if slow else 1)
        self._last = max(self._last, self.world.now + delay_s)
        self.world.post(self._last - self.world.now, lambda: None if self.is_broken else deliver())

    def unblock(self) -> None:
        """Let messages through again, those that wait first."""
        self.is_blocked, self.was_blocked = False, True
        held, self._held = self._held, []
        for deliver in held:
            self.send(deliver)


class DaskCluster:
    """The user's Dask cluster: its scheduler, which never fails, and its workers."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.workers: dict[str, FakeWorker] = {}
        self.ever: dict[str, FakeWorker] = {}  # also those that are gone
        self.clients: list[FakeClient] = []
        self.security = None
        self.scheduler = SimpleNamespace(address="tcp://scheduler")
        self.numbers = itertools.count(1)

    def identity(self) -> dict[str, Any]:
        """The workers, as Dask's scheduler describes them."""
        return {
            "workers": {
                address: {"nthreads": w.cpus, "memory_limit": 10**9, "host": w.host}
                for address, w in self.workers.items()
            }
        }

    def join(self, worker: FakeWorker) -> None:
        """A worker has come."""
        self.workers[worker.address] = self.ever[worker.address] = worker
        self.world.note(worker.address, "joins")
        self.tell_all({"action": "add-worker", "worker": worker.address})

    def leave(self, worker: FakeWorker) -> None:
        """A worker is seen to be gone."""
        if self.workers.pop(worker.address, None) is None:
            return
        self.world.note(worker.address, "is gone for Dask")
        worker.fail_calls("the connection is closed")
        self.tell_all({"action": "remove-worker", "worker": worker.address})

    def tell_all(self, about: Mapping[str, Any]) -> None:
        """Tell all clients what Dask's own topic `all` tells."""
        for client in self.clients:
            client.machine.do(client.hear, "all", about)


class FakeClient:
    """The `distributed.Client` of one driver."""

    def __init__(self, cluster: DaskCluster, machine: Machine) -> None:
        self.cluster = cluster
        self.machine = machine
        self.handlers: dict[str, Handler] = {}
        self.scheduler = SimpleNamespace(identity=self._identity)
        cluster.clients.append(self)

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self in self.cluster.clients:
            self.cluster.clients.remove(self)

    async def _identity(self) -> dict[str, Any]:
        return self.cluster.identity()

    # What the driver asks of it

    async def run_on_scheduler(self, *arguments: Any) -> None:
        """Nothing: what is asked of the real one is to save memory."""

    def subscribe_topic(self, topic: str, handler: Handler) -> None:
        """Hear a topic."""
        self.handlers[topic] = handler

    def unsubscribe_topic(self, topic: str) -> None:
        """Hear it no more."""
        del self.handlers[topic]

    async def log_event(self, topic: str, message: Any) -> None:
        """Say something to a topic; heard by this client alone."""
        self.machine.do(self.hear, topic, message)

    def receive(self, topic: str, message: Any) -> None:
        """Hear what came over the network: who stood still looks at the clock before at that."""
        awake_at = self.machine.paused_until and self.machine.paused_until + READS_AFTER_S
        hear = partial(self.machine.do, self.hear, topic, message)
        if (wait_s := awake_at - self.machine.world.now) > 0:
            self.machine.world.post(wait_s, hear)
        else:
            hear()

    def hear(self, topic: str, message: Any) -> None:
        """Take a message of a topic."""
        if topic in self.handlers:
            self.handlers[topic]((0.0, message))

    async def run(
        self, function: Callable[..., Any], *arguments: Any, workers: list[str]
    ) -> dict[str, Any]:
        """Run a function in a worker; its result, by the worker's address."""
        (address,) = workers
        worker = self.cluster.workers.get(address)
        if worker is None:
            raise OSError(f"{address} is no worker of the cluster")
        answer = self.machine.loop.create_future()
        worker.call(self, function, pickle.dumps(arguments), answer)
        return {address: await answer}


class FakeWorker:
    """A Dask worker on a node: a process that holds agents.

    `at_death`: what ends with it, each time the end of the processes of one agent.
    """

    def __init__(
        self, cluster: DaskCluster, host: str, cpus: int, name: str, delay_s: float
    ) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.host, self.cpus = host, cpus
        self.machine = WorkerMachine(self.world, name, self)
        self.address = f"tcp://{host}:{next(cluster.numbers)}"
        self.local_directory = str(cluster.folder / f"{host}-{name}")
        self.plugins: dict[str, Any] = {}
        self.down, self.up = Wire(self.world, delay_s), Wire(self.world, delay_s)
        self.at_death: list[Callable[[], None]] = []
        self.lacks = 0  # the number of the error with which it can start nothing now
        self.unused = 0  # times in a row that whoever runs the cluster has found it unused
        self._calls: dict[asyncio.Future[Any], Machine] = {}

    @property
    def was_troubled(self) -> bool:
        """Whether the worker has ever stood still, died, or been cut off."""
        is_cut = any(w.is_blocked or w.was_blocked or w.is_broken for w in (self.down, self.up))
        return is_cut or not self.machine.alive or self.machine.paused_until > 0

    # What the plugin asks of it

    async def plugin_add(self, plugin: Any, name: str, catch_errors: bool) -> None:
        """Have a plugin."""
        self.plugins[name] = plugin
        await plugin.setup(self)

    async def plugin_remove(self, name: str) -> None:
        """Have it no more."""
        await self.plugins.pop(name).teardown(self)

    def log_event(self, topic: str, message: Any) -> None:
        """Say something to all who hear the topic."""
        data = pickle.dumps(message)

        def arrive() -> None:
            for client in self.cluster.clients:
                client.receive(topic, pickle.loads(data))

        self.up.send(arrive)

    # The wires

    def call(
        self,
        client: FakeClient,
        function: Callable[..., Any],
        arguments: bytes,
        answer: asyncio.Future[Any],
    ) -> None:
        """Run a function in this worker for a client; `arguments` are pickled."""
        self._calls[answer] = client.machine

        def reply(result: Any, error: Exception | None = None) -> None:
            client.machine.do(self._answer, answer, result, error)

        async def serve() -> None:
            try:
                # Dask hands itself to those functions that ask for it.
                wants = "dask_worker" in inspect.signature(function).parameters
                given = {"dask_worker": self} if wants else {}
                result = function(*pickle.loads(arguments), **given)
                if inspect.isawaitable(result):
                    result = await result
            except Exception as error:
                problem = error
                self.up.send(lambda: reply(None, problem))
            else:
                self.up.send(lambda: reply(result))

        def arrive() -> None:
            if self.machine.alive:
                self.machine.do(lambda: self.machine.loop.create_task(serve()))

        self.down.send(arrive)

    def _answer(self, answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._calls.pop(answer, None)
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def fail_calls(self, reason: str) -> None:
        """Let all who wait for an answer hear that there will be none."""
        for answer, machine in list(self._calls.items()):
            machine.do(self._answer, answer, None, OSError(reason))

    def break_wires(self, noticed_s: float, closes_s: float) -> None:
        """The connection is no more; seen by the cluster and, `closes_s` later, by the worker."""
        if self.down.is_broken:
            return
        self.down.is_broken = self.up.is_broken = True
        self.world.note(self.address, "connection breaks", f"noticed in {noticed_s:.3f} s")
        self.world.post(noticed_s, lambda: self.cluster.leave(self))
        self.world.post(closes_s, lambda: self.machine.do(self._close_soon))

    def _close_soon(self) -> None:
        self.machine.loop.create_task(self._close())

    async def _close(self) -> None:
        """As a Dask worker does that has lost its scheduler: tear down its plugins, and end."""
        for name in list(self.plugins):
            await self.plugin_remove(name)
        self.die("closed itself")

    def die(self, why: str) -> None:
        """The worker's process is gone, and with it its launchers and all their processes."""
        if not self.machine.alive:
            return
        self.world.note(self.address, "dies:", why)
        for end in self.at_death:
            end()
        self.machine.die()
        shutil.rmtree(self.local_directory, ignore_errors=True)
        if not self.down.is_blocked and not self.up.is_blocked:
            self.break_wires(NOTICED_S * self.world.random.random(), 0)
        else:
            self.break_wires(self.world.random.uniform(5, 30), 0)


class WorkerMachine(Machine):
    """The process of a Dask worker, with what its agents start."""

    def __init__(self, world: World, name: str, worker: FakeWorker) -> None:
        super().__init__(world, name)
        self.worker = worker


def running_worker() -> FakeWorker:
    """The worker in whose loop this is called."""
    machine = running_machine()
    assert isinstance(machine, WorkerMachine)
    return machine.worker


class FakeNode:
    """A machine; the worker on it may be replaced."""

    def __init__(self, number: int, cpus: int) -> None:
        self.host = f"node{number}"
        self.cpus = cpus
        self.workers: list[FakeWorker] = []

    @property
    def worker(self) -> FakeWorker:
        """The newest worker, dead or alive."""
        return self.workers[-1]
