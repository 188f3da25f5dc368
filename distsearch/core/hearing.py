"""What the agents of nodes say: each message goes to the part of the search that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..resource.messages import Message
from ..resource.remote import Remote
from .attempt import Returned
from .attempts import Attempts
from .interventions import Interventions
from .keeper import Keeper
from .meeting import Meetings
from .printed import Printed
from .reports import Reports
from .rests import Rests
from .search import Search
from .supplies import Supplies


class Hearing:
    """Takes the messages of all nodes, in the loop's thread.

        hearing = Hearing(experiment, attempts, ...)
        hearing.takes["report"](remote, {"op": "report", "trial": 3, "seq": 1, ...})

    `takes` is the table of all messages, by their `op`. Messages of an attempt that is over are
    ignored.
    """

    def __init__(
        self,
        search: Search,
        attempts: Attempts,
        interventions: Interventions,
        keeper: Keeper,
        meetings: Meetings,
        printed: Printed,
        reports: Reports,
        rests: Rests,
        supplies: Supplies,
    ) -> None:
        self._search = search
        self._attempts = attempts
        self._interventions = interventions
        self._keeper = keeper
        self._rests = rests
        self._supplies = supplies
        self.takes: Mapping[str, Callable[[Remote, Message], None]] = {
            "beat": lambda remote, message: remote.send(message),
            "ended": self._on_ended,
            "lacks": lambda remote, message: supplies.say_lacking(remote, message["modules"]),
            "meets": meetings.on_meets,
            "notice": lambda remote, message: search.say(f"{remote.host}: {message['text']}"),
            "output": printed.hear,
            "problem": lambda remote, message: search.node_failed(remote, message["reason"]),
            "reached": meetings.on_reached,
            "refused": self._on_refused,
            "report": reports.hear,
            "saved": self._on_saved,
            "uploaded": lambda remote, message: remote.on_uploaded(
                message["path"], message["error"]
            ),
        }

    def _on_saved(self, remote: Remote, message: Message) -> None:
        """A trial has saved a checkpoint."""
        attempt = self._attempts.meant_by(message)
        if attempt is not None and attempt.takes_checkpoint(message["name"]):
            about = {key: message[key] for key in ("step", "name", "bytes")}
            self._search.log("saved", attempt.trial, about)
            self._keeper.saved(attempt, about)
            self._search.serve_children(attempt.trial)
            self._interventions.has_saved(attempt)

    def _on_refused(self, remote: Remote, message: Message) -> None:
        """A trial has not begun, for want of something on its node: it costs no attempt."""
        attempt = self._attempts.meant_by(message)
        if attempt is None:
            return
        self._supplies.send_again(remote, message["lacks"])
        self._rests.failed(remote, message["reason"])
        attempt.rank_refused({**message, "reason": f"it did not begin: {message['reason']}"})
        self._search.rank_over(attempt)
        self._search.fill()

    def _on_ended(self, remote: Remote, message: Message) -> None:
        """A process of a trial has ended, in whatever way."""
        attempt = self._attempts.meant_by(message)
        if attempt is None:
            return
        if message.pop("no_space", False):
            self._rests.failed(remote, message["reason"])
        else:
            self._rests.began(remote)
        if message["rank"] == 0:
            attempt.returned = Returned(message.get("returned"), message.get("kept"), remote)
        attempt.rank_ended(message)
        self._search.rank_over(attempt)
        self._search.fill()
