"""The scheduler as users meet it: runs a search over nodes, and is told what to do by its rule."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import json
import math
import os
import re
import shlex
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Union

from ..core import store
from ..core.budget import parse_bytes
from ..core.checkpoint import KEPT
from ..core.decorators import TrainFunction
from ..core.experiment import CLOSED, INTERRUPTED, Experiment
from ..core.lineage import POLICIES
from ..core.loop import loop
from ..core.objectives import Objectives, Point
from ..core.progress import NodeUse, Progress, Snapshot
from ..core.settings import Settings, retries_of
from ..core.storage import Storage, checked_url
from ..core.travel import pack
from ..core.words import Continue, Decision, Launch, Report, Status, Trial, Wait
from ..errors import (
    DistsearchError,
    ResourceError,
    SpaceError,
    StoreError,
    TrialFailed,
)
from ..resource.fleet import Fleet
from ..resource.manager import DistributedResourceManager
from ..resource.node import Node
from ..resource.resource import Resource
from ..resource.uploads import Source, collect
from ..searcher import SEARCHERS, Searcher, warm
from ..searcher.ahead import Ahead
from ..space import differences
from . import interrupts
from .results import Results

if TYPE_CHECKING:
    from typing_extensions import Self

Addresses = Union[str, Node, Iterable["str | Node"]]
CLOSE_BOUND_S = 30.0
HURRY_S = 0.5  # the same after a second Ctrl-C
CHECKPOINT_S = 30.0  # what Ctrl-C leaves a trial for its next checkpoint
INTERRUPT_BOUND_S = CHECKPOINT_S + 15.0
NoneType = type(None)
_KINDS: dict[Any, str] = {
    Integral: "an integer",
    Real: "a number",
    str: "a name",
    bool: "True or False",
    Callable: "a function",
    Mapping: "a dict",
    NoneType: "None",
}
_open_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


class Scheduler(Results):
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
        ssh_config: Sequence[str | os.PathLike[str]] | None = None,
        isolation: str = "fresh",
        start_method: str | None = None,
        trial_timeout: float | None = None,
        report_timeout: float | None = None,
        max_failures: int = 3,
        retries: Mapping[str, int] | None = None,
        on_parent_failure: str = "nearest_ancestor",
        storage: str | os.PathLike[str] | None = None,
        keep: int = KEPT,
        max_bytes: str | float | None = None,
        seed: int | None = None,
        verbose: int = 1,
    ) -> None:
        self.objectives = Objectives.parse(reward_attr, mode, constraints)
        _choose("isolation", isolation, ("fresh", "reuse"))
        _choose("start_method", start_method, (None, "fork", "spawn"))
        _choose("visualizer", visualizer, ("none",))
        _choose("on_parent_failure", on_parent_failure, POLICIES)
        _check_bound("num_trials", num_trials, Integral)
        _check_bound("time_out", time_out)
        _check_bound("trial_timeout", trial_timeout)
        _check_bound("report_timeout", report_timeout)
        _check_kind("max_reward", max_reward, Real, NoneType)
        _check_kind("time_attr", time_attr, str)
        _check_kind("max_failures", max_failures, Integral)
        _check_bound("keep", keep, Integral)
        _check_kind("retries", retries, Mapping, NoneType)
        _check_kind("seed", seed, Integral, NoneType)
        _check_kind("verbose", verbose, Integral)
        _check_kind("training_history_callback", training_history_callback, Callable, NoneType)
        self._check_objectives(max_reward)
        self._pid = os.getpid()
        self.train_fn = _with_args(train_fn, args)
        known = warm.collect(self.train_fn.space, evaluated_points, warm_start, self.objectives)
        self.folder = _experiment_folder(checkpoint, self.train_fn.__name__)
        self._is_named = checkpoint is not None
        _check_kind("resume", resume, bool, NoneType)
        earlier = None if resume is False else _earlier_run(self.folder)
        if resume is False:
            _archive(self.folder)
        if earlier is not None:
            seed = earlier["seed"]
        self.seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        self._search_options = json.loads(
            json.dumps(dict(search_options or {}), default=lambda one: type(one).__name__)
        )
        self.searcher = self._make_searcher(searcher, search_options or {}, points_to_evaluate)
        if not self.objectives.is_plain:
            self.searcher.aim(len(self.objectives.names), len(self.objectives.constraints))
        self._ahead: Ahead | None = None
        if self.searcher.slow:
            self._ahead = Ahead(self.searcher, soon=self._needed_soon, ready=self._wake)
        self.num_trials, self.time_out = num_trials, time_out
        self._history_callback = training_history_callback
        self._history_period_s = training_history_callback_delta_secs
        self._history_called = 0.0
        self._start_time = time.time()
        self._closed = False
        self._hurries = False
        settings = Settings(
            packed=pack(self.train_fn),
            packed_here=pack(self.train_fn, stays_here=True),
            resource=Resource.parse(resource),
            objectives=self.objectives,
            time_attr=time_attr,
            max_reward=max_reward,
            reuse=isolation == "reuse",
            spawn=start_method == "spawn",
            trial_timeout_s=trial_timeout,
            report_timeout_s=report_timeout,
            retries=_retries(max_failures, retries),
            on_parent_failure=on_parent_failure,
            parent_retries=int(max_failures),
            storage=_storage(storage, self.folder, earlier),
            keep=int(keep),
            max_bytes=parse_bytes(max_bytes),
        )
        self._store = store.Store(self.folder)
        self.progress = Progress(verbose, self._snapshot)
        self.manager = DistributedResourceManager()
        self.experiment = Experiment(self, settings, self.manager, self._store, self.progress.say)
        self.ledger = self.experiment.ledger
        self.fleet = Fleet(
            self.folder,
            self.experiment,
            tunnel=tunnel,
            ssh_config=ssh_config,
            say=self.progress.say,
        )
        _open_schedulers.add(self)
        try:
            if earlier is not None:
                self._restore(earlier, store.read(self.folder))
                self.progress.say(self._what_was_there())
            else:
                self._warm_start(known)
            if local is None:
                local = client is None
            loop().call(self._bring_up(local, dist_ip_addrs, client))
        except BaseException:
            self.close()
            raise

    def _check_objectives(self, max_reward: float | None) -> None:
        names = self.objectives.names
        if not self.objectives.several:
            return
        if self.ranks_by_reward:
            raise SpaceError(
                f"{type(self).__name__} ranks trials by one reward, but reward_attr="
                f"{list(names)!r}; give it one of these, perhaps with constraints= on the others, "
                "or use FIFOScheduler"
            )
        if max_reward is not None:
            raise SpaceError(
                f"max_reward={max_reward!r} is for one reward_attr, not for {len(names)}; end the "
                "search with num_trials= or time_out="
            )

    def _make_searcher(
        self,
        searcher: str | Searcher,
        options: Mapping[str, Any],
        points: Iterable[Mapping[str, Any]] | None,
    ) -> Searcher:
        if isinstance(searcher, Searcher):
            if options or points is not None:
                raise SpaceError(
                    "search_options and points_to_evaluate go to the searcher that you made "
                    f"yourself, {type(searcher).__name__}(...), not to the scheduler"
                )
            return searcher
        if not isinstance(searcher, str) or searcher not in SEARCHERS:
            names = ", ".join(map(repr, SEARCHERS))
            raise SpaceError(f"searcher={searcher!r}; give one of {names}, or a Searcher you made")
        make = SEARCHERS[searcher]
        try:
            return make(self.train_fn.space, seed=self.seed, points_to_evaluate=points, **options)
        except TypeError as error:
            given = dict(options)
            raise SpaceError(f"search_options={given!r} of {searcher!r}: {error}") from error

    async def _bring_up(self, local: bool | Node, addresses: Addresses | None, client: Any) -> None:
        self.experiment.log("experiment", body=self._what_is_searched)
        self.experiment.keeper.delete_leftovers()
        await self.fleet.start(local=local, addresses=_addresses(addresses), client=client)
        self.manager.check(self.experiment.settings.resource)

    @property
    def _what_is_searched(self) -> dict[str, Any]:
        settings = self.experiment.settings
        return {
            "function": self.train_fn.__name__,
            "space": self.train_fn.space.describe(),
            "searcher": type(self.searcher).__name__,
            "search_options": self._search_options,
            "scheduler": type(self).__name__,
            "seed": self.seed,
            **self.objectives.described,
            "time_attr": settings.time_attr,
            "rule": json.loads(json.dumps(self.rule_settings)),
            "storage": None if settings.storage is None else settings.storage.url,
        }

    @property
    def rule_settings(self) -> dict[str, Any]:
        """What the decisions depend on, as JSON holds it: with other values no search goes on."""
        return {}

    def _restore(self, earlier: Mapping[str, Any], events: Iterable[store.Event]) -> None:
        """Go on with an earlier run, if it searched for the same."""
        now = self._what_is_searched
        earlier = {"constraints": [], **earlier}
        changes = [
            f"{name}: {earlier[name]!r} -> {now[name]!r}"
            for name in ("searcher", "scheduler", "reward_attr", "mode", "constraints", "time_attr")
            if earlier[name] != now[name]
        ]
        for part in ("search_options", "rule"):
            then, today = earlier.get(part, now[part]), now[part]
            changes += [
                f"{name}: {then.get(name)!r} -> {today.get(name)!r}"
                for name in sorted(then.keys() | today.keys())
                if then.get(name) != today.get(name)
            ]
        changes += differences(earlier["space"], now["space"])
        if changes:
            raise StoreError(
                f"{self.folder} holds a different search, which this one cannot go on with:\n  "
                + "\n  ".join(changes)
                + "\nUndo these changes, or choose another checkpoint="
            )
        self.experiment.restore(events)

    def _what_was_there(self) -> str:
        counts = self.ledger.counts
        ended, total = self.num_finished_tasks, len(self.ledger.trials)
        paused = f", {counts.paused} are paused" if counts.paused else ""
        return (
            f"going on with {self.folder}: of {total} trials {ended} have ended{paused}, "
            f"{total - ended - counts.paused} run again; resume=False would start anew"
        )

    def _warm_start(self, known: warm.Known) -> None:
        """Tell the searcher what is known before the search, and keep it in the log."""
        for line in known.left_out:
            self.progress.say(line)
        if known.points:
            loop().run(lambda: self.experiment.log("warm", body={"points": known.points}))
            self.replay_known(known.points)

    def replay_known(self, points: Iterable[Sequence[Any]]) -> None:
        for number, (config, known) in enumerate(points):
            if self.objectives.is_plain:
                self._tell(-1 - number, config, known)
            else:
                point = None if known is None else self.objectives.point(known)
                self._tell_point(-1 - number, config, point)

    # The rule: what a scheduler of your own overrides

    def next_launch(self) -> Launch | Wait | None:
        """The next new trial; Wait() for none now, None for none any more."""
        trial_id = len(self.ledger.trials)
        if self._ahead is not None:
            return self._ahead.next(trial_id)
        suggested = self.searcher.ask(trial_id)
        if suggested is None:
            return None
        launch = suggested if isinstance(suggested, Launch) else Launch(suggested)
        return replace(launch, config=self.train_fn.space.validate(launch.config))

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
        self._tell_result(trial)
        due = time.monotonic() - self._history_called >= self._history_period_s
        if self._history_callback is not None and due:
            self._history_called = time.monotonic()
            # In a thread of its own: what the user does there must not hold up the search.
            asyncio.get_running_loop().run_in_executor(None, self._call_back)

    @property
    def paused_may_go_on(self) -> bool:
        """Whether each paused trial may still be resumed, according to how others fare."""
        return True

    def may_need(self, trial: Trial) -> bool:
        """Whether a trial that has ended may become a parent: its checkpoint is then kept.

        Asked when checkpoints take more than `max_bytes`; those of trials that have not ended, of
        parents whose children have not saved yet, and of the best are kept anyway.
        """
        return self.searcher.may_need(trial.id)

    def on_pause(self, trial: Trial) -> None:
        """Hear that a trial has paused; call this one too when you override it."""
        if trial.has_result:
            self._tell_result(trial)

    def _tell_result(self, trial: Trial) -> None:
        if self.objectives.is_plain:
            reward = None if trial.status.is_failure else trial.best_reward
            self._tell(trial.id, trial.config, reward)
        else:
            point = None if trial.status.is_failure else trial.point
            self._tell_point(trial.id, trial.config, point)

    def _tell(self, trial_id: int, config: Mapping[str, Any], reward: float | None) -> None:
        """Tell the searcher of a reward in the user's sign."""
        teller = self.searcher if self._ahead is None else self._ahead
        teller.tell(
            trial_id, config, None if reward is None else self.ledger.standings.sign * reward
        )

    def _tell_point(self, trial_id: int, config: Mapping[str, Any], point: Point | None) -> None:
        """Tell the searcher of several rewards, of violated constraints, or of both."""
        teller = self.searcher if self._ahead is None else self._ahead
        if point is None or not (point.is_feasible or self.searcher.constrained):
            teller.tell(trial_id, config, None)
            return
        reward = point.rewards if self.objectives.several else point.rewards[0]
        more = (point.violations,) if self.searcher.constrained and point.violations else ()
        teller.tell(trial_id, config, reward, *more)

    def _observe(self, trial: Trial, reward: float | None, time: float) -> None:
        """Tell the searcher of a reward, as a report has it, at a rung."""
        observer = self.searcher if self._ahead is None else self._ahead
        observer.observe(trial.id, trial.config, reward, time)

    def _needed_soon(self) -> int:
        """How many trials may be launched at once: as many as there are slots, or less."""
        slots, total = self._slots(), self.experiment.total
        return slots if total is None else min(slots, total - self.ledger.counts.launched - 1)

    def _slots(self) -> int:
        """How many trials fit on all nodes at once."""
        resource = self.experiment.settings.resource
        total = 0
        for remote in list(self.manager.remotes.values()):
            fits = [math.inf]
            if resource.num_cpus:
                fits.append(remote.facts.num_cpus // resource.num_cpus)
            if resource.num_gpus:
                fits.append(math.floor(len(remote.facts.gpus) / resource.num_gpus))
            total += int(min(fits))
        return total

    def _wake(self) -> None:
        """The searcher, in its thread, has a suggestion for which a slot waits."""
        loop().loop.call_soon_threadsafe(self.experiment.wake)

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """When a search is resumed: let the searcher suggest again what it had suggested.

        `told` is that of the Launch.
        """
        if given:
            return
        if self._ahead is not None:
            is_same = self._ahead.replay(trial_id, config, told)
        else:
            is_same = self.searcher.replay(trial_id, config)
        if not is_same:
            raise StoreError(
                f"{self.folder} cannot be resumed: the searcher no longer suggests what it did for "
                f"trial {trial_id}; were its options or points_to_evaluate changed?"
            )

    def replay_resume(self, trial_id: int) -> None:
        """When a search is resumed: this paused trial went on then, as `next_resume` had said."""
        self.next_resume()

    # Running

    def run(self, num_trials: int | None = None, time_out: float | None = None) -> None:
        """Start the search and return at once; `join_jobs()` waits for its end.

        At most `num_trials` trials are launched, for at most `time_out` seconds; then running
        trials are stopped. Both default to the constructor's. Called again after the end, it goes
        on with more trials.
        """
        self._check_open()
        num_trials = self.num_trials if num_trials is None else num_trials
        time_out = self.time_out if time_out is None else time_out
        _check_bound("num_trials", num_trials, Integral)
        _check_bound("time_out", time_out)
        if num_trials is None and time_out is None and self._could_go_on_forever:
            raise ResourceError(
                "this search would never end: give num_trials=, time_out= or max_reward="
            )
        if self.experiment.is_searching:
            raise DistsearchError("this search is running; call join_jobs() before the next run()")
        self.progress.start()
        loop().run(lambda: self.experiment.run(num_trials, time_out))

    @property
    def _could_go_on_forever(self) -> bool:
        return self.experiment.settings.max_reward is None and self.train_fn.space.size == float(
            "inf"
        )

    def join_jobs(self, timeout: float | None = None) -> bool:
        """Wait until all trials have ended, for `timeout` seconds in total; True if they have.

        Otherwise it says what is left. Ctrl-C ends the search in order and raises
        KeyboardInterrupt: nothing more is started, trials that save checkpoints have 30 s for their
        next one, and the command that goes on with it is printed. SIGTERM does the same and raises
        SystemExit(143). Raises SearchFailed when the first trials all failed alike, and whatever
        the searcher or a rule of your own raised.
        """
        self._check_open()
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
        if self._history_callback is not None:
            self._call_back()
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
            waiting.result(INTERRUPT_BOUND_S)
        except KeyboardInterrupt:
            self._hurries = True
            raise
        except concurrent.futures.TimeoutError:
            pass  # close() ends what is left
        self.progress.stop()
        self.progress.say(self._how_to_go_on())

    def _how_to_go_on(self) -> str:
        command = shlex.join(sys.orig_argv)
        if self._is_named:
            return f"the same command goes on with this search: {command}"
        return f"to go on with this search, give it checkpoint={str(self.folder)!r} in: {command}"

    def _what_is_left(self) -> str:
        running = [trial.id for trial in self.experiment.running]
        text = f"{len(running)} trials are running ({', '.join(map(str, running[:10]))})"
        snapshot = self._snapshot()
        return f"{text}, {snapshot.waiting} not started" if snapshot.waiting else text

    def add_job(self, config: Mapping[str, Any]) -> int:
        """Run one more trial with this configuration, before the searcher's next; its task id."""
        self._check_open()
        valid = self.train_fn.space.validate(config)
        return loop().run(lambda: self.experiment.add(valid)).id

    def run_with_config(self, config: Mapping[str, Any]) -> Any:
        """Run one trial with this configuration, wait for it, and return what train_fn returned.

        For the final training with `get_best_config()`: this trial does not count when the best is
        looked for. What is not JSON (numbers, strings, lists, dicts) comes back as its text; keep
        models with `reporter.save`. Ctrl-C stops the trial. Raises TrialFailed, with the
        traceback, if the trial fails, and if it is stopped.
        """
        self._check_open()
        valid = self.train_fn.space.validate(config)

        async def run() -> Any:
            trial = self.experiment.add(valid, is_final=True)
            returned = await self.experiment.wait_for(trial)
            await self._store.flush()
            return trial, returned

        with interrupts.term_too():
            try:
                trial, returned = loop().call(run())
            except KeyboardInterrupt:
                self._interrupt(loop().submit(self.experiment.wait()))
                raise
        if trial.status not in (Status.FINISHED, Status.NO_METRIC):
            raise TrialFailed(
                f"trial {trial.id} {trial.status.value}: {trial.reason}\n{trial.error}".rstrip()
            )
        return returned

    def _call_back(self) -> None:
        """Hand the history to the user's callback."""
        assert self._history_callback is not None
        try:
            self._history_callback(self._read_history(), self._start_time)
        except Exception as error:
            self.progress.say(f"training_history_callback failed: {error!r}")

    # Nodes

    def add_remote(self, ip_addrs: Addresses) -> None:
        """Add nodes, also while trials run; uploaded files get there too.

        Raises NodeError if one cannot be brought up (the others are then up).
        """
        self._check_open()
        loop().call(self.fleet.add(_addresses(ip_addrs)))

    def remove_remote(self, ip_addrs: Addresses) -> None:
        """Take nodes away; what runs on them is ended and runs again elsewhere.

        Raises ResourceError for a node that is not there.
        """
        self._check_open()
        loop().call(self.fleet.remove(_addresses(ip_addrs)))

    def upload_files(self, files: Source | Iterable[Source]) -> None:
        """Put files, folders and modules where every trial finds them, on every node.

            scheduler.upload_files(['data.txt', 'images/', helper])

        From then on trials run in a folder that holds just what was uploaded, on this machine
        too, so that `open('data.txt')` and `import helper` do the same everywhere. Nodes that are
        added later get the files as well. Raises UploadError.
        """
        self._check_open()
        loop().call(self.fleet.upload(collect(files)))

    # State

    def state_dict(self) -> dict[str, Any]:
        """The search so far as plain data: its settings, configurations, reports and ends."""
        self._flush()
        return {
            "searched": self._what_is_searched,
            "events": [list(event) for event in store.read(self.folder)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a search of which `state_dict()` was kept; before the first `run()`.

        Raises StoreError when it searched for something else, showing the difference.
        """
        self._check_open()
        if self.ledger.trials:
            raise StoreError("load_state_dict comes before run(): this search has trials already")
        try:
            searched = dict(state["searched"])
            missing = (
                self._what_is_searched.keys()
                - searched.keys()
                - {"rule", "constraints", "storage", "search_options"}
            )
            if missing:
                raise KeyError(*missing)
            events = [store.Event(*event) for event in state["events"]]
        except (KeyError, TypeError) as error:
            raise StoreError(f"this is not what state_dict() gave: {error!r}") from error

        def load() -> None:
            self.seed = self.searcher.seed = searched["seed"]
            self._restore(searched, events)
            self.experiment.log("experiment", body=self._what_is_searched)
            for event in events:
                if event.trial is not None or event.kind == "warm":
                    self._store.append(*event[2:])

        loop().run(load)

    def save(self, checkpoint: str | os.PathLike[str] | None = None) -> Path:
        """Write `state_dict()` as JSON; by default into the experiment's folder. Returns the path.

        The log itself is always up to date: this is for taking a copy elsewhere.
        """
        path = self.folder / "state.json" if checkpoint is None else Path(checkpoint)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.state_dict()))
        return path

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
        finally:
            self.progress.stop()
            if self._ahead is not None:
                self._ahead.close()
            loop().run(self._store.close)

    async def _close(self) -> None:
        experiment = self.experiment
        if not experiment.is_idle:
            left = len(experiment.running)
            self.progress.say(f"closed while {left} trials ran: they are stopped")
            experiment.end(CLOSED)
            experiment.abandon(CLOSED)
        await self.fleet.close()
        experiment.close()
        await self._store.flush()

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise DistsearchError(
                f"this scheduler belongs to process {self._pid}, from which this one was forked; "
                "use it there, or make another one here"
            )
        if self._closed:
            raise DistsearchError("this scheduler is closed; its results can still be read")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n{self.manager!r})"

    def _snapshot(self) -> Snapshot:
        """How the search stands, for the progress display."""
        experiment = self.experiment
        counts, best = experiment.ledger.counts, experiment.ledger.best
        running = len(experiment.running)
        ended = self.num_finished_tasks + counts.paused
        total = experiment.total
        started = experiment.started_at or time.monotonic()
        elapsed = (experiment.ended_at or time.monotonic()) - started
        waiting = max(
            0, counts.launched - ended - running if total is None else total - ended - running
        )
        left = None
        ended_here = max(0, ended - experiment.ended_earlier)
        if total is not None and ended_here and not experiment.ending:
            left = (total - ended) * elapsed / ended_here
        if experiment.deadline is not None:
            until = max(0.0, experiment.deadline - time.monotonic())
            left = until if left is None else min(left, until)
        return Snapshot(
            total=total,
            running=running,
            done=counts.done,
            stopped=counts.stopped + counts.paused,
            failed=counts.failed,
            waiting=0 if experiment.ending else waiting,
            best_reward=None if best is None else best.best_reward,
            best_task_id=None if best is None else best.id,
            best_config={} if best is None else best.config,
            reward_attr=" and ".join(self.objectives.names),
            front_size=len(experiment.ledger.front) if self.objectives.several else None,
            limits=self.objectives.limits if best is None else "",
            nodes=[_node_use(remote) for remote in list(self.manager.remotes.values())],
            elapsed_s=elapsed,
            time_left_s=left,
            trials_per_minute=60 * ended_here / elapsed if elapsed > 0 else 0.0,
            note=self._store.trouble or experiment.ending,
        )


def _node_use(remote: Any) -> NodeUse:
    cpus, gpus = remote.slots.used
    facts = remote.facts
    return NodeUse(remote.host, cpus, facts.num_cpus, float(gpus), len(facts.gpus))


def _choose(name: str, got: Any, valid: Sequence[Any]) -> None:
    if got not in valid:
        raise SpaceError(f"{name}={got!r}, but it is one of {', '.join(map(repr, valid))}")


def _check_bound(name: str, value: Any, kind: Any = Real) -> None:
    if value is None:
        return
    if not isinstance(value, kind) or isinstance(value, bool) or not value > 0:
        wanted = "an integer" if kind is Integral else "a number"
        raise ResourceError(f"{name}={value!r}; give {wanted} above 0, or None")


def _check_kind(name: str, value: Any, *kinds: Any) -> None:
    if not isinstance(value, kinds):
        wanted = " or ".join(_KINDS[kind] for kind in kinds)
        raise SpaceError(f"{name}={value!r}; give {wanted}")


def _with_args(train_fn: TrainFunction, args: Any) -> TrainFunction:
    if not isinstance(train_fn, TrainFunction):
        raise SpaceError(
            f"{train_fn!r} is not decorated; write @args(lr=Real(...), ...) above its definition"
        )
    if args is None:
        return train_fn
    if not isinstance(args, Mapping) and not hasattr(args, "__dict__"):
        raise SpaceError(f"args={args!r}; give a mapping or a namespace of arguments")
    values = args if isinstance(args, Mapping) else vars(args)
    return TrainFunction(train_fn.__wrapped__, {**train_fn.space, **values})


def _addresses(addresses: Addresses | None) -> list[Node]:
    if addresses is None:
        return []
    if isinstance(addresses, str) or not isinstance(addresses, Iterable):
        return [Node.parse(addresses)]
    return [Node.parse(address) for address in addresses]


def _experiment_folder(checkpoint: Any, name: str) -> Path:
    if checkpoint is None:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        root = Path(os.environ.get("DISTSEARCH_RESULTS", "distsearch_results"))
        return (root / f"{name}-{stamp}-{os.urandom(2).hex()}").absolute()
    folder = Path(checkpoint).absolute()
    if folder.is_file():
        raise StoreError(f"checkpoint={str(checkpoint)!r} is a file; name a folder, or a new one")
    return folder


def _earlier_run(folder: Path) -> dict[str, Any] | None:
    """What the folder's experiment searched for, if there is one: it is to be resumed."""
    if not (folder / store.FILE).exists():
        return None
    store.check(folder)
    earlier = None
    for event in store.read(folder, "experiment"):  # the last, which may have been loaded
        earlier = dict(event.body)
    return earlier


def _archive(folder: Path) -> None:
    """Put the folder's experiment aside, if there is one: a fresh start deletes nothing."""
    if not (folder / store.FILE).exists():
        return
    store.check(folder)
    number = 1
    while (archive := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(archive)


def _storage(
    storage: str | os.PathLike[str] | None, folder: Path, earlier: Mapping[str, Any] | None
) -> Storage | None:
    """Where checkpoints go: a folder of this experiment's own, the same when it is resumed."""
    root = None if storage is None else checked_url(storage)
    before = None if earlier is None else earlier.get("storage")
    if earlier is not None and root != (before and before.rpartition("/")[0]):
        raise StoreError(
            f"the checkpoints of {folder} are in storage={before and before.rpartition('/')[0]!r}, "
            f"not in {root!r}; give the same one, or resume=False to start anew"
        )
    if root is None:
        return None
    name = re.sub(r"[^A-Za-z0-9._-]", "_", folder.name)
    found = Storage(before or f"{root}/{name}-{os.urandom(4).hex()}", "of the driver")
    found.begin()
    return found


def _retries(max_failures: int, retries: Mapping[str, int] | None) -> dict[Status, int]:
    """How often a trial runs again after each kind of failure."""
    kinds = [status.value for status in Status if status.is_failure]
    for name, number in (retries or {}).items():
        if name not in kinds:
            raise SpaceError(f"retries={retries!r}, but {name!r} is none of {', '.join(kinds)}")
        _check_kind(f"retries[{name!r}]", number, Integral)
    if min([max_failures, *(retries or {}).values()]) < 0:
        raise SpaceError(f"max_failures={max_failures}, retries={retries}; give 0 and more")
    given = {Status(name): int(number) for name, number in (retries or {}).items()}
    return retries_of(given, max_failures)


@atexit.register
def _close_all() -> None:
    for scheduler in list(_open_schedulers):
        scheduler.close()
