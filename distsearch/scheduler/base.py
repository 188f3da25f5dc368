"""The scheduler as users meet it: runs a search over nodes, and is told what to do by its rule."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import math
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..core import folder, modules, notebook, reach
from ..core import returned as returned_value
from ..core.checkpoint import KEPT
from ..core.decorators import TrainFunction
from ..core.ends import CLOSED, INTERRUPTED
from ..core.experiment import Experiment
from ..core.loop import loop
from ..core.objectives import Objectives
from ..core.phrases import counted
from ..core.progress import Progress, Snapshot
from ..core.snapshot import take_snapshot
from ..core.steering import Steering
from ..core.words import Continue, Decision, Launch, Report, Status, Trial, Wait
from ..errors import DistsearchError, ResourceError, SpaceError, StoreError, TrialFailed
from ..resource.addresses import Addresses, nodes_of
from ..resource.fleet import Fleet
from ..resource.manager import DistributedResourceManager
from ..resource.node import Node
from ..resource.resource import Resource
from ..resource.uploads import Source, collect
from ..searcher import Searcher, auto, warm
from ..searcher.arguments import taken_out
from ..searcher.desk import Desk
from ..space import differences
from ..space.autogluon import missing
from . import interrupts
from .callback import Callback
from .options import (
    Options,
    check_bounds,
    check_number,
    check_objectives,
    complete,
    config_files,
    seed_of_others,
    with_args,
)
from .state import Resumable
from .wording import Wording

if TYPE_CHECKING:
    from typing_extensions import Self

CLOSE_BOUND_S = 30.0
HURRY_S = 0.5  # what close() waits for at most after a second Ctrl-C
CHECKPOINT_S = 30.0  # what Ctrl-C leaves a trial for its next checkpoint
INTERRUPT_BOUND_S = CHECKPOINT_S + 15.0
DISK_PATIENCE_S = 3.0  # what Ctrl-C and close() wait for a log that cannot be written
LOOK_S = 0.2
_open_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


class Scheduler(Resumable):
    """What all schedulers have in common; see FIFOScheduler for the arguments and an example.

    A rule of your own overrides `on_report`, `on_end` or `next_launch`. One that compares trials by
    `report.reward` says `ranks_by_reward = True`, and several objectives are then refused.
    """

    ranks_by_reward: ClassVar[bool] = False

    def __init__(
        self,
        train_fn: TrainFunction,
        args: Mapping[str, Any] | Any | None = None,
        resource: Mapping[str, Any] | Resource | None = None,
        searcher: str | Searcher = "random",
        search_options: Mapping[str, Any] | None = None,
        num_trials: int | None = None,
        time_out: float | None = None,
        max_reward: float | None = None,
        reward_attr: str | Sequence[str] = "accuracy",
        mode: str | Sequence[str] = "max",
        time_attr: str = "epoch",
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool | None = None,
        dist_ip_addrs: Addresses | None = None,
        visualizer: str = "none",
        training_history_callback: Callable[[dict[int, list[dict[str, Any]]], float], None]
        | None = None,
        training_history_callback_delta_secs: float = 60.0,
        *,
        points_to_evaluate: Iterable[Mapping[str, Any]] | None = None,
        constraints: str | Iterable[str] = (),
        evaluated_points: Iterable[tuple[Mapping[str, Any], warm.Result]] | None = None,
        warm_start: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        local: bool | Node | None = None,
        client: Any = None,
        tunnel: bool | None = None,
        ssh_config: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        isolation: str = "fresh",
        start_method: str | None = None,
        work_in: str | None = None,
        trial_timeout: float | None = None,
        report_timeout: float | None = None,
        max_failures: int = 3,
        retries: Mapping[str, int] | None = None,
        on_parent_failure: str = "nearest_ancestor",
        storage: str | os.PathLike[str] | None = None,
        keep: int = KEPT,
        max_bytes: str | float | None = None,
        seed: int | None = None,
        verbose: int = 2,
        label_output: bool = False,
        **others: Any,
    ) -> None:
        seed = seed_of_others(type(self), others, seed)
        if isinstance(searcher, str):
            search_options, seed, points_to_evaluate = taken_out(
                search_options, seed, points_to_evaluate
            )
        self.objectives = Objectives.parse(reward_attr, mode, constraints)
        self.wording = Wording(self.objectives, time_attr)
        options = Options(
            resource=resource,
            num_trials=num_trials,
            time_out=time_out,
            max_reward=max_reward,
            time_attr=time_attr,
            resume=resume,
            visualizer=visualizer,
            training_history_callback=training_history_callback,
            training_history_callback_period=training_history_callback_delta_secs,
            local=local,
            tunnel=tunnel,
            isolation=isolation,
            start_method=start_method,
            work_in=work_in,
            trial_timeout=trial_timeout,
            report_timeout=report_timeout,
            max_failures=max_failures,
            retries=retries,
            on_parent_failure=on_parent_failure,
            storage=storage,
            keep=keep,
            max_bytes=max_bytes,
            seed=seed,
            verbose=verbose,
            label_output=label_output,
        )
        ssh_config = config_files(ssh_config)
        check_objectives(self.objectives, type(self).__name__, self.ranks_by_reward, max_reward)
        self.train_fn = with_args(train_fn, args)
        self._given, self._given_space = train_fn, train_fn.space.describe()
        known = warm.collect(self.train_fn.space, evaluated_points, warm_start, self.objectives)

        self._is_named = checkpoint is not None
        self.folder = folder.find(checkpoint, self.train_fn.__name__)
        let_go = _close_ended(self.folder)
        self._store = folder.take(self.folder, resume)
        with self._store.closed_on_error():
            earlier = folder.earlier_run(self.folder)
            unused = ""
            if earlier is not None:
                if seed not in (None, earlier["seed"]):
                    unused = f"seed={seed} is not used: this search began with {earlier['seed']}"
                seed = earlier["seed"]
            self.seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
            self.desk = Desk(
                searcher,
                self.train_fn.space,
                self.objectives,
                seed=self.seed,
                options=search_options,
                points_to_evaluate=points_to_evaluate,
                choice=auto.choose(
                    self.train_fn.space,
                    rule=type(self).__name__,
                    num_trials=num_trials,
                    max_t=getattr(self, "max_t", None),
                    objectives=len(self.objectives.names),
                    earlier=None if earlier is None else earlier["searcher"],
                ),
                needed_soon=self._needed_soon,
                wake=self._wake,
            )
            self.searcher = self.desk.searcher
            settings = options.settings(self.train_fn, self.objectives, self.folder, earlier)

        self.num_trials, self.time_out = num_trials, time_out
        self._start_time = time.time()
        self._pid = os.getpid()
        self._closed = False
        self._hurries = False

        self.progress = Progress(
            verbose,
            self._snapshot,
            corner=lambda: notebook.Corner(self.curves_as_png),
        )
        say = self.progress.say
        if self._store.put_aside is not None:
            say(f"what another search had left in {self.folder} is in {self._store.put_aside.name}")
        self._callback = Callback(
            training_history_callback,
            period_s=training_history_callback_delta_secs,
            read=lambda: self.training_history,
            start_time=self._start_time,
            say=say,
        )
        if let_go:
            say(f"the scheduler that had {self.folder} before, whose search has ended, is closed")
        if unused:
            say(unused)
        for line in self.train_fn.fixed:
            say(line)
        if self.desk.why:
            say(f"searcher='auto': {type(self.searcher).__name__}, as {self.desk.why}")
        self.manager = DistributedResourceManager()
        self.experiment = Experiment(
            self, settings, self.manager, self._store, say, self.progress.show
        )
        self.fleet = Fleet(
            self.folder,
            self.experiment,
            tunnel=tunnel,
            ssh_config=ssh_config,
            say=say,
            work_in=work_in,
            modules=modules.of_packages(settings.packed),
        )
        self.steering = Steering(
            self.folder, self.experiment, self.fleet, valid=self._valid_job, say=say
        )
        _open_schedulers.add(self)
        train_fn.note(self)
        try:
            super().__init__(self.experiment.ledger, self.folder, self._describe())
            if earlier is None:
                self._warm_start(known)
            else:
                self._take_up(earlier, known)
            loop().call(self._bring_up(local, dist_ip_addrs, client))
        except BaseException:
            self._store.disown()
            self.close()
            raise

    async def _bring_up(
        self, local: bool | Node | None, addresses: Addresses | None, client: Any
    ) -> None:
        self.experiment.log("experiment", body=self.searched)
        self.steering.start()
        self.experiment.keeper.delete_leftovers()
        resource = self.experiment.settings.resource
        await self.fleet.start(
            local=local,
            addresses=nodes_of(addresses),
            client=client,
            enough=lambda: self.manager.can_meet(resource),
        )
        workers_are_to_come = client is not None and not self.manager.remotes  # a job is queued
        if not workers_are_to_come:
            self.manager.check(resource)

    # The rule: what a scheduler of your own overrides

    def next_launch(self) -> Launch | Wait | None:
        """The next new trial; Wait() for none now, None for none any more."""
        return self.desk.next(len(self.ledger.trials))

    def next_launch_on(self, node: str) -> Launch | Wait | None:
        """The next new trial, for a free slot of this node (its host): that of `next_launch`.

        A rule for which it matters where its trials run overrides this one.
        """
        return self.next_launch()

    def next_resume(self) -> int | None:
        """The id of a paused trial that is to go on now; asked before `next_launch`."""
        return None

    def due_at(self, trial: Trial) -> str | Sequence[float] | None:
        """At which reports a trial waits for the decision: 'every', at these times, or none.

        By default at every one if `on_report` is overridden, else at none.
        """
        return None if type(self).on_report is Scheduler.on_report else "every"

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """What a report means for its trial: Continue(), Stop() or Pause()."""
        return Continue()

    def on_end(self, trial: Trial) -> None:
        """Hear that a trial has ended; call this one too when you override it."""
        self.desk.tell(trial)
        self._callback.call_if_due()

    @property
    def paused_may_go_on(self) -> bool:
        """Whether each paused trial may still be resumed, according to how others fare."""
        return True

    def may_need(self, trial: Trial) -> bool:
        """Whether a trial that has ended may become a parent: its checkpoint is then kept.

        Asked when checkpoints take more than `max_bytes`; those of trials that have not ended, of
        parents whose children have not saved yet, and of the best are kept anyway.
        """
        return self.desk.may_need(trial.id)

    @property
    def keeps_only_needed(self) -> bool:
        """Whether checkpoints go as soon as nobody needs them, however little all of them take.

        Those are needed that are kept when there are more than `max_bytes`: see `may_need`.
        """
        return False

    def read_on(self, trial: Trial) -> Iterable[str]:
        """The nodes (hosts) on which children of a trial will read what it has just saved.

        It is sent there at once, and need not be sent when they start.
        """
        return ()

    @property
    def planned(self) -> int | None:
        """How many trials there will be in all, if that is known: for the progress display."""
        return None

    def on_pause(self, trial: Trial) -> None:
        """Hear that a trial has paused; call this one too when you override it."""
        if trial.has_result:
            self.desk.tell(trial)

    def on_let_go(self, trial: Trial) -> None:
        """Hear that a trial that the rule has paused goes on by request.

        It is as if `next_resume` had named it, and it need not be named again.
        """

    def _needed_soon(self) -> int:
        """How many trials may be launched at once: as many as there are slots, or less."""
        slots = self.manager.room_for(self.experiment.settings.resource)
        total = self.experiment.source.total
        return slots if total is None else min(slots, total - self.ledger.counts.launched - 1)

    def _wake(self) -> None:
        """The searcher, in its thread, has a suggestion for which a slot waits."""
        loop().loop.call_soon_threadsafe(self.experiment.wake)

    def replay_known(self, points: Iterable[Sequence[Any]]) -> None:
        """When a search is resumed: let the searcher hear what was known before the search."""
        self.desk.tell_known(points)

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """When a search is resumed: let the searcher suggest again what it had suggested.

        `told` is that of the Launch.
        """
        if not given and not self.desk.replay(trial_id, config, told):
            raise StoreError(
                f"{self.folder} cannot be resumed: the searcher no longer suggests what it did for "
                f"trial {trial_id}; were its options or points_to_evaluate changed?"
            )

    def replay_resume(self, trial_id: int) -> None:
        """When a search is resumed: this paused trial went on then, as `next_resume` had said."""
        self.next_resume()

    # Running

    @property
    def is_running(self) -> bool:
        """Whether trials run or are still to be launched."""
        return not self._closed and not self.experiment.is_idle

    def _check_function(self) -> None:
        """Raise SpaceError where the train function's arguments are others than at the start.

        Of other code, of a helper that was defined anew in a notebook, it is said.
        """
        if reach.fingerprint(self.train_fn) != self.searched["code"]:
            self.progress.say(
                f"the code of {self._given.__name__}, or of what it uses, was changed after this "
                "scheduler was made, which goes on with what it was; make a new scheduler"
            )
        if changes := differences(self._given_space, self._given.space.describe()):
            raise SpaceError(
                f"the arguments of {self._given.__name__} were changed after this scheduler was "
                "made, which goes on with what they were:\n  " + "\n  ".join(changes) + "\n"
                "Make a new scheduler"
            )

    def run(self, num_trials: int | None = None, time_out: float | None = None) -> None:
        """Start the search and return at once; `join_jobs()` waits for its end.

        At most `num_trials` trials are launched, for at most `time_out` seconds; then running
        trials are stopped. Both default to the constructor's. Called again after the end, it goes
        on with more trials.
        """
        self._check_open()
        self._check_function()
        num_trials = self.num_trials if num_trials is None else num_trials
        time_out = self.time_out if time_out is None else time_out
        check_bounds(num_trials, time_out)
        if num_trials is None and time_out is None and self._could_go_on_forever:
            raise ResourceError(
                "this search would never end: give num_trials=, time_out= or max_reward="
            )
        if self.experiment.is_searching and not self.experiment.is_idle:
            raise DistsearchError("this search is running; call join_jobs() before the next run()")
        self.progress.start()
        loop().run(lambda: self.experiment.run(num_trials, time_out))

    @property
    def _could_go_on_forever(self) -> bool:
        if not type(self).next_launch.__module__.startswith(f"{__package__}."):
            return False  # a rule of the user's own, which may end by itself
        has_no_end = self.searcher.endless and self.train_fn.space.size == math.inf
        return has_no_end and self.experiment.settings.max_reward is None

    def join_jobs(self, timeout: float | None = None) -> bool:
        """Wait until all trials have ended, for `timeout` seconds in total; True if they have.

        Otherwise it says what is left. Ctrl-C ends the search in order and raises
        KeyboardInterrupt: nothing more is started, trials that save checkpoints have 30 s for their
        next one, and the command that goes on with it is printed. SIGTERM does the same and raises
        SystemExit(143). Raises SearchFailed when the first trials all failed alike, and whatever
        the searcher or a rule of your own raised.
        """
        self._check_open()
        if timeout is not None:
            check_number("timeout", timeout, "a number from 0 on, or None", least=0)
            timeout = min(timeout, threading.TIMEOUT_MAX)
        waiting = loop().submit(self.experiment.wait())
        with interrupts.term_too():
            try:
                waiting.result(timeout)
            except concurrent.futures.TimeoutError:  # before Python 3.11 not the built-in one
                waiting.cancel()
                self.progress.say(f"after join_jobs(timeout={timeout:g}): {self._what_is_left()}")
                return False
            except KeyboardInterrupt:
                self._interrupt(waiting)
                raise
        self.progress.stop()
        self._callback.call_at_the_end()
        if self.experiment.error is not None:
            raise self.experiment.error
        return True

    def _interrupt(self, waiting: concurrent.futures.Future[None]) -> None:
        """Start nothing more, give trials the time for a checkpoint, and say how to go on."""
        self.progress.say(
            "interrupted: stopping the running trials, those that save checkpoints after their "
            f"next one or {CHECKPOINT_S:g} s (Ctrl-C again: all at once)"
        )
        loop().run(lambda: self.experiment.end(INTERRUPTED, after_save_s=CHECKPOINT_S))
        try:
            self._wait_for_the_last(waiting)  # close() ends what is left
        except KeyboardInterrupt:
            self._hurries = True
            raise
        self.progress.stop()
        self.progress.say(self._how_to_go_on())

    def _wait_for_the_last(self, waiting: concurrent.futures.Future[None]) -> None:
        """Wait for trials that are to end, unless they would not hear of it: the disk is full."""
        until = time.monotonic() + INTERRUPT_BOUND_S
        while time.monotonic() < until and self._store.stuck_s < DISK_PATIENCE_S:
            with contextlib.suppress(concurrent.futures.TimeoutError):
                waiting.result(LOOK_S)
                return

    def _snapshot(self) -> Snapshot:
        """How the search stands, for its progress."""
        return take_snapshot(self.experiment)

    def _what_is_left(self) -> str:
        running = [trial.id for trial in self.experiment.running]
        text = f"{counted(len(running))} running ({', '.join(map(str, running[:10]))})"
        waiting = self._snapshot().waiting
        return f"{text}, {waiting} not started" if waiting else text

    def add_job(self, config: Mapping[str, Any]) -> int:
        """Run one more trial with this configuration, before the searcher's next; its task id."""
        self._check_open()
        valid = self._valid_job(config)
        return loop().run(lambda: self.experiment.add(valid)).id

    def _valid_job(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """A whole configuration, with the constants of the search."""
        self._check_function()
        if constants := list(self.train_fn.space.constants_of(config)[0]):
            raise SpaceError(
                f"{constants[0]!r} is a constant of this search, so that trials can be compared; "
                "leave it out, or call run_with_config, which takes other values for constants"
            )
        return self.train_fn.space.validate(config)

    def run_with_config(self, config: Mapping[str, Any]) -> Any:
        """Run one trial with this configuration, wait for it, and return what train_fn returned.

        For the final training with `get_best_config()`, also with other constants, as in
        `run_with_config({**scheduler.get_best_config(), 'epochs': 100})`: this trial does not count
        when the best is looked for, and is in no history, curve or count of the search
        (`Trial.is_final`). Numbers, text, bytes, arrays, tensors, and lists, tuples and dicts of
        these come back as they were; other objects, such as models, as their text, of which a
        RuntimeWarning tells: keep them with `reporter.save`. Ctrl-C stops the trial. Raises
        SpaceError for a configuration that makes no sense, TrialFailed, with the traceback, if the
        trial fails, and if it is stopped, NodeError if its node is lost right after its end.
        """
        self._check_open()
        self._check_function()
        valid = complete(self.train_fn.space, config)

        async def run() -> Any:
            trial = self.experiment.add(valid, is_final=True)
            returned = await self.experiment.wait_for(trial)
            await self._store.flush()
            return trial, *await returned_value.of(returned, trial.id, self.folder / "trials")

        with interrupts.term_too():
            try:
                trial, returned, warning = loop().call(run())
            except KeyboardInterrupt:
                self._interrupt(loop().submit(self.experiment.wait()))
                raise
        if trial.status not in (Status.FINISHED, Status.NO_METRIC):
            raise TrialFailed(
                f"trial {trial.id} {trial.status.value}: {trial.reason}\n{trial.error}".rstrip()
            )
        if warning:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)
        return returned

    # Nodes

    def add_remote(self, ip_addrs: Addresses) -> None:
        """Add nodes, also while trials run; uploaded files get there too.

        Raises NodeError if one cannot be brought up (the others are then up).
        """
        self._check_open()
        loop().call(self.fleet.add(nodes_of(ip_addrs)))

    def remove_remote(self, ip_addrs: Addresses) -> None:
        """Take nodes away; what runs on them is ended and runs again elsewhere.

        Raises ResourceError for a node that is not there.
        """
        self._check_open()
        loop().call(self.fleet.remove(nodes_of(ip_addrs)))

    def upload_files(self, files: Source | Iterable[Source]) -> None:
        """Put files, folders and modules where every trial finds them, on every node.

            scheduler.upload_files(['data.txt', 'images/', helper])

        From then on each trial runs in a folder of its own in which just what was uploaded is
        linked, on this machine too, so that `open('data.txt')` and `import helper` do the same
        everywhere, and `open('model.pt', 'wb')` is the trial's own. (What it changes in an uploaded
        file or folder, all trials of the node see.) Nodes that are added later get the files as
        well. Raises UploadError.
        """
        self._check_open()
        loop().call(self.fleet.upload(collect(files)))

    # The end

    def close(self) -> None:
        """Stop what runs, leave nothing behind on any node, and let go of the log."""
        if self._closed or self._pid != os.getpid():  # a forked child must leave it alone
            return
        self._closed = True
        _open_schedulers.discard(self)
        try:
            if self._hurries:  # nodes end by themselves what they are not told to end
                with contextlib.suppress(concurrent.futures.TimeoutError):
                    loop().call(self._close(), HURRY_S)
            else:
                loop().call(self._close(), CLOSE_BOUND_S)
        except (concurrent.futures.TimeoutError, TimeoutError):  # which were two before Python 3.11
            why = self._store.trouble or "a node, or the disk, did not answer"
            self.progress.say(
                f"closed after {CLOSE_BOUND_S:g} s, without waiting any longer: {why}"
            )
        finally:
            self.progress.stop()
            self.desk.close()
            loop().run(self._store.close)

    def shutdown(self) -> None:
        """The same as `close()`, by AutoGluon's name."""
        self.close()

    async def _close(self) -> None:
        experiment = self.experiment
        await self.steering.close()
        if not experiment.is_idle:
            left = len(experiment.running)
            self.progress.say(f"closed while {counted(left)} ran: stopped")
            experiment.end(CLOSED)
            experiment.abandon(CLOSED)
        await self.fleet.close()
        experiment.close()
        if not await self._store.flush_or_give_up(DISK_PATIENCE_S):
            self.progress.say(f"closed; the last events are not in the log: {self._store.trouble}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    if not TYPE_CHECKING:  # to a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            return missing(self, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n{self.manager!r})"


def _close_ended(folder: Path) -> bool:
    """Close a scheduler of this process whose search in a folder has ended; whether there was one.

    So a cell of a notebook can run again. One that has not begun, or goes on, keeps its folder.
    """
    for scheduler in list(_open_schedulers):
        has_ended = scheduler.experiment.started_at is not None and not scheduler.is_running
        if has_ended and scheduler._pid == os.getpid() and _is_same(scheduler.folder, folder):
            scheduler.close()
            return True
    return False


def _is_same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))


@atexit.register
def _close_all() -> None:
    for scheduler in list(_open_schedulers):
        scheduler.close()
