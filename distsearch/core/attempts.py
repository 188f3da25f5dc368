"""The attempts that are not over: found by their trial, by their node, by what an agent says."""

from __future__ import annotations

from collections.abc import Iterator

from ..resource.messages import Message
from ..resource.remote import Remote
from .attempt import Attempt
from .words import Trial


class Attempts:
    """All attempts of a search that run, are prepared for that, or are ending.

    attempts.node_came(remote)
    attempts.begins(attempt)
    attempts.of(trial)               # its attempt, or None
    attempts.meant_by(message)       # the attempt that a message is about; None: it is over
    attempts.is_over(attempt)
    """

    def __init__(self) -> None:
        self._by_trial: dict[int, Attempt] = {}
        self._by_node: dict[int, dict[int, Attempt]] = {}  # by the ids of remotes, then of trials

    def __len__(self) -> int:
        return len(self._by_trial)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._by_trial.values()))

    def __contains__(self, trial: object) -> bool:
        return isinstance(trial, Trial) and trial.id in self._by_trial

    def of(self, trial: Trial) -> Attempt | None:
        """The attempt of a trial, if one is not over."""
        return self._by_trial.get(trial.id)

    def meant_by(self, message: Message) -> Attempt | None:
        """The attempt of which an agent speaks, unless it is over."""
        attempt = self._by_trial.get(message["trial"])
        return attempt if attempt and attempt.number == message["attempt"] else None

    def on(self, remote: Remote) -> list[Attempt]:
        """The attempts that hold slots of a node."""
        return list(self._by_node.get(remote.remote_id, {}).values())

    def begins(self, attempt: Attempt) -> None:
        """Take note of an attempt that has its slots."""
        self._by_trial[attempt.trial.id] = attempt
        for remote in attempt.remotes:
            self._by_node[remote.remote_id][attempt.trial.id] = attempt

    def is_over(self, attempt: Attempt) -> None:
        """Take note that an attempt is over, so that it is found no more."""
        del self._by_trial[attempt.trial.id]
        for remote in attempt.remotes:
            self._by_node.get(remote.remote_id, {}).pop(attempt.trial.id, None)

    def node_came(self, remote: Remote) -> None:
        """Take note of a node on which attempts may begin."""
        self._by_node[remote.remote_id] = {}

    def node_went(self, remote: Remote) -> list[Attempt] | None:
        """Take note that a node is gone; its attempts, or None where it was known to be gone."""
        attempts = self._by_node.pop(remote.remote_id, None)
        return None if attempts is None else list(attempts.values())
