"""What Dask and asyncssh do not promise, and the nodes rely on: each by name, so that it is plain.

When one of these tests fails after an update of `distributed` or `asyncssh`, its name says what
has changed; "Internals of Dask and asyncssh" in docs/design.md says where that is used, and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import threading

import asyncssh
import dask
import pytest
from distributed import Client, LocalCluster, Scheduler, Security, rpc
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.protocol.pickle import dumps

from distsearch.resource import dask_link, node_process, quiet
from distsearch.resource.dask_link import keep_few_events
from distsearch.resource.login import hang_up, log_in, watch
from distsearch.resource.node import Node
from distsearch.resource.tls import Authority
from tests.hosts import Hosts

WAIT_S = 20


def run(work):
    return asyncio.run(asyncio.wait_for(work, WAIT_S))


# Dask


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one worker, in threads of this process."""
    with LocalCluster(
        n_workers=1, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster, set_as_default=False) as client:
        yield client


def worker_of(cluster):
    (worker,) = cluster.workers.values()
    return worker


@pytest.mark.parametrize(
    "name", sorted({*dask_link.SCHEDULER_SETTINGS, *node_process.SETTINGS}), ids=str
)
def test_dask_has_this_setting(name):
    """One that it does not know it would ignore."""
    missing = object()
    assert dask.config.get(name, missing) is not missing, f"Dask has no setting {name} any more"


def test_a_function_that_is_run_on_a_worker_gets_it_as_dask_worker_in_the_thread_of_its_loop(
    cluster, client
):
    def where(dask_worker):
        return threading.get_ident(), dask_worker.address

    async def where_too(dask_worker):
        return threading.get_ident(), dask_worker.address

    worker = worker_of(cluster)
    thread = client.run(lambda: threading.get_ident())[worker.address]
    for function in (where, where_too):
        assert client.run(function) == {worker.address: (thread, worker.address)}
    assert thread == asyncio.run_coroutine_threadsafe(_ident(), worker.loop.asyncio_loop).result(9)


async def _ident():
    return threading.get_ident()


def test_workers_answer_run_of_an_rpc_with_status_result_and_the_text_of_an_exception(cluster):
    async def ask():
        def fail():
            raise ValueError("no such thing")

        direct = rpc(worker_of(cluster).address)
        try:
            good = await direct.run(function=dumps(divmod), args=dumps((7, 2)), kwargs=dumps({}))
            bad = await direct.run(function=dumps(fail), args=dumps(()), kwargs=dumps({}))
        finally:
            await direct.close_rpc()
        assert (good["status"], good["result"]) == ("OK", (3, 1))
        assert bad["status"] != "OK" and "no such thing" in bad["exception_text"]

    run(ask())


def test_plugins_of_a_worker_are_added_awaited_found_and_removed_by_name(client):
    class Plugin(WorkerPlugin):
        def __init__(self):
            self.is_set_up = self.is_torn_down = False

        async def setup(self, worker):
            await asyncio.sleep(0)
            self.is_set_up = True

        async def teardown(self, worker):
            await asyncio.sleep(0)
            self.is_torn_down = True

    class Broken(Plugin):
        async def setup(self, worker):
            raise OSError("no space left")

    async def add_and_remove(dask_worker):
        plugin = Plugin()
        await dask_worker.plugin_add(plugin, name="p", catch_errors=False)
        assert dask_worker.plugins["p"] is plugin, "Worker.plugins no longer has plugins by name"
        assert plugin.is_set_up, "Worker.plugin_add no longer waits for setup"
        await dask_worker.plugin_remove(name="p")
        assert "p" not in dask_worker.plugins
        assert plugin.is_torn_down, "Worker.plugin_remove no longer waits for teardown"
        try:
            await dask_worker.plugin_add(Broken(), name="broken", catch_errors=False)
        except OSError:
            return True
        return False

    assert list(client.run(add_and_remove).values()) == [True], "catch_errors=False does not raise"


