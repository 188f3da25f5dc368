"""What the ends of an attempt's processes amount to: of several ranks, which one failed first.

Ranks work together, so that the end of one is the end of all. When a rank is killed, the others
fail as they cannot reach it any more, and their ends may be heard of before its own. So the cause
is looked for among the ends of all ranks, once all are over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..resource.messages import Message
from .words import STATUS_OF, Status

# What frameworks say where a rank could not reach another any more.
_ECHOES = re.compile(
    r"closed by peer|reset by peer|Broken pipe|DistBackendError|DistNetworkError|NCCL|gloo", re.I
)
_PORT_TAKEN = re.compile(r"EADDRINUSE|address already in use", re.I)
_SAID_ELSEWHERE = ("op", "trial", "attempt", "rank", "status", "reason", "no_space")


class End(NamedTuple):
    """How one process has ended, by its agent."""

    rank: int
    status: Status
    reason: str
    facts: Mapping[str, Any]  # what the log keeps: traceback, exit code, memory, seconds
    begun: bool = True  # False where something was missing that the process needs to begin


class Outcome(NamedTuple):
    """How an attempt has ended.

    `costs_nothing`: another attempt is due, and this one does not count as a failure: its node
    lacked something, or the port where its ranks were to meet was taken by another program.
    """

    status: Status
    reason: str
    facts: Mapping[str, Any]
    costs_nothing: bool = False


def end_of(message: Message) -> End:
    """The end that a message `ended` of an agent tells of."""
    facts = {name: value for name, value in message.items() if name not in _SAID_ELSEWHERE}
    status = STATUS_OF[message["status"]]
    return End(message["rank"], status, message["reason"], facts)


def outcome_of(ends: Sequence[End], decided: Status | None, port: int = 0) -> Outcome:
    """What the ends of all ranks, in the order in which they were heard of, amount to.

    `decided`: how the driver has told the ranks to end, if it has. `port`: where they were to meet,
    0 for a single rank.

    >>> lost = End(0, Status.FAILED, "Connection closed by peer", {"seconds": 2.0})
    >>> dead = End(1, Status.KILLED, "killed by SIGKILL", {"seconds": 1.0})
    >>> outcome_of([lost, dead], decided=None)[:3]
    (<Status.KILLED: 'killed'>, 'rank 1: killed by SIGKILL', {'seconds': 2.0})
    """
    if len(ends) == 1:
        (end,) = ends
        return Outcome(end.status, end.reason, end.facts, costs_nothing=not end.begun)
    cause = min(ends, key=lambda end: _rank_of_cause(end, decided))
    reason = cause.reason
    if cause.status.is_failure:
        reason = f"rank {cause.rank}: {reason}"
    facts = dict(cause.facts)
    for name, total in (("max_rss_bytes", sum), ("cpu_s", sum), ("seconds", max)):
        if known := [end.facts[name] for end in ends if end.facts.get(name) is not None]:
            facts[name] = round(total(known), 4)
    for end in ends:
        if end.rank == 0 and "returned" in end.facts:
            facts["returned"] = end.facts["returned"]
    costs_nothing = not cause.begun or any(_lacks_port(end, port) for end in ends)
    return Outcome(cause.status, reason, facts, costs_nothing)


def _lacks_port(end: End, port: int) -> bool:
    """Whether rank 0 could not listen where the ranks were to meet."""
    is_its_own = end.rank == 0 and end.status is Status.FAILED and str(port) in end.reason
    return port != 0 and is_its_own and _PORT_TAKEN.search(end.reason) is not None


def _rank_of_cause(end: End, decided: Status | None) -> int:
    """How likely an end is the cause of the other ends: a smaller number is likelier."""
    if end.status is decided:
        return 0
    if not end.begun:
        return 1
    if end.status is Status.FAILED:
        return 4 if _ECHOES.search(end.reason) else 3
    if end.status.is_failure:
        return 2
    return 6 if end.status is Status.STOPPED else 5
