"""Nodes on machines of their own, cut off in every way; `make test-netns`, as root.

All faults of nodes strike one search at the same time, as each takes about a minute: a node is
given up after 15 to 20 s of silence, and its trial runs elsewhere 35 s later. Nothing is shortened.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from types import SimpleNamespace

import pytest

from distsearch.core import store
from distsearch.core.nodes import LEASE_GRACE_S, NODE_LEASE_S
from tests.netns.net import Net, why_not

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
FLAP_S = 5.0  # shorter than a node's silence may be
DOWN_S = 38.0  # longer than the lease

SEARCH = """
import fcntl, os, sys, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0), folder={folder!r})
def train_fn(args, reporter):
    def note(what):
        with open(f"{{args.folder}}/notes.txt", "a") as file:
            file.write(f"{{what}} {{args.task_id}} {{os.getpid()}} {{os.environ['NODE']}} "
                       f"{{time.monotonic()}}\\n")

    lock = open(f"{{args.folder}}/{{args.task_id}}.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        note("overlap")
    epoch = (reporter.load() or {{"epoch": 0}})["epoch"]
    names = [f"{{args.folder}}/{{name}}" for name in ("all", str(args.task_id))]
    while not any(map(os.path.exists, names)):
        epoch += 1
        note("trains")
        time.sleep(0.05)
        if epoch % 20 == 0:
            reporter.save({{"epoch": epoch}}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x)
    reporter(epoch=epoch + 1, accuracy=args.x)

if __name__ == "__main__":
    nodes = [ag.Node(address, port=22, python=sys.executable, num_cpus=cpus)
             for address, cpus in {nodes!r}]
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn, dist_ip_addrs=nodes, local=False, tunnel={tunnel}, checkpoint="search",
        ssh_config=[{folder!r} + "/config"], seed=1)
    scheduler.run(num_trials={trials})
    scheduler.join_jobs()
    print("ALL", [t.status.value for t in scheduler.trials], [t.attempt for t in scheduler.trials])
    scheduler.close()
