"""A node as the user names it, and the facts that it tells about itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from ipaddress import IPv6Address
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import ResourceError

NoneType = type(None)
_ADDRESS = re.compile(
    r"(?:(?P<user>[^:]*)@)?"
    r"(?:\[(?P<bracketed>[^@\[\]]*)\](?::(?P<port6>[^@:]*))?"
    r"|(?P<bare6>[\da-fA-F]*:[\da-fA-F]*:[\da-fA-F:.]*(?:%\w+)?)"
    r"|(?P<host>[^@:\[\]]*)(?::(?P<port>[^@:]*))?)"
)
# A backslash may stand between a domain and a user.
_USER = r"[^\s:/'\"`$;&<>|(){}-][^\s:/'\"`$;&<>|(){}]*"
_FORMS = "give 'host', 'user@host', 'user@host:port', '[::1]:22', or Node('host', port=...)"


@dataclass(frozen=True)
class Node:
    """A machine that is reached over SSH; what is None comes from ~/.ssh/config, or is detected.

        Node("gpu7", user="ada", key="~/.ssh/lab", python="/opt/env/bin/python", num_gpus=2)

    `key` is the path of a private key. `python` is the node's interpreter (None: the driver's path,
    if there is one on the node, else `python3`). `env` is added to the environment of all that runs
    there. `num_cpus`, `num_gpus` and `memory_gb` (1e9 bytes) replace what is detected on the node.
    `tunnel=True` sends everything through the SSH connection, `False` nothing, None leaves it to
    the scheduler. `address` is where ranks on other nodes reach this node, None for its own
    address. `setup=True` makes an environment on the node, with the driver's versions of what
    trials import; `python` is then the interpreter from which it is made. Raises ResourceError for
    values that make no sense.
    """

    host: str
    _: KW_ONLY
    user: str | None = None
    port: int | None = None
    key: str | None = None
    python: str | None = None
    # (Not in `repr`, as environments hold tokens.)
    env: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    num_cpus: int | None = None
    num_gpus: int | None = None
    memory_gb: float | None = None
    tunnel: bool | None = None
    address: str | None = None
    setup: bool = False

    def __post_init__(self) -> None:
        for name in ("user", "key", "python", "address"):
            if not isinstance(getattr(self, name), str | NoneType):
                self._refuse(name, "text")
        if not isinstance(self.tunnel, bool | NoneType):
            self._refuse("tunnel", "True, False or None")
        if not isinstance(self.setup, bool):
            self._refuse("setup", "True or False")
        # Command line tools would read a leading dash as an option, and shells other signs: the
        # shell of a ProxyCommand, or the user's, as commands that mend things are shown.
        if not isinstance(self.host, str) or not _is_host(self.host):
            raise ResourceError(f"{self.host!r} is no host name or address; {_FORMS}")
        if self.user is not None and not re.fullmatch(_USER, self.user):
            raise ResourceError(f"node {self.host!r}: user={self.user!r} is no user name; {_FORMS}")
        if self.port is not None and not (_is_integer(self.port) and 1 <= self.port <= 65535):
            self._refuse("port", "an integer from 1 to 65535")
        if self.num_cpus is not None and not (_is_integer(self.num_cpus) and self.num_cpus >= 1):
            self._refuse("num_cpus", "an integer of at least 1, or None to detect it")
        if self.num_gpus is not None and not (_is_integer(self.num_gpus) and self.num_gpus >= 0):
            self._refuse("num_gpus", "an integer of at least 0, or None to detect it")
        if self.memory_gb is not None and not (
            isinstance(self.memory_gb, Real) and 0 < self.memory_gb < float("inf")
        ):
            self._refuse("memory_gb", "a number of GB above 0, or None to detect it")
        if self.address is not None and not _is_host(self.address):
            self._refuse("address", "a host name or an IP address of that node, or None")
        if self.key is not None:
            object.__setattr__(self, "key", str(Path(self.key).expanduser().absolute()))
        if self.python == "":
            self._refuse("python", "the path of an interpreter there, or None")
        if not isinstance(self.env, Mapping):
            self._refuse("env", "a dict of names and texts")
        object.__setattr__(self, "env", dict(self.env))
        for name, value in self.env.items():
            if not (isinstance(name, str) and name and "=" not in name and isinstance(value, str)):
                raise ResourceError(f"node {self.host!r}: env must map names to text, got {name!r}")

    def _refuse(self, name: str, wanted: str) -> None:
        raise ResourceError(f"node {self.host!r}: {name}={getattr(self, name)!r}; give {wanted}")

    @classmethod
    def parse(cls, address: str | Node) -> Node:
        """Read `'user@host:port'`; a Node is returned as it is.

            Node.parse("ada@[2001:db8::7]:2222") == Node("2001:db8::7", user="ada", port=2222)

        Raises ResourceError that shows the valid forms.
        """
        if isinstance(address, Node):
            return address
        if not isinstance(address, str):
            raise ResourceError(f"a node is text or a Node, got {address!r}; {_FORMS}")
        match = _ADDRESS.fullmatch(address.strip())
        if match is None:
            # (Not shown is what stands before the @, which may hold a password.)
            shown = "...@" + address.rpartition("@")[2] if "@" in address else address
            raise ResourceError(f"{shown!r} is no address of a node; {_FORMS}")
        port = match["port6"] if match["port6"] is not None else match["port"]
        if port is not None and not (port.isascii() and port.isdigit()):
            raise ResourceError(f"{port!r} in {match[0]!r} is no port; {_FORMS}")
        host = match["bracketed"] or match["bare6"] or match["host"] or ""
        return cls(host, user=match["user"], port=None if port is None else int(port))

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        if self.port is None:
            return user + self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}:{self.port}"


@dataclass(frozen=True)
class NodeFacts:
    """What a node has to give: CPUs, GPUs, bytes of memory.

    `gpus` has the names of GPUs for CUDA_VISIBLE_DEVICES, indices or UUIDs: `("0", "1")`.
    `machine` is the same for all nodes that are one machine, '' where that is not known.
    `addresses` are those at which other nodes may reach it, the likeliest first.
    """

    num_cpus: int
    gpus: tuple[str, ...]
    memory_bytes: int
    machine: str = ""
    addresses: tuple[str, ...] = field(default=(), compare=False)  # (those of a laptop change)

    def to_dict(self) -> dict[str, Any]:
        """The facts as values of JSON: `NodeFacts.from_dict(facts.to_dict()) == facts`."""
        return asdict(self) | {"gpus": list(self.gpus), "addresses": list(self.addresses)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> NodeFacts:
        """The facts that `to_dict` has written."""
        gpus = tuple(str(gpu) for gpu in facts["gpus"])
        cpus, memory = int(facts["num_cpus"]), int(facts["memory_bytes"])
        addresses = tuple(str(address) for address in facts["addresses"])
        return cls(cpus, gpus, memory, str(facts["machine"]), addresses)


def _is_host(text: str) -> bool:
    """Whether a text is a host name or an IP address, without a port."""
    if ":" not in text:
        return re.fullmatch(r"[\w.][\w.%-]*", text) is not None
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return re.fullmatch(r"[\w:.%-]*", text) is not None


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
