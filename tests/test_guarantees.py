"""Guarantees that concern a whole search; docs/guarantees.md says where each is tested.

The numbers are those of that page.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Security

import distsearch as ag
from distsearch import Node
from distsearch.core import arrival, store
from distsearch.core import nodes as nodes_module
from distsearch.core.travel import pack
from distsearch.errors import NodeError, PicklingError, StoreError
from distsearch.resource import fleet, login
from distsearch.resource.dask_link import Cluster
from distsearch.resource.private import name_of
from distsearch.resource.ssh import bring_up
from distsearch.resource.tls import Authority
from distsearch.scheduler import FIFOScheduler
from tests.core.test_store import full_disk
from tests.hosts import Hosts
from tests.resource.test_dask_link import Listening
from tests.resource.test_tls import stranger

ROOT = Path(__file__).resolve().parents[1]
HERE = Node("localhost", num_cpus=2)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def hosts():
    with Hosts() as hosts:
        yield hosts


def over_ssh(hosts, env=None):
    """The arguments of a scheduler with one node over SSH."""
    host = hosts.start(env=env)
    node = Node("127.0.0.1", port=host.port, python=sys.executable, num_cpus=1)
    return host, {"local": False, "dist_ip_addrs": node, "ssh_config": [hosts.config]}


class Decides(FIFOScheduler):
    """Lets each trial wait for its answer."""

    def on_report(self, trial, report):
        return super().on_report(trial, report)


# 6. Nodes come and go


def test_6_a_node_that_cannot_be_reached_for_a_while_comes_back_by_itself(
    hosts, tmp_path, monkeypatch
):
    """After the leases of what may still run there; here they are short."""
    monkeypatch.setattr(nodes_module, "NODE_LEASE_S", 0.2)
    monkeypatch.setattr(nodes_module, "LEASE_GRACE_S", 0.0)
    monkeypatch.setattr(fleet, "LEASE_OVER_S", 0.2)

    @ag.args(x=ag.Real(0.0, 1.0), go=str(tmp_path / "go"))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)
        while not os.path.exists(args.go):
            time.sleep(0.01)

    host, nodes = over_ssh(hosts)
    lines = []
    with FIFOScheduler(train_fn, verbose=0, checkpoint=tmp_path / "search", **nodes) as scheduler:
        monkeypatch.setattr(scheduler.fleet, "_say", lines.append)
        scheduler.run(num_trials=1)
        wait_until(lambda: scheduler.training_history)
        host.refuse()
        host.cut()
        wait_until(lambda: lines)
        assert "is tried again, next in 1 s" in lines[0] and "nothing listens" in lines[0]
        hosts.call(host.listen(port=host.port))
        (tmp_path / "go").touch()
        assert scheduler.join_jobs(timeout=60) is True
        assert [trial.status.value for trial in scheduler.trials] == ["finished"]
        assert lines[-1] == "node 127.0.0.1 is back"


def test_6_a_lost_node_that_is_taken_away_does_not_come_back(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "LEASE_OVER_S", 60.0)
    host, nodes = over_ssh(hosts)
    nodes["local"] = HERE
    with FIFOScheduler(prints_nothing, verbose=0, **nodes) as scheduler:
        wait_until(lambda: len(scheduler.fleet.remotes) == 2)  # a slow node joins later
        host.cut()
        wait_until(lambda: scheduler.fleet._comebacks)
        scheduler.remove_remote(nodes["dist_ip_addrs"])
        wait_until(lambda: not scheduler.fleet._comebacks)


def test_22_a_host_that_hangs_does_not_hold_up_those_that_are_up(hosts, monkeypatch):
    monkeypatch.setattr(fleet, "START_S", 0.5)
    host = hosts.start(hangs=True)
    node = Node("127.0.0.1", port=host.port, python=sys.executable)
    begun = time.monotonic()
    with FIFOScheduler(
        prints_nothing, local=HERE, dist_ip_addrs=node, ssh_config=[hosts.config], verbose=0
    ) as scheduler:
        scheduler.run(num_trials=2)
        assert scheduler.join_jobs(timeout=30) is True
    assert time.monotonic() - begun < 15


def test_a_search_whose_only_named_host_never_answers_is_refused_and_does_not_train_here(
    hosts, monkeypatch
):
    monkeypatch.setattr(fleet, "START_S", 0.1)
    monkeypatch.setattr(login, "CONNECT_S", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(NodeError, match="named could be brought up"),
    ):
        FIFOScheduler(
            prints_nothing,
            dist_ip_addrs=f"127.0.0.1:{silent.getsockname()[1]}",
            ssh_config=[hosts.config],
            verbose=0,
        )


@ag.args(x=ag.Real(0.0, 1.0))
def prints_nothing(args, reporter):
    reporter(accuracy=args.x)


def wait_until(condition, timeout_s=30.0):
    """Wait for what nobody tells."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# 12. Full disks


