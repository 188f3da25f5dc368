"""Nodes reached over SSH: log in, start the starter, join its Dask worker to the cluster.

    nodes = await bring_up(cluster, [Node("gpu1"), Node("gpu2", user="ada")])

In tunnel mode (the default) nothing but the node's SSH port is needed: the node's worker and the
driver's scheduler listen on loopback and meet through the connection. In direct mode
(`tunnel=False`) they listen on the addresses that the SSH connection uses. Both speak mutual TLS.
Host keys are always checked; nothing turns that off.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..errors import NodeError
from .conversation import NodeProcess
from .dask_link import Cluster, not_lost
from .dask_remote import DaskRemote
from .detect import declared
from .environment import Environment
from .interpreter import starter_command
from .login import config_files, log_in, shown_cause
from .node import Node
from .setup import Say, python_of

LOGINS_AT_ONCE = 10  # at one host; sshd drops some of more logins at once


async def bring_up(
    cluster: Cluster,
    nodes: Sequence[Node],
    *,
    ssh_config: Sequence[str] | None = None,
    tunnel: bool | None = None,
    environment: Environment | None = None,
    say: Say = print,
) -> list[DaskRemote | NodeError]:
    """Bring up nodes at once; for each its remote, or what went wrong, in the order of `nodes`.

    `ssh_config`: files to read instead of ~/.ssh/config. `tunnel` holds for nodes that do not say
    it themselves. `environment`: the packages that trials want; nodes with `setup=True` get them,
    of which `say` tells. Later calls add nodes; `await remote.close()` takes one away.
    """
    tasks = start_all(cluster, nodes, ssh_config, tunnel, environment, say)
    return not_lost(await asyncio.gather(*tasks))


def start_all(
    cluster: Cluster,
    nodes: Sequence[Node],
    ssh_config: Sequence[str] | None = None,
    tunnel: bool | None = None,
    environment: Environment | None = None,
    say: Say = print,
) -> list[asyncio.Task[DaskRemote | NodeError]]:
    """Bring up nodes, with a task for each, so that a slow node holds up no other."""
    logins: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOGINS_AT_ONCE))

    async def one(node: Node, remote_id: int) -> DaskRemote | NodeError:
        try:
            async with logins[node.host]:
                connections = await log_in(node, config_files(ssh_config))
            if node.setup:
                python = await python_of(node, connections, environment, say)
                node = replace(node, python=python, setup=False)
            command = starter_command(node, environment)
            process = await NodeProcess.start(node, connections, command)
            return await _join(cluster, process, remote_id, tunnel)
        except NodeError as error:
            return error
        except Exception as error:  # (of whatever kind, it must not fail the other nodes)
            failure = NodeError(f"node {str(node)!r}: {error or repr(error)}")
            failure.__cause__ = shown_cause(error)
            return failure

    return [asyncio.create_task(one(node, next(cluster.remote_ids))) for node in nodes]


async def _join(
    cluster: Cluster, process: NodeProcess, remote_id: int, tunnel: bool | None
) -> DaskRemote:
    """Join a node, whose starter has said hello, to the cluster; on failure, end all there."""
    node = process.node
    if node.tunnel is not None:
        tunnel = node.tunnel
    try:
        process.refuse_if_different()
        await process.send_distsearch()
        worker = await process.start_worker(cluster, tunnel is not False)
        remote = await cluster.attach(
            worker,
            remote_id=remote_id,
            host=node.host,
            address=process.address,
            lifeline=process,
            adapt=lambda facts, pinned: declared(node, facts),
        )
    except BaseException as error:
        await process.end()
        if isinstance(error, NodeError) and tunnel is False:
            hint = "with tunnel=True nothing but SSH's port is needed"
            raise NodeError(f"{error}; {hint}") from shown_cause(error)
        raise
    process.over.add_done_callback(lambda over: remote.lose(over.result()[1]))
    return remote
