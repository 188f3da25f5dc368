"""What the parts of a search may ask of it: the experiment, as all of them see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..resource.leases import Lease
from ..resource.remote import Remote
from .attempt import Attempt
from .outcome import Outcome
from .words import Launch, Status, Trial


class Search(Protocol):
    """A search that runs; used in the loop's thread.

    `ending` says why nothing more is launched ('' while the search goes on), `in_run` whether a
    run() goes on, and not only single trials of the user. `say(line)` tells the user something.
    """

    ending: str
    in_run: bool
    say: Callable[[str], None]

    def log(
        self,
        kind: str,
        trial: Trial | None = None,
        body: Mapping[str, Any] | str | None = None,
        *,
        attempt: int | None = None,
        sequence: int | None = None,
    ) -> None:
        """Make an event, of a trial or of none."""

    # Starting

    def fill(self) -> None:
        """Launch what fits."""

    def wake(self) -> None:
        """Ask the rule again, which had nothing to launch."""

    def launch_no_more(self) -> None:
        """Take back the request for slots."""

    def new_trial(self, launch: Launch) -> Trial:
        """Make the trial that the rule has launched."""

    def start(self, trial: Trial, lease: Lease) -> None:
        """Have a trial start that has its slots."""

    def did_not_start(self, attempt: Attempt, outcome: Outcome) -> None:
        """Go on without an attempt that was stopped before it began, or whose ranks cannot meet."""

    def orphaned(self, attempt: Attempt, lost: Sequence[Trial]) -> None:
        """Go on without the attempt of a child, as the weights of these parents are lost."""

    def begin_given_only(self) -> None:
        """Let single trials run though the search has ended, which itself does not go on."""

    def start_given(self, trial: Trial) -> None:
        """Have a trial start that was given or let go, though the search may have come to rest."""

    def run_given_only(self) -> None:
        """Start the trials in the queue, and ask the rule for nothing."""

    def queue_children(self, of: Trial | None = None, stuck: bool = False) -> None:
        """Queue the children (of one trial, or all) that can start.

        `stuck`: nothing else is left to run, so that a paused parent will not go on.
        """

    def serve_children(self, trial: Trial) -> None:
        """Start the children that have waited for what a trial has just saved."""

    # Ending

    def stop(
        self, attempt: Attempt, status: Status, reason: str, after_save_s: float = 0.0
    ) -> bool:
        """End an attempt; False if it is just being ended."""

    def rank_over(self, attempt: Attempt) -> None:
        """Go on after the end of a process of an attempt."""

    def node_failed(self, remote: Remote, reason: str) -> None:
        """Go on without a node whose agent can start nothing any more."""

    def end(
        self, reason: str, error: BaseException | None = None, *, after_save_s: float = 0.0
    ) -> None:
        """Launch nothing more and stop what runs."""

    # How the search stands

    @property
    def has_begun(self) -> bool:
        """Whether anything was to run in this driver."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing is to be launched."""

    @property
    def why_it_ends(self) -> str:
        """Why nothing more is launched, in words; '' while the search goes on."""

    @property
    def fails_everywhere(self) -> bool:
        """Whether trials fail on more than one node, or there never was another."""

    @property
    def unended(self) -> int:
        """How many trials may still do well: they run, wait, or are paused and may go on."""
