"""Nodes as users write them, and facts that travel."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest

from distsearch.errors import ResourceError
from distsearch.resource.node import Node, NodeFacts


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("172.31.3.95", Node("172.31.3.95")),
        ("gpu7.lab", Node("gpu7.lab")),
        (" ada@gpu7:2222 ", Node("gpu7", user="ada", port=2222)),
        ("ada@lab.org@gpu7", Node("gpu7", user="ada@lab.org")),
        ("::1", Node("::1")),
        ("[::1]:22", Node("::1", port=22)),
        ("ada@[fe80::1%eth0]:22", Node("fe80::1%eth0", user="ada", port=22)),
    ],
)
def test_an_address_is_read(address, node):
    assert Node.parse(address) == node
    assert Node.parse(str(node)) == node
    assert Node.parse(node) is node


SHELL = ["h;x", "h$(x)", "h`x`", "h&x", "h|x", "h>x", "h'x", "a;x@h", "a$(x)@h", "-oX=y@h"]
WRONG = [
    "",
    "@h",
    "ada@",
    ":22",
    "h:",
    "h:ssh",
    "h:0",
    "h:65536",
    "h:1:2",
    "[::1",
    "a b",
    "-oX=y",
    *SHELL,
]


@pytest.mark.parametrize("address", [*WRONG, "ssh://h", None, 3, ("h", 22)])
def test_a_wrong_address_is_refused_with_the_valid_forms(address):
    with pytest.raises(ResourceError, match="give"):
        Node.parse(address)


@pytest.mark.parametrize(
    "host", ["gpu7:2222", "127.0.0.1:22", "ada@gpu7", "[::1]:22", "-h", "::1;x"]
)
def test_a_host_with_a_port_or_a_user_in_it_is_refused_with_the_way_to_name_these(host):
    with pytest.raises(ResourceError, match=r"Node\('host', port=...\)"):
        Node(host)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ResourceError) as refusal:
        Node.parse("ada:secret@h")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0},
        {"port": "22"},
        {"user": ""},
        {"num_cpus": 0},
        {"num_cpus": True},
        {"num_gpus": -1},
        {"num_gpus": 0.5},
        {"memory_gb": 0},
        {"memory_gb": float("nan")},
        {"env": {"A": 1}},
        {"env": {"A=B": "1"}},
    ],
)
def test_wrong_values_are_refused_by_name(wrong):
    with pytest.raises(ResourceError, match=next(iter(wrong))):
        Node("h", **wrong)


def test_a_node_is_hashable_picklable_and_does_not_show_its_environment():
    node = Node("h", env={"TOKEN": "secret"})
    assert "secret" not in repr(node)
    assert hash(node) == hash(Node("h", env={"TOKEN": "secret"}))
    assert pickle.loads(pickle.dumps(node)) == node


def test_a_node_keeps_its_own_copy_of_the_environment():
    env = {"A": "1"}
    node = Node("h", env=env)
    env["A"] = "2"
    assert node.env == {"A": "1"}


def test_facts_travel_as_json():
    facts = NodeFacts(8, ("0", "GPU-1a"), 64 * 10**9, "a1")
    assert NodeFacts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


def test_importing_the_node_loads_nothing_heavy():
    code = (
        "import sys, distsearch.resource.node as node; "
        "print([m for m in ('psutil', 'pynvml', 'asyncssh') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_key_is_where_it_is_when_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Node("gpu7", key="~/.ssh/lab").key == str(tmp_path / ".ssh" / "lab")
    monkeypatch.chdir(tmp_path)
    assert Node("gpu7", key="lab").key == str(tmp_path / "lab")


@pytest.mark.parametrize(
    "value",
    [{"memory_gb": "x"}, {"env": 3}, {"python": 3}, {"python": ""}],
)
def test_a_part_of_a_node_that_cannot_be_is_named(value):
    with pytest.raises(ResourceError, match=f"{next(iter(value))}="):
        Node("h", **value)


def test_a_host_that_is_no_text_is_refused_with_the_valid_forms():
    with pytest.raises(ResourceError, match="give 'host'"):
        Node(3)
