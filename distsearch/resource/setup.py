"""An environment of the driver's packages on a node that has nothing but SSH and some Python.

    python = await set_up(Node("gpu1"), environment_of(["torch"]), config_files(None), print)

The node's own settings say where its packages come from (`pip.conf`, PIP_INDEX_URL, ...). An
environment is made once; `installer` makes it on the node.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing

import asyncssh

from ..errors import NodeError
from .conversation import NodeProcess
from .environment import Environment, least_environment
from .interpreter import in_words, maker_command, makers
from .login import hang_up, log_in
from .node import Node

INSTALL_S = 2 * 3600.0  # (PyTorch over a slow link takes almost an hour)
Say = Callable[[str], None]


async def set_up(
    node: Node, environment: Environment, config: Sequence[str], say: Say = print
) -> str:
    """Make an environment on a node, unless it is there; returns the path of its interpreter.

    `say` gets a line now and then. Raises NodeError, which says what mends it.
    """
    connections = await log_in(node, list(config))
    try:
        return await python_of(node, connections, environment, say)
    finally:
        await hang_up(connections)


async def python_of(
    node: Node,
    connections: list[asyncssh.SSHClientConnection],
    environment: Environment | None,
    say: Say,
) -> str:
    """Make an environment as `set_up` does, but through connections that are there, and stay."""
    environment = environment or least_environment()
    if environment.left_out:
        names = ", ".join(environment.left_out)
        say(f"node {node}: setup leaves out {names}, which this machine has from no index")
    process = await NodeProcess.start(node, connections, maker_command(node), hangs_up=False)
    try:
        _refuse_other_python(node, process.hello)
        await process.send_distsearch()
        return await asyncio.wait_for(_install(node, process, environment, say), INSTALL_S)
    except asyncio.TimeoutError:
        hours = INSTALL_S / 3600
        raise NodeError(f"node {str(node)!r}: setup was not done in {hours:g} hours") from None
    finally:
        await process.end()


async def _install(node: Node, process: NodeProcess, environment: Environment, say: Say) -> str:
    spec = {
        "name": environment.name,
        "wanted": environment.wanted,
        "constraints": environment.constraints,
    }
    async with aclosing(process.run("distsearch.resource.installer", spec)) as said:
        async for message in said:
            if "progress" in message:
                say(f"node {node}: setup: {message['progress']}")
            elif "failed" in message:
                mend = f"; there: {message['mend']}" if message["mend"] else ""
                told = f"node {str(node)!r}: setup: {message['failed']}{mend}"
                raise NodeError(told, message["mend"])
            elif "python" in message:
                return str(message["python"])
    _, reason = process.over.result()
    raise NodeError(f"node {str(node)!r}: setup ended before its time: {reason}")


def _refuse_other_python(node: Node, hello: dict[str, object]) -> None:
    version = list(sys.version_info[:2])
    theirs = hello["python"]
    if not isinstance(theirs, list) or theirs[:2] == version:
        return
    wanted = ".".join(map(str, version))
    tried = ", ".join(map(in_words, makers(node)))
    raise NodeError(
        f"node {str(node)!r} has no Python {wanted}, as the driver is (tried: {tried}; found: "
        f"{'.'.join(map(str, theirs))}); install it there: sudo apt install python{wanted}-venv, "
        "or let uv find one: python3 -m pip install --user uv"
    )
