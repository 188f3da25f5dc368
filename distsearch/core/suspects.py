"""Nodes that are to blame: trials fail there that do not fail elsewhere.

On a node with a full disk, a missing package or a broken GPU each trial fails in a moment, so that
this node would take most trials of a search, and all attempts of some. Such a node is set aside
after a few failures, and tried again later; a trial that failed there runs again on another node.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from typing import NamedTuple

from ..resource.remote import Remote
from .words import Status, Trial

FEW = 3  # so many failures in a row set a node aside
AGAIN_AFTER_S = 60.0  # then the node is tried again; twice as late after each further failure
MOST_S = 1800.0  # but never later than this
MANY = 10  # after so many good trials in a row the failures of a node no longer count


class Kind(NamedTuple):
    """Failures that are alike: the status, and the type of the error."""

    status: Status
    name: str


class Suspects:
    """What is known of each node of a search.

        suspects.failed(trial, remote, Status.FAILED, "ImportError: x", others=[...])
        suspects.did_well(remote)
        suspects.avoided(trial, usable)      # ids of nodes on which the trial is not to start

    `wake()` is called when a node may be tried again.
    """

    def __init__(self, say: Callable[[str], None], wake: Callable[[], None]) -> None:
        self._say = say
        self._wake = wake
        # The newest failures on each node, with no good trial between them.
        self._in_a_row: defaultdict[int, list[Kind]] = defaultdict(list)
        self._places: defaultdict[Kind, set[int]] = defaultdict(set)  # the nodes of each kind
        self._failed_on: defaultdict[int, set[int]] = defaultdict(set)  # nodes, by trial
        self._aside: dict[int, asyncio.TimerHandle] = {}
        self._delay_s: dict[int, float] = {}  # for how long, by node
        self._used: set[int] = set()  # nodes on which trials have ended
        self._well: Counter[int] = Counter()  # good trials in a row, by node

    def __bool__(self) -> bool:
        """Whether any trial has failed: else no node is avoided."""
        return bool(self._failed_on)

    @property
    def are_everywhere(self) -> bool:
        """Whether trials fail on more than one node, or there never was another."""
        return len(self._used) < 2 or len(set().union(*self._places.values())) > 1

    def did_well(self, remote: Remote) -> None:
        """Take note that a trial did not fail on a node."""
        number = remote.remote_id
        self._used.add(number)
        self._in_a_row.pop(number, None)
        self._delay_s.pop(number, None)
        self._well[number] += 1
        if self._well[number] == MANY:
            self._clear(number)

    def failed(
        self, trial: Trial, remote: Remote, status: Status, reason: str, others: Collection[Remote]
    ) -> None:
        """Take note of a failure; `others`: the other nodes on which trials may run."""
        number, kind = remote.remote_id, Kind(status, reason.partition(":")[0])
        self._used.add(number)
        self._failed_on[trial.id].add(number)
        self._in_a_row[number].append(kind)
        self._well[number] = 0
        self._places[kind].add(number)
        elsewhere = self._places[kind] - {number}
        if elsewhere:  # the trials are to blame, not the node
            for other in elsewhere & self._aside.keys():
                self._try_again(other)
            return
        last = self._in_a_row[number][-FEW:]
        innocent = [one for one in others if one.remote_id not in self._aside]
        if len(last) == FEW and len(set(last)) == 1 and innocent and number not in self._aside:
            self._set_aside(remote, f"{status.value}: {reason}", innocent)

    def _set_aside(self, remote: Remote, how: str, others: Collection[Remote]) -> None:
        number = remote.remote_id
        delay_s = self._delay_s.get(number, AGAIN_AFTER_S / 2)
        delay_s = self._delay_s[number] = min(2 * delay_s, MOST_S)
        loop = asyncio.get_running_loop()
        self._aside[number] = loop.call_later(delay_s, self._try_again, number)
        hosts = ", ".join(sorted({one.host for one in others}))
        self._say(
            f"node {remote.host} is set aside for {delay_s:g} s: the last {FEW} trials there "
            f"failed alike ({how}), as none did on {hosts}"
        )

    def _try_again(self, number: int) -> None:
        self._aside.pop(number).cancel()
        # One more failure sets it aside again.
        self._in_a_row[number] = self._in_a_row[number][1 - FEW :]
        # (Later, as the end of the trial that has shown it is not in the log yet.)
        asyncio.get_running_loop().call_soon(self._wake)

    def avoided(self, trial: Trial | None, usable: Collection[int]) -> set[int]:
        """The nodes on which a trial (None: a new one) is not to start; never all that are usable.

        `usable`: the ids of the nodes that have what a trial needs.
        """
        shunned = set() if trial is None else self._failed_on.get(trial.id, set())
        for avoided in (self._aside.keys() | shunned, {*self._aside}):
            if not avoided >= set(usable):
                return avoided
        return set()

    def _clear(self, number: int) -> None:
        """Let what failed on a node count no longer where other nodes' failures are judged."""
        for places in self._places.values():
            places.discard(number)

    def forget(self, remote: Remote) -> None:
        """Take note that a node is gone; if it comes back, it has another id."""
        number = remote.remote_id
        if timer := self._aside.pop(number, None):
            timer.cancel()
        self._clear(number)
        self._used.discard(number)
        for known in (self._in_a_row, self._delay_s, self._well):
            known.pop(number, None)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._aside.values():
            timer.cancel()
        self._aside.clear()
