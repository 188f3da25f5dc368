"""Another user of the machine connects to loopback ports of a search, and says nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import dask
import pytest
from distributed import Scheduler, Security, rpc

from distsearch.resource import strangers
from distsearch.resource.dask_link import SCHEDULER_SETTINGS, Cluster
from distsearch.resource.node import Node
from distsearch.resource.ssh import bring_up
from distsearch.resource.strangers import bound_strangers, is_own
from distsearch.resource.tls import Authority
from tests.hosts import Hosts
from tests.resource.test_dask_link import Listening


def on_a_scheduler(scene):
    """Run a scene with a scheduler that is bounded, and what it takes to be let in."""

    async def story():
        security = Security(**Authority().issue("driver"))
        with dask.config.set(SCHEDULER_SETTINGS):
            scheduler = await Scheduler(
                host="127.0.0.1", port=0, protocol="tls", security=security, dashboard=False
            )
        try:
            bound_strangers(scheduler)
            await asyncio.wait_for(scene(scheduler, security), 30)
        finally:
            await scheduler.close()

    asyncio.run(story())


async def connect(scheduler):
    host, port = scheduler.address.removeprefix("tls://").split(":")
    return await asyncio.open_connection(host, int(port))


async def answers(scheduler, security):
    there = rpc(scheduler.address, connection_args=security.get_connection_args("scheduler"))
    kind = (await there.identity())["type"]
    await there.close_rpc()
    return kind == "Scheduler"


def test_of_many_idle_connections_the_oldest_have_to_go_and_others_get_in(monkeypatch):
    monkeypatch.setattr(strangers, "HANDSHAKES", 5)

    async def scene(scheduler, security):
        connections = [await connect(scheduler) for _ in range(20)]
        for reader, _ in connections[:15]:
            assert await reader.read() == b""
        assert await answers(scheduler, security)
        for _, writer in connections:
            writer.close()

    on_a_scheduler(scene)


def test_a_handshake_has_its_time(monkeypatch):
    monkeypatch.setattr(strangers, "HANDSHAKE_S", 0.2)

    async def scene(scheduler, security):
        reader, writer = await connect(scheduler)
        assert await reader.read() == b""
        writer.close()
        assert await answers(scheduler, security)

    on_a_scheduler(scene)


def test_dasks_pages_cannot_be_reached():
    async def scene(scheduler, security):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", scheduler.http_server.port)

    on_a_scheduler(scene)


EVERYBODYS_PYTHON = "/usr/bin/python3"
as_another = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(EVERYBODYS_PYTHON),
    reason="only root can be another user",
)
CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(1)"


@as_another
def test_a_forward_to_a_node_takes_no_connection_of_another_user():
    async def scene(remote):
        port = remote.worker.rpartition(":")[2]
        other = await asyncio.create_subprocess_exec(
            EVERYBODYS_PYTHON, "-c", CONNECT, port, user=65534, env={}
        )
        assert await asyncio.wait_for(other.wait(), 10) == 0, "it was turned away at once"

    async def story():
        with Hosts() as hosts:
            node = Node("127.0.0.1", port=hosts.start().port, python=sys.executable)
            async with Cluster(Listening()) as cluster:
                (remote,) = await bring_up(cluster, [node], ssh_config=[str(hosts.config)])
                await scene(remote)

    asyncio.run(story())


def test_a_connection_of_this_user_is_own():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert is_own(client.getsockname()[1], port)


@as_another
def test_a_connection_of_another_user_is_not(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [EVERYBODYS_PYTHON, "-c", CONNECT, str(port)]
        other = subprocess.Popen(command, user=65534, env={})
        with server.accept()[0] as connection:
            assert not is_own(connection.getpeername()[1], port)
        other.wait(10)
