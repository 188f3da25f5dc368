"""The link to the agents on other nodes, all of them together: Dask connects them to the driver.

Dask carries messages and tells who joins and leaves: see `dask_remote.py` for one node on the
driver's side, `dask_agent.py` for what runs in a node's Dask worker. No task is ever submitted.
Where the SSH nodes are ours, so is Dask's scheduler: it runs in the driver's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dask
from distributed import Client, Scheduler, Security, rpc

from ..errors import NodeError
from .dask_agent import start_agent
from .dask_remote import DaskRemote, Lifeline
from .node import NodeFacts
from .quiet import quiet
from .remote import Listener, Remote
from .strangers import bound_strangers
from .tls import Authority
from .versions import compare, own_distsearch, own_versions

PING_S = 5.0
SILENT_PINGS = 3
EVENTS_KEPT = 100
ATTACH_S = 30

SCHEDULER_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.worker-ttl": None,  # `Cluster._ping_all` watches the nodes
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.idle-timeout": None,
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.preload": [],
    "distributed.scheduler.http.routes": [],
    "distributed.admin.low-level-log-length": EVENTS_KEPT,  # events kept of each topic
}


class Cluster:
    """The nodes of one search, as Dask connects them; all of it lives in the running loop.

        async with Cluster(listener) as cluster:                      # its own scheduler, TLS
            await bring_up(cluster, [Node("gpu1"), Node("gpu2")])     # see ssh.py
        async with Cluster(listener, client=client) as cluster:       # the user's Dask cluster
            await cluster.attach_workers(on_joined)

    `remote_ids` gives the nodes their ids. A node of which nothing was heard for three times
    `PING_S` is lost.
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
        if client is not None:  # (a client that loses its connection forgets both)
            self._users_cluster = client.scheduler.address, client.security
        self._topic = f"distsearch-{uuid.uuid4().hex}"
        self._client: Client
        self._exits = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        # What agents say while `attach` has not returned yet, by agent.
        self._early: dict[str, list[Mapping[str, Any]]] = {}
        self._joined: Callable[[str], None] = lambda address: None
        self._workers: set[str] = set()  # of the user's cluster: nodes, and nodes to be

    async def __aenter__(self) -> Cluster:
        async with contextlib.AsyncExitStack() as exits:
            if self._users_cluster is None:
                exits.enter_context(quiet())
                self._client = await exits.enter_async_context(self._own_scheduler())
            else:
                self._client = await exits.enter_async_context(self._like_the_users())
                with contextlib.suppress(Exception):  # (it only saves memory)
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
        for topic in ("all", self._topic):  # (else the scheduler would talk to a closed client)
            with contextlib.suppress(Exception):
                self._client.unsubscribe_topic(topic)
        with contextlib.suppress(Exception):  # (after an answer the scheduler knows of that)
            await asyncio.wait_for(self._client.scheduler.identity(), 2)
        await self._exits.aclose()

    def _like_the_users(self) -> Client:
        """A second client to the user's cluster, which belongs to this search."""
        assert self._users_cluster is not None
        address, security = self._users_cluster
        return Client(address, security=security, asynchronous=True, set_as_default=False)

    @contextlib.asynccontextmanager
    async def _own_scheduler(self) -> AsyncIterator[Client]:
        """A scheduler of Dask in this loop, on loopback, and a client to it."""
        tls = Security(**self.authority.issue("driver"))
        # (Dask puts this folder on sys.path, so other users must not be able to write there.)
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

        `adapt(facts, pinned)` may change the facts that were detected there (`pinned`: the worker
        has CUDA_VISIBLE_DEVICES). `address` is shown in place of Dask's. Raises NodeError.
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
        """Make each worker of the user's cluster a node, unless it is one.

        `on_joined(result)` hears of workers that come later.
        """

        async def attach_later(address: str) -> None:
            on_joined(await self._attach_worker(address))

        def joined(address: str) -> None:
            if address not in self._workers:  # (else it is in the list below)
                self._workers.add(address)
                self._start(attach_later(address))

        self._joined = joined
        there = (await self._client.scheduler.identity())["workers"]
        workers = [address for address in there if address not in self._workers]
        self._workers.update(workers)
        return not_lost(await asyncio.gather(*map(self._attach_worker, workers)))

    async def hear_again(self) -> None:
        """Make sure that the user's cluster is heard: its connection broke, or it was restarted.

        Raises NodeError, and Dask's errors while the cluster cannot be reached.
        """
        if self._client.status == "closed":  # (by Dask, half a minute after the connection broke)
            self._client = await self._exits.enter_async_context(self._like_the_users())
        await self._subscribe()

    def owns(self, remote: Remote) -> bool:
        """Whether a node belongs to this cluster."""
        return isinstance(remote, DaskRemote) and remote.link is self

    def forget(self, worker: str) -> None:
        """Let `attach_workers` take a worker for a new one, whose node was lost."""
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
        """Ping every node; give up nodes of which nothing was heard for three pings.

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


def not_lost(results: Sequence[DaskRemote | NodeError]) -> list[DaskRemote | NodeError]:
    """The results, with an error for each node that was lost while others came up."""
    return [
        NodeError(f"node {result.host!r} was lost again: {result.lost_because}")
        if isinstance(result, DaskRemote) and result.lost_because
        else result
        for result in results
    ]


def keep_few_events(topic: str, dask_scheduler: Scheduler) -> None:
    """Let the user's scheduler keep a few events of the topic, and not the last 100,000.

    It uses what is private to Dask: without it all works, at the cost of memory in that scheduler.
    """
    dask_scheduler._broker._topics[topic].events = deque(maxlen=EVENTS_KEPT)


def _host(worker: Mapping[str, Any]) -> str:
    return str(worker["host"]).partition("/")[0]  # (in one process a path follows the host)


def bracketed(address: str) -> str:
    """An address in Dask's form: an IPv6 address is in brackets."""
    return f"[{address}]" if ":" in address else address
