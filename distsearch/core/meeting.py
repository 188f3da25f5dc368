"""How the ranks of an attempt find each other: where they meet, and whether each node gets there.

The node of rank 0 chooses a port. Before anything starts, the other nodes prove that they reach
that port at an address of the node, which all ranks then have as MASTER_ADDR. In the same step each
node puts the checkpoints in place with which its ranks begin, which have to be the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..resource.meeting import LOOPBACK, REACH_S
from ..resource.messages import Message
from ..resource.remote import Remote
from .attempt import Attempt, Place
from .keeper import Keeper


@dataclass(eq=False)
class Meeting:
    """Where the ranks of an attempt meet, as far as that is known.

    `own_interfaces` are those of the node of rank 0, by its addresses; `reached` are the interfaces
    of each other node (by its id) that lead to each of these addresses. Once `address` is chosen,
    `interfaces` has the one of each node.
    """

    attempt: Attempt
    port: int = 0
    begins_with: list[str] = field(default_factory=list)
    own_interfaces: dict[str, str] = field(default_factory=dict)
    reached: dict[int, dict[str, str]] = field(default_factory=dict)
    address: str = ""
    interfaces: dict[int, str] = field(default_factory=dict)


class Meetings:
    """Has the ranks of attempts meet before they start.

        meetings = Meetings(keeper, on_met=send, on_failed=fail)
        meetings.arrange(attempt)                  # a single rank has met at once
        meetings.on_meets(remote, message)         # from the node of rank 0, then
        meetings.on_reached(remote, message)       # from each other node

    `on_met(attempt, meeting)` is called when all nodes know where; `meeting` is None for a single
    rank. `on_failed(attempt, reason)` is called when a node cannot get there.
    """

    def __init__(
        self,
        keeper: Keeper,
        on_met: Callable[[Attempt, Meeting | None], None],
        on_failed: Callable[[Attempt, str], None],
    ) -> None:
        self._keeper = keeper
        self._on_met = on_met
        self._on_failed = on_failed
        self._arranged: dict[int, Meeting] = {}

    def arrange(self, attempt: Attempt) -> None:
        """Have the ranks of an attempt meet."""
        if len(attempt.places) == 1:
            self._on_met(attempt, None)
            return
        self._arranged[attempt.trial.id] = Meeting(attempt)
        self._ask(attempt.remotes[0], attempt, op="meet", alone=len(attempt.remotes) == 1)

    def forget(self, attempt: Attempt) -> None:
        """Take note that an attempt is over, and need not meet any more."""
        if self._of(attempt.trial.id, attempt.number) is not None:
            del self._arranged[attempt.trial.id]

    def _of(self, trial: int, attempt: int) -> Meeting | None:
        meeting = self._arranged.get(trial)
        return meeting if meeting is not None and meeting.attempt.number == attempt else None

    def _ask(self, remote: Remote, attempt: Attempt, **about: Any) -> None:
        goes_on = self._keeper.goes_on(attempt)
        address = {"trial": attempt.trial.id, "attempt": attempt.number}
        remote.send({**about, "goes_on": goes_on, **address})

    def on_meets(self, remote: Remote, message: Message) -> None:
        """Hear from the node of rank 0 on which port rank 0 will listen."""
        meeting = self._of(message["trial"], message["attempt"])
        if meeting is None:
            return
        attempt = meeting.attempt
        if message["error"]:
            self._fail(
                meeting,
                f"{remote.host} has no port on which its ranks meet or no "
                f"checkpoint to begin with: {message['error']}",
            )
            return
        meeting.port, meeting.begins_with = message["port"], message["begins_with"]
        meeting.own_interfaces = message["interfaces"]
        if len(attempt.remotes) == 1:
            self._met(meeting, LOOPBACK)
            return
        for other in attempt.remotes[1:]:
            self._ask(
                other,
                attempt,
                op="reach",
                addresses=list(remote.facts.addresses),
                port=message["port"],
                token=message["token"],
            )

    def on_reached(self, remote: Remote, message: Message) -> None:
        """Hear from another node at which addresses it reaches the node of rank 0."""
        meeting = self._of(message["trial"], message["attempt"])
        if meeting is None:
            return
        first, *others = meeting.attempt.remotes
        if message["error"]:
            self._fail(meeting, f"{remote.host} could not get ready: {message['error']}")
        elif not message["interfaces"]:
            self._fail(meeting, _unreachable(remote, first, meeting.port))
        elif message["begins_with"] != meeting.begins_with:
            self._fail(
                meeting,
                f"{remote.host} has the checkpoints {message['begins_with']}, and {first.host} has "
                f"{meeting.begins_with}: the ranks would not go on from the same",
            )
        else:
            meeting.reached[remote.remote_id] = message["interfaces"]
            if len(meeting.reached) == len(others):
                self._choose(meeting)

    def _choose(self, meeting: Meeting) -> None:
        """Take the first address of the node of rank 0 that all other nodes reach."""
        first = meeting.attempt.remotes[0]
        for address in first.facts.addresses:
            if all(address in reached for reached in meeting.reached.values()):
                self._met(meeting, address)
                return
        reached = {
            remote.host: sorted(meeting.reached[remote.remote_id])
            for remote in meeting.attempt.remotes[1:]
        }
        self._fail(
            meeting,
            f"the nodes reach {first.host} at different addresses only: {reached}; name one that "
            f"all of them reach, as Node({first.host!r}, address=...)",
        )

    def _met(self, meeting: Meeting, address: str) -> None:
        attempt = meeting.attempt
        del self._arranged[attempt.trial.id]
        meeting.address, attempt.port = address, meeting.port
        meeting.interfaces[attempt.remotes[0].remote_id] = meeting.own_interfaces.get(address, "")
        for remote_id, reached in meeting.reached.items():
            meeting.interfaces[remote_id] = reached[address]
        self._on_met(attempt, meeting)

    def _fail(self, meeting: Meeting, reason: str) -> None:
        del self._arranged[meeting.attempt.trial.id]
        self._on_failed(meeting.attempt, reason)


def ranks_of(meeting: Meeting, place: Place) -> dict[str, str]:
    """What a rank needs to know of the others, by the names that torchrun has given it."""
    attempt = meeting.attempt
    here = [one for one in attempt.places if one.remote is place.remote]
    ranks = {
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": str(meeting.port),
        "RANK": str(place.rank),
        "LOCAL_RANK": str(here.index(place)),
        "WORLD_SIZE": str(len(attempt.places)),
        "LOCAL_WORLD_SIZE": str(len(here)),
        "GROUP_RANK": str(attempt.remotes.index(place.remote)),
        "GROUP_WORLD_SIZE": str(len(attempt.remotes)),
        "TORCHELASTIC_RUN_ID": f"trial-{attempt.trial.id}",
        "TORCHELASTIC_RESTART_COUNT": str(attempt.number - 1),
    }
    # Else gloo would resolve the host's name, often to an address that leads nowhere.
    interface = meeting.interfaces.get(place.remote.remote_id, "")
    if interface:
        ranks |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface)
    return ranks


def _unreachable(remote: Remote, first: Remote, port: int) -> str:
    addresses = ", ".join(first.facts.addresses) or "no address"
    return (
        f"{remote.host} does not reach {first.host}, where rank 0 of the trial runs, within "
        f"{REACH_S:g} s: tried port {port} at {addresses}. Open TCP between {remote.host} and "
        f"{first.host} (all ports: ranks choose theirs), or name the address at which others reach "
        f"it, as Node({first.host!r}, address=...)"
    )
