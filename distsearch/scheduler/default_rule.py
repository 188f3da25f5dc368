"""The default rule: what a scheduler answers where it, or a rule of yours, overrides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.ledger import Ledger
from ..core.words import Continue, Decision, Launch, Report, Trial, Wait
from ..errors import StoreError
from ..searcher.desk import Desk
from .callback import Callback


class DefaultRule:
    """Runs what the searcher suggests, each trial to its end; the experiment asks these methods.

    See `core/rule.py` for all that is asked of a rule.
    """

    desk: Desk
    ledger: Ledger
    folder: Path
    _callback: Callback

    def next_launch(self) -> Launch | Wait | None:
        """The next new trial; Wait(): there is none now, None: there will be no more."""
        return self.desk.next(len(self.ledger.trials))

    def next_launch_on(self, node: str) -> Launch | Wait | None:
        """The next new trial, for a free slot of the node with this host.

        By default whatever `next_launch` gives. Override it where it matters on which node a trial
        runs.
        """
        return self.next_launch()

    def next_resume(self) -> int | None:
        """The id of a paused trial that is to go on now; asked before `next_launch`."""
        return None

    def due_at(self, trial: Trial) -> str | Sequence[float] | None:
        """At which reports a trial waits for the decision: 'every', at these times, or none.

        By default at every report if `on_report` is overridden, else at none.
        """
        return None if type(self).on_report is DefaultRule.on_report else "every"

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """What a report means for its trial: Continue(), Stop() or Pause()."""
        return Continue()

    def on_end(self, trial: Trial) -> None:
        """Hear that a trial has ended; an override calls `super().on_end(trial)`."""
        self.desk.tell(trial)
        self._callback.call_if_due()

    @property
    def paused_may_go_on(self) -> bool:
        """Whether a paused trial may still be resumed, depending on how other trials fare."""
        return True

    def may_need(self, trial: Trial) -> bool:
        """Whether a trial that has ended may become a parent: its checkpoint is then kept.

        Asked when checkpoints take more than `max_bytes`. The checkpoints of trials that have not
        ended, of parents whose children have not saved yet, and of the best are kept anyway.
        """
        return self.desk.may_need(trial.id)

    @property
    def keeps_only_needed(self) -> bool:
        """Whether checkpoints are deleted as soon as nobody needs them, however few there are.

        `may_need` says which are needed.
        """
        return False

    def read_on(self, trial: Trial) -> Iterable[str]:
        """The nodes (hosts) on which children of a trial will read what it has just saved.

        The checkpoint is sent there at once, so that children need not wait for it.
        """
        return ()

    @property
    def planned(self) -> int | None:
        """How many trials there will be in all, if that is known: for the progress display."""
        return None

    def on_pause(self, trial: Trial) -> None:
        """Hear that a trial has paused; an override calls `super().on_pause(trial)`."""
        if trial.has_result:
            self.desk.tell(trial)

    def on_let_go(self, trial: Trial) -> None:
        """Hear that a trial that the rule has paused goes on by request.

        It goes on as if `next_resume` had named it, which need not name it again.
        """

    def replay_known(self, points: Iterable[Sequence[Any]]) -> None:
        """When a search is resumed: let the searcher hear what was known before the search."""
        self.desk.tell_known(points)

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """When a search is resumed: let the searcher suggest again what it had suggested.

        `told` is `Launch.told`.
        """
        if not given and not self.desk.replay(trial_id, config, told):
            raise StoreError(
                f"{self.folder} cannot be resumed: the searcher no longer suggests what it did for "
                f"trial {trial_id}; were its options or points_to_evaluate changed?"
            )

    def replay_resume(self, trial_id: int) -> None:
        """When a search is resumed: hear that `next_resume` had let this trial go on."""
        self.next_resume()
