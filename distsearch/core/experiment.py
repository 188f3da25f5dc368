"""The loop of a search: events come in, the rule decides, the log is written, slots are filled.

Everything here runs in the one loop thread. The rule (a scheduler) says what to launch and what a
report means; the manager says where there is room; the ledger says how the search stands, and
changes by what is logged alone; the agents on the nodes do what they are told. An event is on the
disk before anything that follows from it leaves the driver.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import NodeError
from ..resource.manager import DistributedResourceManager, Lease
from ..resource.remote import Message, Remote
from . import earlier, nodes
from .attempt import Attempt, Returned, Verdict
from .attempts import Attempts
from .children import Children
from .counsel import Counsel
from .dispatcher import Dispatcher
from .ends import CLOSED, NO_FACTS, UNFINISHED, Ends, judged
from .interventions import Interventions
from .keeper import Keeper
from .ledger import Ledger
from .lineage import check_parents
from .metrics import encode
from .nodes import Nodes
from .outcome import Outcome
from .preparation import Preparation
from .printed import Printed
from .queue import Queue
from .reports import Reports
from .rests import Rests
from .rule import Rule
from .settings import Settings
from .shortage import Shortage
from .source import Source
from .store import Event, Store
from .supplies import Supplies
from .words import Launch, Status, Trial


class Experiment:
    """Runs the trials of one search until there is nothing left to launch or to wait for."""

    def __init__(
        self,
        rule: Rule,
        settings: Settings,
        manager: DistributedResourceManager,
        store: Store,
        say: Callable[[str], None],
        show: Callable[[str], None] | None = None,
    ) -> None:
        self.rule = rule
        self.settings = settings
        self.manager = manager
        self.store = store
        self.say = say
        self.ending = ""  # why nothing more is launched
        self.in_run = False  # a run() goes on, and not only single trials of the user
        self.printed = Printed(store, settings, say=say, show=show or say)
        self.ledger = Ledger(settings.objectives, settings.time_attr)
        self.counsel = Counsel(rule, self.end)
        self.attempts = Attempts()
        self.queue = Queue(self.wake, is_held=lambda trial: trial.id in self.ledger.held)
        self.ends = Ends(
            self,
            self.ledger,
            self.queue,
            self.counsel,
            retries=settings.retries,
            say=say,
            judge_node=lambda *end: self.dispatcher.ended_on_node(*end),
        )
        self.children = Children(
            self.ledger,
            settings.on_parent_failure,
            settings.parent_retries,
            log=self.log,
            say=say,
            give_up=partial(self.ends.end_trial, status=Status.FAILED),
            start=self.queue.put,
        )
        self.keeper = Keeper(
            self.ledger,
            store,
            manager.remotes,
            storage=settings.storage,
            keep=settings.keep,
            max_bytes=settings.max_bytes,
            log=self.log,
            say=say,
            parents=self.children.needed_parents,
            may_need=lambda trial: self.counsel.ask("may_need", trial, otherwise=True),
            read_on=lambda trial: self.counsel.ask("read_on", trial, otherwise=()),
            only_needed=lambda: rule.keeps_only_needed,
            on_rest=self.check_idle,
        )
        self.preparation = Preparation(
            settings,
            self.keeper,
            due_at=self.counsel.due_at,
            on_failed=self._did_not_start,
            on_orphaned=self._orphaned,
        )
        self.source = Source(
            rule, self.ledger, self.queue, self.children, launch=self._new_trial, wake=self.wake
        )
        self.dispatcher = Dispatcher(
            manager,
            settings.resource,
            self.source,
            self.queue,
            may_start=lambda: not self.ending and not self.ledger.paused_by,
            start=self._start,
            on_error=self.end,
            on_filled=self.check_idle,
            say=say,
        )
        self.interventions = Interventions(
            self,
            rule,
            self.counsel,
            ledger=self.ledger,
            queue=self.queue,
            children=self.children,
            attempts=self.attempts,
            ends=self.ends,
            say=say,
        )
        self.supplies = Supplies(settings, say)
        self.nodes = Nodes(
            manager,
            self.attempts,
            self.supplies,
            log=lambda kind, body: self.log(kind, body=body),
            say=say,
            has_ended=self._rank_over,
            forget=self.dispatcher.suspects.forget,
        )
        self.rests = Rests(manager, say)
        self.reports = Reports(
            self,
            settings,
            store,
            self.counsel,
            ledger=self.ledger,
            attempts=self.attempts,
            say=say,
        )
        self.shortage = Shortage(manager, settings.resource, say=say, is_over=lambda: self.is_idle)
        self._hear: Mapping[str, Callable[[Remote, Message], None]] = {
            "beat": lambda remote, message: remote.send(message),
            "ended": self._on_ended,
            "lacks": lambda remote, message: self.supplies.say_lacking(remote, message["modules"]),
            "meets": self.preparation.meetings.on_meets,
            "notice": lambda remote, message: say(f"{remote.host}: {message['text']}"),
            "output": self.printed.hear,
            "problem": self._on_problem,
            "reached": self.preparation.meetings.on_reached,
            "refused": self._on_refused,
            "report": self.reports.hear,
            "saved": self._on_saved,
            "uploaded": lambda remote, message: remote.on_uploaded(
                message["path"], message["error"]
            ),
        }
        self.deadline: float | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.error: BaseException | None = None
        self.ended_earlier = 0  # trials that ended in an earlier run of the driver
        self._to_resume: dict[int, Trial] = {}  # by the rule, in the next run(): this one has ended
        self._earlier_lease_until: float | None = None  # that of the last driver's agents
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def log(
        self,
        kind: str,
        trial: Trial | None = None,
        body: Mapping[str, Any] | str | None = None,
        *,
        attempt: int | None = None,
        sequence: int | None = None,
    ) -> None:
        """Make an event: the one way in which the search changes.

        Raises InvalidMove, and logs nothing, for what cannot happen to a trial as it stands.
        """
        number = None
        if trial is not None:
            number, attempt = trial.id, attempt or trial.attempt or None
        self.store.append(kind, number, attempt, sequence, body, apply=self.ledger.apply)

    # The user's wishes

    def run(self, num_trials: int | None, time_out_s: float | None) -> None:
        """Launch up to `num_trials` more trials, for `time_out_s` seconds from now at most."""
        is_resumed = self.source.begin_run(num_trials)
        self.in_run = True
        self.ending, self.error, self.deadline = "", None, None
        if self._timer is not None:
            self._timer.cancel()
        self.started_at = self.started_at or time.monotonic()
        self.ended_at = None
        if time_out_s is not None:
            self.deadline = time.monotonic() + time_out_s
            self._timer = asyncio.get_running_loop().call_later(
                time_out_s, self.end, f"time_out={time_out_s:g} s is over"
            )
        self._idle.clear()
        for remote in self.manager.remotes.values():
            self.supplies.ask_for_modules(remote)
        self._close_earlier_attempts()
        earlier.queue_unfinished(self.ledger, self.queue, self.children)
        for trial in self._to_resume.values():
            if not trial.status.is_end:
                self.queue.put(trial)
        self._to_resume.clear()
        self.queue_children()
        if is_resumed:
            self.reports.end_if_good_enough()  # the earlier run was, perhaps
        if self.ledger.paused_by:
            self.say(f"this search is paused by {self.ledger.paused_by}, until `go-on`")
        self.fill()

    def add(self, config: Mapping[str, Any], is_final: bool = False) -> Trial:
        """Queue one configuration, to be launched before the searcher's next one."""
        self.begin_given_only()
        trial = None
        if is_final:
            trial = earlier.unfinished_final(self.ledger, self.queue, config)
        if trial is None:
            trial = self._new_trial(Launch(config), is_given=True, is_final=is_final)
        self.start_given(trial)
        return trial

    def start_given(self, trial: Trial) -> None:
        """Have a trial start that was given or let go, though the search may have come to rest."""
        self._to_resume.pop(trial.id, None)
        if trial not in self.children:
            self.queue.put(trial)
        self.started_at = self.started_at or time.monotonic()
        self.ended_at = None
        self._idle.clear()
        self.fill()

    def begin_given_only(self) -> None:
        """Where the search has ended: that holds no longer, but it does not go on."""
        if self.is_idle:
            self.ending, self.error = "", None
            self.source.serve_given_only()
            self._close_earlier_attempts()

    def wake(self) -> None:
        """Ask the rule again, which had nothing to launch."""
        self.source.something_happened()
        self.fill()

    def end(
        self, reason: str, error: BaseException | None = None, *, after_save_s: float = 0.0
    ) -> None:
        """Launch nothing more and stop what runs.

        Trials that save checkpoints go on for up to `after_save_s` seconds, until their next one.
        """
        self.error = self.error or error
        if self.ending and reason != CLOSED:
            return
        self.ending = reason
        self.dispatcher.withdraw()
        held = self.interventions.held
        for trial in [*self.queue.clear(), *held, *self.children.clear()]:
            if trial.status is not Status.WAITING:  # the rule resumes it, and will not say so again
                self._to_resume[trial.id] = trial
            elif reason not in UNFINISHED:
                self.ends.end_trial(trial, reason, Status.STOPPED)
            self.ends.answer(trial)
        for attempt in self.attempts:
            saves = attempt.trial.saves_first is not None
            self.stop(attempt, Status.STOPPED, reason, after_save_s if saves else 0.0)
        self.check_idle()

    def abandon(self, reason: str) -> None:
        """Take every running attempt as over: the nodes are about to be closed."""
        for attempt in self.attempts:
            self._hear_no_more(attempt)
            verdict = attempt.verdict or Verdict(Status.STOPPED, reason)
            self.ends.attempt_over(attempt, Outcome(*verdict, NO_FACTS))
            self.manager.release(attempt.lease)
        self.check_idle()

    def close(self) -> None:
        """Let go of what waits for a time to come."""
        self.queue.close()
        self.rests.close()
        self.dispatcher.suspects.close()

    async def wait(self) -> None:
        """Return when nothing runs and nothing more will be launched."""
        await self._idle.wait()

    async def wait_for(self, trial: Trial) -> Returned | None:
        """Return what the train function returned, once the trial has ended."""
        return await self.ends.wait_for(trial)

    @property
    def running(self) -> list[Trial]:
        """The trials that hold slots now."""
        return [attempt.trial for attempt in self.attempts]

    def trials_on(self, remote: Remote) -> list[Trial]:
        """The trials that hold slots of a node now."""
        return [attempt.trial for attempt in self.attempts.on(remote)]

    @property
    def has_begun(self) -> bool:
        """Whether anything was to run in this driver."""
        return self.started_at is not None

    @property
    def is_searching(self) -> bool:
        """Whether the rule is still asked for new trials."""
        return not self.ending and self.source.is_open

    @property
    def why_it_ends(self) -> str:
        """Why nothing more is launched, in words; '' while the search goes on."""
        return self.ending or (self.source.why_closed if self.is_idle else "")

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing is to be launched."""
        return self._idle.is_set()

    # An earlier run of the driver

    def restore(self, events: Iterable[Event]) -> None:
        """Take up an earlier run from its log: nothing finished runs again, the rest does.

        The rule hears of everything in the order in which it happened.
        """
        earlier.restore(events, self.ledger, self.rule, self.keeper)
        self.source.restored()
        self.ended_earlier = self.ledger.counts.ended + self.ledger.counts.paused
        self._earlier_lease_until = time.monotonic() + nodes.NODE_LEASE_S + nodes.LEASE_GRACE_S

    def _close_earlier_attempts(self) -> None:
        if self._earlier_lease_until is not None:
            left_s = max(0.0, self._earlier_lease_until - time.monotonic())
            self._earlier_lease_until = None
            earlier.close_attempts(self.ledger, self.queue, self.ends, left_s, self.say)

    # Nodes

    def add_remote(self, remote: Remote) -> None:
        """Use a node: send it the train function, then fill its slots."""
        self.nodes.came(remote, in_run=self.in_run)

    def retire(self, remote: Remote) -> None:
        """Start nothing more on a node, which is about to go."""
        self.manager.remove(remote)

    def on_lost(self, remote: Remote, reason: str, confirmed_dead: bool) -> None:
        """A node is gone: its slots too, and its trials go elsewhere once it cannot run them."""
        if self.nodes.went(remote, reason, confirmed_dead):
            self.wake()

    # Launching

    def fill(self) -> None:
        """Launch what fits."""
        self.dispatcher.fill()

    def launch_no_more(self) -> None:
        """Take back the request for slots."""
        self.dispatcher.withdraw()

    def _new_trial(self, launch: Launch, is_given: bool = False, is_final: bool = False) -> Trial:
        trials = self.ledger.trials
        check_parents(launch.parents, trials)
        parents = list(dict.fromkeys(map(int, launch.parents)))
        config = self.settings.complete(launch.config)
        body = {"config": config, "given": is_given, "is_final": is_final}
        if parents:
            body.update(parents=parents, wait_for=launch.wait_for)
        if launch.told is not None:
            body["told"] = launch.told
        if launch.bracket is not None:
            body["bracket"] = launch.bracket
        # Encoded before anything else is done: if that fails, the rule is to blame.
        self.store.append("launched", len(trials), body=encode(body), apply=self.ledger.apply)
        return trials[len(trials) - 1]

    def _start(self, trial: Trial, lease: Lease) -> None:
        """A trial has its slots: log that, then have it start."""
        attempt = Attempt(trial, lease)
        self.queue.begins(trial)
        self.attempts.begins(attempt)
        places = [place.described for place in attempt.places]
        begun = {"places": places, "seed": attempt.seed}
        self.log("started", trial, begun, attempt=attempt.number)
        self.store.when_durable(partial(self.preparation.prepare, attempt))

    def _did_not_start(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt was stopped before it began, or its ranks do not reach each other."""
        self._hear_no_more(attempt)
        self.ends.attempt_over(attempt, outcome)
        self.manager.release(attempt.lease)
        self.fill()

    def _orphaned(self, attempt: Attempt, lost: Sequence[Trial]) -> None:
        """A child was to start, but its parents' weights are gone: its slot serves others."""
        child = attempt.trial
        without = [parent.id for parent in lost]
        reason = f"the weights of trial {without[0]} are not to be had"
        self._hear_no_more(attempt)
        self.log(
            "lost", child, {"status": Status.STOPPED.value, "reason": reason, "without": without}
        )
        self.queue.ends(child)
        if not self.ending:
            self.children.add(child)
            self.queue_children()
        elif self.ending not in UNFINISHED:
            self.ends.end_trial(child, self.ending, Status.STOPPED)
        self.manager.release(attempt.lease)
        self.fill()

    def queue_children(self, of: Trial | None = None, stuck: bool = False) -> None:
        """Queue the children (of one trial, or all) that can start."""
        if not self.ending:
            self.children.start_ready(of, stuck)

    # What the agents say

    def on_messages(self, remote: Remote, messages: list[Message]) -> None:
        """Take the messages of a node's agent, in order."""
        try:
            for message in messages:
                self._hear[message["op"]](remote, message)
        except Exception as error:  # a defect of ours must end the search, not hang it
            self.end(f"internal error: {error!r}", error)
            self.abandon("internal error")
        self.reports.acknowledge(remote)

    def _on_problem(self, remote: Remote, message: Message) -> None:
        reason = message["reason"]
        remote.on_gone(reason)
        self.on_lost(remote, reason, confirmed_dead=True)
        if remote.is_local and not self.manager.remotes:  # nothing would ever come back
            self.end(reason, NodeError(f"no node is left: {reason}"))

    def _on_saved(self, remote: Remote, message: Message) -> None:
        attempt = self.attempts.meant_by(message)
        if attempt is not None and attempt.takes_checkpoint(message["name"]):
            about = {key: message[key] for key in ("step", "name", "bytes")}
            self.log("saved", attempt.trial, about)
            self.keeper.saved(attempt, about)
            self.serve_children(attempt.trial)
            if self.ledger.paused_by:  # its first one: now it can go on later
                self.interventions.pause(attempt, self.ledger.paused_by)

    def serve_children(self, trial: Trial) -> None:
        """Start the children that have waited for what a trial has just saved."""
        if self.children:
            self.queue_children(of=trial)
            if self.queue.has_ready:
                self.fill()

    def _on_ended(self, remote: Remote, message: Message) -> None:
        attempt = self.attempts.meant_by(message)
        if attempt is None:
            return
        if message.pop("no_space", False):
            self.rests.failed(remote, message["reason"])
        else:
            self.rests.began(remote)
        if message["rank"] == 0:
            attempt.returned = Returned(message.get("returned"), message.get("kept"), remote)
        attempt.rank_ended(message)
        self._rank_over(attempt)
        self.fill()

    def _rank_over(self, attempt: Attempt) -> None:
        """A process of an attempt is over: with the last one its slots are free."""
        if not attempt.has_ended:
            attempt.end_the_rest(self.settings.report_timeout_s)
            return
        trial = attempt.trial
        outcome = judged(attempt.outcome, trial, self.settings)
        self._hear_no_more(attempt)
        self.keeper.ended(attempt)
        self.ends.attempt_over(attempt, outcome)
        self.keeper.delete_old(trial)
        self.keeper.delete_unneeded()
        self.source.something_happened()
        # Only now, as at this the rule is asked for the next trial: it has to know of this one.
        self.manager.release(attempt.lease)

    def _on_refused(self, remote: Remote, message: Message) -> None:
        """A trial has not begun, for want of something on its node: it costs no attempt."""
        attempt = self.attempts.meant_by(message)
        if attempt is None:
            return
        self.supplies.send_again(remote, message["lacks"])
        self.rests.failed(remote, message["reason"])
        attempt.rank_refused({**message, "reason": f"it did not begin: {message['reason']}"})
        self._rank_over(attempt)
        self.fill()

    # Ends

    def stop(
        self, attempt: Attempt, status: Status, reason: str, after_save_s: float = 0.0
    ) -> bool:
        """End an attempt, once whatever that follows from is on the disk; False if it just ends."""
        is_new = attempt.stop(Verdict(status, reason), after_save_s)
        if is_new:
            self.store.when_durable(attempt.send_stop)
        return is_new

    def _hear_no_more(self, attempt: Attempt) -> None:
        """An attempt is over, and its messages are heard no more."""
        attempt.close()
        self.preparation.forget(attempt)
        self.attempts.is_over(attempt)
        self.keeper.release(attempt)

    @property
    def fails_everywhere(self) -> bool:
        """Whether trials fail on more than one node, or there never was another."""
        return self.dispatcher.suspects.are_everywhere

    @property
    def unended(self) -> int:
        """How many trials may still do well: they run, wait, or are paused and may go on."""
        paused = self.ledger.counts.paused if self.rule.paused_may_go_on else 0
        held = len(self.interventions.held)
        return len(self.attempts) + len(self.queue) + held + paused

    # Rest

    def check_idle(self) -> None:
        """Come to rest when nothing runs and nothing is to be launched."""
        if self.attempts:
            self.shortage.look()
            return
        if self.children and not self._is_busy:  # what they wait for will not come
            before = len(self.children)
            self.queue_children(stuck=True)
            if len(self.children) < before:
                self.wake()
                return
        if self._is_busy:
            self.shortage.look()
            if not self._has_more and not self.ending:
                self.interventions.say_what_is_held()
            return
        self.shortage.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.ending and self.ending != CLOSED and len(self.queue):  # it came after the end
            self.ending, self.in_run = "", False
            self.source.serve_given_only()
            self.fill()
        elif not self.is_idle:
            self.ended_at = time.monotonic()
            self.store.when_durable(self._rest)

    @property
    def _is_busy(self) -> bool:
        comes = (self._has_more or self.ledger.held) and not self.ending
        return bool(self.attempts or comes or self.keeper.is_busy)

    @property
    def _has_more(self) -> bool:
        """Whether trials will start, unless all is paused."""
        return self.source.has_more or self.source.is_thinking or len(self.queue) > 0

    def _rest(self) -> None:
        if not self._is_busy:
            self.in_run = False
            self._idle.set()
