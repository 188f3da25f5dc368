"""The link to agents on other nodes: everything that touches Dask stands in this file.

Dask carries messages and tells who joins and leaves. Down: `Client.run(deliver)` on the node's
worker, one call at a time per node, whatever has gathered meanwhile in the next. Up:
`Worker.log_event` to a topic of the search that the driver has subscribed to. No task is ever
submitted. Where the SSH nodes are ours, so is Dask's scheduler: it runs in the driver's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dask
from distributed import Client, Scheduler, Security, Worker, rpc
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.protocol.pickle import dumps

from ..errors import NodeError
from .node import NodeFacts
from .pace import SMALLEST_PIECE
from .pipe import MakeConnection, PipeClient, PipeConnection, PipeServer
from .remote import Listener, Message, Remote
from .strangers import bound_strangers
from .tls import Authority
from .versions import compare, own_distsearch, own_versions

if TYPE_CHECKING:
    from .agent import Agent

PING_S = 5.0
SILENT_PINGS = 3
MESSAGE_BYTES = 500
SIGNS_OF_LIFE = ("ping", "beat")
EVENTS_KEPT = 100
ATTACH_S = 30
ANSWER_S = 120
STOP_S = 6

SCHEDULER_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.worker-ttl": None,  # `Cluster._ping_all` watches the nodes
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.idle-timeout": None,
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.preload": [],
    "distributed.scheduler.http.routes": [],
    "distributed.admin.low-level-log-length": EVENTS_KEPT,  # of each topic
}


# On the node


class AgentPlugin(WorkerPlugin):  # type: ignore[misc]
    """The agent of a node, which lives in its Dask worker: with the worker agent and folder end."""

    def __init__(self, agent_id: str, topic: str) -> None:
        self.agent_id = agent_id
        self.topic = topic
        self.agent: Agent | None = None

    async def setup(self, worker: Worker) -> None:
        from .agent import Agent

        numbers = itertools.count()

        def send(messages: list[Message]) -> None:
            # As text: msgpack has no integers above 64 bits, and Dask keeps the last events.
            batch = {"agent": self.agent_id, "number": next(numbers), "batch": json.dumps(messages)}
            worker.log_event(self.topic, batch)

        self.pipe: PipeServer | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="distsearch-", dir=worker.local_directory))
        self.agent = Agent(folder=self.folder, send=send)
        await self.agent.start()

    async def teardown(self, worker: Worker) -> None:
        if self.pipe is not None:
            self.pipe.close()
        if self.agent is not None:
            await self.agent.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


async def start_agent(agent_id: str, topic: str, dask_worker: Worker) -> dict[str, Any]:
    """Start an agent in the worker; tell what the node has."""
    from .detect import detect

    plugin = AgentPlugin(agent_id, topic)
    try:
        await dask_worker.plugin_add(plugin, name=agent_id, catch_errors=False)
    except Exception:
        await stop_agent(agent_id, dask_worker)
        raise
    return {"facts": detect().to_dict(), "pinned": "CUDA_VISIBLE_DEVICES" in os.environ}


async def stop_agent(agent_id: str, dask_worker: Worker) -> bool:
    """End the agent and all it has, if it is there; True when that is so."""
    if agent_id in dask_worker.plugins:
        await dask_worker.plugin_remove(name=agent_id)
    return True


def deliver(agent_id: str, messages: list[Message], dask_worker: Worker) -> bool:
    """Hand messages to the agent, in the worker's loop; False when it has ended."""
    plugin = dask_worker.plugins.get(agent_id)
    if plugin is not None:
        plugin.agent.handle(messages)
    return plugin is not None


async def use_cache(
    agent_id: str, verb: str, arguments: tuple[Any, ...], dask_worker: Worker
) -> Any:
    """Call a method of the agent's `checkpoints`, in a thread, as disks are slow."""
    checkpoints = _plugin(agent_id, dask_worker).agent.checkpoints
    return await asyncio.to_thread(getattr(checkpoints, verb), *arguments)