def test_12_with_the_drivers_disk_full_no_report_is_answered_until_there_is_space(tmp_path):
    """The log's disk is full; trials run on another one."""
    folder = tmp_path / "disk"
    answers = tmp_path / "answers"

    @ag.args(x=ag.Real(0.0, 1.0), answers=str(answers))
    def train_fn(args, reporter):
        for epoch in range(1, 31):
            reporter(epoch=epoch, accuracy=args.x, ballast="x" * 2000)
            with open(args.answers, "a") as file:
                file.write(f"{epoch}\n")

    def answered():
        return len(answers.read_text().split()) if answers.exists() else 0

    with full_disk(folder, 4 << 20) as more:
        scheduler = Decides(train_fn, local=HERE, verbose=0, checkpoint=folder / "search")
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        scheduler.run(num_trials=1)
        deadline = time.monotonic() + 20
        while "disk" not in scheduler.progress.snapshot().note and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "trying again until there is space" in scheduler.progress.snapshot().note
        stuck_at = answered()
        assert scheduler.join_jobs(timeout=2) is False
        logged = [event.body["epoch"] for event in store.read(folder / "search", "report")]
        assert answered() == stuck_at == len(logged) < 30
        more(64 << 20)
        assert scheduler.join_jobs(timeout=30) is True
        scheduler.close()
        logged = [event.body["epoch"] for event in store.read(folder / "search", "report")]
        assert logged == list(range(1, 31)) and answered() == 30


def test_12_trials_that_print_to_a_full_disk_go_on(tmp_path):
    @ag.args(x=ag.Real(0.0, 1.0), go=str(tmp_path / "go"))
    def train_fn(args, reporter):
        reporter(epoch=1, accuracy=args.x)
        while not os.path.exists(args.go):
            time.sleep(0.01)
        print("x" * (3 << 20))
        reporter(epoch=2, accuracy=args.x)

    folder = tmp_path / "disk"
    with full_disk(folder, 2 << 20) as more:
        scheduler = FIFOScheduler(train_fn, local=HERE, verbose=0, checkpoint=folder / "search")
        scheduler.run(num_trials=2)
        (tmp_path / "go").touch()
        deadline = time.monotonic() + 20
        while scheduler._store.stuck_s == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        more(64 << 20)
        assert scheduler.join_jobs(timeout=30) is True
        scheduler.close()
        assert [trial.status.value for trial in scheduler.trials] == ["finished"] * 2


FULL = """
import sys, time
import distsearch as ag
from tests.core.test_store import full_disk
from pathlib import Path

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    for epoch in range(100_000):
        reporter(epoch=epoch, accuracy=args.x, ballast="x" * 20_000)

if __name__ == "__main__":
    with full_disk(Path("disk"), 2 << 20):
        with ag.scheduler.FIFOScheduler(
            train_fn, local=ag.Node("localhost", num_cpus=1), verbose=0, checkpoint="disk/search"
        ) as search:
            search.run(num_trials=3)
            while search._store.stuck_s == 0:
                time.sleep(0.02)
            print("FULL", flush=True)
            search.join_jobs()
"""


