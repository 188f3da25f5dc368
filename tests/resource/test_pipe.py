"""Pieces of checkpoints past Dask: through a Unix socket, and through Dask where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.errors import NodeError
from distsearch.resource import dask_remote, pace, pipe
from distsearch.resource.cache import MANIFEST, CheckpointCache
from distsearch.resource.dask_link import Cluster
from distsearch.resource.node import Node
from distsearch.resource.pipe import PipeClient, PipeConnection, PipeServer
from distsearch.resource.ssh import bring_up
from tests.hosts import Hosts
from tests.openssh import SSHD, OpenSSH
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


def to(path):
    """How a client connects to a socket of this machine, as through SSH to one of a node."""

    async def connect(make):
        _, connection = await asyncio.get_running_loop().create_unix_connection(make, str(path))
        return connection

    return connect


def run(work):
    return asyncio.run(asyncio.wait_for(work, WAIT_S))


def run_with_client(cache, folder, work):
    """Run what is done with the client of a server."""

    async def both():
        client = PipeClient(to(server.path))
        try:
            await work(client)
        finally:
            client.close()

    server = PipeServer(cache, str(folder / "pipe"))
    try:
        run(both())
    finally:
        server.close()


@contextlib.contextmanager
def listening(folder, then):
    """A socket that takes one connection and does `then` with it, in a thread."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()

        def listen():
            with listener.accept()[0] as connection:
                then(connection)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield PipeClient(to(folder / "socket"))
        thread.join(WAIT_S)
        assert not thread.is_alive(), "the client is still connected"


