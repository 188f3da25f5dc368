"""What must be alike on driver and node, and what is said when it is not."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import distsearch
from distsearch import __version__
from distsearch.resource.versions import compare, own_versions


@pytest.fixture
def node():
    return copy.deepcopy(own_versions())


def test_the_same_versions_are_welcome(node):
    assert compare(own_versions(), node, "gpu1") is None


def test_another_minor_version_of_python_is_refused_with_its_remedy(node):
    node["python"][1] -= 1
    text = compare(own_versions(), node, "gpu1")
    assert "gpu1" in text and "Node('gpu1', python=" in text


def test_another_patch_of_python_is_welcome(node):
    node["python"][2] += 1
    assert compare(own_versions(), node, "gpu1") is None


def test_missing_packages_come_with_the_command_that_installs_them(node):
    node["packages"].update(dask=None, numpy=None)
    text = compare(own_versions(), node, "gpu1", "/opt/python")
    assert "/opt/python -m pip install 'dask==" in text and "'numpy==" in text


def test_another_distsearch_is_refused_with_the_folder_to_copy_and_not_with_an_index(node):
    node["distsearch"] = "9.9"
    text = compare(own_versions(), node, "tcp://10.0.0.1:4567", "python")
    assert f"distsearch 9.9, the driver {__version__}" in text
    assert f"copy the folder {Path(distsearch.__file__).parent} " in text and "pip" not in text


def test_of_packages_that_only_have_to_be_there_any_version_is_welcome(node):
    node["packages"]["psutil"] = "0.1"
    assert compare(own_versions(), node, "gpu1") is None


@pytest.mark.parametrize("name", ["distributed", "dask"])
def test_the_engine_must_be_exactly_the_same(node, name):
    ours = node["packages"][name]
    node["packages"][name] = ours + ".1"
    text = compare(own_versions(), node, "gpu1")
    assert f"{name} {ours}.1 (driver: {ours})" in text and f"'{name}=={ours}'" in text


@pytest.mark.parametrize("name", ["cloudpickle", "msgpack"])
def test_serialisers_must_agree_in_their_major_version_only(node, name):
    major = int(node["packages"][name].split(".")[0])
    node["packages"][name] = f"{major}.999"
    assert compare(own_versions(), node, "gpu1") is None
    node["packages"][name] = f"{major + 1}.0"
    assert name in compare(own_versions(), node, "gpu1")


def test_another_protocol_is_refused(node):
    node["protocol"] += 1
    assert "protocol" in compare(own_versions(), node, "gpu1")