def test_a_scheduler_keeps_events_in_the_topics_of_its_broker(client):
    client.run_on_scheduler(keep_few_events, "few")  # AttributeError: `_broker` or `_topics`
    for number in range(2 * dask_link.EVENTS_KEPT):
        client.log_event("few", number)
    kept = [event for _, event in client.get_events("few")]
    assert kept == list(range(dask_link.EVENTS_KEPT, 2 * dask_link.EVENTS_KEPT)), (
        "`_broker._topics[topic].events` is not what holds a topic's events"
    )


def test_a_client_shows_where_its_scheduler_is_how_it_is_reached_and_whether_it_is_closed(cluster):
    async def ask():
        address = cluster.scheduler.address
        async with Client(address, asynchronous=True, set_as_default=False) as client:
            assert client.scheduler.address == address
            assert (await client.scheduler.identity())["address"] == address
            assert isinstance(client.security, Security) and client.status == "running"
        assert client.status == "closed"

    run(ask())


def test_a_scheduler_tells_who_its_workers_are_and_what_they_have(cluster, client):
    worker = worker_of(cluster)
    about = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.identity())["workers"]
    assert set(about) == {worker.address}
    assert about[worker.address]["nthreads"] == 1
    assert about[worker.address]["memory_limit"] == worker.memory_manager.memory_limit
    assert worker.address.removeprefix("inproc://").startswith(about[worker.address]["host"])


def test_a_scheduler_tells_the_topic_all_who_joins_and_leaves(cluster, client):
    heard, news = [], threading.Condition()

    def hear(event):
        _, about = event  # a time comes first
        with news:
            heard.append((about.get("action"), about.get("worker")))
            news.notify_all()

    client.subscribe_topic("all", hear)
    try:
        old = worker_of(cluster).address
        cluster.scale(2)
        client.wait_for_workers(2, timeout=WAIT_S)
        (new,) = (worker.address for worker in cluster.workers.values() if worker.address != old)
        client.retire_workers([new])
        with news:
            for action in ("add-worker", "remove-worker"):
                came = news.wait_for(lambda a=action: (a, new) in heard, WAIT_S)
                assert came, f"topic 'all' has no {action!r} with 'worker': {heard}"
    finally:
        client.unsubscribe_topic("all")
        cluster.scale(1)


def test_a_scheduler_can_listen_at_one_more_address_and_says_where():
    async def listen_twice():
        security = Security(**Authority().issue("driver"))
        with dask.config.set(dask_link.SCHEDULER_SETTINGS):
            scheduler = await Scheduler(
                host="127.0.0.1", port=0, protocol="tls", security=security, dashboard=False
            )
        try:
            first = [listener.contact_address for listener in scheduler.listeners]
            assert first == [scheduler.address]
            arguments = scheduler.security.get_listen_args("scheduler")
            await scheduler.listen("tls://127.0.0.1:0", **arguments)
            second = scheduler.listeners[-1].contact_address
            assert second.startswith("tls://127.0.0.1:") and second != scheduler.address
            arguments = security.get_connection_args("scheduler")
            there = rpc(second, connection_args=arguments)
            assert (await there.identity())["type"] == "Scheduler"
            await there.close_rpc()
        finally:
            await scheduler.close()

    run(listen_twice())


# asyncssh


@pytest.fixture(scope="module")
def hosts():
    with Hosts() as hosts:
        yield hosts


@contextlib.asynccontextmanager
async def logged_in(hosts, host):
    node = Node("127.0.0.1", port=host.port)
    connections = await log_in(node, [str(hosts.config)])
    try:
        yield connections[-1]
    finally:
        await hang_up(connections)


def test_a_connection_is_the_protocol_of_its_transport_whose_pauses_can_be_watched(hosts):
    async def flood():
        async with logged_in(hosts, hosts.start()) as connection:
            own_socket = connection.get_extra_info("socket")
            assert own_socket is not None, "get_extra_info('socket') of a connection gives nothing"
            own_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
            is_free = watch(connection)
            process = await connection.create_process("cat >/dev/null", encoding=None)
            assert is_free.is_set()
            process.stdin.write(bytes(1 << 20))
            assert not is_free.is_set(), "nobody calls SSHClientConnection.pause_writing"
            await is_free.wait()  # else nobody calls `resume_writing`
            process.stdin.write_eof()
            await process.wait()

    run(flood())