"""


def search(net, nodes, trials, tunnel=True):
    """Start a search over these nodes, given with their slots."""
    nodes = [(node.address, slots) for node, slots in nodes.items()]
    folder = str(net.folder)
    return net.drive(SEARCH.format(folder=folder, nodes=nodes, trials=trials, tunnel=tunnel))


def notes(net, what="trains"):
    """What the trials have written down: for each trial (time, process, node), in order."""
    path = net.folder / "notes.txt"
    found = defaultdict(list)
    for line in path.read_text().split("\n")[:-1] if path.exists() else ():
        word, trial, pid, node, at = line.split()
        if word == what:
            found[int(trial)].append((float(at), int(pid), node))
    return found


def until(condition, what, bound_s=60.0):
    """Wait for something that another machine does."""
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {bound_s:g} s"
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def possible():
    reason = why_not()
    if reason:
        pytest.skip(f"no network namespaces: {reason}")


@pytest.fixture
def net(tmp_path):
    with Net(tmp_path / "net") as net:
        yield net


# Faults of nodes, all at once


@pytest.fixture(scope="module")
def faults(possible, tmp_path_factory):
    """What became of one search of which each node but one meets a fault of its own."""
    with Net(tmp_path_factory.mktemp("faults") / "net") as net:
        names = ("power", "deaf", "mute", "down", "flap")
        struck = {name: net.node(name) for name in names}
        healthy = net.node("healthy")
        trials = 2 * len(names)
        slots = {**dict.fromkeys(struck.values(), 1), healthy: len(names)}
        driver = search(net, slots, trials)
        until(lambda: len(notes(net)) == trials, f"{trials} trials on {len(slots)} nodes")
        copied = net.folder / "search" / "trials"
        until(
            lambda: len({path.parts[-4] for path in copied.glob("*/*/*/manifest.json")}) == trials,
            "a checkpoint of each trial on the driver's disk",
        )
        where = {trial: lines[0][2] for trial, lines in notes(net).items()}
        of = {name: trial for trial, name in where.items() if name != "healthy"}
        for trial, name in where.items():
            if name == "healthy":
                (net.folder / str(trial)).touch()
        struck_at = time.monotonic()
        struck["power"].power_off()
        struck["deaf"].cut(to=True, back=False)
        struck["mute"].cut(to=False, back=True)
        struck["down"].link("down")
        struck["flap"].link("down")
        time.sleep(FLAP_S)
        struck["flap"].link("up")
        time.sleep(max(0.0, struck_at + DOWN_S - time.monotonic()))
        struck["down"].link("up")
        up_at = time.monotonic()
        moved = ("power", "deaf", "mute", "down")
        until(
            lambda: all(notes(net)[of[name]][-1][2] == "healthy" for name in moved),
            f"trials on other nodes ({of}, {net.folder}): {net.output}",
            90,
        )
        time.sleep(1)
        (net.folder / "all").touch()
        driver.wait(60)
        left = {}
        for name in ("deaf", "mute", "down", "flap", "healthy"):
            machine = healthy if name == "healthy" else struck[name]
            deadline = time.monotonic() + 60 - (time.monotonic() - struck_at)
            while machine.left and time.monotonic() < deadline:
                time.sleep(0.1)
            left[name] = machine.left
        yield SimpleNamespace(
            net=net,
            struck_at=struck_at,
            up_at=up_at,
            trial=of,
            notes=notes(net),
            overlaps=notes(net, "overlap"),
            left=left,
            output=net.output,
            log=list(store.read(net.folder / "search")),
        )


def attempts(faults, name):
    """The attempts of the trial that ran on a node: (first, last) time of each, and where."""
    spans = {}
    for at, pid, node in faults.notes[faults.trial[name]]:
        first, _, _ = spans.get((pid, node), (at, at, node))
        spans[pid, node] = first, at, node
    return list(spans.values())


def test_every_trial_of_a_search_with_five_faults_finishes_once(faults):
    assert f"ALL {['finished'] * 10}" in faults.output, faults.output
    ended = [event.trial for event in faults.log if event.kind == "ended"]
    assert sorted(ended) == list(range(10))


def test_two_attempts_of_a_trial_never_train_at_once(faults):
    assert not faults.overlaps
    for name in ("power", "deaf", "mute", "down"):
        (_, last, _), (first, _, node) = attempts(faults, name)
        assert node == "healthy" and last < first


@pytest.mark.parametrize("name", ["deaf", "mute", "down"])
def test_a_node_that_is_cut_off_ends_its_trials_before_they_start_elsewhere(faults, name):
    (_, last, _), (first, _, _) = attempts(faults, name)
    lived, moved = last - faults.struck_at, first - faults.struck_at
    print(f"\n{name}: trained for {lived:.1f} s after the fault, again after {moved:.1f} s")
    assert lived <= NODE_LEASE_S + 1
    assert NODE_LEASE_S + LEASE_GRACE_S <= moved < 80


def test_the_trial_of_a_node_without_power_goes_on_elsewhere(faults):
    (_, last, _), (first, _, _) = attempts(faults, "power")
    print(f"\npower: again after {first - faults.struck_at:.1f} s")
    assert last - faults.struck_at < 1 and first - faults.struck_at < 80


def test_a_moved_trial_goes_on_from_its_last_checkpoint(faults):
    for name in ("power", "deaf", "mute", "down"):
        trial = faults.trial[name]
        first = next(
            event.body["epoch"]
            for event in faults.log
            if event.kind == "report" and event.trial == trial and event.attempt == 2
        )
        assert first > 20 and first % 20 == 1


def test_a_link_that_is_back_after_seconds_costs_nothing(faults):
    ((_, last, node),) = attempts(faults, "flap")
    assert node == "flap" and last > faults.up_at
    lost = [event for event in faults.log if event.kind == "lost"]
    assert faults.trial["flap"] not in [event.trial for event in lost]


def test_nothing_is_left_on_nodes_that_were_cut_off(faults):
    assert faults.left == {name: [] for name in faults.left}


# One at a time


def test_only_the_ssh_port_is_needed(net):
    one, two = net.node("one"), net.node("two")
    (net.folder / "all").touch()
    driver = search(net, {one: 1, two: 1}, trials=4)
    assert driver.wait(60) == 0
    assert f"ALL {['finished'] * 4}" in net.output


def test_the_firewall_of_these_tests_lets_nothing_else_through(net):
    node = net.node("one")
    listening = "import socket, time; s = socket.create_server(('', 2200)); time.sleep(60)"
    node.start(sys.executable, "-c", listening)
    until(lambda: ":2200" in node.run("ss", "-ltn"), "listening", 10)
    knock = "import socket, sys; socket.create_connection(('{}', int(sys.argv[1])), 2)"
    net.driver.run(sys.executable, "-c", knock.format(node.address), "22")
    with pytest.raises(subprocess.CalledProcessError) as error:
        net.driver.run(sys.executable, "-c", knock.format(node.address), "2200")
    assert "timed out" in error.value.output


def test_direct_connections_are_mutual_tls(net):
    one, two = net.node("one", is_open=True), net.node("two", is_open=True)
    driver = search(net, {one: 1, two: 1}, trials=2, tunnel=False)
    until(lambda: len(notes(net)) == 2, "both trials")
    knock = (
        "import socket, ssl, sys\n"
        "context = ssl.create_default_context()\n"
        "context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n"
        "with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as plain:\n"
        "    with context.wrap_socket(plain) as knocks:\n"
        "        print(knocks.recv(1))\n"
    )
    listening = {one: open_ports(one, one.address), net.driver: open_ports(net.driver, one.own)}
    for machine, ports in listening.items():
        assert ports, "each end listens on the address of the SSH connection"
        address, stranger = (one.address, net.driver) if machine is one else (one.own, one)
        for port in ports:
            with pytest.raises(subprocess.CalledProcessError) as error:
                stranger.run(sys.executable, "-c", knock, address, port)
            assert "certificate" in error.value.output.lower()
    (net.folder / "all").touch()
    assert driver.wait(60) == 0 and f"ALL {['finished'] * 2}" in net.output


def open_ports(machine, address):
    """The ports on which something listens at an address, apart from sshd's."""
    lines = machine.run("ss", "-ltnH").splitlines()
    found = [line.split()[3].rpartition(":") for line in lines]
    assert all(host in (address, "127.0.0.1") or host.startswith("10.213.") for host, _, _ in found)
    return [port for host, _, port in found if host == address and port != "22"]


