"""Nodes over SSH: real logins, real processes, every fault its own message, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import uuid
from pathlib import Path

import asyncssh
import psutil
import pytest

import distsearch
from distsearch.errors import HostKeyError, NodeError, ResourceError
from distsearch.resource import conversation, login, ssh
from distsearch.resource.dask_link import Cluster
from distsearch.resource.dask_remote import DaskRemote
from distsearch.resource.interpreter import starter_command
from distsearch.resource.login import hang_up, log_in
from distsearch.resource.node import Node
from distsearch.resource.parcel import parcel
from distsearch.resource.ssh import bring_up
from tests.hosts import Hosts
from tests.openssh import SSHD, OpenSSH
from tests.resource.test_dask_link import Listening, ops


@pytest.fixture(scope="module")
def hosts():
    with Hosts() as hosts:
        yield hosts


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class World:
    """Nodes of one test: their processes and folders can be told from all others."""

    def __init__(self, hosts, folder):
        self.hosts = hosts
        self.folder = folder
        self.mark = uuid.uuid4().hex

    def start(self, **settings):
        env = {"TMPDIR": str(self.folder), "DISTSEARCH_TEST": self.mark}
        return self.hosts.start(env=env, **settings)

    def node(self, host, **settings):
        return Node("127.0.0.1", port=host.port, **{"python": sys.executable, **settings})

    def bring_up(self, cluster, *nodes, **options):
        options.setdefault("ssh_config", [str(self.hosts.config)])
        return bring_up(cluster, nodes, **options)

    def processes(self):
        """Everything that was started on the nodes."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("DISTSEARCH_TEST") == self.mark:
                    found.append(process)
        return found

    def node_process(self):
        (found,) = [p for p in self.processes() if any("node_process" in a for a in p.cmdline())]
        return found

    def nothing_is_left(self, timeout_s=15):
        """Wait until no process and no folder is left; whether that came true in time."""
        deadline = time.monotonic() + timeout_s
        while left := self.processes():
            psutil.wait_procs(left, timeout=max(0, deadline - time.monotonic()))
            if time.monotonic() > deadline:
                return False
        return not list(self.folder.glob("distsearch-*"))


@pytest.fixture
def world(hosts, tmp_path):
    world = World(hosts, tmp_path)
    yield world
    for process in world.processes():
        process.kill()


def run(test):
    """Run `test(cluster, listening)` with a cluster of its own."""

    async def with_cluster():
        listening = Listening()
        async with Cluster(listening) as cluster:
            return await test(cluster, listening)

    return asyncio.run(asyncio.wait_for(with_cluster(), 90))


# What works


def test_nodes_come_up_work_and_leave_nothing(world):
    nodes = [world.node(world.start(), num_cpus=n) for n in (1, 2, 3)]

    async def test(cluster, listening):
        remotes = await world.bring_up(cluster, *nodes)
        assert [remote.facts.num_cpus for remote in remotes] == [1, 2, 3]
        assert [remote.remote_id for remote in remotes] == [1, 2, 3]
        for remote in remotes:
            remote.send({"op": "upload", "path": "/no", "data": b"x", "done": True})
        await listening.until(lambda heard: ops(heard).count("uploaded") == 3)
        assert not listening.lost
        return listening

    listening = run(test)
    assert world.nothing_is_left() and not listening.lost


def test_nodes_are_added_and_taken_away_while_others_stay(world):
    one, two = (world.node(world.start()) for _ in range(2))

    async def test(cluster, listening):
        (first,) = await world.bring_up(cluster, one)
        (second,) = await world.bring_up(cluster, two)
        await first.close()
        assert list(cluster.remotes.values()) == [second] and not listening.lost
        assert world.node_process()

    run(test)


