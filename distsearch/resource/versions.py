"""What must be alike on the driver and on a node, and the command that makes it so."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__

_OWN = {"distsearch": "distsearch", "protocol": "a distsearch of protocol"}
PROTOCOL = 1
"""Raised when messages between driver and node change their meaning."""

# How many parts of a package's version must agree (0: all, None: none).
NODE_PACKAGES: dict[str, int | None] = {
    "distributed": 0,
    "dask": 0,
    "cloudpickle": 1,
    "msgpack": 1,
    "cryptography": None,
    "numpy": None,
    "psutil": None,
    "safetensors": None,
    "threadpoolctl": None,
}
"""What an index has and a node needs. Its distsearch comes from the driver."""


def own_versions() -> dict[str, Any]:
    """The protocol, Python, distsearch and packages of this process, as values of JSON."""
    return {
        "protocol": PROTOCOL,
        "python": list(sys.version_info[:3]),
        "distsearch": __version__,
        "packages": {name: _installed(name) for name in NODE_PACKAGES},
    }


def compare(
    driver: dict[str, Any], node: dict[str, Any], host: str, python: str = "python3"
) -> str | None:
    """What keeps a node from working with this driver, and what to do; None when nothing does.

    `python` is the node's interpreter, as people type it there.
    """
    ours, theirs = driver["python"], node["python"]
    if ours[:2] != theirs[:2]:
        return (
            f"node {host!r} runs Python {_dotted(theirs)}, the driver {_dotted(ours)}: functions "
            f"can only be sent to the same minor version; name one with "
            f"Node({host!r}, python='/path/to/python{_dotted(ours[:2])}')"
        )
    missing = [name for name in NODE_PACKAGES if node["packages"].get(name) is None]
    if missing:
        return (
            f"node {host!r} has no {' and no '.join(missing)} for its Python ({python}); install "
            f"there what the driver has: {_pip(driver, missing, python)} "
            f"(or name another interpreter with Node({host!r}, python=...))"
        )
    different = [
        name
        for name, parts in NODE_PACKAGES.items()
        if not alike(driver["packages"][name], node["packages"][name], parts)
    ]
    if different:
        pairs = ", ".join(
            f"{name} {node['packages'][name]} (driver: {driver['packages'][name]})"
            for name in different
        )
        return (
            f"node {host!r} has other versions than the driver: {pairs}; "
            f"install there: {_pip(driver, different, python)}"
        )
    for name in ("distsearch", "protocol"):  # (nodes that get both do not say them)
        if driver[name] != node.get(name, driver[name]):
            return (
                f"node {host!r} has {_OWN[name]} {node[name]}, the driver {driver[name]}: "
                f"{own_distsearch('that node')}"
            )
    return None


def own_distsearch(whose: str) -> str:
    """What to do so that workers of the user's own cluster have the driver's distsearch."""
    folder = Path(__file__).parents[1]
    return f"copy the folder {folder} to a place on the PYTHONPATH of {whose}"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def alike(ours: str | None, theirs: str, parts: int | None) -> bool:
    """Whether two versions agree in their first `parts` parts (0: all, None: none need agree)."""
    if ours is None or parts is None:
        return True
    if parts == 0:
        return ours == theirs
    return ours.split(".")[:parts] == theirs.split(".")[:parts]


def _pip(driver: dict[str, Any], names: list[str], python: str) -> str:
    wanted = " ".join(
        f"'{name}=={number}'" if (number := driver["packages"].get(name)) else name
        for name in names
    )
    return f"{python} -m pip install {wanted}"


def _dotted(numbers: list[int]) -> str:
    return ".".join(map(str, numbers))