def test_where_only_ssh_comes_through_a_direct_node_is_refused_with_the_way_out(net):
    driver = search(net, {net.node("one"): 1}, trials=1, tunnel=False)
    assert driver.wait(90) == 1
    assert "with tunnel=True nothing but SSH's port is needed" in net.output


def test_a_link_with_100_ms_of_delay_and_jitter_is_only_slow(net):
    node = net.node("one", delay_s=0.1)
    driver = search(net, {node: 2}, trials=3)
    until(lambda: len(notes(net)) == 2, "the first two trials")
    time.sleep(3)
    (net.folder / "all").touch()
    assert driver.wait(60) == 0
    assert f"ALL {['finished'] * 3} [1, 1, 1]" in net.output


def test_60_s_after_the_driver_lost_its_power_no_node_runs_anything(net):
    nodes = [net.node("one"), net.node("two")]
    search(net, dict.fromkeys(nodes, 1), trials=2)
    until(lambda: len(notes(net)) == 2, "both trials")
    assert all(node.left for node in nodes)
    for node in nodes:
        node.cut()
    net.driver.kill_all()
    since = time.monotonic()
    until(lambda: not any(node.left for node in nodes), "the end of all processes", 60)
    print(f"\nnothing is left {time.monotonic() - since:.1f} s after the driver's power was cut")
