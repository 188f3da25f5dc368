"""The loop of a search: events come in, the rule decides, the log is written, slots are filled.

Everything here runs in the one loop thread. The rule (a scheduler) says what to launch and what a
report means; the manager says where there is room; the ledger says how the search stands, and
changes by what is logged alone; the agents on the nodes do what they are told. An event is on the
disk before anything that follows from it leaves the driver.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from ..errors import DistsearchError, NodeError, RequestRefused
from ..resource.agent import FUNCTION, UPLOADS
from ..resource.manager import DistributedResourceManager, Lease, LeaseRequest
from ..resource.remote import Message, Remote
from . import earlier, modules
from .attempt import Attempt, Returned, Verdict
from .children import Children
from .doubts import Doubts
from .ends import CLOSED, NO_FACTS, NOTHING_LEFT, UNFINISHED, Ends, verdict_of
from .keeper import Keeper
from .ledger import Ledger
from .lineage import check_parents
from .meeting import Meeting, Meetings
from .metrics import encode
from .orders import function_of, preload_of, starts_of
from .outcome import Outcome
from .phrases import counted
from .printed import Printed
from .queue import Queue
from .rests import Rests
from .rule import Rule
from .settings import Settings
from .shortage import Shortage
from .source import Source
from .store import Event, Store
from .suspects import Suspects
from .words import Continue, Decision, Launch, Pause, Report, Status, Stop, Trial

T = TypeVar("T")
NODE_LEASE_S, LEASE_GRACE_S = 30.0, 5.0
PAUSE_S = 30.0  # what a trial that is to pause by request has for its next checkpoint


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
        self.printed = Printed(store, settings, say=say, show=show or say)
        self.ledger = Ledger(settings.objectives, settings.time_attr)
        self.queue = Queue(self.wake, is_held=lambda trial: trial.id in self.ledger.held)
        self.ends = Ends(self, self.ledger, self.queue, retries=settings.retries, say=say)
        self.children = Children(
            self.ledger,
            settings.on_parent_failure,
            settings.parent_retries,
            log=self.log,
            say=say,
            give_up=partial(self.ends.end_trial, status=Status.FAILED),
            run_again=self.queue.put,
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
            may_need=lambda trial: self.ask("may_need", trial, otherwise=True),
            read_on=lambda trial: self.ask("read_on", trial, otherwise=()),
            only_needed=lambda: rule.keeps_only_needed,
            on_rest=self.check_idle,
        )
        self.meetings = Meetings(self.keeper, on_met=self._send, on_failed=self._cannot_meet)
        self.source = Source(
            rule, self.ledger, self.queue, self.children, launch=self._new_trial, wake=self.wake
        )
        self.rests = Rests(manager, say)
        self.suspects = Suspects(say, self._reconsider)
        self.doubts = Doubts(settings.objectives, settings.time_attr, say=say)
        self.shortage = Shortage(manager, settings.resource, say=say, is_over=lambda: self.is_idle)
        self.deadline: float | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.error: BaseException | None = None
        self.ending = ""  # why nothing more is launched
        self.ended_earlier = 0  # trials that ended in an earlier run of the driver
        self._to_resume: dict[int, Trial] = {}  # by the rule, in the next run(): this one has ended
        self._looks: deque[tuple[Trial | None, bool]] = deque()  # at children: of whom, stuck
        self._live: dict[int, Attempt] = {}
        self._by_remote: dict[int, dict[int, Attempt]] = {}
        self._in_run = False  # a run() goes on, and not only single trials of the user
        self._earlier_lease_until: float | None = None  # that of the last driver's agents
        self._request: LeaseRequest | None = None
        self._granting = False
        self._looked_at: set[int] = set()  # nodes that were asked which modules they lack
        self._said_held: set[int] = set()  # the trials of which it was said that they are paused
        self._unacknowledged: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()

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

    def ask(self, word: str, *about: Any, otherwise: T) -> T:
        """Call the rule; an error of its own ends the search, and `otherwise` is the answer."""
        try:
            answer: T = getattr(self.rule, word)(*about)
            return answer
        except BaseException as error:  # sys.exit() too: it would end the loop's thread
            self.end(f"{type(self.rule).__name__}.{word} failed: {error!r}", error)
            return otherwise

    # The user's wishes

    def run(self, num_trials: int | None, time_out_s: float | None) -> None:
        """Launch up to `num_trials` more trials, for `time_out_s` seconds from now at most."""
        is_resumed = self.source.begin_run(num_trials)
        self._in_run = True
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
            self._look_for_modules(remote)
        self._close_earlier_attempts()
        earlier.queue_unfinished(self.ledger, self.queue, self.children)
        for trial in self._to_resume.values():
            if not trial.status.is_end:
                self.queue.put(trial)
        self._to_resume.clear()
        self.queue_children()
        if is_resumed:
            self._end_if_good_enough()  # the earlier run was, perhaps
        if self.ledger.paused_by:
            self.say(f"this search is paused by {self.ledger.paused_by}, until `go-on`")
        self.fill()

    def add(self, config: Mapping[str, Any], is_final: bool = False) -> Trial:
        """Queue one configuration, to be launched before the searcher's next one."""
        self._begin_given_only()
        trial = None
        if is_final:
            trial = earlier.unfinished_final(self.ledger, self.queue, config)
        if trial is None:
            trial = self._new_trial(Launch(config), is_given=True, is_final=is_final)
        self.queue.put(trial)
        self.started_at = self.started_at or time.monotonic()
        self.ended_at = None
        self._idle.clear()
        self.fill()
        return trial

    def _begin_given_only(self) -> None:
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
        self._ask_for_nothing()
        held = [trial for trial in self.ledger.held.values() if trial.id not in self._live]
        for trial in [*self.queue.clear(), *held, *self.children.clear()]:
            if trial.status is not Status.WAITING:  # the rule resumes it, and will not say so again
                self._to_resume[trial.id] = trial
            elif reason not in UNFINISHED:
                self.ends.end_trial(trial, reason, Status.STOPPED)
            self.ends.answer(trial)
        for attempt in list(self._live.values()):
            saves = attempt.trial.saves_first is not None
            self._stop(attempt, Status.STOPPED, reason, after_save_s if saves else 0.0)
        self.check_idle()

    def stop_trial(self, trial: Trial, by: str) -> None:
        """End a trial that runs or waits, whatever the rule would have it do.

        Raises RequestRefused for one that cannot be stopped now.
        """
        self._check_may_change(trial)
        attempt = self._live.get(trial.id)
        if attempt is None:
            self.children.remove(trial)
            self._to_resume.pop(trial.id, None)
            self.ends.end_trial(trial, f"by {by}", Status.STOPPED)
            if not self.is_idle:
                self.wake()
            return
        decided = self.ledger.decided.get(trial.id)
        if decided is None:  # logged as a decision of the rule is: it holds whatever comes next
            body = {"word": Stop.word, "reason": "", "by": by, "report": trial.reports}
            self.log("decided", trial, body)
            decided = self.ledger.decided[trial.id]
        elif not isinstance(decided, Stop):
            raise RequestRefused(f"trial {trial.id} is just being paused by the rule")
        self._stop(attempt, *verdict_of(decided))

    def pause_trial(self, trial: Trial, by: str) -> str:
        """Have a trial give its slots back until `let_go`, whoever runs it; what it goes on from.

        One that saves checkpoints goes on for up to 30 s, until its next one. Raises RequestRefused
        for one that cannot be paused now.
        """
        self._check_may_change(trial)
        if trial.status is Status.PAUSED:
            raise RequestRefused(f"trial {trial.id}: the rule has paused it, nothing of it runs")
        if trial.id in self.ledger.held:
            raise RequestRefused(f"trial {trial.id} is paused by request already")
        if trial.is_final:
            raise RequestRefused(f"run_with_config waits for trial {trial.id}; stop it instead")
        if trial in self.children:
            parents = ", ".join(map(str, trial.parents))
            raise RequestRefused(f"trial {trial.id} does not run: it waits for trials {parents}")
        attempt = self._live.get(trial.id)
        if attempt is None:
            self.log("held", trial, {"by": by})
            self.queue.remove(trial)
            self.fill()
            return "it had not started" if not trial.attempt else "it did not run"
        saves = trial.saves_first is not None
        if not self._pause(attempt, by, PAUSE_S if saves else 0.0):
            raise RequestRefused(f"trial {trial.id} is just being ended or paused")
        self.log("held", trial, {"by": by})
        return "it goes on from its newest checkpoint" if saves else "it has saved nothing"

    def _pause(self, attempt: Attempt, by: str, after_save_s: float = PAUSE_S) -> bool:
        """End an attempt whose trial goes on later; False if it is just being ended or paused."""
        verdict = Verdict(Status.PAUSED, f"paused by {by}")
        if attempt.trial.id in self.ledger.decided or not attempt.stop(verdict, after_save_s):
            return False
        self.store.when_durable(attempt.send_stop)
        return True

    def let_go(self, trial: Trial, by: str) -> None:
        """Let a trial go on that was paused, by request or by the rule.

        Raises RequestRefused for one that is not, and where the whole search is paused.
        """
        is_held, was_paused = trial.id in self.ledger.held, trial.status is Status.PAUSED
        if not is_held and not was_paused:
            raise RequestRefused(f"trial {trial.id} is not paused: it is {trial.status.value}")
        if self.ledger.paused_by:
            raise RequestRefused("the whole search is paused: let it go on, without naming a trial")
        if self.ending and not self.is_idle:
            raise RequestRefused(f"the search is just ending: {self.ending}")
        if trial in self.queue:  # the rule has let it go on already
            return
        if was_paused and not self.rule.paused_may_go_on:
            raise RequestRefused(
                f"trial {trial.id}: the rule decides once and for all which trials of a rung go on"
            )
        if self.started_at is not None:
            self._begin_given_only()
        self.log("let_go", trial, {"by": by})
        if was_paused:
            self._to_resume.pop(trial.id, None)
            self.ask("on_let_go", trial, otherwise=None)
        if self.started_at is None or trial.status is Status.RUNNING:
            return  # the search has not begun yet, or the attempt that pauses is not over
        if trial not in self.children:
            self.queue.put(trial)
        self.ended_at = None
        self._idle.clear()
        self.fill()

    def pause_search(self, by: str) -> str:
        """Start nothing more until `let_search_go`, whoever runs the search; what still runs.

        Trials that save checkpoints give their slots back after their next one, or after 30 s;
        others go on to their ends, as all that they did would be lost.
        Raises RequestRefused where that makes no sense.
        """
        if self.ledger.paused_by:
            raise RequestRefused(f"the search is paused already, by {self.ledger.paused_by}")
        if self.is_idle or self.ending:
            why = self.why_it_ends
            raise RequestRefused(f"the search ends already, or has ended{f': {why}' * bool(why)}")
        self.log("search_held", body={"by": by})
        self._ask_for_nothing()
        saving = [one for one in self._live.values() if one.trial.saves_first is not None]
        paused = sum(self._pause(attempt, by) for attempt in saving)
        left = len(self._live) - paused
        return f"{counted(paused)} to pause after the next checkpoint, {left} to go on to the end"

    def let_search_go(self, by: str) -> None:
        """Let a search go on that was paused by request. Raises RequestRefused for another."""
        if not self.ledger.paused_by:
            raise RequestRefused("the search is not paused")
        self.log("search_let_go", body={"by": by})
        self.fill()

    def _ask_for_nothing(self) -> None:
        """Take back the request for slots."""
        if self._request is not None:
            self._request.cancel()
            self._request = None

    def _check_may_change(self, trial: Trial) -> None:
        """Raise RequestRefused for a trial that has ended, or cannot be changed yet."""
        why = ""
        if trial.status.is_end:
            why = f"it has ended: {trial.status.value}"
        elif trial.status is Status.RUNNING and trial.id not in self._live:
            why = "the search that is to go on with it has not begun yet; ask again in a moment"
        if why:
            raise RequestRefused(f"trial {trial.id}: {why}")

    def abandon(self, reason: str) -> None:
        """Take every running attempt as over: the nodes are about to be closed."""
        for attempt in list(self._live.values()):
            self._hear_no_more(attempt)
            verdict = attempt.verdict or Verdict(Status.STOPPED, reason)
            self._attempt_over(attempt, Outcome(*verdict, NO_FACTS))
            self.manager.release(attempt.lease)
        self.check_idle()

    def close(self) -> None:
        """Let go of what waits for a time to come."""
        self.queue.close()
        self.rests.close()
        self.suspects.close()

    async def wait(self) -> None:
        """Return when nothing runs and nothing more will be launched."""
        await self._idle.wait()

    async def wait_for(self, trial: Trial) -> Returned | None:
        """Return what the train function returned, once the trial has ended."""
        return await self.ends.wait_for(trial)

    @property
    def running(self) -> list[Trial]:
        """The trials that hold slots now."""
        return [attempt.trial for attempt in list(self._live.values())]

    def trials_on(self, remote: Remote) -> list[Trial]:
        """The trials that hold slots of a node now."""
        return [one.trial for one in self._by_remote.get(remote.remote_id, {}).values()]

    @property
    def attempts(self) -> list[Attempt]:
        """What runs, is prepared for that, or is ending."""
        return list(self._live.values())

    @property
    def request(self) -> LeaseRequest | None:
        """What it waits for of the manager, if there is not enough room."""
        return self._request

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
        self._earlier_lease_until = time.monotonic() + NODE_LEASE_S + LEASE_GRACE_S

    def _close_earlier_attempts(self) -> None:
        if self._earlier_lease_until is not None:
            left_s = max(0.0, self._earlier_lease_until - time.monotonic())
            self._earlier_lease_until = None
            earlier.close_attempts(self.ledger, self.queue, self.ends, left_s, self.say)

    # Nodes

    def add_remote(self, remote: Remote) -> None:
        """Use a node: send it the train function, then fill its slots."""
        remote.send(preload_of(self.settings, remote))
        remote.send(function_of(self.settings, remote))
        self._by_remote[remote.remote_id] = {}
        about = {"came": remote.host, "address": remote.address, **remote.facts.to_dict()}
        self.log("node", body=about)
        if self._in_run:
            self._look_for_modules(remote)
        self.manager.add(remote)

    def _look_for_modules(self, remote: Remote) -> None:
        """Have a node say, before its first trial, which modules it lacks."""
        names = modules.needed(self.settings.packed)
        if names and not remote.is_local and remote.remote_id not in self._looked_at:
            self._looked_at.add(remote.remote_id)
            remote.send({"op": "find", "modules": names})

    def retire(self, remote: Remote) -> None:
        """Start nothing more on a node, which is about to go."""
        self.manager.remove(remote)

    def on_lost(self, remote: Remote, reason: str, confirmed_dead: bool) -> None:
        """A node is gone: its slots too, and its trials go elsewhere once it cannot run them."""
        if remote.remote_id not in self._by_remote:
            return
        self.manager.remove(remote)
        self.suspects.forget(remote)
        self.log("node", body={"went": remote.host, "reason": reason})
        attempts = list(self._by_remote.pop(remote.remote_id).values())
        delay_s = 0.0 if confirmed_dead else NODE_LEASE_S + LEASE_GRACE_S
        text = f"node {remote.host} is gone: {reason}; {counted(len(attempts))} ran on it"
        if attempts and delay_s:  # or nobody would know what the next half minute is waited for
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + delay_s))
            text += f", and may still do: they start elsewhere at {until}, in {delay_s:g} s"
        self.say(text)
        for attempt in attempts:
            attempt.lose(remote, reason, delay_s)
            self._rank_over(attempt)
        self.wake()

    # Launching

    def fill(self) -> None:
        """Launch what fits; ask for one slot more than there are."""
        self._granting = True
        while self._wants_more and self._request is None:
            request = self.manager.request(self.settings.resource, self._granted, self._avoided())
            if request.waits:
                self._request = request
        self._granting = False
        self.check_idle()

    @property
    def _wants_more(self) -> bool:
        return not self.ending and not self.ledger.paused_by and self.source.has_more

    def _granted(self, lease: Lease) -> None:
        self._request = None
        is_over = self.ending or self.ledger.paused_by
        trial = None if is_over else self._next_trial(lease.held[0].remote)
        if trial is None:
            self.manager.release(lease)
        else:
            self._start(trial, lease)
        if not self._granting:
            self.fill()

    @property
    def _usable(self) -> dict[int, Remote]:
        """The nodes that have what a trial needs."""
        remotes = self.manager.remotes.items()
        return {n: one for n, one in remotes if one.slots.fits(self.settings.resource)}

    def _avoided(self) -> set[int]:
        """The nodes on which no trial that could start now is to start."""
        if not self.suspects:
            return set()
        usable = self._usable
        if self.source.may_have_another:
            return self.suspects.avoided(None, usable)
        each = [self.suspects.avoided(trial, usable) for trial in self.queue.ready]
        return set.intersection(*each) if each else set()

    def _reconsider(self) -> None:
        """Ask for slots anew: other nodes may be used now."""
        self._ask_for_nothing()
        self.fill()

    def _next_trial(self, remote: Remote) -> Trial | None:
        def suits(trial: Trial) -> bool:
            avoided = self.suspects.avoided(trial, self._usable) if self.suspects else ()
            return remote.remote_id not in avoided

        try:
            return self.source.next(remote.host, suits)
        except BaseException as error:  # sys.exit() too: it would end the loop's thread
            self.end(f"the searcher or the rule failed: {error!r}", error)
            return None

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
        self._live[trial.id] = attempt
        for remote in attempt.remotes:
            self._by_remote[remote.remote_id][trial.id] = attempt
        places = [place.described for place in attempt.places]
        begun = {"places": places, "seed": attempt.seed}
        self.log("started", trial, begun, attempt=attempt.number)
        self.store.when_durable(partial(self._prepare, attempt))

    def _prepare(self, attempt: Attempt) -> None:
        """Have what a trial goes on from brought to its nodes, where that is needed."""
        if attempt.is_over or attempt.verdict is not None:
            self._send(attempt)
            return
        if self.keeper.is_ready(attempt):
            self.meetings.arrange(attempt)
        else:
            self._in_background(self._bring(attempt))

    async def _bring(self, attempt: Attempt) -> None:
        lost = await self.keeper.prepare(attempt)
        # A trial that has saved starts with what there is, a child not without its parents'.
        if attempt.is_over or attempt.verdict is not None:
            self._send(attempt)
        elif lost and attempt.trial.saved_step is None:
            self._orphaned(attempt, lost)
        else:
            self.meetings.arrange(attempt)

    def _cannot_meet(self, attempt: Attempt, reason: str) -> None:
        """The nodes of an attempt do not reach each other."""
        self._hear_no_more(attempt)
        self._attempt_over(attempt, Outcome(Status.NODE_LOST, reason, NO_FACTS))
        self.manager.release(attempt.lease)
        self.fill()

    def _send(self, attempt: Attempt, meeting: Meeting | None = None) -> None:
        """Tell its nodes to start a trial, unless one was lost, or the trial stopped, meanwhile."""
        if attempt.is_over:
            return
        due = None
        if attempt.verdict is None and not attempt.trial.is_final:
            due = self._ask_when_due(attempt.trial)
        if attempt.verdict is not None:
            self._hear_no_more(attempt)
            self._attempt_over(attempt, Outcome(*attempt.verdict, NO_FACTS))
            self.manager.release(attempt.lease)
            self.fill()
            return
        storage = self.keeper.names_in_storage(attempt)
        attempt.begin(starts_of(self.settings, attempt, due, storage, meeting))

    def _ask_when_due(self, trial: Trial) -> str | list[float] | None:
        due = self.ask("due_at", trial, otherwise=None)
        if due is None or due == "every":
            return due
        try:
            return [float(time) for time in due]
        except (TypeError, ValueError):
            name = f"{type(self.rule).__name__}.due_at"
            error = TypeError(f"{name} returned {due!r}; return 'every', a list of times, or None")
            self.end(str(error), error)
            return None

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
        if not self.children or self.ending:
            return
        self._looks.append((of, stuck))
        if len(self._looks) > 1:  # a child has ended for want of a parent, whose children are next
            return
        while self._looks:
            for child in self.children.ready(*self._looks[0]):
                self.queue.put(child)
            self._looks.popleft()

    # What the agents say

    def on_messages(self, remote: Remote, messages: list[Message]) -> None:
        """Take the messages of a node's agent, in order."""
        try:
            for message in messages:
                getattr(self, "_on_" + message["op"])(remote, message)
        except Exception as error:  # a defect of ours must end the search, not hang it
            self.end(f"internal error: {error!r}", error)
            self.abandon("internal error")
        size = self._unacknowledged.pop(remote.remote_id, 0)
        if size:
            self.store.when_durable(partial(remote.send, {"op": "ack", "bytes": size}))

    def _on_beat(self, remote: Remote, message: Message) -> None:
        remote.send(message)

    def _on_uploaded(self, remote: Remote, message: Message) -> None:
        remote.on_uploaded(message["path"], message["error"])

    def _on_problem(self, remote: Remote, message: Message) -> None:
        reason = message["reason"]
        remote.on_gone(reason)
        self.on_lost(remote, reason, confirmed_dead=True)
        if remote.is_local and not self.manager.remotes:  # nothing would ever come back
            self.end(reason, NodeError(f"no node is left: {reason}"))

    def _on_lacks(self, remote: Remote, message: Message) -> None:
        self.say(modules.lacking(self.settings.packed, remote.host, message["modules"]))

    def _on_notice(self, remote: Remote, message: Message) -> None:
        self.say(f"{remote.host}: {message['text']}")

    def _on_output(self, remote: Remote, message: Message) -> None:
        self.printed.hear(remote, message)

    def _on_saved(self, remote: Remote, message: Message) -> None:
        attempt = self._attempt(message)
        if attempt is not None and attempt.takes_checkpoint(message["name"]):
            about = {key: message[key] for key in ("step", "name", "bytes")}
            self.log("saved", attempt.trial, about)
            self.keeper.saved(attempt, about)
            self._serve_children(attempt.trial)
            if self.ledger.paused_by:  # its first one: now it can go on later
                self._pause(attempt, self.ledger.paused_by)

    def _serve_children(self, trial: Trial) -> None:
        """Start the children that have waited for what a trial has just saved."""
        if self.children:
            self.queue_children(of=trial)
            if self.queue.has_ready:
                self.fill()

    def _on_report(self, remote: Remote, message: Message) -> None:
        body, sequence = message["body"], message["seq"]
        waiting = self._unacknowledged
        waiting[remote.remote_id] = waiting.get(remote.remote_id, 0) + len(body)
        attempt = self._attempt(message)
        if attempt is None or not attempt.takes(sequence):
            return  # of an attempt that is over, or sent twice
        trial, saved_step = attempt.trial, attempt.trial.saved_step
        try:
            self.store.append(
                "report", trial.id, trial.attempt, sequence, body, apply=self.ledger.apply
            )
        except (ValueError, RecursionError) as error:  # it was not logged, and ends this trial only
            self._stop(attempt, Status.FAILED, f"it sent a report that cannot be read: {error}")
            return
        assert trial.last_report is not None
        self.doubts.look_for_reward(trial, trial.last_report)
        decision = self._decide(trial, trial.last_report)
        if self.settings.max_reward is not None:
            self._end_if_good_enough()
        if trial.saved_step != saved_step:  # it counts now that a report has followed it
            self._serve_children(trial)
        if message["due"]:
            self.doubts.look_for_time(trial, trial.last_report)
            if self.ending and self.ending not in UNFINISHED:
                decision = Stop()
            self.store.when_durable(partial(attempt.answer, decision))
        elif not isinstance(decision, Continue):
            self._stop(attempt, *verdict_of(decision))

    def _decide(self, trial: Trial, report: Report) -> Decision:
        """Ask the rule what a report means, and log what it decides.

        It is asked also while the search ends, as a replay will let it hear of the report too. A
        final trial is none of its business.
        """
        if trial.is_final:
            return Continue()
        decision: Decision = self.ask("on_report", trial, report, otherwise=Continue())
        if isinstance(decision, Continue):
            return decision
        if not isinstance(decision, (Stop, Pause)):
            name = f"{type(self.rule).__name__}.on_report"
            error = TypeError(f"{name} returned {decision!r}; return Continue(), Stop() or Pause()")
            self.end(str(error), error)
            return Continue()
        if trial.id not in self.ledger.decided:
            body = {"word": decision.word, "reason": decision.reason, "report": report.sequence}
            self.log("decided", trial, body, sequence=report.sequence)
        return decision

    def _end_if_good_enough(self) -> None:
        goal, best = self.settings.max_reward, self.ledger.best
        if goal is None or best is None or self.ending or not self._in_run:
            return
        if self.ledger.standings.has_reached(goal):
            name = self.settings.objectives.names[0]
            self.end(f"trial {best.id} reached {name}={best.best_reward:g} (max_reward={goal:g})")

    def _on_meets(self, remote: Remote, message: Message) -> None:
        self.meetings.on_meets(remote, message)

    def _on_reached(self, remote: Remote, message: Message) -> None:
        self.meetings.on_reached(remote, message)

    def _on_ended(self, remote: Remote, message: Message) -> None:
        attempt = self._attempt(message)
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
        trial, outcome = attempt.trial, attempt.outcome
        if outcome.status.is_failure:
            reason = modules.with_remedy(self.settings.packed, outcome.reason)
            outcome = outcome._replace(reason=reason)
        if outcome.status is Status.FINISHED and not trial.has_result:
            if trial.parents and not trial.reports:
                outcome = outcome._replace(status=Status.STOPPED, reason=NOTHING_LEFT)
            else:
                reason = self.settings.objectives.missing_in(trial.reports, trial.last_metrics)
                outcome = outcome._replace(status=Status.NO_METRIC, reason=reason)
        self._hear_no_more(attempt)
        self.keeper.ended(attempt)
        self._attempt_over(attempt, outcome)
        self.keeper.delete_old(trial)
        self.keeper.delete_unneeded()
        self.source.something_happened()
        # Only now, as at this the rule is asked for the next trial: it has to know of this one.
        self.manager.release(attempt.lease)

    def _on_refused(self, remote: Remote, message: Message) -> None:
        """A trial has not begun, for want of something on its node: it costs no attempt."""
        attempt = self._attempt(message)
        if attempt is None:
            return
        self._send_again(remote, message["lacks"])
        self.rests.failed(remote, message["reason"])
        attempt.rank_refused({**message, "reason": f"it did not begin: {message['reason']}"})
        self._rank_over(attempt)
        self.fill()

    def _goes_back(self, trial: Trial, why: Mapping[str, Any]) -> None:
        """A trial that had its slots did not begin: it waits for others, unless all is over."""
        self.log("lost", trial, why)
        if not self.ending:
            self.queue.put(trial)
        elif self.ending not in UNFINISHED:
            self.ends.end_trial(trial, self.ending, Status.STOPPED)

    def _send_again(self, remote: Remote, lacks: Sequence[str]) -> None:
        if FUNCTION in lacks:
            remote.send(function_of(self.settings, remote))
        if UPLOADS in lacks:
            self._in_background(self._upload_again(remote))

    async def _upload_again(self, remote: Remote) -> None:
        try:
            await remote.upload_again()
        except (DistsearchError, OSError) as error:  # the next start will ask for it again
            self.say(f"{remote.host}: {error}")

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _attempt(self, message: Message) -> Attempt | None:
        attempt = self._live.get(message["trial"])
        return attempt if attempt and attempt.number == message["attempt"] else None

    # Ends

    def _stop(
        self, attempt: Attempt, status: Status, reason: str, after_save_s: float = 0.0
    ) -> None:
        """End an attempt, once whatever that follows from is on the disk."""
        if attempt.stop(Verdict(status, reason), after_save_s):
            self.store.when_durable(attempt.send_stop)

    def _hear_no_more(self, attempt: Attempt) -> None:
        """An attempt is over, and its messages are heard no more."""
        attempt.close()
        self.meetings.forget(attempt)
        del self._live[attempt.trial.id]
        for remote in attempt.remotes:
            self._by_remote.get(remote.remote_id, {}).pop(attempt.trial.id, None)
        self.keeper.release(attempt)

    def _attempt_over(self, attempt: Attempt, outcome: Outcome) -> None:
        """Log what becomes of a trial whose attempt is over, or will be, on a lost node."""
        trial, facts = attempt.trial, outcome.facts
        if attempt.may_go_on_s:
            facts = {**facts, "is_over": False}
        verdict = Verdict(outcome.status, outcome.reason)
        was_cut_off = outcome.costs_nothing or outcome.status is Status.NODE_LOST
        if attempt.verdict is not None and was_cut_off:
            verdict = attempt.verdict
        self.queue.ends(trial, attempt.may_go_on_s)
        if outcome.costs_nothing and attempt.verdict is None:
            why = {"status": Status.STOPPED.value, "reason": outcome.reason}
            self._goes_back(trial, {**facts, **why})
        else:
            self._judge_node(attempt, verdict)
            self.ends.attempt_over(trial, verdict, facts, attempt.returned)

    def _judge_node(self, attempt: Attempt, verdict: Verdict) -> None:
        """Take note of how a trial has ended on its node, which may be to blame."""
        (status, reason), remote = verdict, attempt.remotes[0]
        # (Of ranks on several nodes it is not sure whose fault it was.)
        if status is Status.NODE_LOST or self.ending or len(attempt.remotes) > 1:
            return
        if not status.is_failure:
            self.suspects.did_well(remote)
            return
        others = [one for one in self._usable.values() if one is not remote]
        self.suspects.failed(attempt.trial, remote, status, reason, others)
        if self._request is not None and self._request.avoid != self._avoided():
            self._ask_for_nothing()

    @property
    def fails_everywhere(self) -> bool:
        """Whether trials fail on more than one node, or there never was another."""
        return self.suspects.are_everywhere

    @property
    def unended(self) -> int:
        """How many trials may still do well: they run, wait, or are paused and may go on."""
        paused = self.ledger.counts.paused if self.rule.paused_may_go_on else 0
        held = sum(trial_id not in self._live for trial_id in self.ledger.held)
        return len(self._live) + len(self.queue) + held + paused

    # Rest

    def check_idle(self) -> None:
        """Come to rest when nothing runs and nothing is to be launched."""
        if self._live:
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
            self._say_what_is_held()
            return
        self.shortage.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.ending and self.ending != CLOSED and len(self.queue):  # it came after the end
            self.ending, self._in_run = "", False
            self.source.serve_given_only()
            self.fill()
        elif not self.is_idle:
            self.ended_at = time.monotonic()
            self.store.when_durable(self._rest)

    @property
    def _is_busy(self) -> bool:
        comes = (self._has_more or self.ledger.held) and not self.ending
        return bool(self._live or comes or self.keeper.is_busy)

    @property
    def _has_more(self) -> bool:
        """Whether trials will start, unless all is paused."""
        return self.source.has_more or self.source.is_thinking or len(self.queue) > 0

    def _say_what_is_held(self) -> None:
        """Say once, where nothing else is left, which trials are paused by request."""
        held = set(self.ledger.held)
        if held != self._said_held and not self._has_more and not self.ending:
            ids = ", ".join(map(str, sorted(held)))
            self.say(f"nothing is left but what is paused by request, until `go-on`: trial {ids}")
            self._said_held = held

    def _rest(self) -> None:
        if not self._is_busy:
            self._in_run = False
            self._idle.set()
