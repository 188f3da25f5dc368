"""Environments that `setup` makes on nodes: made once, by one driver, whole or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

import distsearch as ag
from distsearch.core.modules import of_packages
from distsearch.core.travel import pack
from distsearch.errors import NodeError
from distsearch.resource.doctor import examine
from distsearch.resource.environment import Environment, environment_of
from distsearch.resource.node import Node
from distsearch.resource.setup import set_up
from tests.hosts import Hosts
from tests.wheels import make_wheels

WANTED = environment_of(["asyncssh"])  # a package that a node does not need, as one of a script's


class Bare:
    """A node with some Python and an index of its own, and what is said while it is set up."""

    def __init__(self, hosts, folder):
        self.hosts, self.folder, self.said = hosts, folder, []
        self.cache = folder / "cache"
        make_wheels(folder / "wheels", WANTED.wanted)
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "wheels")}
        env["XDG_CACHE_HOME"] = str(self.cache)
        self.host = hosts.start(env=env)
        self.config = [str(hosts.config)]

    def node(self, **settings):
        return Node("127.0.0.1", port=self.host.port, **settings)

    async def set_up(self, environment=WANTED, **settings):
        return await set_up(self.node(**settings), environment, self.config, self.said.append)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    with Hosts() as hosts:
        yield Bare(hosts, tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def made(bare):
    """The interpreter of an environment that two drivers have made at once."""

    async def twice():
        return await asyncio.gather(bare.set_up(), bare.set_up())

    one, other = asyncio.run(twice())
    assert one == other == str(bare.cache / "distsearch" / WANTED.name / "bin/python")
    return one


def versions(python):
    code = (
        "import json; from importlib.metadata import distributions; "
        "print(json.dumps({one.metadata['Name']: one.version for one in distributions()}))"
    )
    said = subprocess.run([python, "-I", "-c", code], capture_output=True, check=True, timeout=30)
    return json.loads(said.stdout)


def test_an_environment_has_the_drivers_versions_and_is_made_once_by_one_of_two_drivers(bare, made):
    assert {f"{name}=={version}" for name, version in versions(made).items()} == {*WANTED.wanted}
    told = [line for line in bare.said if "Installing collected packages" in line]
    assert len(told) == 1 and told[0].startswith(f"node 127.0.0.1:{bare.host.port}: setup: ")
    assert any("another driver is making it" in line for line in bare.said)
    bare.said.clear()
    assert asyncio.run(bare.set_up()) == made and bare.said == []


@pytest.fixture
def chosen(bare, tmp_path, monkeypatch):
    """Which interpreter a search takes where the driver's own path is one without packages."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "own"], check=True, timeout=60
    )
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own/bin/python"))

    def look():
        (report,) = asyncio.run(examine([bare.node()], WANTED, ssh_config=bare.config))
        return report.found("python").partition(" (tried: ")[0], report.found("packages")

    return look


def test_a_search_takes_what_setup_has_made_before_a_python_that_lacks_packages(bare, made, chosen):
    python, packages = chosen()
    assert python.endswith(made) and packages.endswith("as the driver has them, made by setup")
    cache = bare.cache / "distsearch"
    cache.chmod(0o777)  # anybody may have put it there
    assert chosen()[0].endswith(sys.executable)
    cache.chmod(0o700)


def test_an_environment_that_was_not_finished_is_not_used_and_made_anew(bare, made, chosen):
    home = bare.cache / "distsearch" / WANTED.name
    (home / "complete").rename(home / "wanted.txt")
    (home / "left behind").touch()
    assert chosen()[0].endswith(sys.executable)
    assert asyncio.run(bare.set_up()) == made
    assert not (home / "left behind").exists() and versions(made)
    assert chosen()[0].endswith(made)


def test_what_pip_says_is_told_where_it_finds_no_package(bare):
    lacking = Environment((*WANTED.wanted, "no-such-package==1.0"))
    with pytest.raises(NodeError, match="No matching distribution found for no-such-package"):
        asyncio.run(bare.set_up(lacking))
    assert not (bare.cache / "distsearch" / lacking.name / "complete").exists()


def test_a_node_without_the_drivers_python_is_told_how_to_get_one(bare, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 9, 1)")
    node = Node("127.0.0.1", port=bare.host.port, python=str(tmp_path / "python"))
    (tmp_path / "python").write_text(
        f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(NodeError, match=r"has no Python 3\.\d+, .* found: 3.9.1.*uv"):
        asyncio.run(set_up(node, WANTED, bare.config, bare.said.append))


@ag.args(x=ag.Real(0, 1))
def tells_its_prefix(args, reporter):
    import sys

    print(f"prefix {sys.prefix}")
    reporter(epoch=1, accuracy=args.x)


def test_a_search_sets_up_the_nodes_that_ask_for_it_and_uses_what_was_made(bare, tmp_path, capfd):
    wanted = environment_of(of_packages(pack(tells_its_prefix))).wanted
    make_wheels(bare.folder / "wheels", wanted)
    # The wheels are empty: what is in them comes from here, and their versions are the same.
    site = [path for path in sys.path if path.endswith("site-packages")]
    env = {"PYTHONPATH": os.pathsep.join(site)}
    scheduler = ag.scheduler.FIFOScheduler(
        tells_its_prefix,
        local=False,
        dist_ip_addrs=bare.node(setup=True, num_cpus=1, env=env),
        ssh_config=bare.config,
        num_trials=1,
        checkpoint=tmp_path / "search",
    )
    with scheduler:
        scheduler.run()
        scheduler.join_jobs()
        assert [trial.status.value for trial in scheduler.trials] == ["finished"]
    assert f"prefix {bare.cache / 'distsearch' / 'environment-'}" in capfd.readouterr().out


def test_versions_have_no_local_part_and_what_came_from_a_path_is_left_out(tmp_path, monkeypatch):
    for name, version, url in (("of-index", "2.9.1+cu128", None), ("of_path", "1.0", "file:///x")):
        module = name.replace("-", "_")
        about = tmp_path / f"{module}-{version}.dist-info"
        about.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (about / "METADATA").write_text(text)
        (about / "RECORD").write_text(f"{module}/__init__.py,,\n")
        if url is not None:
            (about / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {}}))
    monkeypatch.syspath_prepend(str(tmp_path))
    environment = environment_of(["of_index", "of_path", "distsearch", "numpy.random"])
    assert "of-index==2.9.1" in environment.wanted and environment.left_out == ("of_path",)
    assert sum(one.startswith("numpy==") for one in environment.wanted) == 1
    assert environment.name != environment_of().name
    assert any(one.startswith("tornado==") for one in environment.constraints)  # of distributed
