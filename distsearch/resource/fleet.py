"""All nodes of one search: bringing them up, adding, removing, uploading, closing."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ..errors import HostKeyError, NodeError, ResourceError, UploadError
from .local import LocalRemote
from .machines import SameMachine, take_share
from .messages import Message
from .node import Node
from .remote import Listener, Remote

if TYPE_CHECKING:  # Dask and asyncssh are imported only when there is another node to reach
    from .dask_link import Cluster
    from .dask_remote import DaskRemote
    from .environment import Environment

T = TypeVar("T")
START_S = 5.0  # so long nodes that are up wait for the others
LEASE_OVER_S = 35.0  # after so long a lost node has ended all that ran there
LONGEST_REST_S = 60.0  # the longest pause between attempts to reach a lost node
CLOSE_S = 15.0
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Owner(Listener, Protocol):
    """The experiment: hears from the nodes, and is told when one comes."""

    def add_remote(self, remote: Remote) -> None:
        """Let trials run on a node from now on."""


class Fleet:
    """The nodes of one search; used in the loop's thread.

        fleet = Fleet(folder, experiment, tunnel=None, ssh_config=None, say=print)
        await fleet.start(local=True, addresses=nodes_of("nodes.toml"), client=None)
        await fleet.close()

    `failed` has the errors of nodes that could not be brought up. Nodes that are lost later are
    brought up again, with attempts after 1, 2, 4, ... and at most 60 s. `modules`: the modules of
    installed packages that trials import.
    """

    def __init__(
        self,
        folder: Path,
        owner: Owner,
        *,
        tunnel: bool | None,
        ssh_config: Sequence[str] | None,
        say: Callable[[str], None],
        work_in: str | None = None,
        modules: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.owner = owner
        self.remotes: dict[int, Remote] = {}
        self.uploaded: dict[str, Path] = {}
        self.failed: list[NodeError] = []
        self._tunnel = tunnel
        self._ssh_config = ssh_config
        self._say = say
        self._work_in = work_in
        self._modules = modules
        self._environment: Environment | None = None
        self._ids = itertools.count()
        self._ssh_cluster: Cluster | None = None
        self._client_cluster: Cluster | None = None
        self._nodes: dict[int, Node] = {}  # by id, as the user has named them
        self._nodes_to_go: set[int] = set()  # ids of nodes that need not come back
        self._comebacks: dict[asyncio.Task[None], Node] = {}  # lost nodes that are to come back
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._also: dict[int, list[Node]] = {}  # by id: other names of the node's machine
        self._declared: set[int] = set()  # ids of nodes whose CPUs the user has declared

    async def start(
        self,
        *,
        local: bool | Node | None,
        addresses: Sequence[Node],
        client: Any,
        enough: Callable[[], bool] = lambda: True,
    ) -> None:
        """Bring all nodes up at once. Raises NodeError if none comes up.

        `local=None`: this machine is a node unless there is a client, and where nodes over SSH are
        named, one of them has to come up.

        Returns when all nodes are up or have failed; or, after `START_S`, as soon as `enough()`
        says that the nodes which are up will do: the others join later.
        """
        if local or (local is None and client is None):
            node = local if isinstance(local, Node) else None
            remote = await LocalRemote.start(next(self._ids), self.folder, self, node)
            if self._work_in != "trial":
                remote.trial_cwd = os.getcwd()
            if node is not None:
                self._note(remote, node)
            await self._welcome(remote)
        joining: list[asyncio.Task[Any]] = [self._run(self._join_client(client))]
        if addresses:
            starts = await self._start_all(addresses)
            joining += [self._run(self._join(*one)) for one in zip(addresses, starts, strict=True)]
        await asyncio.wait(joining, timeout=START_S)
        coming = [task for task in joining if not task.done()]
        needs_one = local is None and client is None
        while coming and needs_one and all(remote.is_local for remote in self.remotes.values()):
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            coming = [task for task in joining if not task.done()]
        if coming and self.remotes and enough():
            late = "1 node is" if len(coming) == 1 else f"{len(coming)} nodes are"
            self._say(f"{late} not up yet; the search starts without")
            joining = [task for task in joining if task.done()]
        await asyncio.gather(*joining)
        reasons = "\n".join(map(str, self.failed))
        if needs_one and 0 < len(addresses) <= len(self.failed):
            raise NodeError(
                f"none of the nodes that were named could be brought up:\n{reasons}\nTo train on "
                "this machine alone, name no others; in Python, local=True goes on without them"
            )
        if not self.remotes:
            if self.failed:
                raise NodeError(f"no node could be brought up:\n{reasons}")
            if client is None:
                raise NodeError(
                    "local=False leaves no node: name others with dist_ip_addrs= or client=, or "
                    "leave local=True"
                )

    async def add(self, addresses: Sequence[Node]) -> None:
        """Bring up more nodes. Raises NodeError for those that failed; the others are then up."""
        for node in addresses:
            await self._stop_waiting_for(node)
        joining = map(self._join, addresses, await self._start_all(addresses))
        failed = [error for error in await asyncio.gather(*joining) if error is not None]
        if failed:
            raise NodeError("\n".join(map(str, failed)))

    async def remove(self, addresses: Sequence[Node]) -> None:
        """End everything on these nodes and do without them."""
        leaving = [remote for node in addresses for remote in await self.named(node)]
        await self.take_away(leaving, "it was removed")

    async def named(self, node: Node) -> list[Remote]:
        """The nodes that an address names; a lost one among them need not come back any more.

        Raises ResourceError for an address that names no node.
        """
        was_lost = await self._stop_waiting_for(node)
        return self._called(node, may_be_none=was_lost)

    def does_not_come_back(self, remote: Remote) -> None:
        """Let a node not be brought up again, should it be lost."""
        self._nodes_to_go.add(remote.remote_id)

    def comes_back(self, remote: Remote) -> None:
        """Let a node be brought up again, should it be lost."""
        self._nodes_to_go.discard(remote.remote_id)

    async def take_away(self, leaving: Sequence[Remote], reason: str) -> None:
        """End everything on nodes and do without them."""
        for remote in leaving:
            self._nodes.pop(remote.remote_id, None)
            self.does_not_come_back(remote)
            self.owner.retire(remote)
        nothing_left = await asyncio.gather(*(remote.close() for remote in leaving))
        for remote, confirmed_dead in zip(leaving, nothing_left, strict=True):
            self.on_lost(remote, reason, confirmed_dead)

    def _called(self, node: Node, may_be_none: bool) -> list[Remote]:
        """The nodes that an address names."""
        found = [r for r in self.remotes.values() if self.is_called(r, node)]
        if not found and not may_be_none:
            there = ", ".join(self.name_of(remote) for remote in self.remotes.values())
            raise ResourceError(f"{node} is none of the nodes: {there or 'there are none'}")
        return found

    def name_of(self, remote: Remote) -> str:
        """How the user has named a node; other nodes may have its host's name, too."""
        return "localhost" if remote.is_local else str(self._node_of(remote))

    def is_called(self, remote: Remote, node: Node) -> bool:
        """Whether an address names this node."""
        names = list(self._also.get(remote.remote_id, ()))
        if not remote.is_local:
            names.append(self._nodes.get(remote.remote_id, Node(remote.host)))
        elif node.host in LOCAL_NAMES and node.port is None:
            return True
        return any(
            own.host == node.host
            and node.port in (None, own.port)
            and node.user in (None, own.user)
            for own in names
        )

    # Who joins

    async def _start_all(
        self, nodes: Sequence[Node]
    ) -> Sequence[asyncio.Task[DaskRemote | NodeError]]:
        """Begin to bring up nodes over SSH; returns a task for each."""
        from .dask_link import Cluster
        from .environment import environment_of
        from .ssh import start_all

        if self._ssh_cluster is None:
            self._ssh_cluster = await Cluster(self, remote_ids=self._ids).__aenter__()
        if self._environment is None:
            self._environment = await asyncio.to_thread(environment_of, self._modules)
        return start_all(
            self._ssh_cluster, nodes, self._ssh_config, self._tunnel, self._environment, self._say
        )

    async def _join(
        self, node: Node, coming: asyncio.Task[DaskRemote | NodeError]
    ) -> NodeError | None:
        """Welcome a node once it is up, or say why it is not."""
        result = await coming
        if isinstance(result, Remote):
            self._note(result, node)
        return await self._welcome_or_say(result)

    # Who comes back

    def _bring_back_later(self, node: Node, after_s: float) -> None:
        """Bring a lost node up again, when nothing of its old agent can be left there."""
        if not self._is_closed:
            task = self._run(self._bring_back(node, after_s))
            self._comebacks[task] = node
            task.add_done_callback(self._comebacks.pop)

    async def _stop_waiting_for(self, node: Node) -> bool:
        """Wait for a lost node no longer, even if it is coming up; whether anybody has waited."""
        tasks = [
            task
            for task, lost in self._comebacks.items()
            if lost.host == node.host
            and node.port in (None, lost.port)
            and node.user in (None, lost.user)
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        return bool(tasks)

    async def _bring_back(self, node: Node, after_s: float) -> None:
        await asyncio.sleep(after_s)
        for attempt in itertools.count(1):
            (coming,) = await self._start_all([node])
            result = await coming
            if isinstance(result, Remote):
                self._note(result, node)
                is_back = False
                try:
                    self._take_share(result)
                    await self._welcome(result)
                    is_back = True
                except SameMachine as same:  # (it has come under another name meanwhile)
                    self._is_also(result, same)
                    return
                except (UploadError, NodeError) as refused:
                    refusal = NodeError(f"node {str(node)!r}: {refused}")
                finally:
                    if not is_back:  # (it was refused, or nobody waits any more)
                        self.remotes.pop(result.remote_id, None)
                        await result.close()
                if is_back:
                    if result.lost_because is None:
                        self._say(f"node {node.host} is back")
                    return  # (or it was lost again, and another task waits for it)
                result = refusal
            if isinstance(result, HostKeyError):
                self._say(f"{result}\nnode {node.host} is not tried again")
                return
            await self._rest(attempt, f"{result}\nnode {node.host} is tried again")

    async def _take_up_again(self, worker: str, after_s: float) -> None:
        """Make a lost worker of the user's cluster a node again, once the connection is back.

        Workers that joined while nothing was heard of the cluster become nodes, too. A worker that
        is not there any more counts as a new one when it comes.
        """
        assert self._client_cluster is not None
        await asyncio.sleep(after_s)
        for attempt in itertools.count(1):
            self._client_cluster.forget(worker)
            try:
                await self._client_cluster.hear_again()
                results = await self._client_cluster.attach_workers(self._welcome_later)
            except Exception as error:  # (Dask raises many kinds)
                results = [NodeError(f"the cluster of client= does not answer: {error!r}")]
            for remote in results:
                if isinstance(remote, Remote) and await self._welcome_or_say(remote) is None:
                    self._say(f"node {remote.host} is back")
            failed = [str(one) for one in results if isinstance(one, NodeError)]
            if not failed:
                return
            await self._rest(attempt, "\n".join([*failed, "tried again"]))

    async def _rest(self, attempt: int, what: str) -> None:
        """Rest before the next attempt, ever longer; at the attempts 1, 2, 4, 8, ... say so."""
        rest_s = min(LONGEST_REST_S, 2.0 ** (attempt - 1))
        if attempt & (attempt - 1) == 0:
            self._say(f"{what}, next in {rest_s:g} s")
        await asyncio.sleep(rest_s)

    def _note(self, remote: Remote, node: Node) -> None:
        self._nodes[remote.remote_id] = node
        if node.num_cpus is not None:
            self._declared.add(remote.remote_id)

    async def _join_client(self, client: Any) -> None:
        if client is None:
            return
        from .dask_link import Cluster

        if not hasattr(getattr(client, "scheduler", None), "address"):
            raise ResourceError(f"client={client!r}; give a distributed.Client of your cluster")
        self._client_cluster = await Cluster(self, client=client, remote_ids=self._ids).__aenter__()
        results = await self._client_cluster.attach_workers(self._welcome_later)
        await asyncio.gather(*map(self._welcome_or_say, results))

    def _welcome_later(self, result: Remote | NodeError) -> None:
        self._run(self._welcome_or_say(result))

    def _run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something in the background, until the fleet is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _welcome_or_say(self, result: Remote | NodeError) -> NodeError | None:
        """Welcome a node; if it cannot be used, say why, and let the others live."""
        error = result if isinstance(result, NodeError) else None
        if isinstance(result, Remote):
            try:
                self._take_share(result)
                await self._welcome(result)
            except SameMachine as same:  # (that is no fault)
                await result.close()
                self._is_also(result, same)
            except (UploadError, NodeError) as refused:
                self.remotes.pop(result.remote_id, None)
                await result.close()
                error = refused if isinstance(refused, NodeError) else None
                error = error or NodeError(f"node {str(self._node_of(result))!r}: {refused}")
        if error is not None:
            self.failed.append(error)
            self._say(str(error))
        return error

    def _is_also(self, remote: Remote, same: SameMachine) -> None:
        """Take note that a node is a machine that is there already, under another name."""
        self._also.setdefault(same.other.remote_id, []).append(self._node_of(remote))
        self._say(str(same))

    def _node_of(self, remote: Remote) -> Node:
        return self._nodes.get(remote.remote_id, Node(remote.host))

    def _take_share(self, remote: Remote) -> None:
        """Give a node what no other node has of its machine; NodeError if nothing is left."""
        node = self._node_of(remote)
        if remote.remote_id not in self._nodes:  # (the CPUs of a cluster's worker are its threads)
            self._declared.add(remote.remote_id)
        if line := take_share(
            remote,
            self.remotes.values(),
            name=str(node),
            shares=self._declared,
            declares_gpus=node.num_gpus is not None,
        ):
            self._say(line)

    async def _welcome(self, remote: Remote) -> None:
        """Give a node the uploaded files, then let trials run there."""
        self.remotes[remote.remote_id] = remote
        if self.uploaded:
            remote.trial_cwd = None
            await self._upload_to(remote, self.uploaded)
        if remote.lost_because is None:
            self.owner.add_remote(remote)
        elif self.remotes.pop(remote.remote_id, None) is not None:
            self._say(f"node {remote.host} was lost again: {remote.lost_because}")
            self._wait_for(remote, confirmed_dead=False)

    def _wait_for(self, remote: Remote, confirmed_dead: bool) -> None:
        """Wait for a lost node to come back, unless it was taken away."""
        node = self._nodes.pop(remote.remote_id, None)
        if remote.remote_id in self._nodes_to_go:
            return
        after_s = 0.0 if confirmed_dead else LEASE_OVER_S
        cluster = self._client_cluster
        if node is not None:
            self._bring_back_later(node, after_s)
        elif cluster is not None and cluster.owns(remote) and not self._is_closed:
            self._run(self._take_up_again(cast("DaskRemote", remote).worker, after_s))

    # What nodes say

    def on_messages(self, remote: Remote, messages: list[Message]) -> None:
        """Pass on what a node's agent says."""
        self.owner.on_messages(remote, messages)

    def retire(self, remote: Remote) -> None:
        """Pass on that nothing more is to be started on a node."""
        self.owner.retire(remote)

    def on_lost(self, remote: Remote, reason: str, confirmed_dead: bool) -> None:
        """Take a lost node out, let what waits for it fail, and tell the owner."""
        if self.remotes.pop(remote.remote_id, None) is not None:
            remote.on_gone(reason)
            self.owner.on_lost(remote, reason, confirmed_dead)
            self._wait_for(remote, confirmed_dead)

    # Files

    async def upload(self, files: Mapping[str, Path]) -> None:
        """Put files on every node, also on nodes that come later."""
        remotes = list(self.remotes.values())
        self.uploaded.update(files)
        for remote in remotes:
            remote.trial_cwd = None
        ends = await asyncio.gather(
            *(self._upload_to(remote, files) for remote in remotes), return_exceptions=True
        )
        for remote, error in zip(remotes, ends, strict=True):
            # (The owner has heard of a node that was lost; the other nodes have the files.)
            if isinstance(error, BaseException) and remote.remote_id in self.remotes:
                raise error

    async def _upload_to(self, remote: Remote, files: Mapping[str, Path]) -> None:
        for name, path in list(files.items()):
            await remote.upload(name, path)

    async def close(self) -> None:
        """End everything on every node, then the connections (bounded)."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:  # (nodes that were just coming up are taken down again)
            await asyncio.wait(tasks, timeout=CLOSE_S)
        await asyncio.gather(*(remote.close() for remote in self.remotes.values()))
        for cluster in (self._ssh_cluster, self._client_cluster):
            if cluster is not None:
                await cluster.close()
