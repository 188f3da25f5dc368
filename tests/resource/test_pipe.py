"""Pieces of checkpoints past Dask: through a Unix socket, and through Dask where there is none."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distsearch.errors import NodeError
from distsearch.resource import dask_link
from distsearch.resource.cache import MANIFEST, CheckpointCache
from distsearch.resource.dask_link import Cluster
from distsearch.resource.node import Node
from distsearch.resource.pipe import PipeClient, PipeServer
from distsearch.resource.ssh import bring_up
from tests.hosts import Hosts
from tests.resource.test_cache import NAME, content, make
from tests.resource.test_dask_link import Listening

WAIT_S = 60


@pytest.fixture
def folder():
    """A folder with a short path, as sockets want it."""
    with tempfile.TemporaryDirectory(prefix="pipe-") as folder:
        yield Path(folder)


@pytest.fixture
def cache(folder):
    return CheckpointCache(folder / "trials")


@pytest.fixture
def client(folder, cache):
    server = PipeServer(cache, str(folder / "pipe"))
    client = PipeClient(server.path)
    yield client
    client.close()
    server.close()


def test_pieces_get_there_and_back_from_several_threads(cache, client):
    whole = os.urandom(100_000)
    offsets = range(0, 100_000, 1000)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda at: client.write(3, NAME, "files/w", at, whole[at : at + 1000]), offsets
        ):
            pass
        client.write(3, NAME, "empty", 0, b"")
        client.write(3, NAME, MANIFEST, 0, b"{}")
        assert set(cache.hold(3, NAME)) == {"files/w", "empty", MANIFEST}
        got = pool.map(lambda at: client.read(3, NAME, "files/w", at, 1000), offsets)
        assert b"".join(got) == whole
    assert client.read(3, NAME, "empty", 0, 0) == b""


def test_what_goes_wrong_on_the_node_is_told_and_the_pipe_goes_on(client):
    with pytest.raises(NodeError, match="No such file"):
        client.read(3, NAME, "files/w", 0, 10)
    with pytest.raises(NodeError, match="not below the checkpoints"):
        client.write(3, NAME, "../../../elsewhere", 0, b"x")
    client.write(3, NAME, "files/w", 0, b"x")
    assert client.works


def test_nothing_but_pieces_can_be_asked_for(client):
    with pytest.raises(NodeError, match="neither 'read' nor 'write'"):
        client._ask(["drop", 3, NAME, "files/w", 0, 1], b"")


def test_a_pipe_whose_other_end_is_gone_says_that_it_works_no_longer(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "deaf"))
        listener.listen()
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        client = PipeClient(str(folder / "deaf"))
        with pytest.raises(OSError):
            client.read(3, NAME, "files/w", 0, 10)
        assert not client.works
    with pytest.raises(OSError):
        PipeClient(str(folder / "nobody")).read(3, NAME, "files/w", 0, 10)


def test_closing_wakes_who_waits_for_an_answer(folder):
    asked = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(folder / "silent"))
        listener.listen()

        def listen():
            connection, _ = listener.accept()
            connection.recv(100)
            asked.set()
            connection.recv(100)  # until the client has gone

        threading.Thread(target=listen, daemon=True).start()
        client = PipeClient(str(folder / "silent"))
        reading = pool.submit(client.read, 3, NAME, "files/w", 0, 10)
        assert asked.wait(WAIT_S)
        client.close()
        with pytest.raises(OSError):
            reading.result(WAIT_S)


def test_a_path_that_is_too_long_for_a_socket_is_refused(folder, cache):
    with pytest.raises(OSError):
        PipeServer(cache, str(folder / ("x" * 120)))


@pytest.mark.parametrize("way", ["pipe", "dask: refused", "dask: no tunnel"])
def test_checkpoints_of_a_node_over_ssh_go_past_dask_where_they_can(
    folder, tmp_path, monkeypatch, way
):
    near, taken = [], []
    monkeypatch.setattr(dask_link, "PipeClient", lambda path: Witness(path, near, taken))
    made = make(tmp_path / "made", size=200_000)

    async def there_and_back(hosts, host):
        node = Node(
            "127.0.0.1", port=host.port, python=sys.executable, tunnel=way != "dask: no tunnel"
        )
        async with Cluster(Listening()) as cluster:
            (remote,) = await bring_up(cluster, [node], ssh_config=[str(hosts.config)])
            await remote.put_checkpoint(3, made)
            sockets = [*folder.glob("**/pipe"), *near]
            assert len(sockets) == {"pipe": 2, "dask: refused": 2, "dask: no tunnel": 0}[way]
            assert not any(path.parent.stat().st_mode & 0o077 for path in sockets)
            return await remote.fetch_checkpoint(3, tmp_path / "back")

    with Hosts() as hosts:
        host = hosts.start(env={"TMPDIR": str(folder)})
        host.forwards_sockets = way != "dask: refused"
        back = asyncio.run(asyncio.wait_for(there_and_back(hosts, host), WAIT_S))
    assert content(back) == content(made)
    ways = {"pipe": {"write", "read"}, "dask: refused": {"broken"}, "dask: no tunnel": set()}
    assert set(taken) == ways[way]
    assert not list(folder.iterdir()), "something was left on the node"


class Witness(PipeClient):
    """Tells what has passed it."""

    def __init__(self, path, near, taken):
        super().__init__(path)
        near.append(Path(path))
        self.taken = taken

    def _ask(self, request, data):
        try:
            answer = super()._ask(request, data)
        except OSError:
            self.taken.append("broken")
            raise
        self.taken.append(request[0])
        return answer
