"""One attempt of a trial: the places that it holds, and how far it has come.

    preparing --begin--> sent --stop--> ending --close--> over

An attempt is over from any of these: its process was reaped, or its node was lost. One that is to
stop while it is prepared is never sent. What is said here to the agents of its nodes is on its way
at once; the experiment sees to it that whatever it follows from is on the disk by then.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..resource.manager import Lease
from ..resource.remote import Message, Remote
from ..resource.slots import Allocation
from .words import Decision, Status, Trial


class Stage(enum.Enum):
    """How far an attempt has come."""

    PREPARING = "preparing"  # what it goes on from is brought to its nodes
    SENT = "sent"  # its nodes were told to start it
    ENDING = "ending"  # it was told to stop
    OVER = "over"  # its slots are free


NEXT: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.PREPARING: (Stage.SENT, Stage.ENDING, Stage.OVER),
    Stage.SENT: (Stage.ENDING, Stage.OVER),
    Stage.ENDING: (Stage.OVER,),
    Stage.OVER: (),
}


class Place(NamedTuple):
    """Where one process of an attempt runs: its rank, its node, and its slots there."""

    rank: int
    remote: Remote
    allocation: Allocation

    @property
    def described(self) -> dict[str, Any]:
        """What the log says of it."""
        return {
            "rank": self.rank,
            "node": self.remote.host,
            "gpus": list(self.allocation.gpus),
            "outlives_driver": not self.remote.is_local,
        }


class Verdict(NamedTuple):
    """How an attempt is to end, or has ended: the status, and why in words."""

    status: Status
    reason: str


class Returned(NamedTuple):
    """What a train function has returned; `kept`: how the rest of it lies on a node, if it does."""

    value: Any
    kept: Mapping[str, Any] | None
    remote: Remote


class Attempt:
    """A try of a trial, on the places that it holds; one process is a gang of one.

        attempt = Attempt(trial, lease)
        attempt.begin(start_of(settings, attempt, due="every", storage=None))
        attempt.answer(Continue())
        attempt.stop(Verdict(Status.STOPPED, "by the rule")); attempt.send_stop()
        attempt.close()

    `verdict`: how it is to end, once that was decided. `returned`: what the train function
    returned.
    """

    def __init__(self, trial: Trial, lease: Lease) -> None:
        self.trial = trial
        self.number = trial.attempt + 1
        self.lease = lease
        self.places = (Place(0, lease.remote, lease.allocation),)
        self.remotes = (lease.remote,)  # on which it has places, each once
        self.stage = Stage.PREPARING
        self.verdict: Verdict | None = None
        self.returned: Returned | None = None
        self._sequence = 0  # of the last report that was taken
        self._is_sent = False
        self._after_save_s = 0.0

    @property
    def address(self) -> Message:
        """What names this attempt in the messages to and from agents."""
        return {"trial": self.trial.id, "attempt": self.number}

    @property
    def is_over(self) -> bool:
        """Whether its slots are free, or its node is gone."""
        return self.stage is Stage.OVER

    def takes(self, sequence: int) -> bool:
        """Whether the report of this number is new; it is taken then."""
        if sequence <= self._sequence:
            return False
        self._sequence = sequence
        return True

    def begin(self, start: Message) -> None:
        """Tell the node to start it; see `orders.start_of`."""
        self._move(Stage.SENT)
        self._is_sent = True
        self._tell(start)

    def answer(self, decision: Decision) -> None:
        """Tell the trial, which waits for that, what the rule has decided."""
        self._tell({"op": "decide", "decision": decision.word})

    def stop(self, verdict: Verdict, after_save_s: float = 0.0) -> bool:
        """Decide how it is to end; False when that was decided, or it is over. See `send_stop`."""
        if self.stage in (Stage.ENDING, Stage.OVER):
            return False
        self._move(Stage.ENDING)
        self.verdict, self._after_save_s = verdict, after_save_s
        return True

    def send_stop(self) -> None:
        """Tell the node to end it: TERM, and KILL if it does not listen.

        One that saves checkpoints may have been given the time until its next one.
        """
        if self._is_sent and self.verdict is not None and not self.is_over:
            status, reason = self.verdict
            how = {"status": status.value, "reason": reason, "after_save_s": self._after_save_s}
            self._tell({"op": "stop", **how})

    def close(self) -> None:
        """Take note that it is over."""
        self._move(Stage.OVER)

    def _tell(self, message: Message) -> None:
        for remote in self.remotes:
            remote.send({**message, **self.address})

    def _move(self, stage: Stage) -> None:
        assert stage in NEXT[self.stage], f"{self!r} cannot be {stage.value}"
        self.stage = stage

    def __repr__(self) -> str:
        where = ", ".join(place.remote.host for place in self.places)
        return f"Attempt {self.number} of trial {self.trial.id} on {where}, {self.stage.value}"