def test_any_object_with_the_methods_of_a_session_serves_a_connection_to_a_unix_socket(
    hosts, tmp_path
):
    """`pipe.PipeConnection` is none of asyncssh's classes."""
    called = []

    class Session(asyncio.Protocol):
        def connection_made(self, transport):
            called.append("connection_made")

        def session_started(self):
            called.append("session_started")

        def data_received(self, data, datatype=None):
            called.append(("data_received", bytes(data), datatype))
            arrived.set()

        def connection_lost(self, error):
            called.append("connection_lost")
            lost.set()

    arrived, lost = asyncio.Event(), asyncio.Event()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        path = f"{hosts.folder}/echo"
        listener.bind(path)
        listener.listen()

        def echo():
            with listener.accept()[0] as there:
                there.sendall(there.recv(100))
                there.recv(100)

        threading.Thread(target=echo, daemon=True).start()

        async def there_and_back():
            async with logged_in(hosts, hosts.start()) as connection:
                channel, session = await connection.create_unix_connection(Session, path)
                assert isinstance(session, Session)
                channel.write(memoryview(b"x" * 10))  # not copied before
                await arrived.wait()
                channel.abort()
                await lost.wait()

        run(there_and_back())
    data = ("data_received", b"x" * 10, None)
    assert called == ["connection_made", "session_started", data, "connection_lost"]


def test_options_that_were_constructed_show_host_port_user_and_the_configuration(tmp_path):
    file = tmp_path / "config"
    file.write_text("Host gpu\n  Hostname gpu.example\n  Port 2222\n  User ada\n  ProxyJump a,b\n")

    async def construct():
        return await asyncssh.SSHClientConnectionOptions.construct(host="gpu", config=[str(file)])

    options = run(construct())
    assert (options.host, options.port, options.username) == ("gpu.example", 2222, "ada")
    config = {name: options.config.get(name, "-") for name in ("ProxyJump", "Ciphers")}
    assert config == {"ProxyJump": "a,b", "Ciphers": "-"}, "`options.config` is another thing now"


def test_the_keys_that_match_known_hosts_come_first_in_what_match_gives(tmp_path):
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode().strip()
    (tmp_path / "known").write_text(f"gpu {public}\n[gpu]:2222 {public}\n")
    known = asyncssh.read_known_hosts([str(tmp_path / "known")])
    for port in (None, 2222):
        assert list(known.match("gpu", "", port)[0]) == [key.convert_to_public()]
    assert not known.match("other", "", None)[0]


def test_what_is_locked_or_revoked_can_be_told_from_the_text_of_the_error(hosts, tmp_path):
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "locked"), passphrase="passphrase")
    with pytest.raises((asyncssh.KeyImportError, asyncssh.KeyEncryptionError)) as error:
        asyncssh.read_private_key(str(tmp_path / "locked"))
    assert "passphrase" in str(error.value).lower()

    host = hosts.start(known=False)
    line = host.known_hosts_line()
    known = tmp_path / "known"
    known.write_text(f"{line}@revoked {line}")

    async def connect():
        await asyncssh.connect(
            "127.0.0.1",
            host.port,
            known_hosts=str(known),
            client_keys=[str(hosts.key_file)],
            config=None,
        )

    with pytest.raises(asyncssh.HostKeyNotVerifiable, match="revoked"):
        run(connect())


def test_the_loggers_that_are_silenced_have_the_names_of_their_packages():
    names = {name.partition(".")[0] for name in quiet.CHATTERERS}
    assert names == quiet.CHATTERERS

    there = {name.partition(".")[0] for name in logging.root.manager.loggerDict}
    assert names <= there, f"nobody logs as {names - there} any more"


def test_a_package_that_is_imported_while_its_log_is_silenced_is_silent_too():
    program = (
        "from distsearch.resource.quiet import quiet\n"
        "with quiet():\n"
        "    import asyncssh\n"
        "    asyncssh.logging.logger.warning('unheard')\n"
        "asyncssh.logging.logger.warning('told')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "unheard" not in done.stderr and "told" in done.stderr
