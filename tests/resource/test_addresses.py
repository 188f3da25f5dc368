"""Nodes as users name them: addresses, and the file that names them once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from distsearch.errors import OptionError, ResourceError
from distsearch.resource.addresses import nodes_of
from distsearch.resource.node import Node

ROOT = Path(__file__).resolve().parents[2]
NODES = """
[defaults]
user = "ada"
env = { A = "1", B = "1" }

[gpu1]

["gpu2.lab.org"]
port = 2222
user = "bob"
key = "keys/lab"
num_gpus = 2
env = { B = "2" }

[big]
host = "10.0.0.7"
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "nodes.toml"
        path.write_text(text)
        return path

    return write


def test_a_file_names_nodes_with_what_all_have_and_what_each_has(file, tmp_path):
    path = file(NODES)
    one, two, big = nodes_of(str(path))
    assert one == Node("gpu1", user="ada", env={"A": "1", "B": "1"})
    key = str(tmp_path / "keys/lab")
    assert two == Node(
        "gpu2.lab.org", port=2222, user="bob", key=key, num_gpus=2, env={"A": "1", "B": "2"}
    )
    assert (big.host, big.user) == ("10.0.0.7", "ada")
    assert nodes_of([path, "x"]) == [one, two, big, Node("x")]


def test_addresses_are_nodes_as_before():
    assert nodes_of(None) == [] and nodes_of("a") == [Node("a")] == nodes_of(Node("a"))
    assert nodes_of(iter(["a", "u@b:7"])) == [Node("a"), Node("b", user="u", port=7)]


@pytest.mark.parametrize(
    "text, says",
    [
        ("[gpu1]\nprot = 22", "table [gpu1] has no key 'prot'; did you mean 'port'? valid are: "),
        ("[defaults]\nuse = 'ada'\n[a]", "table [defaults] has no key 'use'; did you mean 'user'?"),
        ("[gpu1]\nport = '22'", "table [gpu1]: node 'gpu1': port='22'; give an integer"),
        ("[gpu1]\nuser = 7", "table [gpu1]: node 'gpu1': user=7; give text"),
        ("[gpu1]\nmemory_gb = 'x'", "node 'gpu1': memory_gb='x'; give a number"),
        ("[10.0.0.7]\nport = 22", 'stands in quotes: ["10.0.0.7"]'),
        ("['a b']", "table [a b]: 'a b' is no"),
        ("port = 22", "port = 22 is in no table"),
        ("", "names no node; write a table for each, as [gpu1]"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place_and_the_nearest_name(file, text, says):
    path = file(text)
    with pytest.raises(ResourceError) as refusal:
        nodes_of(path)
    assert says in str(refusal.value) and str(path) in str(refusal.value)


def test_a_file_that_is_not_there_or_no_toml_is_told_with_its_line(file, tmp_path):
    with pytest.raises(OptionError, match=r"none\.toml cannot be read: No such file"):
        nodes_of(tmp_path / "none.toml")
    with pytest.raises(OptionError, match=r"nodes\.toml is no TOML: .*line 2"):
        nodes_of(file("[gpu1]\nport 22"))


def test_the_files_of_the_pages_and_recipes_name_nodes(file):
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/nodes.md").read_text(), re.DOTALL)
    (nodes,) = [nodes_of(file(block)) for block in blocks]
    assert [str(node) for node in nodes] == ["ada@gpu1", "ada@gpu2.lab.org:2222", "ada@10.0.0.7"]
    assert [node.setup for node in nodes] == [False, False, True]
    containers = nodes_of(ROOT / "recipes/containers.toml")
    services = yaml.safe_load((ROOT / "recipes/compose.yaml").read_text())["services"]
    ports = {f"127.0.0.1:{node.port}:22" for node in containers}
    assert ports == {port for service in services.values() for port in service["ports"]}
