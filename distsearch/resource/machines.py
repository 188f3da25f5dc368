"""Which nodes are one machine, so that no CPU and no GPU of it counts twice.

Names do not tell: a machine may be listed twice, by its name and by its address, or be this very
machine. Its identity tells (`detect.machine_id`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..errors import NodeError
from .remote import Remote


class SameMachine(NodeError):
    """Raised for a node that is a machine whose slots another node (`other`) has."""

    def __init__(self, text: str, other: Remote) -> None:
        super().__init__(text)
        self.other = other


def take_share(
    remote: Remote, others: Iterable[Remote], *, name: str, shares: set[int], declares_gpus: bool
) -> str:
    """Give a new node what the other nodes do not have of its machine.

    Returns a line to be said if that is not all, else ''. `name`: what the user calls the node.
    `shares`: the ids of nodes whose CPUs were declared, which may share a machine. `declares_gpus`:
    whether the node's number of GPUs was declared. Raises SameMachine where another node has the
    machine's CPUs, NodeError where others have its GPUs.
    """
    machine = remote.facts.machine
    same = [one for one in others if one is not remote and machine == one.facts.machine != ""]
    for other in same:
        if not {remote.remote_id, other.remote_id} <= shares:
            raise SameMachine(
                f"node {name!r} is the same machine as {other.host!r}, whose slots are used "
                "already: it counts once. (To split a machine into nodes, declare num_cpus= of "
                "each)",
                other,
            )
    taken = {gpu for other in same for gpu in other.facts.gpus}
    left = tuple(gpu for gpu in remote.facts.gpus if gpu not in taken)
    if left == remote.facts.gpus:
        return ""
    lost = ", ".join(gpu for gpu in remote.facts.gpus if gpu in taken)
    hosts = ", ".join(other.host for other in same)
    text = f"node {name!r}: its GPUs {lost} belong to {hosts}, which is the same machine"
    if declares_gpus:
        raise NodeError(f"{text}; declare num_gpus= so that each is in one node")
    remote.use(replace(remote.facts, gpus=left))
    return f"{text}; it is used without them"
