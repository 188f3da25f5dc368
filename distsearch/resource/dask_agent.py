"""On a node: the agent in its Dask worker, and the functions that the driver calls there.

The driver runs these functions by `Client.run`, in the event loop of the worker (see
`dask_remote.py`); what the agent says goes to a topic of the search by `Worker.log_event`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from ..errors import NodeError
from .messages import Message
from .pipe import PipeServer

if TYPE_CHECKING:
    from .agent import Agent


class AgentPlugin(WorkerPlugin):  # type: ignore[misc]
    """A node's agent, as a plugin of its Dask worker: agent and folder end with the worker."""

    def __init__(self, agent_id: str, topic: str) -> None:
        self.agent_id = agent_id
        self.topic = topic
        self.agent: Agent | None = None

    async def setup(self, worker: Worker) -> None:
        from .agent import Agent

        numbers = itertools.count()

        def send(messages: list[Message]) -> None:
            # (As text, since msgpack has no integers above 64 bits.)
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
    """Start an agent in the worker; returns the node's facts, and whether its GPUs are `pinned`."""
    from .detect import detect

    plugin = AgentPlugin(agent_id, topic)
    try:
        await dask_worker.plugin_add(plugin, name=agent_id, catch_errors=False)
    except Exception:
        await stop_agent(agent_id, dask_worker)
        raise
    return {"facts": detect().to_dict(), "pinned": "CUDA_VISIBLE_DEVICES" in os.environ}


async def stop_agent(agent_id: str, dask_worker: Worker) -> bool:
    """End the agent, if it is there, and all that it runs; then True."""
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
        # (In the folder of the node's process, as paths of sockets have to be short.)
        plugin.pipe = PipeServer(plugin.agent.checkpoints, os.path.abspath("pipe"))
    return str(plugin.pipe.path)


def _plugin(agent_id: str, dask_worker: Worker) -> Any:
    plugin = dask_worker.plugins.get(agent_id)
    if plugin is None:
        raise NodeError("its agent has ended, as its Dask worker does")
    return plugin
