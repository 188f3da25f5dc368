"""What a search asks of its rule (a scheduler), and how a rule hears of an earlier run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from .ledger import Ledger
from .store import Event
from .words import Decision, Launch, Report, Status, Trial, Wait


class Rule(Protocol):
    """What the experiment asks of a scheduler; see FIFOScheduler.

    A rule does not hear of final trials, those of `run_with_config`.
    """

    def next_launch_on(self, node: str) -> Launch | Wait | None:
        """The next new trial, for a free slot of this node; None: there will be no more trials."""

    def next_resume(self) -> int | None:
        """The id of a paused trial that is to go on, or None when there is none now."""

    def due_at(self, trial: Trial) -> str | Sequence[float] | None:
        """At which reports the trial waits for a decision: 'every', at these times, or none."""

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """What a report means for its trial."""

    def on_end(self, trial: Trial) -> None:
        """Hear that a trial has ended."""

    def on_pause(self, trial: Trial) -> None:
        """Hear that a trial has paused."""

    def on_let_go(self, trial: Trial) -> None:
        """Hear that a paused trial goes on by request, so that the rule need not resume it."""

    @property
    def paused_may_go_on(self) -> bool:
        """Whether a paused trial may still be resumed, depending on how other trials fare."""

    def may_need(self, trial: Trial) -> bool:
        """Whether a trial that has ended may become a parent: its checkpoint is then kept."""

    @property
    def keeps_only_needed(self) -> bool:
        """Whether checkpoints go as soon as nobody needs them, however little all take."""

    def read_on(self, trial: Trial) -> Iterable[str]:
        """The nodes (hosts) to which what a trial has just saved is sent, to be read there."""

    @property
    def planned(self) -> int | None:
        """How many trials there will be in all, if the rule knows."""

    def replay_known(self, points: Iterable[Sequence[Any]]) -> None:
        """Hear, first of all, of results that were known before the search."""

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """Hear of a launch of an earlier run; `given` by the user, not by the searcher."""

    def replay_resume(self, trial_id: int) -> None:
        """Hear that a paused trial went on in an earlier run."""


def replay(event: Event, ledger: Ledger, rule: Rule) -> None:
    """Apply an event of an earlier run, and let the rule hear of it as it did then.

    What the rule answers to a report now does not count: the log has what it decided then.
    """
    before = None if event.trial is None else ledger.trials.get(event.trial)
    was_paused = before is not None and before.status is Status.PAUSED
    if before is not None and was_paused and event.kind == "started":
        rule.replay_resume(before.id)
    trial = ledger.apply(event)
    if event.kind == "warm":
        rule.replay_known(event.body["points"])
    if trial is None or trial.is_final:
        return
    if event.kind == "launched":
        rule.replay_launch(trial.id, trial.config, trial.is_given, event.body.get("told"))
    elif event.kind == "report" and trial.last_report is not None:
        rule.on_report(trial, trial.last_report)
    elif event.kind == "paused":
        rule.on_pause(trial)
    elif event.kind == "let_go" and was_paused:
        rule.on_let_go(trial)
    elif event.kind == "ended":
        rule.on_end(trial)