def test_the_ssh_configuration_is_honoured_with_names_and_jump_hosts(world, tmp_path):
    jump, target = world.start(), world.start()
    config = tmp_path / "config"
    config.write_text(
        f"Host bastion\n  Hostname 127.0.0.1\n  Port {jump.port}\n"
        f"Host gpu1\n  Hostname 127.0.0.1\n  Port {target.port}\n  ProxyJump bastion\n"
        f"Host *\n  IdentityFile {world.hosts.key_file}\n"
        f"  UserKnownHostsFile {world.hosts.known_hosts}\n"
    )
    node = Node("gpu1", python=sys.executable)

    async def test(cluster, listening):
        (remote,) = await world.bring_up(cluster, node, ssh_config=[str(config)])
        assert isinstance(remote, DaskRemote) and remote.host == "gpu1"
        assert (jump.logins, target.logins) == (1, 1)

    run(test)


def test_each_node_has_its_own_python_and_environment(world, tmp_path):
    python = tmp_path / "my 'own' python"
    python.write_text(f'#!/bin/sh\nMY_PYTHON=1 exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    node = world.node(world.start(), python=str(python), env={"TOKEN": "two words; 'x'"})

    async def test(cluster, listening):
        (remote,) = await world.bring_up(cluster, node)
        assert isinstance(remote, DaskRemote), remote
        environment = world.node_process().environ()
        assert environment["TOKEN"] == "two words; 'x'" and environment["MY_PYTHON"] == "1"

    run(test)


def test_a_python_in_the_home_folder_is_found_by_its_tilde():
    command = starter_command(Node("gpu1", python="~/my env/bin/python"))
    assert command.startswith("exec ~/'my env/bin/python' -u -c ")
    assert "\n" not in command and "!" not in command


def test_in_tunnel_mode_everything_listens_on_loopback(world):
    node = world.node(world.start())

    async def test(cluster, listening):
        await world.bring_up(cluster, node)
        for process in [psutil.Process(), *world.processes()]:
            listening_at = {
                c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN
            }
            assert listening_at <= {"127.0.0.1"}
        scheduler_port = int(cluster.own_address.rpartition(":")[2])
        assert scheduler_port not in remote_ports(world.node_process())

    run(test)


def test_in_direct_mode_the_node_connects_without_the_tunnel_and_refuses_strangers(world):
    node = world.node(world.start(), tunnel=False)

    async def test(cluster, listening):
        (remote,) = await world.bring_up(cluster, node)
        scheduler_port = int(cluster.own_address.rpartition(":")[2])
        assert scheduler_port in remote_ports(world.node_process())
        stranger = {"ssl": asyncssh_free_context(), "server_hostname": "x"}
        host, port = remote.worker.removeprefix("tls://").split(":")
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            reader, _ = await asyncio.open_connection(host, int(port), **stranger)
            await reader.readexactly(1)  # Dask greets whoever it lets in

    run(test)


@pytest.mark.skipif(SSHD is None, reason="there is no sshd here")
@pytest.mark.parametrize("endless", ["yes", "cat /dev/zero"])
def test_a_login_that_prints_without_end_is_given_up_at_once(world, tmp_path, endless):
    script = tmp_path / "python3"
    script.write_text(f"#!/bin/sh\nexec {endless}\n")
    script.chmod(0o755)
    with OpenSSH(tmp_path / "sshd") as host:
        node = Node("127.0.0.1", port=host.port, python=str(script))
        began = time.monotonic()
        error = failure(world, node, ssh_config=[str(host.config)])
    assert "prints without end" in str(error) and time.monotonic() - began < 15


@pytest.mark.skipif(SSHD is None, reason="there is no sshd here")
@pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
@pytest.mark.parametrize("tunnel", [True, False])
def test_a_node_is_reached_over_ipv6(world, tmp_path, tunnel):
    with OpenSSH(tmp_path / "sshd", "ListenAddress ::1") as host:
        known = tmp_path / "sshd/known_hosts"
        known.write_text(known.read_text().replace("127.0.0.1", "::1"))
        node = Node("::1", port=host.port, python=sys.executable, tunnel=tunnel)

        async def test(cluster, listening):
            (remote,) = await world.bring_up(cluster, node, ssh_config=[str(host.config)])
            assert isinstance(remote, DaskRemote), remote
            assert "::1" in remote.address and remote.worker.startswith("tls://")
            remote.send({"op": "upload", "path": "/no", "data": b"x", "done": True})
            await listening.until(lambda heard: ops(heard).count("uploaded") == 1)

        run(test)


def remote_ports(process):
    return {c.raddr.port for c in process.net_connections() if c.raddr}


def asyncssh_free_context():
    import ssl as tls

    context = tls.create_default_context()
    context.check_hostname, context.verify_mode = False, tls.CERT_NONE
    return context


def test_keys_appear_in_no_argument_environment_or_file_of_the_node(world):
    node = world.node(world.start())

    async def test(cluster, listening):
        await world.bring_up(cluster, node)
        for process in world.processes():
            assert "PRIVATE KEY" not in str(process.cmdline()) + str(process.environ())
        for folder in world.folder.glob("distsearch-*"):
            assert folder.stat().st_mode & 0o777 == 0o700
            for file in folder.rglob("*"):
                assert not file.is_file() or b"PRIVATE KEY" not in file.read_bytes()

    run(test)


# What goes wrong on the way up


def failure(world, *nodes, **options):
    """The error of a node that must not come up."""

    async def test(cluster, listening):
        (error,) = await world.bring_up(cluster, *nodes, **options)
        return error

    error = run(test)
    assert isinstance(error, NodeError), error
    assert world.nothing_is_left()
    return error


EVIL = b"\x1b]0;title\x07\x1b[2J\x1b[1;32mhost key verified\x1b[0m"


@pytest.mark.parametrize("how", ["version", "disconnect"])
def test_who_answers_in_the_place_of_a_node_writes_nothing_raw_to_the_terminal(world, how):
    """Before the host key is checked: neither into the error nor into what Python shows of it."""

    def answer(server):
        connection, _ = server.accept()
        with connection:
            if how == "version":
                connection.sendall(b"SSH-1.0-" + EVIL + b"\r\n")
                return
            connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
            connection.recv(4096)
            text = struct.pack(">BII", 1, 2, len(EVIL)) + EVIL + bytes(4)
            padding = 16 - (len(text) + 5) % 8
            head = struct.pack(">IB", len(text) + padding + 1, padding)
            connection.sendall(head + text + bytes(padding))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        error = failure(world, Node("127.0.0.1", port=server.getsockname()[1]))
        thread.join(30)
    shown = "".join(traceback.format_exception(error))
    assert how == "version" or r"\x1b]0;title\x07" in str(error)
    assert "\x1b" not in shown and "\x07" not in shown


def test_the_last_words_of_a_node_are_few(world, tmp_path):
    script = tmp_path / "python3"
    script.write_text("#!/bin/sh\nhead -c 30000000 /dev/zero | tr '\\0' x\nprintf '\\033[2J'\n")
    script.chmod(0o755)
    error = failure(world, world.node(world.start(), python=str(script)))
    assert "did not come up" in str(error)
    assert len(str(error)) < 20_000 and "\x1b" not in str(error)


def test_an_unknown_host_key_is_shown_with_the_way_to_trust_it(world):
    host = world.start(known=False)
    error = failure(world, world.node(host))
    assert isinstance(error, HostKeyError) and host.key.get_fingerprint() in str(error)
    assert "not known" in str(error) and f"ssh-keyscan -p {host.port} 127.0.0.1 >>" in str(error)


def test_a_changed_host_key_is_a_warning_and_another_command(world):
    host = world.start(known=False)
    other = asyncssh.generate_private_key("ssh-ed25519")
    with open(world.hosts.known_hosts, "a") as file:
        file.write(host.known_hosts_line(other))
    error = failure(world, world.node(host))
    assert isinstance(error, HostKeyError) and "HAS CHANGED" in str(error)
    assert f"ssh-keygen -R '[127.0.0.1]:{host.port}'" in str(error)


def test_a_host_that_no_longer_has_the_known_kind_of_key_counts_as_changed(world):
    host = world.start(known=False)
    with open(world.hosts.known_hosts, "a") as file:
        file.write(host.known_hosts_line(asyncssh.generate_private_key("ecdsa-sha2-nistp256")))
    assert "HAS CHANGED" in str(failure(world, world.node(host)))


def test_no_configuration_turns_the_check_of_host_keys_off(world, tmp_path):
    config = tmp_path / "config"
    config.write_text("UserKnownHostsFile none\nStrictHostKeyChecking no\n")
    node = world.node(world.start(), key=str(world.hosts.key_file))
    assert isinstance(failure(world, node, ssh_config=[str(config)]), HostKeyError)


def test_an_unknown_jump_host_is_named(world, tmp_path):
    jump, target = world.start(known=False), world.start()
    config = tmp_path / "config"
    config.write_text(
        world.hosts.config.read_text() + f"Match user ada\nProxyJump 127.0.0.1:{jump.port}\n"
    )
    error = failure(world, world.node(target, user="ada"), ssh_config=[str(config)])
    assert isinstance(error, HostKeyError) and f"127.0.0.1:{jump.port}" in str(error)


def test_jump_hosts_in_a_circle_are_noticed(world, tmp_path):
    config = tmp_path / "config"
    config.write_text("Host gpu*\n  ProxyJump bastion\nHost bastion\n  ProxyJump gpu1\n")
    assert "in a circle" in str(failure(world, Node("gpu1"), ssh_config=[str(config)]))


def test_a_refused_key_tells_user_and_keys(world, tmp_path):
    key = tmp_path / "id_other"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(key))
    error = failure(world, world.node(world.start(), key=str(key), user="ada"))
    assert "refused user 'ada'" in str(error) and str(key) in str(error)
    assert "ssh-copy-id" in str(error)


