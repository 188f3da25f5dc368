"""One attempt of a trial: the places that it holds, and how far it has come.

    preparing --begin--> sent --stop--> ending --close--> over

An attempt is over, from any of these stages, when its processes were reaped or their nodes were
lost. An attempt that is to stop while it is prepared is never sent. A message to the agents of its
nodes leaves at once; the experiment sees to it that the events from which the message follows are
on the disk by then.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..resource.leases import Lease
from ..resource.messages import Message
from ..resource.remote import Remote
from ..resource.slots import Allocation
from .outcome import End, Outcome, end_of, outcome_of
from .words import Decision, Status, Trial

FOLLOW_S = 1.0  # what the other ranks have, after one has ended, to end by themselves
KILL_GRACE_S = 10.0  # what they have after TERM, if no rank has failed


class Stage(enum.Enum):
    """How far an attempt has come."""

    PREPARING = "preparing"  # what it goes on from is brought to its nodes, its ranks meet
    SENT = "sent"  # the nodes were told to start the attempt
    ENDING = "ending"  # the attempt was told to stop
    OVER = "over"  # the slots of the attempt are free


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
        """What the log says of the place."""
        return {
            "rank": self.rank,
            "node": self.remote.host,
            "gpus": list(self.allocation.gpus),
            "outlives_driver": not self.remote.is_local,
        }


class Verdict(NamedTuple):
    """How an attempt is to end, or has ended: the status, and the reason in words."""

    status: Status
    reason: str


class Returned(NamedTuple):
    """What a train function returned: `value` is JSON, `kept` tells which files have the rest."""

    value: Any
    kept: Mapping[str, Any] | None
    remote: Remote


class Attempt:
    """A try of a trial, on the places that it holds; one process is a gang of one.

        attempt = Attempt(trial, lease)
        attempt.begin(starts_of(settings, attempt, due="every", storage=None))
        attempt.answer(Continue())
        attempt.stop(Verdict(Status.STOPPED, "by the rule")); attempt.send_stop()
        attempt.rank_ended(message)
        attempt.outcome                      # once all its processes have ended
        attempt.close()

    `places` are in the order of their ranks. `remotes` are their nodes, each once. `port` is where
    the ranks meet, 0 for a single rank. `verdict` says how the attempt is to end, once that is
    decided.
    """

    def __init__(self, trial: Trial, lease: Lease) -> None:
        self.trial = trial
        self.number = trial.attempt + 1
        self.seed = int.from_bytes(os.urandom(4), "little")  # of the generators of its processes
        self.lease = lease
        self.places = tuple(Place(rank, *held) for rank, held in enumerate(lease.held))
        by_id = {place.remote.remote_id: place.remote for place in self.places}
        self.remotes: Sequence[Remote] = tuple(by_id.values())
        self.stage = Stage.PREPARING
        self.verdict: Verdict | None = None
        self.port = 0
        self._ends: dict[int, End] = {}  # of its processes, by rank, as they were heard of
        self._may_go_on_until = 0.0  # when a lost node has surely ended it
        self.returned: Returned | None = None
        self._sequence = 0  # the number of the last report that was taken
        self._checkpoints: set[str] = set()  # the names of those that were taken
        self._is_sent = False
        self._after_save_s = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the attempt is over: its slots are free, or its nodes are gone."""
        return self.stage is Stage.OVER

    def takes(self, sequence: int) -> bool:
        """Take the report of this number; False if it was taken before."""
        if sequence <= self._sequence:
            return False
        self._sequence = sequence
        return True

    def takes_checkpoint(self, name: str) -> bool:
        """Take a checkpoint; False if it was taken before: it may not be the newest any more."""
        if name in self._checkpoints:
            return False
        self._checkpoints.add(name)
        return True

    def begin(self, starts: Sequence[Message]) -> None:
        """Tell the nodes to start the attempt, with a message for each rank: `orders.starts_of`."""
        self._move(Stage.SENT)
        self._is_sent = True
        for place, start in zip(self.places, starts, strict=True):
            about = {"trial": self.trial.id, "attempt": self.number, "rank": place.rank}
            place.remote.send({**start, **about})

    def answer(self, decision: Decision) -> None:
        """Tell the trial, which waits for an answer, what the rule has decided."""
        self._tell({"op": "decide", "decision": decision.word})

    def stop(self, verdict: Verdict, after_save_s: float = 0.0) -> bool:
        """Decide how the attempt is to end; False where that is decided already, or it is over.

        An attempt that is to pause after its next checkpoint may still be stopped at once. Nothing
        is sent before `send_stop()`.
        """
        if self._pauses_later and verdict.status is Status.STOPPED and not after_save_s:
            self.verdict, self._after_save_s = verdict, 0.0
            return True
        if self.stage in (Stage.ENDING, Stage.OVER):
            return False
        self._move(Stage.ENDING)
        self.verdict, self._after_save_s = verdict, after_save_s
        return True

    @property
    def _pauses_later(self) -> bool:
        is_to_pause = self.verdict is not None and self.verdict.status is Status.PAUSED
        return self.stage is Stage.ENDING and is_to_pause and self._after_save_s > 0

    def send_stop(self) -> None:
        """Tell the nodes to end the attempt, by TERM, and by KILL if it does not listen.

        A trial that saves checkpoints may have got the time until its next one.
        """
        if self._is_sent and self.verdict is not None and not self.is_over:
            status, reason = self.verdict
            how = {"status": status.value, "reason": reason, "after_save_s": self._after_save_s}
            self._tell({"op": "stop", **how})

    # How it ends

    def rank_ended(self, message: Message) -> None:
        """Take note of what an agent says of the end of a process."""
        self._ends.setdefault(message["rank"], end_of(message))

    def rank_refused(self, message: Message) -> None:
        """Take note that a process has not begun, for want of something on its node."""
        end = End(message["rank"], Status.STOPPED, message["reason"], {}, begun=False)
        self._ends.setdefault(end.rank, end)

    def lose(self, remote: Remote, reason: str, delay_s: float) -> None:
        """Take note that a node is lost, which may go on with the attempt for `delay_s` seconds."""
        for place in self.places:
            if place.remote is remote or not self._is_sent:
                self._ends.setdefault(place.rank, End(place.rank, Status.NODE_LOST, reason, {}))
        if delay_s:
            self._may_go_on_until = time.monotonic() + delay_s

    @property
    def has_ended(self) -> bool:
        """Whether no process of the attempt runs any more, unless on a lost node."""
        return len(self._ends) == len(self.places)

    @property
    def outcome(self) -> Outcome:
        """What the ends of its processes amount to."""
        decided = None if self.verdict is None else self.verdict.status
        return outcome_of(list(self._ends.values()), decided, self.port)

    @property
    def may_go_on_s(self) -> float:
        """For how many seconds more a lost node may go on with the attempt."""
        return max(0.0, self._may_go_on_until - time.monotonic()) if self._may_go_on_until else 0.0

    def end_the_rest(self, patience_s: float | None) -> None:
        """Have the ranks that are left end too, as one rank is over.

        After rank 0 has returned, the others may go on for `patience_s` seconds (None: without a
        bound), as no decision is waited for any more.
        """
        *_, last = self._ends.values()
        if last.status is Status.FINISHED and last.rank != 0:
            return
        is_futile = last.status.is_failure or not last.begun
        about: Message = {
            "status": Status.STOPPED.value,
            "reason": f"rank {last.rank} {last.status.value}: {last.reason}",
            "term_s": 0.0 if is_futile else FOLLOW_S,
            "kill_s": FOLLOW_S if is_futile else KILL_GRACE_S,
        }
        if last.status is Status.FINISHED:
            about |= {
                "status": Status.HUNG.value,
                "reason": f"went on for report_timeout={patience_s or 0:g} s after rank 0",
                "term_s": patience_s,
            }
        self._tell({"op": "follow", **about})

    def close(self) -> None:
        """Take note that the attempt is over."""
        self._move(Stage.OVER)

    def _tell(self, message: Message) -> None:
        for remote in self.remotes:
            ranks = [place.rank for place in self.places if place.remote is remote]
            about = {"trial": self.trial.id, "attempt": self.number, "ranks": ranks}
            remote.send({**message, **about})

    def _move(self, stage: Stage) -> None:
        assert stage in NEXT[self.stage], f"{self!r} cannot be {stage.value}"
        self.stage = stage

    def __repr__(self) -> str:
        where = ", ".join(place.remote.host for place in self.places)
        return f"Attempt {self.number} of trial {self.trial.id} on {where}, {self.stage.value}"
