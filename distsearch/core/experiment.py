"""The loop of a search: events come in, the rule decides, the log is written, slots are filled.

Everything here runs in the one loop thread. The rule (a scheduler) says what to launch and what a
report means; the manager says where there is room; the ledger says how the search stands, and
changes by what is logged alone; the agents on the nodes do what they are told. An event is on the
disk before anything that follows from it leaves the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import NodeError, StoreError, shown
from ..resource.leases import Lease
from ..resource.manager import DistributedResourceManager
from ..resource.messages import Message
from ..resource.remote import Remote
from .attempt import Attempt, Returned, Verdict
from .ends import CLOSED, NO_FACTS, UNFINISHED, judged
from .lineage import check_parents
from .metrics import encode
from .outcome import Outcome
from .parts import Parts
from .rule import Rule
from .settings import Settings
from .store import Event, Store
from .words import Launch, Status, Trial


class Experiment(Parts):
    """Runs the trials of one search until there is nothing left to launch or to wait for.

        experiment = Experiment(rule, settings, manager, store, say=print)
        experiment.add_remote(remote)
        experiment.run(num_trials=20, time_out_s=None)
        await experiment.wait()

    `show` shows what trials print, as `say` does if there is none. `error`: why it ended, where
    that is an error. Its parts are made and connected in `parts.py`.
    """

    def __init__(
        self,
        rule: Rule,
        settings: Settings,
        manager: DistributedResourceManager,
        store: Store,
        say: Callable[[str], None],
        show: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(rule, settings, manager, store, say, show or say)
        store.on_deleted = self._end_without_log
        self.ending = ""
        self.error: BaseException | None = None
        self.in_run = False
        # Paused trials that the rule had resumed when a run() ended: the next run() starts them.
        self._to_resume: dict[int, Trial] = {}

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
        self.ending, self.error, self.in_run = "", None, True
        self.activity.begin_run(time_out_s)
        for remote in self.manager.remotes.values():
            self.supplies.ask_for_modules(remote)
        self.earlier.close_attempts()
        self.earlier.queue_unfinished()
        for trial in self._to_resume.values():
            if not trial.status.is_end:
                self.queue.put(trial)
        self._to_resume.clear()
        self.queue_children()
        if is_resumed:
            self.reports.end_if_good_enough()  # perhaps the earlier run has reached it
        if self.ledger.paused_by:
            self.say(f"this search is paused by {self.ledger.paused_by}, until `go-on`")
        self.fill()

    def add(self, config: Mapping[str, Any], is_final: bool = False) -> Trial:
        """Queue one configuration, to be launched before the searcher's next one."""
        self.begin_given_only()
        trial = self.earlier.unfinished_final(config) if is_final else None
        if trial is None:
            trial = self.new_trial(Launch(config), is_given=True, is_final=is_final)
        self.start_given(trial)
        return trial

    def start_given(self, trial: Trial) -> None:
        """Have a trial start that was given or let go, though the search may have come to rest."""
        self._to_resume.pop(trial.id, None)
        if trial not in self.children:
            self.queue.put(trial)
        self.activity.begin()
        self.fill()

    def begin_given_only(self) -> None:
        """Let single trials run though the search has ended, which itself does not go on."""
        if self.is_idle:
            self.ending, self.error = "", None
            self.source.serve_given_only()
            self.earlier.close_attempts()

    def run_given_only(self) -> None:
        """Start the trials in the queue, and ask the rule for nothing: the search has ended."""
        self.ending, self.in_run = "", False
        self.source.serve_given_only()
        self.fill()

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
            if trial.status is not Status.WAITING:  # the rule has resumed it, and says so only once
                self._to_resume[trial.id] = trial
            elif reason not in UNFINISHED:
                self.ends.end_trial(trial, reason, Status.STOPPED)
            self.ends.answer(trial)
        for attempt in self.attempts:
            saves = attempt.trial.saves_first is not None
            self.stop(attempt, Status.STOPPED, reason, after_save_s if saves else 0.0)
        self.activity.look()

    def abandon(self, reason: str) -> None:
        """Take every running attempt as over: the nodes are about to be closed."""
        for attempt in self.attempts:
            self._hear_no_more(attempt)
            verdict = attempt.verdict or Verdict(Status.STOPPED, reason)
            self.ends.attempt_over(attempt, Outcome(*verdict, NO_FACTS))
            self.manager.release(attempt.lease)
        self.activity.look()

    def _end_without_log(self, error: StoreError) -> None:
        self.end(str(error), error)
        self.abandon(str(error))
        self.activity.give_up()

    def close(self) -> None:
        """Let go of what waits for a time to come."""
        self.queue.close()
        self.rests.close()
        self.dispatcher.suspects.close()

    async def wait(self) -> None:
        """Return when nothing runs and nothing more will be launched."""
        await self.activity.wait()

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
        return self.activity.started_at is not None

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
        return self.activity.is_idle

    # An earlier run of the driver

    def restore(self, events: Iterable[Event]) -> None:
        """Take up an earlier run from its log: nothing finished runs again, the rest does.

        The rule hears of everything in the order in which it happened.
        """
        self.earlier.restore(events, self.rule, self.keeper)
        self.source.restored()

    # Nodes

    def add_remote(self, remote: Remote) -> None:
        """Use a node: send it the train function, then fill its slots."""
        self.nodes.came(remote)

    def retire(self, remote: Remote) -> None:
        """Start nothing more on a node, which is about to go."""
        self.manager.remove(remote)

    def on_lost(self, remote: Remote, reason: str, confirmed_dead: bool) -> None:
        """A node is gone: its slots too, and its trials go elsewhere once it cannot run them."""
        if self.nodes.went(remote, reason, confirmed_dead):
            self.wake()

    def node_failed(self, remote: Remote, reason: str) -> None:
        """Do without a node whose agent can start nothing any more."""
        remote.on_gone(reason)
        self.on_lost(remote, reason, confirmed_dead=True)
        if remote.is_local and not self.manager.remotes:  # nothing would ever come back
            self.end(reason, NodeError(f"no node is left: {reason}"))

    # Launching

    def fill(self) -> None:
        """Launch what fits."""
        self.dispatcher.fill()

    def launch_no_more(self) -> None:
        """Take back the request for slots."""
        self.dispatcher.withdraw()

    def new_trial(self, launch: Launch, is_given: bool = False, is_final: bool = False) -> Trial:
        """Make a trial, of the rule or of the user: its configuration is completed and logged."""
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

    def start(self, trial: Trial, lease: Lease) -> None:
        """A trial has its slots: log that, then have it start."""
        attempt = Attempt(trial, lease)
        self.queue.begins(trial)
        self.attempts.begins(attempt)
        places = [place.described for place in attempt.places]
        begun = {"places": places, "seed": attempt.seed}
        self.log("started", trial, begun, attempt=attempt.number)
        self.store.when_durable(partial(self.preparation.prepare, attempt))

    def did_not_start(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt was stopped before it began, or its ranks do not reach each other."""
        self._hear_no_more(attempt)
        self.ends.attempt_over(attempt, outcome)
        self.manager.release(attempt.lease)
        self.fill()

    def orphaned(self, attempt: Attempt, lost: Sequence[Trial]) -> None:
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

    def serve_children(self, trial: Trial) -> None:
        """Start the children that have waited for what a trial has just saved."""
        if self.children:
            self.queue_children(of=trial)
            if self.queue.has_ready:
                self.fill()

    # What the agents say

    def on_messages(self, remote: Remote, messages: list[Message]) -> None:
        """Take the messages of a node's agent, in order."""
        try:
            for message in messages:
                self.hearing.takes[message["op"]](remote, message)
        except Exception as error:  # a defect of ours must end the search, not hang it
            self.end(f"internal error: {shown(error)}", error)
            self.abandon("internal error")
        self.reports.acknowledge(remote)

    # Ends

    def stop(
        self, attempt: Attempt, status: Status, reason: str, after_save_s: float = 0.0
    ) -> bool:
        """End an attempt, once the reason for that is on the disk; False if it is just ending."""
        is_new = attempt.stop(Verdict(status, reason), after_save_s)
        if is_new:
            self.store.when_durable(attempt.send_stop)
        return is_new

    def rank_over(self, attempt: Attempt) -> None:
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
        # Last, as the rule is then asked for another trial, and has to know how this one ended.
        self.manager.release(attempt.lease)

    def _hear_no_more(self, attempt: Attempt) -> None:
        """An attempt is over: what its processes still say is ignored."""
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