def until_it_has_gone(connection):
    """Take whatever comes and answer nothing."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 20):
            pass


def test_pieces_get_there_and_back_many_at_once(cache, folder):
    whole = os.urandom(3_000_000)
    step = 290_000  # more than is written at a time
    offsets = range(0, len(whole), step)

    async def there_and_back(client):
        await asyncio.gather(
            *(client.write(3, NAME, "files/w", at, whole[at : at + step]) for at in offsets)
        )
        await client.write(3, NAME, "empty", 0, b"")
        await client.write(3, NAME, MANIFEST, 0, b"{}")
        assert set(cache.hold(3, NAME)) == {"files/w", "empty", MANIFEST}
        *got, empty = await asyncio.gather(
            *(client.read(3, NAME, "files/w", at, step) for at in offsets),
            client.read(3, NAME, "empty", 0, 0),
        )
        assert b"".join(got) == whole
        assert empty == b""

    run_with_client(cache, folder, there_and_back)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=5), st.data())
def test_answers_are_put_together_however_they_arrive(answers, data):
    async def ask_all():
        connection = PipeConnection()
        connection.connection_made(mock.Mock())
        for failed, body in answers:
            asking = asyncio.create_task(connection.ask(["read", 3, NAME, "w", 0, 40], b""))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            wire = pipe.ANSWER.pack(failed, len(body)) + body
            cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=4).map(sorted))
            for begin, end in itertools.pairwise([0, *cuts, len(wire)]):
                connection.data_received(wire[begin:end])
            assert await asking == (failed, body)

    run(ask_all())


def test_what_goes_wrong_on_the_node_is_told_and_the_pipe_goes_on(cache, folder):
    async def go_wrong(client):
        with pytest.raises(NodeError, match="No such file"):
            await client.read(3, NAME, "files/w", 0, 10)
        with pytest.raises(NodeError, match="not below the checkpoints"):
            await client.write(3, NAME, "../../../elsewhere", 0, b"x")
        await client.write(3, NAME, "files/w", 0, b"x")
        assert client.works

    run_with_client(cache, folder, go_wrong)


def test_nothing_but_pieces_can_be_asked_for(cache, folder):
    async def ask(client):
        with pytest.raises(NodeError, match="neither 'read' nor 'write'"):
            await client._ask(["delete", 3, NAME, "files/w", 0, 1], b"")

    run_with_client(cache, folder, ask)


def test_a_pipe_whose_other_end_is_gone_says_that_it_works_no_longer(folder):
    async def read(client):
        with pytest.raises(OSError):
            await client.read(3, NAME, "files/w", 0, 10)
        assert not client.works
        with pytest.raises(OSError):
            await client.read(3, NAME, "files/w", 0, 10)

    with listening(folder, lambda connection: None) as client:
        run(read(client))
    run(read(PipeClient(to(folder / "nobody"))))


def test_a_server_that_is_closed_refuses_at_once(folder, cache):
    server = PipeServer(cache, str(folder / "pipe"))
    os.link(server.path, folder / "kept")  # its own name goes
    server.close()

    async def read():
        with pytest.raises(OSError):
            await PipeClient(to(folder / "kept")).read(3, NAME, "files/w", 0, 10)

    run(read())


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_closing_wakes_who_waits_for_an_answer(folder, how):
    asked = threading.Event()

    def listen(connection):
        connection.recv(100)
        asked.set()
        until_it_has_gone(connection)

    async def end_amid_a_question(client):
        reading = asyncio.create_task(client.read(3, NAME, "files/w", 0, 10))
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        if how == "closed":
            client.close()
            with pytest.raises(OSError):
                await reading
        else:
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert client.works == (how == "cancelled")

    with listening(folder, listen) as client:
        run(end_amid_a_question(client))


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_a_node_that_falls_silent_is_given_up(folder, monkeypatch, size):
    monkeypatch.setattr(pipe, "SILENT_S", 1)
    given_up = threading.Event()

    async def write(client):
        with pytest.raises(OSError, match="silent"):  # in time for Dask to carry it instead
            await asyncio.wait_for(client.write(3, NAME, "w", 0, bytes(size)), 1.8)
        given_up.set()

    with listening(folder, lambda connection: given_up.wait(WAIT_S)) as client:
        run(write(client))


def test_a_node_that_is_slow_but_not_silent_is_not_given_up(folder, monkeypatch):
    monkeypatch.setattr(pipe, "SILENT_S", 1)

    def listen(connection):
        answer = pipe.ANSWER.pack(False, 10) + b"0123456789"
        for at in range(len(answer)):
            connection.sendall(answer[at : at + 1])
            threading.Event().wait(0.15)  # in all longer than the silence that is allowed
        until_it_has_gone(connection)

    async def read(client):
        assert await client.read(3, NAME, "files/w", 0, 10) == b"0123456789"
        client.close()

    with listening(folder, listen) as client:
        run(read(client))


def test_who_waits_is_told_at_once_when_a_connection_is_aborted():
    """The other end of an SSH channel may take its time to confirm its end."""

    async def abort():
        connection = PipeConnection()
        connection.connection_made(mock.Mock())
        asking = asyncio.create_task(connection.ask(["read", 3, NAME, "w", 0, 40], b""))
        await asyncio.sleep(0)
        connection.abort()
        with pytest.raises(OSError):
            await asyncio.wait_for(asking, 5)

    run(abort())


def test_a_connection_that_comes_up_after_nobody_wants_it_any_more_is_ended(folder):
    with listening(folder, until_it_has_gone):
        connect = to(folder / "socket")

        async def give_up():
            may_come, came = asyncio.Event(), asyncio.Event()

            async def come_late(make):
                await may_come.wait()
                connection = await connect(make)
                came.set()
                return connection

            reading = asyncio.create_task(PipeClient(come_late).read(3, NAME, "w", 0, 10))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            may_come.set()
            await came.wait()
            await asyncio.sleep(0)

        run(give_up())


def test_more_than_there_is_memory_for_ends_the_connection(cache, folder):
    async def ask(client):
        with pytest.raises(OSError):
            await client._ask(["write", 3, NAME, "w", 0, 1 << 60], b"")

    run_with_client(cache, folder, ask)


def test_an_answer_longer_than_what_was_asked_for_ends_the_connection(folder):
    def listen(connection):
        connection.sendall(pipe.ANSWER.pack(False, 1 << 30) + bytes(1000))
        until_it_has_gone(connection)

    async def read(client):
        with pytest.raises(OSError):
            await client.read(3, NAME, "files/w", 0, 10)

    with listening(folder, listen) as client:
        run(read(client))


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
    taken = []
    monkeypatch.setattr(dask_remote, "PipeClient", lambda connect: Witness(connect, taken))
    made = make(tmp_path / "made", size=200_000)

    async def there_and_back(hosts, host):
        async with node_of(hosts, host, tunnel=way != "dask: no tunnel") as remote:
            await remote.put_checkpoint(3, made)
            sockets = [*folder.glob("**/pipe")]
            assert len(sockets) == (0 if way == "dask: no tunnel" else 1)
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


@pytest.mark.parametrize("end", ["closed as it opens", "closed", "cut"])
def test_a_node_that_goes_in_the_middle_of_a_copy_fails_it_with_an_error_of_its_own(
    folder, tmp_path, monkeypatch, end
):
    taken = []
    monkeypatch.setattr(dask_remote, "PipeClient", lambda connect: Witness(connect, taken))
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


class SlowLink:
    """A way to a port of this machine that carries so many bytes a second each way."""

    def __init__(self, port, bytes_per_s):
        self.to, self.bytes_per_s = port, bytes_per_s
        self.is_slow, self.is_busy = threading.Event(), threading.Event()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.socket()
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                far.connect(("127.0.0.1", self.to))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source, target):
        carried = 0
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(1 << 13):
                if self.is_slow.is_set():
                    threading.Event().wait(len(data) / self.bytes_per_s)
                    carried += len(data)
                    if carried > 300_000:
                        self.is_busy.set()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("way", ["pipe", "dask"])
def test_a_checkpoint_gets_over_a_link_on_which_it_takes_longer_than_any_answer_may(
    folder, tmp_path, monkeypatch, way
):
    """Time limits are about silence, not about size."""
    monkeypatch.setattr(dask_remote, "ANSWER_S", 1)
    monkeypatch.setattr(pipe, "SILENT_S", 1)
    monkeypatch.setattr(pace, "QUICK_S", 0.1)
    made = make(tmp_path / "made", size=400_000)

    async def there_and_back(hosts, host):
        link = SlowLink(host.port, 250_000)
        hosts.trust(link.port, host)
        async with node_of(hosts, link) as remote:
            await remote.use_cache("newest", 3)
            link.is_slow.set()
            begin = time.monotonic()
            await remote.put_checkpoint(3, made)
            back = await remote.fetch_checkpoint(3, tmp_path / "back")
            assert time.monotonic() - begin > 2
            link.is_slow.clear()
        link.listener.close()
        return back

    with Hosts() as hosts:
        host = hosts.start(env={"TMPDIR": str(folder)})
        host.forwards_sockets = way == "pipe"
        back = run(there_and_back(hosts, host))
    assert content(back) == content(made)


def test_what_else_a_node_is_told_overtakes_a_checkpoint_on_a_slow_link(folder, tmp_path):
    """Pings, for example, without which a node ends its trials after 30 s."""
    made = make(tmp_path / "made", size=6_000_000)

    async def copy_and_ask(hosts, host):
        link = SlowLink(host.port, 1_000_000)
        hosts.trust(link.port, host)
        try:
            async with node_of(hosts, link) as remote:
                link.is_slow.set()
                putting = asyncio.create_task(remote.put_checkpoint(3, made))
                assert await asyncio.to_thread(link.is_busy.wait, WAIT_S)
                for _ in range(4):
                    await remote.use_cache("newest", 3)
                    assert not putting.done(), "it waited for the checkpoint"
                link.is_slow.clear()
                await putting
        finally:
            link.listener.close()

    with Hosts() as hosts:
        run(copy_and_ask(hosts, hosts.start(env={"TMPDIR": str(folder)})))


@pytest.mark.skipif(SSHD is None, reason="there is no sshd here: apt install openssh-server")
@pytest.mark.parametrize("forwarding", ["yes", "no"])
def test_checkpoints_travel_through_openssh_as_users_have_it(
    folder, tmp_path, monkeypatch, forwarding
):
    taken = []
    monkeypatch.setattr(dask_remote, "PipeClient", lambda connect: Witness(connect, taken))
    made = make(tmp_path / "made", size=9_000_000)

    async def there_and_back(host):
        async with node_of(host, host) as remote:
            await remote.put_checkpoint(3, made)
            return await remote.fetch_checkpoint(3, tmp_path / "back")

    with OpenSSH(tmp_path / "sshd", f"AllowStreamLocalForwarding {forwarding}") as host:
        back = run(there_and_back(host))
    assert content(back) == content(made)
    assert set(taken) == ({"write", "read"} if forwarding == "yes" else {"broken"})


class Witness(PipeClient):
    """Tells what has passed it."""

    def __init__(self, connect, taken):
        super().__init__(connect)
        self.taken = taken

    async def _ask(self, request, data):
        try:
            answer = await super()._ask(request, data)
        except OSError:
            self.taken.append("broken")
            raise
        self.taken.append(request[0])
        return answer