def test_a_locked_key_comes_with_the_command_that_unlocks_it(world, tmp_path):
    key = tmp_path / "id_locked"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(
        str(key), passphrase="passphrase"
    )
    assert f"ssh-add {key}" in str(failure(world, world.node(world.start(), key=str(key))))


def test_a_key_that_is_not_there_is_named(world):
    error = failure(world, world.node(world.start(), key="/no/such/key"))
    assert "'/no/such/key'" in str(error)


def test_a_port_where_nobody_listens_is_told_as_that(world):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        assert "nothing listens at 127.0.0.1:" in str(failure(world, Node("127.0.0.1", port=port)))


def test_a_name_that_does_not_resolve_is_told_as_that(world):
    error = failure(world, Node("no-such-host.invalid"))
    assert "'no-such-host.invalid' is not known here" in str(error)


def test_a_host_that_never_greets_is_given_up(world, monkeypatch):
    monkeypatch.setattr(login, "CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = failure(world, Node("127.0.0.1", port=silent.getsockname()[1]))
    assert "no login" in str(error) and "within 0.5 s" in str(error)


def test_a_host_that_answers_has_more_time_to_let_somebody_in(world, monkeypatch):
    monkeypatch.setattr(login, "CONNECT_S", 0.5)
    node = world.node(world.start(login_s=1.5))

    async def logged_in():
        connections = await login.log_in(node, [str(world.hosts.config)])
        await login.hang_up(connections)
        return len(connections)

    assert asyncio.run(asyncio.wait_for(logged_in(), 30)) == 1
    monkeypatch.setattr(login, "LOGIN_S", 0.2)
    error = failure(world, node)
    assert "has answered, but let nobody in within 0.2 s" in str(error)


def test_a_host_that_hangs_after_the_login_is_given_up(world, monkeypatch):
    monkeypatch.setattr(conversation, "HELLO_S", 0.5)
    error = failure(world, world.node(world.start(hangs=True)))
    assert "accepted the login but said nothing" in str(error)


def test_a_python_that_is_not_there_is_told_with_the_way_to_name_another(world):
    error = failure(world, world.node(world.start(), python="/no/such/python"))
    assert "has no '/no/such/python'" in str(error) and "Node('127.0.0.1', python=" in str(error)


def test_a_missing_package_comes_with_the_command_that_installs_it(world, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=60
    )
    python = str(tmp_path / "bare/bin/python")
    error = failure(world, world.node(world.start(), python=python))
    assert f"{python} -m pip install 'distributed==" in str(error)
    assert "'numpy==" in str(error) and "distsearch==" not in str(error)


def test_another_version_of_a_package_on_the_node_is_refused(world, tmp_path):
    information = tmp_path / "site" / "distributed-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Name: distributed\nVersion: 1.2\n")
    env = {"PYTHONPATH": str(information.parent)}
    error = failure(world, world.node(world.start(), env=env))
    assert "distributed 1.2 (driver: " in str(error)


