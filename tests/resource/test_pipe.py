"""Pieces of checkpoints past Dask: through a Unix socket, and through Dask where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from distsearch.errors import NodeError
from distsearch.resource import dask_link, pipe
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


def run(work):
    return asyncio.run(asyncio.wait_for(work, WAIT_S))


def test_pieces_get_there_and_back_many_at_once(cache, client):
    whole = os.urandom(100_000)
    offsets = range(0, 100_000, 1000)

    async def there_and_back():
        await asyncio.gather(
            *(client.write(3, NAME, "files/w", at, whole[at : at + 1000]) for at in offsets)
        )
        await client.write(3, NAME, "empty", 0, b"")
        await client.write(3, NAME, MANIFEST, 0, b"{}")
        assert set(cache.hold(3, NAME)) == {"files/w", "empty", MANIFEST}
        got = await asyncio.gather(
            *(client.read(3, NAME, "files/w", at, 1000) for at in offsets),
            client.read(3, NAME, "empty", 0, 0),
        )
        assert b"".join(got) == whole

    run(there_and_back())


def test_what_goes_wrong_on_the_node_is_told_and_the_pipe_goes_on(client):
    with pytest.raises(NodeError, match="No such file"):
        run(client.read(3, NAME, "files/w", 0, 10))
    with pytest.raises(NodeError, match="not below the checkpoints"):
        run(client.write(3, NAME, "../../../elsewhere", 0, b"x"))
    run(client.write(3, NAME, "files/w", 0, b"x"))
    assert client.works


def test_nothing_but_pieces_can_be_asked_for(client):
    with pytest.raises(NodeError, match="neither 'read' nor 'write'"):
        run(client._ask(["drop", 3, NAME, "files/w", 0, 1], b""))


def test_a_pipe_whose_other_end_is_gone_says_that_it_works_no_longer(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "deaf"))
        listener.listen()
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        client = PipeClient(str(folder / "deaf"))
        with pytest.raises(OSError):
            run(client.read(3, NAME, "files/w", 0, 10))
        assert not client.works
    with pytest.raises(OSError):
        run(PipeClient(str(folder / "nobody")).read(3, NAME, "files/w", 0, 10))


def test_a_server_that_is_closed_refuses_at_once(folder, cache):
    server = PipeServer(cache, str(folder / "pipe"))
    os.link(server.path, folder / "kept")  # its own name goes
    server.close()
    with pytest.raises(OSError):
        run(PipeClient(str(folder / "kept")).read(3, NAME, "files/w", 0, 10))


def test_closing_wakes_who_waits_for_an_answer(folder):
    asked = threading.Event()

    async def close_amid_a_question(client):
        reading = asyncio.create_task(client.read(3, NAME, "files/w", 0, 10))
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        client.close()
        with pytest.raises(OSError):
            await reading

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "silent"))
        listener.listen()

        def listen():
            connection, _ = listener.accept()
            connection.recv(100)
            asked.set()
            while connection.recv(100):  # until the client has gone
                pass

        threading.Thread(target=listen, daemon=True).start()
        run(close_amid_a_question(PipeClient(str(folder / "silent"))))


def test_a_node_that_falls_silent_is_given_up(folder, monkeypatch):
    monkeypatch.setattr(pipe, "SILENT_S", 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "silent"))
        listener.listen()
        client = PipeClient(str(folder / "silent"))
        with pytest.raises(OSError):
            run(client.read(3, NAME, "files/w", 0, 10))
        with pytest.raises(OSError):
            run(PipeClient(str(folder / "silent")).write(3, NAME, "w", 0, bytes(10**7)))


def test_a_path_that_is_too_long_for_a_socket_is_refused(folder, cache):
    with pytest.raises(OSError):
        PipeServer(cache, str(folder / ("x" * 120)))


class Telling(Listening):
    """Tells a remote that it is gone, as the fleet does."""

    def on_lost(self, remote, reason, confirmed_dead):
        super().on_lost(remote, reason, confirmed_dead)
        remote.on_gone(reason)


@contextlib.asynccontextmanager
async def node_of(hosts, host, *, tunnel=True):
    """A node over SSH, in a cluster of its own."""
    node = Node("127.0.0.1", port=host.port, python=sys.executable, tunnel=tunnel)
    async with Cluster(Telling()) as cluster:
        (remote,) = await bring_up(cluster, [node], ssh_config=[str(hosts.config)])
        yield remote


@pytest.mark.parametrize("way", ["pipe", "dask: refused", "dask: no tunnel"])
def test_checkpoints_of_a_node_over_ssh_go_past_dask_where_they_can(
    folder, tmp_path, monkeypatch, way
):
    near, taken = [], []
    monkeypatch.setattr(dask_link, "PipeClient", lambda path: Witness(path, near, taken))
    made = make(tmp_path / "made", size=200_000)

    async def there_and_back(hosts, host):
        async with node_of(hosts, host, tunnel=way != "dask: no tunnel") as remote:
            await remote.put_checkpoint(3, made)
            sockets = [*folder.glob("**/pipe"), *near]
            assert len(sockets) == {"pipe": 2, "dask: refused": 2, "dask: no tunnel": 0}[way]
            assert not any(path.parent.stat().st_mode & 0o077 for path in sockets)
            return await remote.fetch_checkpoint(3, tmp_path / "back")

    with Hosts() as hosts:
        host = hosts.start(env={"TMPDIR": str(folder)})
        host.forwards_sockets = way != "dask: refused"
        back = run(there_and_back(hosts, host))
    assert content(back) == content(made)
    ways = {"pipe": {"write", "read"}, "dask: refused": {"broken"}, "dask: no tunnel": set()}
    assert set(taken) == ways[way]
    assert not list(folder.iterdir()), "something was left on the node"
    assert not any(path.parent.exists() for path in near), "something was left on the driver"


@pytest.mark.parametrize("end", ["closed as it opens", "closed", "cut"])
def test_a_node_that_goes_in_the_middle_of_a_copy_fails_it_with_an_error_of_its_own(
    folder, tmp_path, monkeypatch, end
):
    near, taken = [], []
    monkeypatch.setattr(dask_link, "PipeClient", lambda path: Witness(path, near, taken))
    made = make(tmp_path / "made", size=60_000_000)

    async def go_in_the_middle(hosts, host):
        async with node_of(hosts, host) as remote:
            opening = asyncio.Event()
            open_pipe = remote._open_pipe

            async def open_and_tell():
                opening.set()
                return await open_pipe()

            remote._open_pipe = open_and_tell
            putting = asyncio.create_task(remote.put_checkpoint(3, made))
            await opening.wait()
            while end != "closed as it opens" and not taken:
                assert not putting.done()
                await asyncio.sleep(0.005)
            if end == "cut":
                await asyncio.to_thread(host.cut)
            else:
                await remote.close()
                remote.on_gone("it was closed")  # as the fleet does
            with pytest.raises(NodeError):
                await asyncio.wait_for(putting, 20)

    with Hosts() as hosts:
        run(go_in_the_middle(hosts, hosts.start(env={"TMPDIR": str(folder)})))
    assert not any(path.parent.exists() for path in near), "something was left on the driver"


class Witness(PipeClient):
    """Tells what has passed it."""

    def __init__(self, path, near, taken):
        super().__init__(path)
        near.append(Path(path))
        self.taken = taken

    async def _ask(self, request, data):
        try:
            answer = await super()._ask(request, data)
        except OSError:
            self.taken.append("broken")
            raise
        self.taken.append(request[0])
        return answer
