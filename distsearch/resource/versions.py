"""What must be alike on the driver and on a node, and the command that makes it so."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PROTOCOL = 1
"""Raised when messages between driver and node change their meaning."""

# name of a package -> how many parts of its version must agree (0: all)
PACKAGES = {"distsearch": 0, "distributed": 0, "dask": 0, "cloudpickle": 1, "msgpack": 1}


def own_versions() -> dict[str, Any]:
    """The protocol, Python and packages of this process, as values of JSON."""
    packages = {name: _installed(name) for name in PACKAGES}
    return {"protocol": PROTOCOL, "python": list(sys.version_info[:3]), "packages": packages}


def compare(
    driver: dict[str, Any], node: dict[str, Any], host: str, python: str = "python3"
) -> str | None:
    """Say what keeps a node from working with this driver, and what to do; None when all is well.

    `python` is the node's interpreter as one would type it there.
    """
    ours, theirs = driver["python"], node["python"]
    if ours[:2] != theirs[:2]:
        return (
            f"node {host!r} runs Python {_dotted(theirs)}, the driver {_dotted(ours)}: functions "
            f"can only be sent to the same minor version; name one with "
            f"Node({host!r}, python='/path/to/python{_dotted(ours[:2])}')"
        )
    missing = [name for name in PACKAGES if node["packages"].get(name) is None]
    if missing:
        return (
            f"node {host!r} has no {' and no '.join(missing)} for its Python ({python}); install "
            f"there what the driver has: {_pip(driver, missing, python)} "
            f"(or name another interpreter with Node({host!r}, python=...))"
        )
    different = [
        name
        for name, parts in PACKAGES.items()
        if not _alike(driver["packages"][name], node["packages"][name], parts)
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
    if driver["protocol"] != node.get("protocol", driver["protocol"]):
        return (
            f"node {host!r} speaks protocol {node['protocol']}, the driver {driver['protocol']}; "
            "install the same distsearch on both"
        )
    return None


def _installed(name: str) -> str | None:
    if name == "distsearch":
        from .. import __version__

        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _alike(ours: str | None, theirs: str, parts: int) -> bool:
    if ours is None or not parts:
        return ours is None or ours == theirs
    return ours.split(".")[:parts] == theirs.split(".")[:parts]


def _pip(driver: dict[str, Any], names: list[str], python: str) -> str:
    wanted = " ".join(
        f"'{name}=={number}'" if (number := driver["packages"].get(name)) else name
        for name in names
    )
    return f"{python} -m pip install {wanted}"


def _dotted(numbers: list[int]) -> str:
    return ".".join(map(str, numbers))
