"""The doctor: each fault of a node is found beside the others, with the command that mends it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import asyncssh
import pytest

from distsearch.cli.main import _code
from distsearch.resource import doctor
from distsearch.resource.diagnosis import Report, judge_facts
from distsearch.resource.doctor import examine
from distsearch.resource.environment import environment_of
from distsearch.resource.node import Node
from tests.hosts import Hosts


@pytest.fixture(scope="module")
def hosts():
    with Hosts() as hosts:
        yield hosts


def node(host, **settings):
    return Node("127.0.0.1", port=host.port, **{"python": sys.executable, **settings})


def planted(folder, name, code):
    """An environment in which an interpreter runs some code before all else."""
    (folder / name).mkdir()
    (folder / name / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder / name)}


def test_every_planted_fault_is_found_in_time_and_comes_with_its_remedy(hosts, tmp_path):
    other_key = tmp_path / "other"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(other_key))
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=60
    )
    information = tmp_path / "site" / "distributed-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Name: distributed\nVersion: 1.2\n")
    old = planted(tmp_path, "old", "import sys; sys.version_info = (3, 9, 1)")
    odd = planted(
        tmp_path,
        "odd",
        "import resource, time\nnow = time.time\ntime.time = lambda: now() + 3 * 86400\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))",
    )
    silent = hosts.start(hangs=True)
    nodes = {
        "well": node(hosts.start()),
        "stranger": node(hosts.start(known=False)),
        "refused": node(hosts.start(), key=str(other_key)),
        "silent": node(silent),
        "no python": node(hosts.start(), python="/no/such/python"),
        "old": node(hosts.start(env=old)),
        "bare": node(hosts.start(), python=str(tmp_path / "bare/bin/python")),
        "other": node(hosts.start(env={"PYTHONPATH": str(information.parent)})),
        "odd": node(hosts.start(env=odd)),
        "hidden": node(hosts.start(), address="nowhere.invalid"),
    }
    began = time.monotonic()
    reports = asyncio.run(examine(list(nodes.values()), ssh_config=[str(hosts.config)]))
    assert time.monotonic() - began < 15  # all at once
    found = dict(zip(nodes, reports, strict=True))
    assert all(report.seconds < 10 for report in reports)
    assert [name for name, report in found.items() if report.is_well] == ["well", "hidden"]

    def fault(name, check):
        (only,) = [f for f in found[name].findings if f.state == "fault"]
        assert only.check == check
        return only.found, only.mend

    what, mend = fault("stranger", "login")
    assert "not known yet" in what and mend.startswith("ssh-keyscan -p ")
    what, mend = fault("refused", "login")
    assert "refused user" in what and mend.startswith("ssh-copy-id")
    what, mend = fault("silent", "python")
    assert "no answer within" in what and mend.startswith("ssh -p ")
    assert "has no '/no/such/python'" in fault("no python", "python")[0]
    what, mend = fault("old", "python")
    assert what.startswith("3.9.1, ") and mend == "distsearch setup"
    what, mend = fault("bare", "packages")
    assert "lacks " in what and f"{tmp_path}/bare/bin/python -m pip install " in mend
    what, mend = fault("other", "packages")
    assert "distributed 1.2 (driver: " in what and "pip install distributed==" in mend
    faults = {f.check: f for f in found["odd"].findings if f.state == "fault"}
    assert faults["clock"].found == "3 d ahead of the driver's"
    assert faults["clock"].mend == "sudo timedatectl set-ntp true"
    assert "at most 256 open files" in faults["limits"].found
    assert "limits.d" in faults["limits"].mend
    (reach,) = [f for f in found["well"].findings if f.check == "nodes"]
    assert reach.state == "warning" and "at nowhere.invalid" in reach.found
    assert reach.mend.startswith(f"on 127.0.0.1:{nodes['hidden'].port}: sudo ufw allow from")


def test_nodes_that_trials_span_have_to_reach_each_other(hosts):
    nodes = [node(hosts.start()), node(hosts.start())]
    config = [str(hosts.config)]
    reports = asyncio.run(examine(nodes, spans_nodes=True, ssh_config=config))
    assert [report.found("nodes") for report in reports] == ["reaches 1 other"] * 2
    nodes[1] = node(hosts.hosts[-1], address="nowhere.invalid")
    one, two = asyncio.run(examine(nodes, spans_nodes=True, ssh_config=config))
    assert two.is_well and not one.is_well


def test_a_slow_node_does_not_keep_others_from_meeting(hosts, monkeypatch):
    monkeypatch.setattr(doctor, "MEETING_S", 2.0)
    monkeypatch.setattr(doctor, "LIMIT_S", 4.0)
    nodes = [node(hosts.start(hangs=True)), node(hosts.start()), node(hosts.start())]
    slow, *others = asyncio.run(examine(nodes, ssh_config=[str(hosts.config)]))
    assert not slow.is_well
    assert [report.found("nodes") for report in others] == ["reaches 1 other"] * 2


FACTS = {
    "time": 0.0,
    "disks": [{"folder": "/tmp", "free": 10**12, "inodes": None, "writable": True}],
    "open_files": [1024, 4096],
    "processes": [-1, -1],
    "is_root": False,
    "shared_memory": 10**9,
    "lacks": [],
    "gpus": [],
    "gpu_driver": None,
    "gpu_fault": None,
    "usable_gpus": [],
}
H200 = {"gpus": ["NVIDIA H200 139 GB"] * 2, "gpu_driver": "550.1"}


@pytest.mark.parametrize(
    "facts, settings, check, state, found, mend",
    [
        (H200 | {"usable_gpus": ["0", "1"]}, {}, "gpus", "ok", "; driver 550.1", ""),
        (H200, {}, "gpus", "warning", "trials get 0 of them", "CUDA_VISIBLE_DEVICES"),
        (H200 | {"usable_gpus": ["0", "1"]}, {"num_gpus": 4}, "gpus", "fault", "but has 2", "smi"),
        ({}, {"num_gpus": 2}, "gpus", "warning", "none, though num_gpus=2 is declared", "smi"),
        ({"gpu_fault": "nvidia-smi: has failed"}, {}, "gpus", "fault", "has failed", "reboot"),
        (
            {"disks": [{"folder": "/tmp", "free": 10**6, "inodes": 9, "writable": True}]},
            {},
            "disk",
            "fault",
            "0.0 GB free in /tmp, and 9 more files",
            "df -h /tmp",
        ),
        (
            {"disks": [{"folder": "/x", "free": 10**12, "inodes": 10**6, "writable": False}]},
            {},
            "disk",
            "fault",
            "/x cannot be written to",
            "ls -ld /x",
        ),
        ({"shared_memory": 64 * 2**20}, {}, "limits", "warning", "64 MB in /dev/shm", "remount"),
        ({"processes": [100, 100]}, {}, "limits", "fault", "at most 100 processes", "nproc"),
        ({"lacks": ["distsearch"]}, {}, "modules", "fault", "no distsearch", "upload_files"),
    ],
)
def test_what_a_probe_has_found_is_judged(facts, settings, check, state, found, mend):
    report = Report(Node("gpu1", **settings))
    judge_facts(report, report.node, {**FACTS, "time": time.time(), **facts})
    (finding,) = [finding for finding in report.findings if finding.check == check]
    assert finding.state == state and found in finding.found and mend in finding.mend
    assert report.is_well == (state != "fault")


def test_the_command_says_what_is_wrong_and_exits_with_1(hosts, tmp_path, capsys):
    (tmp_path / "train.py").write_text("import numpy, helper\nimport no_such_module")
    (tmp_path / "helper.py").write_text("import asyncssh")
    file = tmp_path / "nodes.toml"
    file.write_text(f"[well]\nhost = '127.0.0.1'\nport = {hosts.start().port}\n")
    given = [str(file), "--for", str(tmp_path / "train.py"), "--ssh-config", str(hosts.config)]
    assert _code(["doctor", *given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (only,) = told["nodes"]
    assert told["well"] and only["seconds"] < 10
    (packages,) = [f["found"] for f in only["findings"] if f["check"] == "packages"]
    wanted = environment_of(["numpy", "asyncssh"]).wanted
    assert packages == f"{len(wanted)} as the driver has them"
    with open(file, "a") as more:
        more.write("python = '/no/such/python'\n[stranger]\nhost = '127.0.0.1'\nport = 1")
    assert _code(["doctor", *given]) == 1
    said = capsys.readouterr().out
    assert "FAULT" in said and said.endswith("1\n") and "127.0.0.1:1: sudo systemctl start" in said
    assert _code(["doctor"]) == 0
    assert "this machine" in capsys.readouterr().out
