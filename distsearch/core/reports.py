"""Reports of trials: each is logged, the rule decides, and once that is on disk the trial hears."""

from __future__ import annotations

from functools import partial

from ..resource.messages import Message
from ..resource.remote import Remote
from .attempts import Attempts
from .counsel import Counsel
from .doubts import Doubts
from .ends import UNFINISHED, verdict_of
from .ledger import Ledger
from .search import Search
from .settings import Settings
from .store import Store
from .words import Continue, Decision, Report, Status, Stop, Trial


class Reports:
    """Takes the reports of all trials; used in the loop's thread.

    reports.hear(remote, message)
    reports.acknowledge(remote)              # once for all messages that a node sent together
    reports.end_if_good_enough()
    """

    def __init__(
        self,
        search: Search,
        settings: Settings,
        store: Store,
        counsel: Counsel,
        ledger: Ledger,
        attempts: Attempts,
    ) -> None:
        self._search = search
        self._settings = settings
        self._store = store
        self._counsel = counsel
        self._ledger = ledger
        self._attempts = attempts
        self._doubts = Doubts(settings.objectives, settings.time_attr, say=search.say)
        self._unacknowledged: dict[int, int] = {}  # bytes of reports, by the id of the node

    def hear(self, remote: Remote, message: Message) -> None:
        """Log a report, ask the rule what it means, and tell the trial."""
        body, sequence = message["body"], message["seq"]
        waiting = self._unacknowledged
        waiting[remote.remote_id] = waiting.get(remote.remote_id, 0) + len(body)
        attempt = self._attempts.meant_by(message)
        if attempt is None or not attempt.takes(sequence):
            return  # the attempt is over, or the report was sent twice
        trial, saved_step = attempt.trial, attempt.trial.saved_step
        try:
            self._store.append(
                "report", trial.id, trial.attempt, sequence, body, apply=self._ledger.apply
            )
        except (ValueError, RecursionError) as error:  # the report is not logged; the trial ends
            reason = f"it sent a report that cannot be read: {error}"
            self._search.stop(attempt, Status.FAILED, reason)
            return
        assert trial.last_report is not None
        self._doubts.look_for_reward(trial, trial.last_report)
        decision = self._decide(trial, trial.last_report)
        if self._settings.max_reward is not None:
            self.end_if_good_enough()
        if trial.saved_step != saved_step:  # a checkpoint counts, as this report has followed it
            self._search.serve_children(trial)
        if message["due"]:
            self._doubts.look_for_time(trial, trial.last_report)
            if self._search.ending and self._search.ending not in UNFINISHED:
                decision = Stop()
            self._store.when_durable(partial(attempt.answer, decision))
        elif not isinstance(decision, Continue):
            self._search.stop(attempt, *verdict_of(decision))

    def _decide(self, trial: Trial, report: Report) -> Decision:
        """Ask the rule what a report means, and log what it decides.

        The rule is asked also while the search ends, as in a replay it will hear of the report,
        too. It is not asked about final trials.
        """
        if trial.is_final:
            return Continue()
        decision = self._counsel.on_report(trial, report)
        if isinstance(decision, Continue):
            return decision
        if trial.id not in self._ledger.decided:
            body = {"word": decision.word, "reason": decision.reason, "report": report.sequence}
            self._search.log("decided", trial, body, sequence=report.sequence)
        return decision

    def end_if_good_enough(self) -> None:
        """End the search if its best trial has reached what is enough."""
        goal, best = self._settings.max_reward, self._ledger.best
        if goal is None or best is None or self._search.ending or not self._search.in_run:
            return
        if self._ledger.standings.has_reached(goal):
            which = f"{self._settings.objectives.names[0]}={best.best_reward:g}"
            self._search.end(f"trial {best.id} reached {which} (max_reward={goal:g})")

    def acknowledge(self, remote: Remote) -> None:
        """Tell a node, once its reports are on the disk, how many bytes these were."""
        size = self._unacknowledged.pop(remote.remote_id, 0)
        if size:
            self._store.when_durable(partial(remote.send, {"op": "ack", "bytes": size}))