def python_without_distsearch(folder):
    """An interpreter that has all packages of this one but distsearch: its path, its PYTHONPATH."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", folder / "bare"], check=True, timeout=60
    )
    (folder / "site").mkdir()
    for path in {Path(path) for path in sys.path if path.endswith("site-packages")}:
        for package in path.iterdir():
            if not package.name.startswith(("distsearch", "__editable__", "__pycache__")):
                (folder / "site" / package.name).symlink_to(package)
    return str(folder / "bare/bin/python"), str(folder / "site")


async def comes_up_with(world, cluster, node):
    """Bring a node up and down; where its distsearch came from."""

    def where_distsearch_is(dask_worker):  # one of a module would be looked for in it there
        import distsearch

        return distsearch.__path__[0].rpartition("/")[0]

    (remote,) = await world.bring_up(cluster, node)
    assert isinstance(remote, DaskRemote), remote
    folder = await cluster.run_on(remote.worker, where_distsearch_is)
    await remote.close()
    return folder


def test_a_node_without_distsearch_gets_the_drivers_once_and_keeps_it(world, tmp_path, monkeypatch):
    python, packages = python_without_distsearch(tmp_path)
    cache = tmp_path / "cache"
    env = {"PYTHONPATH": packages, "XDG_CACHE_HOME": str(cache)}
    node = world.node(world.start(), python=python, env=env)

    async def test(cluster, listening):
        sent = cache / "distsearch" / parcel().content
        assert await comes_up_with(world, cluster, node) == str(sent)
        monkeypatch.setattr(conversation, "PIECE", None)  # what is there is not sent again
        assert await comes_up_with(world, cluster, node) == str(sent)
        (sent / "distsearch" / "errors.py").write_text("by a stranger")
        monkeypatch.undo()
        assert await comes_up_with(world, cluster, node) == str(sent)
        assert "stranger" not in (sent / "distsearch" / "errors.py").read_text()
        assert not list(cache.glob("distsearch/new-*"))

    run(test)
    assert world.nothing_is_left()


def test_a_node_with_another_distsearch_and_no_home_to_write_to_uses_the_drivers(world, tmp_path):
    other = tmp_path / "site" / "distsearch"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('a stranger of the same name')")
    (tmp_path / "no folder").touch()
    env = {"PYTHONPATH": str(other.parent), "XDG_CACHE_HOME": str(tmp_path / "no folder")}
    node = world.node(world.start(), env=env)

    async def test(cluster, listening):
        folder = await comes_up_with(world, cluster, node)
        assert folder.startswith(str(tmp_path)) and folder != str(other.parent)

    run(test)
    assert world.nothing_is_left()


def test_a_node_that_has_the_drivers_distsearch_gets_nothing(world, tmp_path):
    node = world.node(world.start(), env={"XDG_CACHE_HOME": str(tmp_path / "cache")})

    async def test(cluster, listening):
        here = str(Path(distsearch.__file__).parents[1])
        assert await comes_up_with(world, cluster, node) == here

    run(test)
    assert not (tmp_path / "cache").exists()


def test_a_node_that_dies_on_the_way_up_tells_its_last_words(world, tmp_path):
    package = tmp_path / "site" / "distributed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libfoo.so.1 is missing')")
    env = {"PYTHONPATH": str(package.parent)}
    error = failure(world, world.node(world.start(), env=env))
    assert "did not come up" in str(error) and "libfoo.so.1 is missing" in str(error)
    assert str(error).count("Traceback") == 1


def test_a_node_that_hears_no_more_of_its_driver_says_that_and_not_what_dask_says_then(
    world, monkeypatch
):
    monkeypatch.setattr(conversation, "LEASE_S", 0.2)
    python = world.folder / "python3"
    python.write_text(f'#!/bin/sh\necho "  | comm closed"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    error = str(failure(world, world.node(world.start(), python=str(python))))
    assert error.endswith("did not come up: no word from the driver for 0.2 s")


@pytest.mark.skipif(SSHD is None, reason="there is no sshd here")
@pytest.mark.parametrize(
    "setting", ["AllowTcpForwarding local", "AllowTcpForwarding remote", "PermitOpen none"]
)
def test_forwarding_that_is_half_forbidden_is_told_at_once(world, tmp_path, setting):
    with OpenSSH(tmp_path / "sshd", setting) as host:
        node = Node("127.0.0.1", port=host.port, python=sys.executable)
        began = time.monotonic()
        error = failure(world, node, ssh_config=[str(host.config)])
    assert "forwards no ports" in str(error) and "AllowTcpForwarding yes" in str(error)
    assert "tunnel=False" in str(error) and time.monotonic() - began < 15


def test_bad_nodes_do_not_keep_good_ones_from_coming_up(world):
    refused, unknown = world.start(), world.start(known=False)
    refused.refuse()
    nodes = [world.node(host) for host in (refused, world.start(), unknown)]

    async def test(cluster, listening):
        return await world.bring_up(cluster, *nodes)

    results = run(test)
    assert [type(result) for result in results] == [NodeError, DaskRemote, HostKeyError]


def test_no_more_than_ten_logins_at_once_at_one_host(hosts, monkeypatch):
    at_once, most = 0, 0

    async def slow_log_in(node, config):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        raise NodeError("enough")

    monkeypatch.setattr(ssh, "log_in", slow_log_in)

    async def test(cluster, listening):
        await bring_up(cluster, [Node("gpu1")] * 25)

    run(test)
    assert most == 10


@pytest.mark.parametrize("greets", [True, False])
def test_a_login_that_the_server_drops_is_tried_again(world, monkeypatch, greets):
    """As sshd does with MaxStartups when many log in at once."""
    monkeypatch.setattr(login, "LOGIN_AGAIN_AFTER_S", (0.01, 0.01, 0.01))
    host = world.start(known=False)
    dropped = []

    async def serve(reader, writer):
        if len(dropped) < 3:
            dropped.append(writer)
            if greets:
                writer.write(b"SSH-2.0-busy\r\n")
                await writer.drain()
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", host.port)
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async def pipe(source, target):
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data)
        target.close()

    async def test(cluster, listening):
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with open(world.hosts.known_hosts, "a") as file:
                file.write(host.known_hosts_line().replace(str(host.port), str(port)))
            (remote,) = await world.bring_up(
                cluster, Node("127.0.0.1", port=port, python=sys.executable)
            )
            assert isinstance(remote, DaskRemote), remote
            assert await remote.close() is True
        assert len(dropped) == 3

    run(test)


def test_a_node_that_declares_what_it_cannot_have_fails_alone(world, monkeypatch):
    def refuse(node, facts):
        raise ResourceError("num_gpus=9 but it has 0")

    monkeypatch.setattr(ssh, "declared", refuse)
    assert "num_gpus=9" in str(failure(world, world.node(world.start())))


# What goes wrong later


def test_a_node_lost_while_others_come_up_is_an_error_in_the_end(world):
    slow = world.node(world.start(hangs=True))

    async def test(cluster, listening):
        nodes = world.node(world.start()), slow
        bringing_up = asyncio.create_task(world.bring_up(cluster, *nodes))
        while not cluster.remotes:
            assert not bringing_up.done()
            await asyncio.sleep(0.01)
        (first,) = cluster.remotes.values()
        world.node_process().kill()
        lost, _ = await bringing_up
        assert isinstance(lost, NodeError) and "killed by signal 9" in str(lost)
        assert first is listening.lost[0][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversation, "HELLO_S", 3)
        run(test)


def test_a_killed_node_is_lost_with_certainty_and_the_reason(world):
    node = world.node(world.start())

    async def test(cluster, listening):
        (remote,) = await world.bring_up(cluster, node)
        world.node_process().kill()
        await listening.until(lambda heard: heard.lost)
        ((lost, reason, confirmed_dead),) = listening.lost
        assert lost is remote and confirmed_dead and "killed by signal 9" in reason
        assert world.nothing_is_left()

    run(test)


def test_a_killed_starter_leaves_neither_processes_nor_a_folder(world):
    node = world.node(world.start())

    async def test(cluster, listening):
        await world.bring_up(cluster, node)
        assert list(world.folder.glob("distsearch-*"))
        psutil.Process(world.node_process().ppid()).kill()
        await listening.until(lambda heard: heard.lost)
        assert "starter ended with exit code" in listening.lost[0][1]
        deadline = time.monotonic() + 15
        while not world.nothing_is_left() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)  # the node's process removes the folder as its last act
        assert world.nothing_is_left()

    run(test)


def test_a_cut_connection_loses_the_node_and_ends_what_runs_there(world):
    host = world.start()

    async def test(cluster, listening):
        (remote,) = await world.bring_up(cluster, world.node(host))
        await asyncio.to_thread(host.cut)
        await listening.until(lambda heard: heard.lost)
        ((lost, reason, confirmed_dead),) = listening.lost
        assert lost is remote and not confirmed_dead and "connection" in reason
        assert await asyncio.to_thread(world.nothing_is_left)

    run(test)


DRIVER = """
import asyncio, json, sys
from distsearch.resource.dask_link import Cluster
from distsearch.resource.node import Node
from distsearch.resource.parcel import parcel
from distsearch.resource.ssh import bring_up
from tests.resource.test_dask_link import Listening

async def main(config, **node):
    async with Cluster(Listening()) as cluster:
        (remote,) = await bring_up(cluster, [Node("127.0.0.1", **node)], ssh_config=[config])
        print("up" if remote in cluster.remotes.values() else remote, flush=True)
        await asyncio.sleep(600)

asyncio.run(main(**json.loads(sys.argv[1])))
"""


def test_sigkill_of_the_driver_leaves_nothing_on_the_node_within_seconds(world):
    node = world.node(world.start())
    settings = {"port": node.port, "python": node.python, "config": str(world.hosts.config)}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(settings)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with driver:
        assert driver.stdout.readline() == "up\n"
        assert world.processes()
        driver.send_signal(signal.SIGKILL)
        assert world.nothing_is_left(10)


def test_a_login_alone_leaves_no_connection_open(world):
    host = world.start()

    async def log_in_and_out():
        connections = await log_in(world.node(host), [str(world.hosts.config)])
        await hang_up(connections)

    asyncio.run(log_in_and_out())
    assert host.is_left()
