"""Nodes over SSH on loopback, behind OpenSSH's sshd, as users have it (Debian: openssh-server).

The tests' own SSH server lives in the process of the driver, whose interpreter it would share.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distsearch as ag
from tests.openssh import OpenSSH

PORTS = 15  # of one sshd, which listens on 16 at most


@contextlib.contextmanager
def ssh_nodes(folder: Path, count: int, num_cpus: int) -> Iterator[dict[str, Any]]:
    """What a scheduler is given to have `count` such nodes, and none here.

    Each is a port of its own, of as few sshd as can be; these let all in at once.
    """
    ports = free_ports(count)
    with contextlib.ExitStack() as stack:
        hosts = []
        for first in range(0, count, PORTS):
            of_one = ports[first : first + PORTS]
            settings = [f"Port {port}" for port in of_one]
            host = OpenSSH(folder / f"sshd{first}", *settings, f"MaxStartups {10 * count}")
            hosts.append(stack.enter_context(host))
            key = (host.folder / "host_key.pub").read_text()
            with open(folder / "known_hosts", "a") as known:
                known.writelines(f"[127.0.0.1]:{port} {key}" for port in of_one)
            with open(host.folder / "user_key.pub", "a") as users:
                users.write((hosts[0].folder / "user_key.pub").read_text())
        nodes = [  # with CPUs that are declared: else nodes of one machine count once
            ag.Node("127.0.0.1", port=port, python=sys.executable, num_cpus=num_cpus)
            for port in ports
        ]
        yield {"local": False, "dist_ip_addrs": nodes, "ssh_config": [str(hosts[0].config)]}


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]
