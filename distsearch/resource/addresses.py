"""Which nodes a user means: addresses, Nodes, and the file that names nodes once.

    nodes_of("gpu1"), nodes_of(["gpu1", "ada@gpu2:2222"]), nodes_of("nodes.toml")

`nodes.toml` has a table for each node. The name of a table is the node's address, unless the table
has `host`; its other keys are the arguments of `Node`. `[defaults]` holds for all nodes.

    [defaults]
    user = "ada"

    [gpu1]

    ["gpu2.lab.org"]
    port = 2222
    python = "~/env/bin/python"
    env = { HF_HOME = "/data/hf" }
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Union

from ..errors import ResourceError, nearest
from .node import Node
from .toml import read_toml

Address = Union[str, "os.PathLike[str]", Node]
Addresses = Union[Address, Iterable[Address]]

SUFFIX = ".toml"
DEFAULTS = "defaults"
KEYS = tuple(field.name for field in fields(Node))


def nodes_of(addresses: Addresses | None) -> list[Node]:
    """The nodes that a user has named by addresses, Nodes and files of nodes; [] for None.

    Raises ResourceError for what is no address, and the errors of `read_nodes`.
    """
    if addresses is None:
        return []
    if isinstance(addresses, str | os.PathLike) or not isinstance(addresses, Iterable):
        addresses = [addresses]
    nodes: list[Node] = []
    for address in addresses:
        if isinstance(address, os.PathLike) or (
            isinstance(address, str) and address.endswith(SUFFIX)
        ):
            nodes += read_nodes(address)
        else:
            nodes.append(Node.parse(address))
    return nodes


def read_nodes(path: str | os.PathLike[str]) -> list[Node]:
    """The nodes of a file, in its order: `read_nodes("nodes.toml")`.

    Raises OptionError for a file that cannot be read; ResourceError, which names the file, the
    table and the key of what is wrong there, and the nearest valid key.
    """
    file = Path(path).expanduser()
    tables = read_toml(file)
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ResourceError(
                f"{file}: {name} = {table!r} is in no table; a node is a table, [{name}], and what "
                f"all nodes have is in [{DEFAULTS}]"
            )
    defaults = tables.pop(DEFAULTS, {})
    _refuse_unknown(file, DEFAULTS, defaults)
    if not tables:
        raise ResourceError(f"{file} names no node; write a table for each, as [gpu1]")
    return [_node(file, name, defaults, own) for name, own in tables.items()]


def _node(file: Path, name: str, defaults: Mapping[str, Any], own: Mapping[str, Any]) -> Node:
    _refuse_unknown(file, name, own)
    given = {**defaults, **own}
    try:
        node = Node.parse(given.pop("host", name))
        if isinstance(given.get("env"), Mapping):
            given["env"] = {**defaults.get("env", {}), **given["env"]}
        if isinstance(given.get("key"), str):  # relative to the file, wherever that is used
            given["key"] = str(file.absolute().parent / Path(given["key"]).expanduser())
        return replace(node, **given)
    except ResourceError as error:
        raise ResourceError(f"{file}: table [{name}]: {error}") from None


def _refuse_unknown(file: Path, name: str, table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        if key in KEYS:
            continue
        if isinstance(value, Mapping) and name != DEFAULTS:  # [gpu1.lab] is a table in a table
            raise ResourceError(
                f"{file}: table [{name}] holds a table {key!r}; the name of a host with a dot "
                f'stands in quotes: ["{_with_dots(name, table)}"]'
            )
        names = ", ".join(map(repr, KEYS))
        raise ResourceError(
            f"{file}: table [{name}] has no key {key!r}; {nearest(key, KEYS)}valid are: {names}"
        )


def _with_dots(name: str, table: Mapping[str, Any]) -> str:
    for key, value in table.items():
        if isinstance(value, Mapping) and key not in KEYS:
            return _with_dots(f"{name}.{key}", value)
    return name