def test_12_ctrl_c_with_a_full_disk_ends_in_seconds(tmp_path):
    (tmp_path / "full.py").write_text(FULL)
    with full_disk(tmp_path / "probe", 1 << 20):
        pass  # or this is skipped
    driver = subprocess.Popen(
        [sys.executable, "full.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert driver.stdout.readline() == "FULL\n"
        begun = time.monotonic()
        driver.send_signal(signal.SIGINT)
        assert driver.wait(30) == -signal.SIGINT, "which is 130 in a shell"
        assert time.monotonic() - begun < 10
    finally:
        driver.kill()
        driver.wait(10)
        driver.stdout.close()


def test_12_with_a_nodes_disk_full_the_trial_is_told_and_its_last_checkpoint_stays(hosts, tmp_path):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        import numpy as np

        from distsearch.errors import CheckpointError

        if reporter.load() is None:
            reporter.save({"epoch": 1, "w": np.ones(1000)}, step=1)
        told = ""
        try:
            reporter.save({"epoch": 2, "w": np.ones(4 << 20)}, step=2)
        except CheckpointError as error:
            told = str(error)
        reporter(accuracy=args.x, told=told, kept=reporter.load()["epoch"])

    disk = tmp_path / "disk"
    with full_disk(disk, 8 << 20):
        _, nodes = over_ssh(hosts, env={"TMPDIR": str(disk)})
        with FIFOScheduler(train_fn, verbose=0, **nodes) as scheduler:
            scheduler.run(num_trials=1)
            assert scheduler.join_jobs(timeout=60) is True
            (report,) = scheduler.training_history[0]
    assert "No space left" in report["told"] and "the previous one is still there" in report["told"]
    assert report["kept"] == 1


# 13. Two drivers

HOLDS = """
import time, distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    time.sleep(300)

if __name__ == "__main__":
    with ag.scheduler.FIFOScheduler(train_fn, checkpoint="named", verbose=0) as scheduler:
        print("holds", flush=True)
        time.sleep(300)
"""


def test_13_a_second_driver_is_refused_within_a_second_and_told_who_the_first_is(tmp_path):
    (tmp_path / "holds.py").write_text(HOLDS)
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "holds.py"]
    with subprocess.Popen(command, env=path, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == "holds\n"

            @ag.args(x=ag.Real(0.0, 1.0))
            def train_fn(args, reporter):
                reporter(accuracy=1)

            begun = time.monotonic()
            with pytest.raises(ag.errors.StoreLocked) as error:
                FIFOScheduler(train_fn, checkpoint="named", verbose=0)
            assert time.monotonic() - begun < 1
            assert f"process {first.pid} on {socket.gethostname()}" in str(error.value)
        finally:
            first.kill()


# 15. What cannot be pickled


def test_15_what_cannot_be_pickled_is_refused_before_any_node_is_connected(hosts):
    host, nodes = over_ssh(hosts)

    @ag.args(x=ag.Real(0.0, 1.0), data={"loader": [threading.Lock()]})
    def train_fn(args, reporter):
        reporter(accuracy=1)

    with pytest.raises(PicklingError, match=r"\['data'\].value\['loader'\]\[0\] \(a lock\)"):
        FIFOScheduler(train_fn, verbose=0, **nodes)
    assert host.logins == 0 and not host.connections


# 16. Clocks that jump


def test_16_clocks_that_jump_by_an_hour_change_no_decision(monkeypatch):
    """In the driver at every look, in trials between two reports; and on the way to a resume."""
    real, looks = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * (next(looks) % 3 - 1))

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        clock = time.time
        for epoch in range(1, 7):
            time.time = lambda epoch=epoch: clock() + 3600 * (-1) ** epoch
            time.sleep(0.05)
            reporter.save({"epoch": epoch}, step=epoch)
            reporter(epoch=epoch, accuracy=args.x)

    def run(num_trials):
        options = {"trial_timeout": 20, "report_timeout": 20, "time_out": 60, "seed": 1}
        with Decides(train_fn, local=HERE, verbose=0, checkpoint="named", **options) as scheduler:
            scheduler.run(num_trials=num_trials)
            assert scheduler.join_jobs(timeout=50) is True
            assert [trial.status.value for trial in scheduler.trials] == ["finished"] * num_trials
            histories = scheduler.training_history.values()
            assert [[r["epoch"] for r in h] for h in histories] == [[*range(1, 7)]] * num_trials
            assert all(0 <= r["time_this_iter"] < 20 for h in histories for r in h)

    run(3)
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    run(5)


# Secure by default


def listening(process=None):
    """Where this process, its children and the nodes' processes listen."""
    mine = psutil.Process()
    found = set()
    for one in [mine, *mine.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found |= {
                (connection.laddr.ip, connection.laddr.port)
                for connection in one.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return found


def test_a_search_on_this_machine_opens_no_port(tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)

    @ag.args(x=ag.Real(0.0, 1.0), go=str(go))
    def train_fn(args, reporter):
        open(args.go).close()
        reporter(accuracy=1)

    before = listening()
    with FIFOScheduler(train_fn, local=HERE, verbose=0) as scheduler:
        scheduler.run(num_trials=1)
        with open(go, "w"):  # the trial runs
            assert listening() == before
        assert scheduler.join_jobs(timeout=30) is True


def test_a_search_over_ssh_listens_on_loopback_alone_and_leaves_no_port_open(hosts, tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)

    @ag.args(x=ag.Real(0.0, 1.0), go=str(go))
    def train_fn(args, reporter):
        open(args.go).close()
        reporter(accuracy=1)

    _, nodes = over_ssh(hosts)
    before = listening()
    with FIFOScheduler(train_fn, verbose=0, **nodes) as scheduler:
        scheduler.run(num_trials=1)
        with open(go, "w"):
            opened = listening() - before
            assert opened and {host for host, _ in opened} == {"127.0.0.1"}
        assert scheduler.join_jobs(timeout=30) is True
    assert listening() == before


def party_of(authority):
    """What a party of a run has."""
    return Security(**authority.issue("gpu1")).get_connection_args("client")


KNOCKS = {
    "no certificate": lambda authority: stranger(),
    "a foreign one": lambda authority: party_of(Authority()),
    "that of this run": party_of,  # the control: so the test would see it
}


@pytest.mark.parametrize("shows", KNOCKS)
@pytest.mark.parametrize("tunnel", [True, False], ids=["tunnel", "direct"])
def test_no_port_of_a_search_unpickles_what_a_stranger_sends(hosts, tmp_path, shows, tunnel):
    """A pickle that would make a file, sent to every port of the driver and of the node."""
    from functools import partial

    from distributed.core import rpc
    from distributed.protocol.pickle import dumps

    canary = tmp_path / "canary"
    host = hosts.start()
    node = Node("127.0.0.1", port=host.port, python=sys.executable, tunnel=tunnel)
    before = listening()

    async def call(port, arguments):
        async with rpc(f"tls://127.0.0.1:{port}", connection_args=arguments) as remote:
            await remote.run_function(function=dumps(partial(Path.touch, canary)))

    async def knock(port, arguments):
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(call(port, arguments), 3)

    async def attack():
        async with Cluster(Listening()) as cluster:
            (remote,) = await bring_up(cluster, [node], ssh_config=[str(hosts.config)])
            ports = {port for _, port in listening() - before}
            assert len(ports) >= 2
            arguments = KNOCKS[shows](cluster.authority)
            await asyncio.gather(*(knock(port, arguments) for port in ports))
            assert remote.lost_because is None, "and it goes on"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(asyncio.wait_for(attack(), 60))
    assert canary.exists() == (shows == "that of this run")


def test_values_under_names_of_secrets_reach_no_log_and_no_output(hosts, tmp_path, capfd):
    @ag.args(
        x=ag.Real(0.0, 1.0),
        password="hunter1",
        clientSecret="hunter6",
        pwd="hunter7",
        jwt=ag.Choice("hunter8", "hunter9"),
        access=ag.Dict(accessToken=ag.List("hunter10", ag.Choice("hunter11", "hunter12"))),
        source="https://ada:hunter13@host/data?page=2&token=hunter14",
        data=ag.Dict(api_key="hunter2", workers=ag.Int(1, 2)),
        options={"auth_token": "hunter3"},
        max_tokens=512,
    )
    def train_fn(args, reporter):
        assert args.clientSecret == "hunter6" and args.jwt in ("hunter8", "hunter9")
        assert args.access.accessToken[1] in ("hunter11", "hunter12") and "hunter14" in args.source
        assert args.password == "hunter1" and args.data.api_key == "hunter2"
        assert args.options["auth_token"] == "hunter3" and os.environ["HUNTER"] == "hunter4"
        reporter(accuracy=args.x, secret="hunter5", tokens=args.max_tokens, tokenizer="bpe")

    _, nodes = over_ssh(hosts)
    nodes["dist_ip_addrs"] = Node(
        "127.0.0.1",
        port=nodes["dist_ip_addrs"].port,
        python=sys.executable,
        num_cpus=1,
        env={"HUNTER": "hunter4"},
    )
    with FIFOScheduler(train_fn, checkpoint="named", **nodes) as scheduler:
        scheduler.run(num_trials=2)
        assert scheduler.join_jobs(timeout=30) is True
        shown = repr(scheduler.metadata) + repr(scheduler) + repr(nodes)
        assert scheduler.training_history[0][0]["tokens"] == 512
        assert scheduler.training_history[0][0]["tokenizer"] == "bpe"
    for path in (tmp_path / "named").rglob("*"):
        # the function itself, for the launcher of this machine, is no log
        if path.is_file() and path.suffix != ".pickle":
            assert b"hunter" not in path.read_bytes(), path
    assert "hunter" not in shown + "".join(capfd.readouterr())


@pytest.mark.parametrize("umask", [0, 0o022, 0o777], ids=oct)
def test_other_users_can_read_nothing_of_an_experiment_even_in_a_folder_that_was_there(
    tmp_path, umask
):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter.save({"x": args.x, "weights": np.zeros(3)})
        reporter(accuracy=args.x)

    folder = tmp_path / "named"
    before = os.umask(umask)
    try:
        for path in (folder, folder / "trials", folder / "trials" / "0", folder / "work"):
            path.mkdir()
            path.chmod(0o755)
        for name in ("lock", "launcher.log", "state.json", "trials/0/output.txt"):
            (folder / name).touch()
            (folder / name).chmod(0o644)
        with open(tmp_path / "upload.sh", "w", opener=lambda name, flags: os.open(name, flags)):
            os.chmod(tmp_path / "upload.sh", 0o755)
        with FIFOScheduler(train_fn, checkpoint="named", local=HERE, verbose=0) as scheduler:
            scheduler.upload_files("upload.sh")
            scheduler.run(num_trials=2)
            assert scheduler.join_jobs(timeout=30) is True
            scheduler.save()
            scheduler.save(tmp_path / "elsewhere.json")
            paths = [*folder.rglob("*"), tmp_path / "elsewhere.json"]
            readable = [path.name for path in paths if is_open(path)]
            mine = {path.stat().st_mode & 0o700 for path in paths if path.is_dir()}
    finally:
        os.umask(before)
    assert readable == [] and mine == {0o700}
    assert {"events.db-wal", "events.end", "manifest.json", "upload.sh"} <= {p.name for p in paths}
    with sqlite3.connect(tmp_path / "named" / "events.db") as log:
        assert log.execute("select count(*) from reports").fetchone() == (2,)


def is_open(path):
    return path.stat().st_mode & 0o077 != 0


class Runs:
    """What shows, when it is unpickled, that it was."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return Path.touch, (Path(self.canary),)


def test_in_a_folder_that_somebody_prepared_no_link_is_followed_and_no_foreign_pickle_runs(
    tmp_path,
):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        print("hello")
        reporter(accuracy=args.x)

    name = pack(train_fn, stays_here=True).name
    theirs, folder = tmp_path / "theirs", tmp_path / "named"
    (theirs / "functions").mkdir(parents=True)
    (theirs / "functions" / name).write_bytes(pickle.dumps(Runs(tmp_path / "canary")))
    (theirs / "thesis").write_text("all of it")

    def prepare(*links):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for link in links:
            (folder / link).parent.mkdir(parents=True, exist_ok=True)
            (folder / link).symlink_to(theirs / ("functions" if link == "functions" else "thesis"))

    def search():
        options = {"local": HERE, "verbose": 0, "checkpoint": folder, "max_failures": 0}
        with FIFOScheduler(train_fn, **options) as scheduler:
            scheduler.run(num_trials=1)
            assert scheduler.join_jobs(timeout=30) is True
            scheduler.save()
            return [trial.status.value for trial in scheduler.trials]

    prepare("functions")
    assert search() == ["finished"]
    for link in ("events.db-wal", "events.end", "trials", "work"):  # put aside
        prepare(link)
        assert search() == ["finished"]
        assert (folder / "put-aside-1" / link).is_symlink()
    for link in ("lock", "events.db"):
        prepare(link)
        with pytest.raises(StoreError, match="is a link"):
            search()
    for link in ("state.json", "launcher.log"):
        prepare(link)
        with pytest.raises((OSError, NodeError), match="is a link"):
            search()
    assert (theirs / "thesis").read_text() == "all of it"
    assert {path.name for path in theirs.rglob("*")} == {"functions", name, "thesis"}
    assert not (tmp_path / "canary").exists()


def test_a_train_function_is_not_unpickled_if_it_is_not_the_one_that_was_sent(tmp_path):
    path = tmp_path / name_of(b"what was sent")
    path.write_bytes(pickle.dumps(Runs(tmp_path / "canary")))
    with pytest.raises(RuntimeError, match="not the train function that the driver sent"):
        arrival.load(str(path))
    assert not (tmp_path / "canary").exists()


# The table

TABLE = ROOT / "docs" / "guarantees.md"
THREATS = ROOT / "docs" / "threat-model.md"


@pytest.mark.parametrize("page", [TABLE, THREATS], ids=lambda page: page.name)
def test_every_test_that_the_page_names_exists(page):
    named = re.findall(r"`((?:tests|distsearch/testing)/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
    assert len(named) > 10
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file()
        or (test and not re.search(rf"def {test}\(", (ROOT / file).read_text()))
    ]
    assert missing == []


def test_the_table_has_a_row_for_every_guarantee():
    rows = re.findall(r"^\| (\d+) \|", TABLE.read_text(), re.MULTILINE)
    assert list(dict.fromkeys(map(int, rows))) == list(range(1, 30))