def open_pipe(agent_id: str, dask_worker: Worker) -> str:
    """Open a Unix socket for pieces of checkpoints, and tell its path. Raises OSError."""
    plugin = _plugin(agent_id, dask_worker)
    if plugin.pipe is None:
        # It is in the folder of the node process, as paths of sockets have to be short.
        plugin.pipe = PipeServer(plugin.agent.checkpoints, os.path.abspath("pipe"))
    return str(plugin.pipe.path)


def _plugin(agent_id: str, dask_worker: Worker) -> Any:
    plugin = dask_worker.plugins.get(agent_id)
    if plugin is None:
        raise NodeError("its agent has ended, as its Dask worker does")
    return plugin


# On the driver


class Lifeline(Protocol):
    """What keeps a node's process up and can end it."""

    tunnels: bool  # whether everything to and from the node goes through it

    async def end(self) -> tuple[bool, str]:
        """End all that runs on the node, within a bound.

        Tells whether nothing is left there for sure, and why the node ended if it did by itself.
        """

    async def connect(self, path: str, make: MakeConnection) -> PipeConnection:
        """Connect to a Unix socket of the node. Raises OSError."""


class DaskRemote(Remote):
    """A node whose agent lives in a Dask worker.

    `await close()` ends it and is silent; a node that is lost is told to the listener, once.
    """

    def __init__(
        self,
        cluster: Cluster,
        remote_id: int,
        host: str,
        address: str,
        facts: NodeFacts,
        *,
        worker: str,
        agent_id: str,
        lifeline: Lifeline | None,
    ) -> None:
        super().__init__(remote_id, host, address, facts)
        self.worker = worker
        self.worker_left = False
        self.agent_id = agent_id
        self.heard = time.monotonic()
        self._cluster = cluster
        self._lifeline = lifeline
        self._outbox: deque[Message] = deque()
        self._outbox_bytes = 0
        self._waiting = asyncio.Event()
        self._taken = asyncio.Event()
        self._next_number = 0
        self._ending: asyncio.Task[tuple[bool, str]] | None = None
        self._direct = cluster.directly_to(worker)
        self._pipe: asyncio.Task[PipeClient | None] | None = None
        self._pump = asyncio.create_task(self._deliver_all())

    def send(self, message: Message) -> None:
        """Send a message to the agent, after those before; what a lost node was sent is lost.

        Signs of life overtake the others, so that a node does not end for want of them, and a large
        message goes in parts, after which they can.
        """
        if self._ending is not None:
            return
        if message["op"] in SIGNS_OF_LIFE:
            self._outbox.appendleft(message)
            self._outbox_bytes += size_of(message)
        else:
            for part in parts(message):
                self._outbox.append(part)
                self._outbox_bytes += size_of(part)
        self._waiting.set()

    async def room(self) -> None:
        """Wait until little is waiting to be taken to the node, or it is lost."""
        while self._ending is None and self._outbox_bytes > self.pace.piece_bytes:
            self._taken.clear()
            await self._taken.wait()

    async def use_cache(self, verb: str, *arguments: Any) -> Any:
        """Call a method of the node's `CheckpointCache`: a call of its own, beside the messages.

        Pieces pass Dask by where they can: it carries what cannot be carried otherwise. As nobody
        sees how far it has come, it has `ANSWER_S` for each; the pipe sees when nothing moves.
        """
        if verb in ("read", "write") and (pipe := await self._working_pipe()):
            with contextlib.suppress(OSError):
                return await getattr(pipe, verb)(*arguments)
        try:
            return await asyncio.wait_for(self._use_cache_through_dask(verb, arguments), ANSWER_S)
        except asyncio.TimeoutError:
            raise NodeError(f"no answer in {ANSWER_S:g} s") from None

    async def _use_cache_through_dask(self, verb: str, arguments: tuple[Any, ...]) -> Any:
        about = (self.agent_id, verb, arguments)
        if self._direct is None:
            return await self._cluster.run_on(self.worker, use_cache, *about)
        answer = await self._direct.run(
            function=dumps(use_cache), args=dumps(about), kwargs=dumps({})
        )
        if answer["status"] != "OK":
            raise NodeError(answer["exception_text"])
        return answer["result"]

    async def _working_pipe(self) -> PipeClient | None:
        """The way past Dask, opened when it is first needed; None where there is none."""
        if self._pipe is None and self._ending is None:
            self._pipe = asyncio.create_task(self._open_pipe())
        if self._pipe is None:
            return None
        await asyncio.wait([self._pipe])
        pipe = None if self._pipe.cancelled() else self._pipe.result()
        return pipe if pipe is not None and pipe.works else None

    async def _open_pipe(self) -> PipeClient | None:
        if self._lifeline is None or not self._lifeline.tunnels:
            return None
        with contextlib.suppress(Exception):  # whatever the error is, Dask can carry the pieces
            opening = self._cluster.run_on(self.worker, open_pipe, self.agent_id)
            path = await asyncio.wait_for(opening, ANSWER_S)
            return PipeClient(partial(self._lifeline.connect, path))
        return None

    def receive(self, event: Mapping[str, Any]) -> None:
        """Take a batch of the agent's messages."""
        self.heard = time.monotonic()
        if self._ending is not None:
            return
        if event["number"] != self._next_number:
            self.lose(f"batch {self._next_number} of its messages never came")
            return
        self._next_number += 1
        # The listener is called in a turn of its own, so that its errors do not end up in Dask.
        messages = json.loads(event["batch"])
        asyncio.get_running_loop().call_soon(self._cluster.listener.on_messages, self, messages)

    def lose(self, reason: str) -> None:
        """Give the node up: end what can still be ended there, then tell the listener."""
        if self._ending is None:
            self.lost_because = reason
            self._cluster.listener.retire(self)
            self._ending = asyncio.create_task(self._lose(reason))

    async def close(self) -> bool:
        """End every trial on the node and all that was started there (bounded, about 15 s)."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.wait([self._ending])
        nothing_left, _why = self._ending.result()
        return nothing_left

    async def _lose(self, reason: str) -> tuple[bool, str]:
        nothing_left, why = await self._end()
        self.lost_because = why or reason
        self._cluster.listener.on_lost(self, self.lost_because, nothing_left)
        return nothing_left, why

    async def _end(self) -> tuple[bool, str]:
        self._cluster.remotes.pop(self.agent_id, None)
        self._pump.cancel()
        self._taken.set()
        if self._pipe is not None:
            self._pipe.cancel()
            await asyncio.wait([self._pipe])
            if not self._pipe.cancelled() and (pipe := self._pipe.result()):
                pipe.close()
        if self._direct is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._direct.close_rpc(), 2)
        if self._lifeline is not None:
            return await self._lifeline.end()
        if self.worker_left:
            return False, ""
        try:
            stop = self._cluster.run_on(self.worker, stop_agent, self.agent_id)
            return await asyncio.wait_for(stop, STOP_S), ""
        except Exception:  # the node cannot be reached: its agent ends with its lease
            return False, ""

    async def _deliver_all(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while batch := self._next_batch():
                self._taken.set()
                try:
                    with self.pace.timed(sum(map(size_of, batch))):
                        there = await self._cluster.run_on(
                            self.worker, deliver, self.agent_id, batch
                        )
                except Exception as error:
                    self.lose(f"it could not be reached: {error or type(error).__name__}")
                    return
                if not there:
                    self.lose("its agent has ended, as its Dask worker does")
                    return
                self.heard = time.monotonic()

    def _next_batch(self) -> list[Message]:
        batch: list[Message] = []
        size = 0
        while self._outbox and size < self.pace.piece_bytes:
            batch.append(self._outbox.popleft())
            size += size_of(batch[-1])
        self._outbox_bytes -= size
        return batch


class Cluster:
    """The nodes of one search, as Dask connects them; all of it lives in the running loop.

        async with Cluster(listener) as cluster:                      # its own scheduler, TLS
            await bring_up(cluster, [Node("gpu1"), Node("gpu2")])     # see ssh.py
        async with Cluster(listener, client=client) as cluster:       # the user's Dask cluster
            await cluster.attach_workers(on_joined)

    `remote_ids` gives the nodes' running numbers. A node that has not been heard of for three
    times `PING_S` is lost.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        client: Client | None = None,
        remote_ids: Iterator[int] | None = None,
    ) -> None:
        self.listener = listener
        self.remotes: dict[str, DaskRemote] = {}
        self.remote_ids = itertools.count(1) if remote_ids is None else remote_ids
        self.authority = Authority()
        self.scheduler: Scheduler | None = None
        self._users_cluster: tuple[str, Security] | None = None
        if client is not None:  # which is closed, and forgets both, when it loses the connection
            self._users_cluster = client.scheduler.address, client.security
        self._topic = f"distsearch-{uuid.uuid4().hex}"
        self._client: Client
        self._exits = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        # What agents say before `attach` is through.
        self._early: dict[str, list[Mapping[str, Any]]] = {}
        self._joined: Callable[[str], None] = lambda address: None
        self._workers: set[str] = set()  # of the user's cluster: those that are nodes, or become it

    async def __aenter__(self) -> Cluster:
        async with contextlib.AsyncExitStack() as exits:
            if self._users_cluster is None:
                exits.enter_context(quiet())
                self._client = await exits.enter_async_context(self._own_scheduler())
            else:
                self._client = await exits.enter_async_context(self._like_the_users())
                with contextlib.suppress(Exception):  # only the user's scheduler saves memory by it
                    await self._client.run_on_scheduler(keep_few_events, self._topic)
            await self._subscribe()
            self._start(self._ping_all())
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all nodes, then the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(remote.close() for remote in list(self.remotes.values())))
        for topic in ("all", self._topic):  # else the scheduler would talk to a closed client
            with contextlib.suppress(Exception):
                self._client.unsubscribe_topic(topic)
        with contextlib.suppress(Exception):  # an answer means that the scheduler knows of it
            await asyncio.wait_for(self._client.scheduler.identity(), 2)
        await self._exits.aclose()

    def _like_the_users(self) -> Client:
        """A client of our own to the user's cluster."""
        assert self._users_cluster is not None
        address, security = self._users_cluster
        return Client(address, security=security, asynchronous=True, set_as_default=False)

    @contextlib.asynccontextmanager
    async def _own_scheduler(self) -> AsyncIterator[Client]:
        """A scheduler of Dask in this loop, on loopback, and a client to it."""
        tls = Security(**self.authority.issue("driver"))
        # Dask puts this folder on sys.path, so others must not be able to write there.
        folder = tempfile.mkdtemp(prefix="distsearch-")
        with dask.config.set(SCHEDULER_SETTINGS):
            self.scheduler = Scheduler(
                host="127.0.0.1",
                port=0,
                protocol="tls",
                security=tls,
                local_directory=folder,
                allowed_failures=0,
                dashboard=False,
                dashboard_address="127.0.0.1:0",  # a port that Dask always opens
            )
            await self.scheduler
        bound_strangers(self.scheduler)
        try:
            async with Client(
                self.scheduler.address, security=tls, asynchronous=True, set_as_default=False
            ) as client:
                yield client
        finally:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.scheduler.close(), 10)
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def own_address(self) -> str:
        """Where the own scheduler listens on loopback: `tls://127.0.0.1:40123`."""
        assert self.scheduler is not None
        return str(self.scheduler.address)

    async def listen_on(self, interface: str) -> str:
        """Let nodes connect directly to this address of the driver (mutual TLS): `tls://...`."""
        assert self.scheduler is not None
        for listener in self.scheduler.listeners:
            if listener.contact_address.startswith(f"tls://{bracketed(interface)}:"):
                return str(listener.contact_address)
        arguments = self.scheduler.security.get_listen_args("scheduler")
        await self.scheduler.listen(f"tls://{bracketed(interface)}:0", **arguments)
        bound_strangers(self.scheduler)
        return str(self.scheduler.listeners[-1].contact_address)

    async def run_on(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of this package in the event loop of a worker."""
        answers = await self._client.run(function, *arguments, workers=[address])
        return answers[address]

    def directly_to(self, worker: str) -> rpc | None:
        """Calls to a worker that do not pass Dask's scheduler: 40% less work for the driver.

        None where the scheduler is the user's: it may reach workers that this process does not.
        """
        if self.scheduler is None:
            return None
        return rpc(worker, connection_args=self.scheduler.security.get_connection_args("scheduler"))

    async def attach(
        self,
        worker: str,
        *,
        remote_id: int,
        host: str,
        address: str | None = None,
        lifeline: Lifeline | None = None,
        adapt: Callable[[NodeFacts, bool], NodeFacts] = lambda facts, pinned: facts,
    ) -> DaskRemote:
        """Start an agent on the Dask worker with this address: the node is ready for trials.

        `adapt(facts, pinned)` may change what was detected there (`pinned`: the worker has
        CUDA_VISIBLE_DEVICES); `address` is what is shown instead of Dask's. Raises NodeError.
        """
        agent_id = f"distsearch-{uuid.uuid4().hex}"
        early = self._early[agent_id] = []
        start = self.run_on(worker, start_agent, agent_id, self._topic)
        try:
            about = await asyncio.wait_for(start, ATTACH_S)
        except asyncio.TimeoutError:
            raise NodeError(f"node {host!r}: no answer from its agent in {ATTACH_S} s") from None
        except Exception as error:
            raise NodeError(f"node {host!r}: its agent could not be started: {error!r}") from error
        finally:
            del self._early[agent_id]
        facts = adapt(NodeFacts.from_dict(about["facts"]), about["pinned"])
        remote = DaskRemote(
            self,
            remote_id,
            host,
            address or worker,
            facts,
            worker=worker,
            agent_id=agent_id,
            lifeline=lifeline,
        )
        self.remotes[agent_id] = remote
        for event in early:
            remote.receive(event)
        return remote

    # Workers of the user's Dask cluster

    async def attach_workers(
        self, on_joined: Callable[[DaskRemote | NodeError], None]
    ) -> list[DaskRemote | NodeError]:
        """Make every worker of the user's cluster a node that is none yet.

        `on_joined` hears of those to come.
        """

        async def attach_later(address: str) -> None:
            on_joined(await self._attach_worker(address))

        def joined(address: str) -> None:
            if address not in self._workers:  # or it is in the list of those that were there
                self._workers.add(address)
                self._start(attach_later(address))

        self._joined = joined
        there = (await self._client.scheduler.identity())["workers"]
        workers = [address for address in there if address not in self._workers]
        self._workers.update(workers)
        return not_lost(await asyncio.gather(*map(self._attach_worker, workers)))

    async def hear_again(self) -> None:
        """Make sure that the user's cluster is heard, after its connection broke or it began anew.

        Raises what Dask raises while it is not to be reached, and NodeError.
        """
        if self._client.status == "closed":  # Dask gives up half a minute after a connection broke
            self._client = await self._exits.enter_async_context(self._like_the_users())
        await self._subscribe()

    def owns(self, remote: Remote) -> bool:
        """Whether a node is one of this cluster."""
        return isinstance(remote, DaskRemote) and remote._cluster is self

    def forget(self, worker: str) -> None:
        """Have a worker that was lost as a node taken for a new one by `attach_workers`."""
        self._workers.discard(worker)

    async def _attach_worker(self, address: str) -> DaskRemote | NodeError:
        workers = (await self._client.scheduler.identity())["workers"]
        try:
            about = workers[address]
            theirs = await asyncio.wait_for(self.run_on(address, own_versions), 30)
        except Exception as error:
            return NodeError(
                f"worker {address}: {error!r}; the Dask workers need distsearch, too: "
                f"{own_distsearch('all of them')}"
            )
        if problem := compare(own_versions(), theirs, address, "python"):
            return NodeError(problem)
        neighbours = Counter(map(_host, workers.values()))[_host(about)]

        def adapt(facts: NodeFacts, pinned: bool) -> NodeFacts:
            return replace(
                facts,
                num_cpus=about["nthreads"],
                gpus=facts.gpus if pinned or neighbours == 1 else (),
                memory_bytes=about["memory_limit"] or facts.memory_bytes // neighbours,
            )

        try:
            return await self.attach(
                address, remote_id=next(self.remote_ids), host=_host(about), adapt=adapt
            )
        except NodeError as error:
            return error

    # Signs of life

    async def _subscribe(self) -> None:
        """Subscribe to what agents and scheduler say; return when messages arrive for sure."""
        hearing = asyncio.Event()

        def hear(event: tuple[float, Any]) -> None:
            hearing.set()
            agent_id = event[1].get("agent")
            if agent_id in self.remotes:
                self.remotes[agent_id].receive(event[1])
            elif agent_id in self._early:
                self._early[agent_id].append(event[1])

        self._client.subscribe_topic("all", self._hear_scheduler)
        self._client.subscribe_topic(self._topic, hear)
        for _ in range(500):
            await self._client.log_event(self._topic, {})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(hearing.wait(), 0.02)
                return
        raise NodeError("Dask's scheduler does not answer; is it alive?")

    def _hear_scheduler(self, event: tuple[float, Any]) -> None:
        about = event[1]
        if about.get("action") == "add-worker":
            self._joined(about["worker"])
        elif about.get("action") == "remove-worker":
            self._workers.discard(about["worker"])
            for remote in list(self.remotes.values()):
                if remote.worker == about["worker"]:
                    remote.worker_left = True
                    remote.lose("its Dask worker has ended or lost the connection")

    async def _ping_all(self) -> None:
        """Ping every node; give up those not heard of for three pings.

        Time in which this process itself stood still (suspended, a laptop asleep) does not count.
        """
        before = time.monotonic()
        while True:
            await asyncio.sleep(PING_S)
            now = time.monotonic()
            stood_still_s = now - before - PING_S
            before = now
            for remote in list(self.remotes.values()):
                remote.heard += stood_still_s
                if now - remote.heard > SILENT_PINGS * PING_S:
                    remote.lose(f"nothing was heard of it for {now - remote.heard:.0f} s")
                else:
                    remote.send({"op": "ping"})

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def size_of(message: Message) -> int:
    """About the bytes of a message: those of its data, and some for the rest."""
    return len(message.get("data", b"")) + MESSAGE_BYTES


def parts(message: Message) -> Iterator[Message]:
    """A message with much data as several: each says where its part begins, the last is `done`."""
    data = message.get("data", b"")
    if len(data) <= SMALLEST_PIECE or "done" in message:  # it is a part already
        yield message
        return
    for offset in range(0, len(data), SMALLEST_PIECE):
        end = offset + SMALLEST_PIECE
        part = {"data": data[offset:end], "offset": offset, "done": end >= len(data)}
        yield {**message, **part}


def not_lost(results: Sequence[DaskRemote | NodeError]) -> list[DaskRemote | NodeError]:
    """The results, with an error for each node that was lost while others came up."""
    return [
        NodeError(f"node {result.host!r} was lost again: {result.lost_because}")
        if isinstance(result, DaskRemote) and result.lost_because
        else result
        for result in results
    ]


def keep_few_events(topic: str, dask_scheduler: Scheduler) -> None:
    """Let a scheduler of the user keep only a few events of the topic, not the last 100,000.

    Private to Dask: without this all works, at the cost of memory in that scheduler.
    """
    dask_scheduler._broker._topics[topic].events = deque(maxlen=EVENTS_KEPT)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Dask, asyncssh and asyncio (of broken sockets) log in this thread off the terminal.

    Only the loop's thread is silenced: what the user does with Dask elsewhere is logged as before.
    """
    thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        is_noise = record.name != "asyncio" or record.msg == BROKEN_SOCKET
        return record.thread != thread or not is_noise

    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in CHATTERERS]
    loggers = [logging.getLogger(name) for name in (*names, "asyncio")]
    for logger in loggers:
        logger.addFilter(is_wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_wanted)


CHATTERERS = {"asyncssh", "distributed", "tornado"}
BROKEN_SOCKET = "socket.send() raised exception."  # asyncio logs it of a socket just lost


def _host(worker: Mapping[str, Any]) -> str:
    return str(worker["host"]).partition("/")[0]  # in one process a path follows the host


def bracketed(address: str) -> str:
    """An address as Dask takes it: in brackets if it is one of IPv6."""
    return f"[{address}]" if ":" in address else address
