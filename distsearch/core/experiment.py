"""The loop of a search: events come in, the rule decides, the log is written, slots are filled.

Everything here runs in the one loop thread. The rule (a scheduler) says what to launch and what a
report means; the manager says where there is room; the store keeps what happened; the agents on
the nodes do what they are told. An event is on the disk before anything that follows from it
leaves the driver.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from ..errors import DistsearchError, LineageError, NodeError
from ..resource.manager import DistributedResourceManager, Lease, LeaseRequest
from ..resource.remote import Message, Remote
from ..resource.resource import Resource
from .budget import Checkpoint
from .checkpoint import KEPT
from .failures import Failures
from .keeper import Keeper
from .lineage import is_committed, nearest_ancestor
from .metrics import encode, from_json
from .objectives import Objectives
from .standings import Standings
from .storage import Storage
from .store import Event, Store
from .travel import Packed
from .words import Continue, Decision, Launch, Pause, Report, Status, Stop, Trial, Wait

NODE_LEASE_S, LEASE_GRACE_S = 30.0, 5.0
WAIT_NOTICE_S = 60.0
MOST_CHILDREN = 256  # that wait for their parents, before the rule is asked for no more trials
RESPITE_S = 0.05
INTERRUPTED, CLOSED = "interrupted", "closed"
UNFINISHED = (INTERRUPTED, CLOSED)  # ends after which a resumed search goes on with the trials


def retries_of(given: Mapping[Status, int], max_failures: int = 3) -> dict[Status, int]:
    """How often a trial runs again after each kind of end: what a new attempt may mend does."""
    return {Status.KILLED: max_failures, Status.NODE_LOST: max_failures, **given}


class Rule(Protocol):
    """What the experiment asks of a scheduler; see FIFOScheduler."""

    def next_launch(self) -> Launch | Wait | None:
        """The next new trial, or None when there will be none."""

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

    @property
    def paused_may_go_on(self) -> bool:
        """Whether each paused trial may still be resumed, according to how others fare."""

    def may_need(self, trial: Trial) -> bool:
        """Whether a trial that has ended may become a parent: its checkpoint is then kept."""

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """Hear of a launch of an earlier run; `given` by the user, not by the searcher."""

    def replay_resume(self, trial_id: int) -> None:
        """Hear that a paused trial went on in an earlier run."""


@dataclass(frozen=True)
class Settings:
    """What stays the same during a search."""

    packed: Packed
    packed_here: Packed  # the same for trials of the driver's own machine
    resource: Resource
    reward_attr: str = "accuracy"
    time_attr: str = "epoch"
    mode: Literal["max", "min"] = "max"
    max_reward: float | None = None
    objectives: Objectives | None = None  # None: one reward is all; else those above are the first
    reuse: bool = False
    spawn: bool = False
    trial_timeout_s: float | None = None
    report_timeout_s: float | None = None
    storage: Storage | None = None  # where checkpoints are; None: in the experiment's folder
    keep: int = KEPT
    max_bytes: int | None = None
    # how many attempts more, after which ends
    retries: Mapping[Status, int] = field(default_factory=lambda: retries_of({}))
    on_parent_failure: str = "nearest_ancestor"  # one of lineage.POLICIES
    parent_retries: int = 3  # with 'retry': so many of its attempts may fail before it is given up


@dataclass(eq=False)
class Attempt:
    """A trial that holds a lease."""

    trial: Trial
    number: int
    lease: Lease
    started: float
    sequence: int = 0
    prepared: bool = False  # the checkpoints that it goes on from are on its node
    sent: bool = False
    stopping: tuple[str, str] | None = None
    decided: Decision | None = None  # at the last report at which it waited for that
    returned: Any = None
    reads: tuple[Checkpoint, ...] = ()  # what it goes on from, until it has saved itself


@dataclass
class Counts:
    """How many trials are in which state, for the progress display."""

    launched: int = 0
    done: int = 0
    paused: int = 0
    stopped: int = 0
    failed: int = 0


class Experiment:
    """Runs the trials of one search until there is nothing left to launch or to wait for."""

    def __init__(
        self,
        rule: Rule,
        settings: Settings,
        manager: DistributedResourceManager,
        store: Store,
        say: Callable[[str], None],
    ) -> None:
        self.rule = rule
        self.settings = settings
        self.manager = manager
        self.store = store
        self.say = say
        self.trials: dict[int, Trial] = {}
        self.counts = Counts()
        self.standings = Standings(
            settings.reward_attr, settings.mode, settings.time_attr, settings.objectives
        )
        self.failures = Failures()
        self._open: dict[int, Trial] = {}  # the trials that have not ended
        self.num_trials: int | None = None
        self.deadline: float | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.error: BaseException | None = None
        self.ending = ""  # why nothing more is launched
        self._added: deque[Trial] = deque()  # to be launched before what the rule suggests
        self._children: dict[int, Trial] = {}  # that wait for the weights of their parents
        self._orphans_told: set[str] = set()
        # Trials of a lost node that wait until it cannot run them any more.
        self._delayed: dict[int, asyncio.TimerHandle] = {}
        self._exhausted = True
        self._thinking = False  # the rule will call wake()
        self._rule_waits = False  # until something happens, the rule launches nothing new,
        self._nothing_paused = True  # and nothing paused
        self._resume_when_paused: set[int] = set()
        self._searching = False  # not while only single trials of the user run
        self._launched_in_run = 0
        self._decided: dict[int, Decision] = {}  # in an earlier run, but not carried out there
        # Trials that a node may still run for an earlier driver, and until when.
        self._elsewhere: set[int] = set()
        self._elsewhere_until = 0.0
        self._outliving: set[str] = (
            set()
        )  # the hosts whose agents outlive their driver, for a while
        self._restored = 0  # trials that the rule launched in an earlier run of the driver
        self.ended_earlier = 0  # trials that ended in an earlier run of the driver
        self._interrupted: list[Trial] = []  # by Ctrl-C: they go on with the next run()
        self._live: dict[int, Attempt] = {}
        self._by_remote: dict[int, dict[int, Attempt]] = {}
        self._request: LeaseRequest | None = None
        self._granting = False
        self._unacknowledged: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._notice: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.keeper = Keeper(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._trial_ended: dict[int, list[asyncio.Future[Any]]] = {}

    # The user's wishes

    def run(self, num_trials: int | None, time_out_s: float | None) -> None:
        """Launch up to `num_trials` more trials, for `time_out_s` seconds from now at most."""
        self.num_trials = num_trials
        is_resumed = self._restored > 0
        self._launched_in_run = self._restored
        if num_trials is not None:  # what is more belongs to the next run() of the same program
            self._launched_in_run = min(self._restored, num_trials)
        self._restored -= self._launched_in_run
        self._exhausted = False
        self._searching = True
        self._something_happened()
        self.ending = ""
        self.error = None
        self.deadline = None
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
        self._carry_out()
        self._take_up_interrupted()
        if is_resumed:
            self._end_if_good_enough()  # the earlier run was, perhaps
        self.fill()

    def add(self, config: Mapping[str, Any], is_final: bool = False) -> Trial:
        """Queue one configuration, to be launched before the searcher's next one."""
        if self.is_idle:  # whatever ended the search holds no longer, but it does not go on
            self.ending, self.error, self._exhausted = "", None, True
        trial = self._interrupted_final(config) if is_final else None
        if trial is None:
            trial = self._new_trial(Launch(config), given=True, is_final=is_final)
        self._added.append(trial)
        self.started_at = self.started_at or time.monotonic()
        self.ended_at = None
        self._idle.clear()
        self.fill()
        return trial

    def wake(self) -> None:
        """Ask the rule again, which had nothing to launch and was thinking."""
        self._something_happened()
        self.fill()

    def end(
        self, reason: str, error: BaseException | None = None, *, after_save_s: float = 0.0
    ) -> None:
        """Launch nothing more and stop what runs.

        Trials that save checkpoints go on for up to `after_save_s` seconds, until their next one.
        """
        if self.ending:
            self.error = self.error or error
            return
        self.ending, self.error = reason, error
        if self._request is not None:
            self._request.cancel()
            self._request = None
        for trial_id, timer in self._delayed.items():
            timer.cancel()
            self._added.append(self.trials[trial_id])
        self._delayed.clear()
        waiting = [*self._added, *self._children.values()]
        self._added.clear()
        self._children.clear()
        for trial in waiting:
            self._trial_over(trial, Status.STOPPED, reason)
        for attempt in list(self._live.values()):
            saves = attempt.trial.saves_first is not None
            self.stop(attempt, "stopped", reason, after_save_s=after_save_s if saves else 0.0)
        self.check_idle()

    def stop(
        self, attempt: Attempt, status: str, reason: str, *, after_save_s: float = 0.0
    ) -> None:
        """Stop one trial: TERM, and KILL if it does not listen."""
        if attempt.stopping is not None:
            return
        attempt.stopping = (status, reason)
        if attempt.sent:
            end = {"status": status, "reason": reason, "after_save_s": after_save_s}
            attempt.lease.remote.send({"op": "stop", **_name(attempt), **end})

    def abandon(self, reason: str) -> None:
        """Take every running attempt as over: the nodes are about to be closed."""
        for attempt in list(self._live.values()):
            self._release(attempt)
            self._attempt_over(attempt, Status.STOPPED, reason)
        self.check_idle()

    async def wait(self) -> None:
        """Return when nothing runs and nothing more will be launched."""
        await self._idle.wait()

    async def wait_for(self, trial: Trial) -> Any:
        """Return what the train function returned, once the trial has ended."""
        if trial.status.is_end:
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._trial_ended.setdefault(trial.id, []).append(future)
        return await future

    @property
    def running(self) -> list[Trial]:
        """The trials that hold slots now."""
        return [attempt.trial for attempt in list(self._live.values())]

    @property
    def is_searching(self) -> bool:
        """Whether the rule is still asked for new trials."""
        return not (self.ending or self._exhausted or self._enough)

    @property
    def total(self) -> int | None:
        """How many trials there will be at most, if that is known."""
        if self._exhausted and self.counts.launched:
            return self.counts.launched
        if self.num_trials is None:
            return None
        return self.counts.launched - self._launched_in_run + self.num_trials

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing is to be launched."""
        return self._idle.is_set()

    def restore(self, events: Iterable[Event]) -> None:
        """Take up an earlier run from its log: nothing finished runs again, the rest does.

        The rule hears of everything in the order in which it happened.
        """
        for event in events:
            if event.kind == "node":
                self._replay_node(event.body)
            elif event.trial is not None:
                getattr(self, "_replay_" + event.kind)(event)
        self.keeper.replay_ends(self.trials.values())
        succeeded = any(t.has_result and not t.status.is_failure for t in self.trials.values())
        self.failures = Failures(succeeded)  # the causes of others may have been mended since
        self.counts.launched = len(self.trials)
        self._elsewhere_until = time.monotonic() + NODE_LEASE_S + LEASE_GRACE_S
        for trial in self.trials.values():
            goes_on = isinstance(self._decided.get(trial.id, Continue()), Continue)
            if trial.status not in (Status.WAITING, Status.RUNNING) or not goes_on:
                continue
            if trial.id in self._elsewhere:
                continue
            if trial.is_final:
                self._set_aside(trial, INTERRUPTED)
            else:
                self._queue(trial)
        counts = self.counts
        self.ended_earlier = counts.done + counts.stopped + counts.failed + counts.paused

    def _replay_node(self, body: Mapping[str, Any]) -> None:
        if not body.get("address", "local:").startswith("local:"):
            self._outliving.add(body["came"])

    def _replay_launched(self, event: Event) -> None:
        body, number = event.body, event.trial
        assert number is not None
        self.trials[number] = self._open[number] = Trial(
            number,
            body["config"],
            parents=tuple(body.get("parents", ())),
            wait_for=body.get("wait_for", "end"),
            bracket=body.get("bracket"),
            is_final=body["is_final"],
        )
        self._restored += not body["given"]
        self.rule.replay_launch(number, body["config"], body["given"], body.get("told"))

    def _replay_started(self, event: Event) -> None:
        trial = self._replayed(event, moves_on=True)
        if trial.status is Status.PAUSED:
            self.rule.replay_resume(trial.id)
            self._set_running(trial)
        trial.start(event.attempt or 0, event.body["host"])
        if trial.host in self._outliving:
            self._elsewhere.add(trial.id)

    def _replay_report(self, event: Event) -> None:
        trial = self._replayed(event)
        report = self.standings.report(trial, event.seq or 0, event.body)
        self._count(trial, report)
        self._decided[trial.id] = self.rule.on_report(trial, report)

    def _replay_saved(self, event: Event) -> None:
        self.keeper.replay_saved(self._replayed(event), event.body)

    def _replay_deleted(self, event: Event) -> None:
        self.keeper.replay_deleted(self._replayed(event), event.body["name"])

    def _replay_inherits(self, event: Event) -> None:
        self._replayed(event).inherits = tuple(event.body["from"])

    def _replay_paused(self, event: Event) -> None:
        self._pause(self._replayed(event, moves_on=True))

    def _replay_lost(self, event: Event) -> None:
        trial, body = self._replayed(event), event.body
        status = Status(body.get("status", "node_lost"))
        trial.failures[status] += status.is_failure
        self._forget_weights(trial, body.get("without", ()))
        if body.get("is_over", status is not Status.NODE_LOST):
            self._elsewhere.discard(trial.id)

    def _replay_ended(self, event: Event) -> None:
        trial, body = self._replayed(event, moves_on=True), event.body
        trial.seconds = body.get("seconds") or 0.0
        trial.error = body.get("traceback") or ""
        status = Status(body["status"])
        trial.failures[status] += status.is_failure
        self._count_end(trial, status, body["reason"])

    def _replay_again(self, event: Event) -> None:
        self._reopen(self._replayed(event))

    def _replayed(self, event: Event, moves_on: bool = False) -> Trial:
        """The trial of an event; `moves_on`: what was decided of it is done, or overtaken."""
        assert event.trial is not None
        if moves_on:
            self._decided.pop(event.trial, None)
            self._elsewhere.discard(event.trial)
        return self.trials[event.trial]

    def _queue(self, trial: Trial) -> None:
        """Let a trial of an interrupted run go on, a child once its parents' weights are there."""
        if trial.parents and trial.inherits is None and not trial.attempt:
            self._children[trial.id] = trial
        else:
            self._added.append(trial)

    def _set_aside(self, trial: Trial, reason: str) -> None:
        """A trial is interrupted: it has not ended, so the rule hears nothing, as in a replay."""
        self._is_paused_no_more(trial)
        trial.status, trial.reason = Status.STOPPED, reason
        self.counts.stopped += 1
        self._interrupted.append(trial)

    def _take_up_interrupted(self) -> None:
        """Queue what an interrupted run of this process left; `run_with_config` does its own."""
        interrupted = [trial for trial in self._interrupted if not trial.is_final]
        self._interrupted = [trial for trial in self._interrupted if trial.is_final]
        for trial in interrupted:
            self._reopen_interrupted(trial)
            self._queue(trial)
        self._look_after_children()

    def _interrupted_final(self, config: Mapping[str, Any]) -> Trial | None:
        """The trial of an interrupted `run_with_config` with this configuration."""
        for trial in self._interrupted:
            if trial.is_final and dict(trial.config) == dict(config):
                self._interrupted.remove(trial)
                self._reopen_interrupted(trial)
                return trial
        return None

    def _reopen_interrupted(self, trial: Trial) -> None:
        self.counts.stopped -= 1
        trial.status, trial.reason = Status.WAITING, ""

    def _carry_out(self) -> None:
        """Stop or pause the trials whose driver died right after it had so decided.

        What may still run somewhere goes on only when it cannot any more.
        """
        decided, self._decided = self._decided, {}
        for trial_id, decision in decided.items():
            trial = self.trials[trial_id]
            if isinstance(decision, Stop):
                self._trial_over(trial, Status.STOPPED, "by the rule")
            elif isinstance(decision, Pause) and trial_id not in self._elsewhere:
                self._paused(trial)
        elsewhere, self._elsewhere = self._elsewhere, set()
        for trial_id in elsewhere:
            trial = self.trials[trial_id]
            if trial.status in (Status.WAITING, Status.RUNNING):
                pauses = isinstance(decided.get(trial_id), Pause)
                delay_s = max(0.0, self._elsewhere_until - time.monotonic())
                self._later(delay_s, self._paused if pauses else self._added.append, trial)
        if self._delayed:
            self.say(
                f"{len(self._delayed)} trials may still run on nodes that the last driver did not "
                "close: they go on when that is over for sure"
            )
        self._look_after_children()
        self._something_happened()

    # Nodes

    def add_remote(self, remote: Remote) -> None:
        """Use a node: send it the train function, then fill its slots."""
        packed = self._packed_for(remote)
        remote.send(
            {
                "op": "preload",
                "modules": [*packed.modules, *(["fsspec"] if self.settings.storage else [])],
                "sys_path": _own_sys_path() if remote.is_local else [],
                "entry": "distsearch.core.trial_process",
                "spawn": self.settings.spawn,
            }
        )
        remote.send({"op": "function", "name": packed.name, "data": packed.data})
        self._by_remote[remote.remote_id] = {}
        self.store.append(
            "node", body={"came": remote.host, "address": remote.address, **remote.facts.to_dict()}
        )
        self.manager.add(remote)

    def _packed_for(self, remote: Remote) -> Packed:
        return self.settings.packed_here if remote.is_local else self.settings.packed

    def retire(self, remote: Remote) -> None:
        """Start nothing more on a node, which is about to go."""
        self.manager.remove(remote)

    def on_lost(self, remote: Remote, reason: str, confirmed_dead: bool) -> None:
        """A node is gone: its slots too, and its trials go elsewhere once it cannot run them."""
        if remote.remote_id not in self._by_remote:
            return
        self.manager.remove(remote)
        self.store.append("node", body={"went": remote.host, "reason": reason})
        attempts = list(self._by_remote.pop(remote.remote_id).values())
        self.say(f"node {remote.host} is gone: {reason}; {len(attempts)} trials ran on it")
        delay = 0.0 if confirmed_dead else NODE_LEASE_S + LEASE_GRACE_S
        for attempt in attempts:
            self._attempt_lost(attempt, reason, delay)
        self._something_happened()
        self.fill()

    def _attempt_lost(self, attempt: Attempt, reason: str, delay_s: float) -> None:
        self._live.pop(attempt.trial.id, None)
        self.keeper.let_go(attempt)
        if attempt.stopping is not None:
            self._attempt_over(attempt, Status(attempt.stopping[0]), attempt.stopping[1])
        elif isinstance(attempt.decided, Stop):
            self._attempt_over(attempt, Status.STOPPED, "by the rule")
        elif isinstance(attempt.decided, Pause):
            attempt.trial.status = Status.WAITING
            self._later(delay_s, self._paused, attempt.trial)
        else:
            self._attempt_failed(attempt, Status.NODE_LOST, reason, delay_s=delay_s)

    def _attempt_failed(
        self,
        attempt: Attempt,
        status: Status,
        reason: str,
        message: Message | None = None,
        delay_s: float = 0.0,
    ) -> None:
        """Run the trial again from its last checkpoint, unless it has failed so too often."""
        trial = attempt.trial
        trial.failures[status] += 1
        failures, allowed = trial.failures[status], self.settings.retries.get(status, 0)
        if self.ending or failures > allowed:
            if failures > 1:
                reason = f"{reason} (the last of {failures} attempts that ended so)"
            self._attempt_over(attempt, status, reason, message)
            return
        facts = {"status": status.value, "reason": reason, "is_over": not delay_s}
        self.store.append("lost", trial.id, attempt.number, body=facts)
        trial.status = Status.WAITING
        if status is not Status.NODE_LOST:  # of a node all hear at once
            again = f"it runs again ({failures} of {allowed})"
            self.say(f"trial {trial.id} {status.value}: {reason}; {again}")
        self._later(delay_s, self._added.append, trial)

    def _later(self, delay_s: float, go_on: Callable[[Trial], None], trial: Trial) -> None:
        """Go on with a trial once no node can run it any more: never two attempts at a time."""
        if not delay_s:
            go_on(trial)
            return

        def now() -> None:
            del self._delayed[trial.id]
            go_on(trial)
            self._something_happened()
            self.fill()

        self._delayed[trial.id] = asyncio.get_running_loop().call_later(delay_s, now)

    # Launching

    def fill(self) -> None:
        """Launch what fits; ask for one slot more than there are."""
        self._granting = True
        while self._wants_more and self._request is None:
            request = self.manager.request(self.settings.resource, self._granted)
            if request.waits:
                self._request = request
        self._granting = False
        self.check_idle()

    @property
    def _wants_more(self) -> bool:
        if self.ending:
            return False
        if self._added or not self._nothing_paused:
            return True
        return self.is_searching and not self._rule_waits

    @property
    def _enough(self) -> bool:
        return self.num_trials is not None and self._launched_in_run >= self.num_trials

    def _granted(self, lease: Lease) -> None:
        self._request = None
        trial = self._next_trial()
        if trial is None:
            self.manager.release(lease)
        else:
            self._start(trial, lease)
        if not self._granting:
            self.fill()

    def _next_trial(self) -> Trial | None:
        if self.ending:
            return None
        if self._added:
            return self._added.popleft()
        try:
            return self._next_resumed() or self._next_new()
        except BaseException as error:  # sys.exit() too: it would end the loop's thread
            self.end(f"the searcher or the rule failed: {error!r}", error)
            return None

    def _next_resumed(self) -> Trial | None:
        while not self._nothing_paused:
            trial_id = self.rule.next_resume()
            if trial_id is None:
                self._nothing_paused = True
            elif self.trials[trial_id].status.is_end:
                continue  # it ended before it could pause
            elif trial_id in self._live or trial_id in self._delayed:  # it is still ending
                self._resume_when_paused.add(trial_id)
            else:
                return self.trials[trial_id]
        return None

    def _next_new(self) -> Trial | None:
        """The next new trial that can start; children whose parents are not ready are set aside."""
        while not (self._rule_waits or self._exhausted or self._enough):
            if self._added:  # a parent that runs again
                return self._added.popleft()
            if len(self._children) >= MOST_CHILDREN:
                self._rule_waits = True
                break
            launch = self.rule.next_launch()
            if isinstance(launch, Launch):
                self._launched_in_run += 1
            elif isinstance(launch, Wait):
                self._rule_waits, self._thinking = True, launch.thinking
            else:
                self._exhausted = True
            if not isinstance(launch, Launch) or self._enough:
                # The rule may have kept paused trials back for new ones, which do not come.
                self._nothing_paused = self.counts.paused == 0
            if not isinstance(launch, Launch):
                break
            trial = self._new_trial(launch)
            if not trial.parents or self._settle(trial):
                return trial
            if trial.status.is_end:  # for want of a parent; a rule may go on so for ever
                self._rule_waits = self._thinking = True
                asyncio.get_running_loop().call_later(RESPITE_S, self.wake)
            else:
                self._children[trial.id] = trial
        return None

    def _something_happened(self) -> None:
        """The rule may know more to launch now."""
        self._rule_waits = self._thinking = False
        self._nothing_paused = self.counts.paused == 0

    def _new_trial(self, launch: Launch, given: bool = False, is_final: bool = False) -> Trial:
        self._check_parents(launch.parents)
        trial = Trial(
            len(self.trials),
            dict(launch.config),
            tuple(dict.fromkeys(map(int, launch.parents))),
            launch.wait_for,
            is_final=is_final,
            bracket=launch.bracket,
        )
        body = {"config": trial.config, "given": given, "is_final": is_final}
        if trial.parents:
            body.update(parents=list(trial.parents), wait_for=trial.wait_for)
        if launch.told is not None:
            body["told"] = launch.told
        if launch.bracket is not None:
            body["bracket"] = launch.bracket
        # Encoded before anything else is done: if that fails, the rule is to blame.
        self.store.append("launched", trial.id, body=encode(body))
        self.trials[trial.id] = self._open[trial.id] = trial
        self.counts.launched += 1
        return trial

    def _check_parents(self, parents: Sequence[int]) -> None:
        """Only earlier trials can be parents, so that nobody descends from himself."""
        unknown = [parent for parent in parents if parent not in self.trials]
        if unknown:
            child = len(self.trials)
            known = f"0 to {child - 1}" if child else "none"
            raise LineageError(
                f"trial {child} cannot have the parent {unknown[0]!r}: parents are ids of "
                f"trials that were launched before it ({known}), so that there is no circle"
            )

    # Children, who wait for the weights of their parents: here, and neither in a slot nor a thread

    def _look_after_children(self, of: Trial | None = None, stuck: bool = False) -> None:
        """Queue the children (of one trial, or all) that can start, end those that never can.

        `stuck`: nothing else is left to run, so that who is paused will not go on.
        """
        for child in list(self._children.values()):
            if child.id not in self._children or (of is not None and of.id not in child.parents):
                continue
            if self._settle(child, stuck):
                del self._children[child.id]
                self._added.append(child)

    def _settle(self, child: Trial, stuck: bool = False) -> bool:
        """Decide, if that can be, from whose weights a child goes on; whether it can start."""
        parents = [self.trials[parent] for parent in child.parents]
        open_ones = [parent for parent in parents if not is_committed(parent, child.wait_for)]
        lost = [
            parent
            for parent in open_ones
            if parent.status.is_end or (stuck and parent.status is Status.PAUSED)
        ]
        policy = self.settings.on_parent_failure
        if policy == "retry" and lost:
            lost = [parent for parent in lost if not self._runs_again(parent)]
        if lost and policy in ("fail", "retry"):
            self._children.pop(child.id, None)
            self._trial_over(child, Status.FAILED, f"its {_why_lost(lost[0])}")
            return False
        if len(lost) < len(open_ones):
            return False
        stand_ins = {
            parent.id: nearest_ancestor(self.trials, parent)
            if policy == "nearest_ancestor"
            else None
            for parent in lost
        }
        child.inherits = tuple(stand_ins.get(parent, parent) for parent in child.parents)
        body: dict[str, Any] = {"from": list(child.inherits)}
        if lost:
            body.update(policy=policy, reason="; ".join(map(_why_lost, lost)))
            self._tell_of_orphan(child, lost[0], stand_ins[lost[0].id])
        self.store.append("inherits", child.id, body=body)
        return True

    def _tell_of_orphan(self, child: Trial, parent: Trial, stand_in: int | None) -> None:
        """Say it once of each kind of end: a train function that never saves has many orphans."""
        kind = parent.status.value
        if kind in self._orphans_told:
            return
        self._orphans_told.add(kind)
        goes_on = "starts from scratch" if stand_in is None else f"goes on from trial {stand_in}"
        self.say(
            f"trial {child.id}: its {_why_lost(parent)}, so it {goes_on} (on_parent_failure="
            f"{self.settings.on_parent_failure!r}; further ones like it only in the log)"
        )

    def _runs_again(self, parent: Trial) -> bool:
        """Let a parent run once more for its children, unless that has failed too often.

        It has failed, or what it had saved went with its node. One that never saves would not then.
        """
        had_weights = parent.saves_first is not None and parent.status is Status.FINISHED
        if not parent.attempt or not (parent.status.is_failure or had_weights):
            return False
        failed = sum(n for status, n in parent.failures.items() if status.is_failure)
        if failed + had_weights > self.settings.parent_retries:
            return False
        self.store.append("again", parent.id, parent.attempt, body={"reason": parent.reason})
        self._reopen(parent)
        self._added.append(parent)
        return True

    def _reopen(self, trial: Trial) -> None:
        """A trial that had ended waits for its next attempt."""
        if trial.status.is_failure:
            self.counts.failed -= 1
        else:  # its weights are lost, which counts as a failure too
            self.counts.done -= 1
            trial.failures[Status.NODE_LOST] += 1
            trial.forget_weights()
        trial.status, trial.reason, trial.error = Status.WAITING, "", ""
        self._open[trial.id] = trial

    def _start(self, trial: Trial, lease: Lease) -> None:
        trial.start(trial.attempt + 1, lease.remote.host)
        self._set_running(trial)
        attempt = Attempt(trial, trial.attempt, lease, time.monotonic())
        self._live[trial.id] = attempt
        self._by_remote[lease.remote.remote_id][trial.id] = attempt
        self.store.append("started", trial.id, attempt.number, body={"host": trial.host})
        self.store.when_durable(partial(self._send_start, attempt))

    def _set_running(self, trial: Trial) -> None:
        self._is_paused_no_more(trial)
        trial.status = Status.RUNNING

    def _is_paused_no_more(self, trial: Trial) -> None:
        if trial.status is Status.PAUSED:
            self.counts.paused -= 1

    def _send_start(self, attempt: Attempt) -> None:
        if self._live.get(attempt.trial.id) is not attempt:
            return  # its node was lost meanwhile
        if attempt.stopping is not None:
            self._release(attempt)
            self._attempt_over(attempt, Status(attempt.stopping[0]), attempt.stopping[1])
            self.fill()
            return
        if self._needs_checkpoints(attempt):
            self.do(self._bring_checkpoints(attempt))
            return
        try:
            message = self._start_message(attempt)
        except BaseException as error:
            self.end(f"{type(self.rule).__name__}.due_at failed: {error!r}", error)
            self.stop(attempt, "stopped", self.ending)
            self._send_start(attempt)  # it is over
            return
        attempt.sent = True
        attempt.lease.remote.send(message)

    # Checkpoints that are needed on another node

    def _sources(self, trial: Trial) -> list[Trial]:
        """The trials whose checkpoints this one may load: itself, and whom it inherits from."""
        inherits = dict.fromkeys(one for one in trial.inherits or () if one is not None)
        own = [trial] if trial.saved_step is not None else []
        return [*own, *(self.trials[source] for source in inherits)]

    def _needs_checkpoints(self, attempt: Attempt) -> bool:
        remote = attempt.lease.remote
        return not (attempt.prepared or self.settings.storage) and any(
            source.saved_step is not None and not self.keeper.is_on(remote, source)
            for source in self._sources(attempt.trial)
        )

    async def _bring_checkpoints(self, attempt: Attempt) -> None:
        """Bring to the node what its trial goes on from, then start it; without, if that fails.

        But a child without a checkpoint of its own does not start without its parents'.
        """
        remote, trial = attempt.lease.remote, attempt.trial
        failed: list[Trial] = []
        for source in self._sources(trial):
            try:
                await self.keeper.bring(attempt, source)
            except (DistsearchError, OSError) as error:
                self.say(
                    f"the checkpoint of trial {source.id} could not be brought to {remote.host}: "
                    f"{error}; trial {trial.id} goes on from what is there"
                )
                failed.append(source)
        attempt.prepared = True
        lost = [
            source
            for source in self._sources(trial)
            if source in failed or self.keeper.is_gone(remote, source)
        ]
        if trial.saved_step is None and lost and self._live.get(trial.id) is attempt:
            self._orphaned(attempt, lost)
            return
        self._send_start(attempt)

    def _orphaned(self, attempt: Attempt, lost: list[Trial]) -> None:
        """A child was to start, but its parents' weights are gone: its slot serves others."""
        child = attempt.trial
        self._release(attempt)
        without = [parent.id for parent in lost]
        reason = f"the weights of trial {without[0]} are not to be had"
        body = {"status": Status.STOPPED.value, "reason": reason, "without": without}
        self.store.append("lost", child.id, attempt.number, body=body)
        self._forget_weights(child, without)
        child.status = Status.WAITING
        if self.ending:
            self._attempt_over(attempt, Status.STOPPED, self.ending)
        else:
            self._children[child.id] = child
            self._look_after_children()
        self.fill()

    def _forget_weights(self, child: Trial, parents: Iterable[int]) -> None:
        """The weights of which a child was to start are gone: it is decided anew from whose."""
        for parent in parents:
            self.trials[parent].forget_weights()
            child.inherits = None

    # Which checkpoints are needed

    def which_are_needed(self) -> Callable[[int], bool]:
        """Whether the newest checkpoint of a trial may be read again, as things are now."""
        parents = self._needed_parents()
        best = {trial.id for trial in [*self.front, self.best] if trial is not None}

        def is_needed(trial_id: int) -> bool:
            trial = self.trials[trial_id]
            goes_on = not trial.status.is_end or self.ending in UNFINISHED or trial.is_final
            return goes_on or trial_id in parents or trial_id in best or self._may_need(trial)

        return is_needed

    def _needed_parents(self) -> set[int]:
        """Of whose weights a child that has not saved yet may go on."""
        new = [trial for trial in self._open.values() if trial.saved_step is None]
        needed = {one for trial in new for one in (*trial.parents, *(trial.inherits or ()))}
        if self.settings.on_parent_failure == "nearest_ancestor":
            parents = {one for child in self._children.values() for one in child.parents}
            needed |= {nearest_ancestor(self.trials, self.trials[parent]) for parent in parents}
        return {one for one in needed if one is not None}

    def _may_need(self, trial: Trial) -> bool:
        try:
            return self.rule.may_need(trial)
        except Exception as error:
            self.end(f"{type(self.rule).__name__}.may_need failed: {error!r}", error)
            return True

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Have some work done beside the search."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start_message(self, attempt: Attempt) -> Message:
        settings, allocation = self.settings, attempt.lease.allocation
        num_cpus = max(1, settings.resource.num_cpus)
        return {
            "op": "start",
            **_name(attempt),
            "env": {"CUDA_VISIBLE_DEVICES": ",".join(allocation.gpus)},
            "threads": num_cpus,
            "reuse": settings.reuse,
            "limits": {
                "memory_bytes": allocation.memory_bytes,
                "trial_timeout_s": settings.trial_timeout_s,
                "report_timeout_s": settings.report_timeout_s,
            },
            "job": {
                "function": self._packed_for(attempt.lease.remote).name,
                "config": attempt.trial.config,
                "time_attr": settings.time_attr,
                "due": self.rule.due_at(attempt.trial),
                "resume": attempt.number > 1,
                "attempt": attempt.number,
                "keep": settings.keep,
                "storage": self.keeper.names_in_storage(attempt),
                "saved_step": attempt.trial.saved_step,
                "parents": list(
                    zip(attempt.trial.parents, attempt.trial.inherits or (), strict=False)
                ),
                "cwd": attempt.lease.remote.trial_cwd,
                "args": {
                    "task_id": attempt.trial.id,
                    "num_cpus": settings.resource.num_cpus,
                    "num_gpus": settings.resource.num_gpus,
                    "gpu_ids": list(allocation.gpus),
                },
            },
        }

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

    def _on_running(self, remote: Remote, message: Message) -> None:
        pass

    def _on_uploaded(self, remote: Remote, message: Message) -> None:
        remote.on_uploaded(message["path"], message["error"])

    def _on_problem(self, remote: Remote, message: Message) -> None:
        reason = message["reason"]
        remote.on_gone(reason)
        self.on_lost(remote, reason, confirmed_dead=True)
        if remote.is_local and not self.manager.remotes:  # nothing would ever come back
            self.end(reason, NodeError(f"no node is left: {reason}"))

    def _on_notice(self, remote: Remote, message: Message) -> None:
        self.say(f"{remote.host}: {message['text']}")

    def _on_output(self, remote: Remote, message: Message) -> None:
        prefix = "" if remote.is_local else f"[ worker {remote.host} ] :"
        if not remote.is_local:  # the node's own copy goes with the node
            folder = self.store.folder / "trials" / str(message["trial"])
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(folder / "output.txt", "a") as file:
                file.write(message["text"])
        for line in message["text"].splitlines():
            self.say(f"{prefix} {line}" if prefix else line)

    def _on_saved(self, remote: Remote, message: Message) -> None:
        attempt = self._attempt(message)
        if attempt is not None:
            trial = attempt.trial
            about: Message = {k: message[k] for k in ("step", "name", "bytes") if k in message}
            self.store.append("saved", trial.id, attempt.number, body=about)
            self.keeper.saved(attempt, about)
            self._serve_children(trial)

    def _serve_children(self, trial: Trial) -> None:
        """Start the children that have waited for what a trial has just saved."""
        if self._children and not self.ending:
            self._look_after_children(of=trial)
            if self._added:
                self.fill()

    def _on_report(self, remote: Remote, message: Message) -> None:
        body = message["body"]
        waiting = self._unacknowledged
        waiting[remote.remote_id] = waiting.get(remote.remote_id, 0) + len(body)
        attempt = self._attempt(message)
        if attempt is None or message["seq"] <= attempt.sequence:
            return  # of an attempt that is over, or sent twice
        attempt.sequence = message["seq"]
        trial = attempt.trial
        self.store.append("report", trial.id, attempt.number, attempt.sequence, body)
        report = self.standings.report(trial, attempt.sequence, from_json(body))
        saved_step = trial.saved_step
        self._count(trial, report)
        self._end_if_good_enough()
        decision = self._decide(trial, report)
        if trial.saved_step != saved_step:  # it counts now that a report has followed it
            self._serve_children(trial)
        if message["due"]:
            attempt.decided = decision
            answer = {"op": "decide", **_name(attempt), "decision": decision.word}
            self.store.when_durable(partial(remote.send, answer))
        elif isinstance(decision, Stop):
            self.stop(attempt, "stopped", "by the rule")

    def _count(self, trial: Trial, report: Report) -> None:
        self.standings.count(trial, report)
        self.failures.reported(trial)

    @property
    def best(self) -> Trial | None:
        """The best trial so far, where one reward is all that counts in the end."""
        return self.standings.best

    @property
    def front(self) -> list[Trial]:
        """The trials that no other dominates so far, where there are several objectives."""
        return self.standings.front(list(self._open.values()))

    def _end_if_good_enough(self) -> None:
        goal, best = self.settings.max_reward, self.best
        if goal is None or best is None or self.ending or not self._searching:
            return
        if self.standings.has_reached(goal):
            name = self.settings.reward_attr
            self.end(f"trial {best.id} reached {name}={best.best_reward:g} (max_reward={goal:g})")

    def _decide(self, trial: Trial, report: Report) -> Decision:
        decision = self._ask_rule(trial, report)  # also at the end: a replay will tell it too
        return Stop() if self.ending and self.ending not in UNFINISHED else decision

    def _ask_rule(self, trial: Trial, report: Report) -> Decision:
        try:
            decision = self.rule.on_report(trial, report)
            if not isinstance(decision, (Continue, Stop, Pause)):
                raise TypeError(
                    f"on_report returned {decision!r}; return Continue(), Stop() or Pause()"
                )
            return decision
        except BaseException as error:
            self.end(f"{type(self.rule).__name__}.on_report failed: {error!r}", error)
            return Stop()

    def _on_ended(self, remote: Remote, message: Message) -> None:
        attempt = self._attempt(message)
        if attempt is None:
            return
        self._forget(attempt)
        trial = attempt.trial
        self.keeper.ended(trial, remote.is_local)
        status, reason = Status(message["status"]), message["reason"]
        if status is Status.PAUSED:
            self._paused(trial)
        elif status is Status.NODE_LOST:
            self._attempt_lost(attempt, reason, delay_s=0.0)
        else:
            if status is Status.FINISHED and not trial.has_result:
                if trial.parents and not trial.reports:
                    status, reason = Status.STOPPED, "what it started from had no epoch left"
                else:
                    status, reason = Status.NO_METRIC, self._missing_metric(trial)
            trial.error = message["traceback"]
            attempt.returned = message.get("returned")
            if status.is_failure:
                self._attempt_failed(attempt, status, reason, message)
            else:
                self._attempt_over(attempt, status, reason, message)
        self.keeper.tidy(trial)
        self.keeper.collect()
        self._something_happened()
        # Only now, as at this the rule is asked for the next trial: it has to know of this one.
        self.manager.release(attempt.lease)
        self.fill()

    def _paused(self, trial: Trial) -> None:
        self.store.append("paused", trial.id, trial.attempt)
        self._pause(trial)
        self._look_after_children(of=trial)
        if trial.id in self._resume_when_paused:
            self._resume_when_paused.discard(trial.id)
            self._added.append(trial)

    def _pause(self, trial: Trial) -> None:
        trial.status = Status.PAUSED
        self.counts.paused += 1
        try:
            self.rule.on_pause(trial)
        except Exception as error:
            self.end(f"{type(self.rule).__name__}.on_pause failed: {error!r}", error)

    def _missing_metric(self, trial: Trial) -> str:
        objectives, wanted = self.settings.objectives, self.settings.reward_attr
        if objectives is not None and trial.reports:
            last = ", ".join(f"{m}={trial.last_metrics.get(m)!r}" for m in objectives.metrics)
            return f"no report had finite numbers for all that is wanted; the last one had {last}"
        if not trial.reports:
            return f"the train function returned without calling reporter(..., {wanted}=...)"
        got = trial.last_metrics.get(wanted)
        if wanted in trial.last_metrics:
            return f"{wanted} was never a number (the last report had {got!r})"
        names = sorted(set(trial.last_metrics) - {"time_this_iter", "time_since_start"})
        return f"no report had reward_attr={wanted!r}; the last one had {', '.join(names)}"

    def _attempt(self, message: Message) -> Attempt | None:
        attempt = self._live.get(message["trial"])
        return attempt if attempt and attempt.number == message["attempt"] else None

    def _forget(self, attempt: Attempt) -> None:
        del self._live[attempt.trial.id]
        self._by_remote.get(attempt.lease.remote.remote_id, {}).pop(attempt.trial.id, None)
        self.keeper.let_go(attempt)

    def _release(self, attempt: Attempt) -> None:
        self._forget(attempt)
        self.manager.release(attempt.lease)

    # Ends

    def _attempt_over(
        self, attempt: Attempt, status: Status, reason: str, message: Message | None = None
    ) -> None:
        attempt.trial.seconds = time.monotonic() - attempt.started
        self._trial_over(attempt.trial, status, reason, message or {}, attempt)

    def _trial_over(
        self,
        trial: Trial,
        status: Status,
        reason: str,
        message: Message | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        """Log the end of a trial and tell the rule."""
        facts = {k: v for k, v in (message or {}).items() if k not in ("op", "trial", "attempt")}
        facts.update(status=status.value, reason=reason, best=trial.best_reward)
        if trial.point is not None:
            facts.update(best=_one_or_list(trial.point.values), violations=trial.point.violations)
        lost = self.ending in UNFINISHED and status is Status.STOPPED
        self.store.append("lost" if lost else "ended", trial.id, trial.attempt, body=facts)
        if lost:
            self._set_aside(trial, reason)
        else:
            self._count_end(trial, status, reason)
        if status.is_failure:
            self._note_failure(trial)
        elif not lost:
            self.failures.one_did_well()
        for future in self._trial_ended.pop(trial.id, ()):
            if not future.done():
                future.set_result(None if attempt is None else attempt.returned)
        trial.last_metrics = {}
        self._look_after_children(of=trial)

    def _count_end(self, trial: Trial, status: Status, reason: str) -> None:
        self._is_paused_no_more(trial)
        trial.status, trial.reason = status, reason
        if status is Status.FINISHED:
            trial.keep_last_save()
        self.standings.ended(trial)
        self._open.pop(trial.id, None)
        if status.is_failure:
            self.counts.failed += 1
        elif status is Status.STOPPED:
            self.counts.stopped += 1
        else:
            self.counts.done += 1
        try:
            self.rule.on_end(trial)
        except BaseException as error:
            self.end(f"{type(self.rule).__name__}.on_end failed: {error!r}", error)

    def _note_failure(self, trial: Trial) -> None:
        if news := self.failures.note(trial):
            self.say(news)
        unended = len(self._live) + len(self._delayed) + len(self._added)
        if self.rule.paused_may_go_on:
            unended += self.counts.paused
        if found := self.failures.all_alike(unended):
            self.end(*found)

    def check_idle(self) -> None:
        """Come to rest when nothing runs and nothing is to be launched."""
        if self._children and not self._is_busy:  # what they wait for will not come
            self._look_after_children(stuck=True)
            self._something_happened()
            if self._wants_more:
                self.fill()
                return
        if self._is_busy:
            self._watch_for_nodes()
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None
        if self._added and self.ending != CLOSED:  # what came after the end has its turn now
            self.ending, self._exhausted, self._searching = "", True, False
            self.fill()
        elif not self._idle.is_set():
            self.ended_at = time.monotonic()
            self.store.when_durable(self._rest)

    @property
    def _is_busy(self) -> bool:
        thinking = self._thinking and self.is_searching
        moving = self.keeper.is_busy
        return bool(self._live or self._wants_more or self._delayed or moving or thinking)

    def _rest(self) -> None:
        if not self._is_busy:
            self._searching = False
            self._idle.set()

    def _watch_for_nodes(self) -> None:
        """While there is nowhere to run, say so from time to time."""
        if self._notice is None and not self.manager.remotes:
            self._notice = asyncio.get_running_loop().call_later(0.5, self._say_no_node)

    def _say_no_node(self) -> None:
        self._notice = None
        if self.manager.remotes or self.is_idle:
            return
        self.say("no node is left: waiting for one to come back or for add_remote(...)")
        self._notice = asyncio.get_running_loop().call_later(WAIT_NOTICE_S, self._say_no_node)


def _one_or_list(values: tuple[float, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _why_lost(parent: Trial) -> str:
    if not parent.status.is_failure:
        return f"parent {parent.id} is {parent.status.value} and has no checkpoint"
    return f"parent {parent.id} {parent.status.value}: {parent.reason.partition(chr(10))[0][:200]}"


def _name(attempt: Attempt) -> Message:
    return {"trial": attempt.trial.id, "attempt": attempt.number}


def _own_sys_path() -> list[str]:
    return [path or os.getcwd() for path in sys.path]
