"""What becomes of a trial whose attempt is over: it has ended, is paused, or runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from . import modules
from .attempt import Attempt, Returned, Verdict
from .counsel import Counsel
from .failures import on_host
from .ledger import Ledger
from .outcome import Outcome
from .queue import Queue
from .search import Search
from .settings import Settings
from .words import THE_RULE, Decision, Pause, Status, Trial

INTERRUPTED, CLOSED = "interrupted", "closed"
UNFINISHED = (INTERRUPTED, CLOSED)  # after such an end a search may go on with its trials
NOTHING_LEFT = "what it started from had no epoch left"
NO_FACTS: Mapping[str, Any] = {}


class Ends:
    """Logs how attempts and trials end, and tells all who want to know.

        ends.attempt_over(attempt, attempt.outcome)
        ends.end_trial(trial, "time_out=60 s is over", Status.STOPPED)
        returned = await ends.wait_for(trial)

    `retries`: how many more attempts a trial has after each kind of end. `judge_node(attempt,
    verdict)` hears how attempts have ended while the search goes on.
    """

    def __init__(
        self,
        search: Search,
        ledger: Ledger,
        queue: Queue,
        counsel: Counsel,
        *,
        retries: Mapping[Status, int],
        judge_node: Callable[[Attempt, Verdict], None],
    ) -> None:
        self._search = search
        self._ledger = ledger
        self._queue = queue
        self._counsel = counsel
        self._retries = retries
        self._judge_node = judge_node
        # Those who wait for the end of a trial, by the trial's id.
        self._waiting: dict[int, list[asyncio.Future[Returned | None]]] = {}

    def attempt_over(self, attempt: Attempt, outcome: Outcome) -> None:
        """Log what becomes of a trial whose attempt is over, or will be, on a lost node."""
        trial, facts = attempt.trial, outcome.facts
        if attempt.may_go_on_s:
            facts = {**facts, "is_over": False}
        verdict = Verdict(outcome.status, outcome.reason)
        was_cut_off = outcome.costs_nothing or outcome.status is Status.NODE_LOST
        if attempt.verdict is not None and was_cut_off:
            verdict = attempt.verdict
        self._queue.ends(trial, attempt.may_go_on_s)
        if outcome.costs_nothing and attempt.verdict is None:
            why = {"status": Status.STOPPED.value, "reason": outcome.reason}
            self._goes_back(trial, {**facts, **why})
        else:
            if not self._search.ending:
                self._judge_node(attempt, verdict)
            self.carry_out(trial, verdict, facts, attempt.returned)

    def _goes_back(self, trial: Trial, why: Mapping[str, Any]) -> None:
        """A trial that had slots did not begin: it waits for others, unless the search ends."""
        self._search.log("lost", trial, why)
        if not self._search.ending:
            self._queue.put(trial)
        elif self._search.ending not in UNFINISHED:
            self.end_trial(trial, self._search.ending, Status.STOPPED)

    def carry_out(
        self,
        trial: Trial,
        verdict: Verdict,
        facts: Mapping[str, Any],
        returned: Returned | None = None,
    ) -> None:
        """Log what becomes of a trial whose attempt has ended as `verdict` says.

        What the rule has decided holds, in whatever way the attempt ended before it heard of that.
        """
        status, reason = verdict
        decided = self._ledger.decided.get(trial.id)
        if decided is not None and status is not Status.FINISHED:
            status, reason = verdict_of(decided)
        if status is Status.PAUSED and decided is None:
            self._paused_by_request(trial, reason, facts)
        elif status is Status.PAUSED:
            measured = {key: value for key, value in facts.items() if key != "status"}
            self._search.log("paused", trial, {**measured, "reason": reason, **_result_of(trial)})
            self._counsel.ask("on_pause", trial, otherwise=None)
            self._search.queue_children(of=trial)
        elif status is Status.STOPPED and decided is None and reason in UNFINISHED:
            self.interrupted(trial, reason, facts)
            if not self._search.ending and not trial.is_final:  # the next run() has begun
                self._queue.put(trial)
        elif self._may_run_again(trial, status):
            self._run_again(trial, status, reason, facts)
        else:
            if status.is_failure and trial.failures[status]:
                count = trial.failures[status] + 1
                reason = f"{reason} (the last of {count} attempts that ended so)"
            self.end_trial(trial, reason, status, facts, returned)

    def _paused_by_request(self, trial: Trial, reason: str, facts: Mapping[str, Any]) -> None:
        """A trial has paused, by request: it waits in the queue, unless it is held itself.

        The rule, which has not decided this, does not hear of it: for the rule the trial goes on,
        and so the rule will not resume it.
        """
        ending = self._search.ending
        if ending and ending not in UNFINISHED:  # the search has ended meanwhile
            self.end_trial(trial, ending, Status.STOPPED, facts)
            return
        body = {**facts, "status": Status.PAUSED.value, "reason": reason}
        self._search.log("lost", trial, body)
        if ending:
            self.answer(trial)
        else:
            self._queue.put(trial)

    def interrupted(self, trial: Trial, reason: str, facts: Mapping[str, Any]) -> None:
        """Log that an attempt was ended with its search, which may go on with the trial."""
        body = {**facts, "status": Status.STOPPED.value, "reason": reason}
        self._search.log("lost", trial, body)
        self.answer(trial)

    def _may_run_again(self, trial: Trial, status: Status) -> bool:
        is_over = bool(self._search.ending) or not status.is_failure
        return not is_over and trial.failures[status] < self._retries.get(status, 0)

    def _run_again(
        self, trial: Trial, status: Status, reason: str, facts: Mapping[str, Any]
    ) -> None:
        self._search.log("lost", trial, {**facts, "status": status.value, "reason": reason})
        if status is not Status.NODE_LOST:  # (a line has told of the node and its trials)
            again = f"{trial.failures[status]} of {self._retries[status]}"
            who = f"trial {trial.id}{on_host(trial)}"
            self._search.say(f"{who} {status.value}: {reason}; it runs again ({again})")
        self._queue.put(trial)

    def end_trial(
        self,
        trial: Trial,
        reason: str,
        status: Status,
        facts: Mapping[str, Any] = NO_FACTS,
        returned: Returned | None = None,
    ) -> None:
        """Log that a trial has ended."""
        body = {**facts, "status": status.value, "reason": reason, **_result_of(trial)}
        self._queue.remove(trial)
        self._search.log("ended", trial, body)
        if not trial.is_final:  # (the caller of `run_with_config` is told)
            self._counsel.ask("on_end", trial, otherwise=None)
            if status.is_failure:
                self._tell_of_failure()
        self.answer(trial, returned)
        self._search.queue_children(of=trial)

    def _tell_of_failure(self) -> None:
        failures = self._ledger.failures
        if failures.news:
            self._search.say(failures.news)
        found = failures.all_alike(self._search.unended)
        if found and self._search.fails_everywhere:
            self._search.end(*found)

    # Those who wait for the end of a trial

    async def wait_for(self, trial: Trial) -> Returned | None:
        """Return what the train function returned, once the trial has ended."""
        if trial.status.is_end:
            return None
        future: asyncio.Future[Returned | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(trial.id, []).append(future)
        return await future

    def answer(self, trial: Trial, returned: Returned | None = None) -> None:
        """Tell those who wait for the end of a trial: it has ended, or will not run now."""
        for future in self._waiting.pop(trial.id, ()):
            if not future.done():
                future.set_result(returned)


def _result_of(trial: Trial) -> dict[str, Any]:
    """What the log says of a trial's result when its attempt is over."""
    if trial.point is None:
        return {"best": trial.best_reward}
    values = list(trial.point.values)
    best = values if len(values) > 1 else values[0]
    return {"best": best, "violations": list(trial.point.violations)}


def verdict_of(decision: Decision) -> Verdict:
    """How a trial ends, of which the rule or a person has decided so."""
    status = Status.PAUSED if isinstance(decision, Pause) else Status.STOPPED
    reason, by = getattr(decision, "reason", ""), f"by {getattr(decision, 'by', THE_RULE)}"
    return Verdict(status, f"{by}: {reason}" if reason else by)


def judged(outcome: Outcome, trial: Trial, settings: Settings) -> Outcome:
    """The outcome of an attempt, in the light of its trial's reports: without any it is no result.

    Where a module of the user's own was missing, the reason says what puts it there.
    """
    if outcome.status.is_failure:
        return outcome._replace(reason=modules.with_remedy(settings.packed, outcome.reason))
    if outcome.status is not Status.FINISHED or trial.has_result:
        return outcome
    if trial.parents and not trial.reports:
        return outcome._replace(status=Status.STOPPED, reason=NOTHING_LEFT)
    reason = settings.objectives.missing_in(trial.reports, trial.last_metrics)
    return outcome._replace(status=Status.NO_METRIC, reason=reason)
