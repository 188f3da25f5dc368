"""The scheduler as users meet it: runs a search over nodes, and is told what to do by its rule."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..core import folder, modules, notebook
from ..core.checkpoint import KEPT
from ..core.decorators import TrainFunction
from ..core.ends import CLOSED
from ..core.experiment import Experiment
from ..core.loop import loop
from ..core.objectives import Objectives
from ..core.phrases import counted
from ..core.progress import Progress
from ..core.settings import Settings
from ..core.steering import Steering
from ..resource.addresses import Addresses, nodes_of
from ..resource.fleet import Fleet
from ..resource.manager import DistributedResourceManager
from ..resource.node import Node
from ..resource.resource import Resource
from ..resource.uploads import Source, collect
from ..searcher import Searcher, auto, warm
from ..searcher.arguments import taken_out
from ..searcher.desk import Desk
from ..space.autogluon import missing
from . import registry
from .callback import Callback
from .options import (
    Options,
    check_objectives,
    config_files,
    seed_of_others,
    with_args,
)
from .running import DISK_PATIENCE_S, Running
from .wording import Wording

if TYPE_CHECKING:
    from typing_extensions import Self

CLOSE_BOUND_S = 30.0
HURRY_S = 0.5  # so long close() waits, at most, after a second Ctrl-C


class Scheduler(Running):
    """What all schedulers have in common; see FIFOScheduler for the arguments and an example.

    A rule of your own overrides `on_report`, `on_end` or `next_launch`:

        class StopBelow(FIFOScheduler):
            ranks_by_reward = True

            def on_report(self, trial, report):
                return Stop("below 0.5") if (report.reward or 0.0) < 0.5 else Continue()

    `ranks_by_reward = True` says that the rule compares trials by `report.reward`, so that several
    objectives are refused.
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
        check_objectives(self.objectives, type(self).__name__, self.ranks_by_reward, max_reward)
        self.train_fn = with_args(train_fn, args)
        self._given, self._given_space = train_fn, train_fn.space.describe()
        ssh_files = config_files(ssh_config)
        known = warm.collect(self.train_fn.space, evaluated_points, warm_start, self.objectives)

        self.num_trials, self.time_out = num_trials, time_out

        # From here on no other driver has the folder; what lies there decides how to go on.
        was_taken = self._take_folder(checkpoint, resume)
        with self._store.closed_on_error():
            earlier = folder.earlier_run(self.folder)
            unused = self._choose_seed(seed, earlier)
            self.desk = self._desk(
                searcher, search_options, points_to_evaluate, num_trials, earlier
            )
            self.searcher = self.desk.searcher
            settings = options.settings(self.train_fn, self.objectives, self.folder, earlier)
            self._make_parts(options, settings, ssh_files)

        self._say_how_it_begins(was_taken, unused)
        registry.add(self)
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

    def _take_folder(self, checkpoint: str | os.PathLike[str] | None, resume: bool | None) -> bool:
        """Take the folder of the search, and open its log.

        True if an earlier scheduler of this process had the folder: as its search has ended, it is
        closed.
        """
        self._is_named = checkpoint is not None
        self.folder = folder.find(checkpoint, self.train_fn.__name__)
        was_taken = registry.close_ended(self.folder)
        self._store = folder.take(self.folder, resume)
        self._start_time = time.time()
        self.pid = os.getpid()
        self._closed = self._hurries = False
        return was_taken

    def _choose_seed(self, seed: int | None, earlier: Mapping[str, Any] | None) -> str:
        """Take the seed of an earlier run, or the given one, or any; returns a line to be said."""
        if earlier is not None:
            self.seed = earlier["seed"]
            if seed not in (None, self.seed):
                return f"seed={seed} is not used: this search began with {self.seed}"
            return ""
        self.seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        return ""

    def _make_parts(
        self, options: Options, settings: Settings, ssh_config: Sequence[str] | None
    ) -> None:
        """Make the parts that show the search, run it, have its nodes, and hear requests."""
        self.progress = Progress(
            options.verbose,
            self._snapshot,
            corner=lambda: notebook.Corner(self.curves_as_png),
        )
        say = self.progress.say
        self._callback = Callback(
            options.training_history_callback,
            period_s=options.training_history_callback_period,
            read=lambda: self.training_history,
            start_time=self._start_time,
            say=say,
        )
        self.manager = DistributedResourceManager()
        self.experiment = Experiment(
            self, settings, self.manager, self._store, say, self.progress.show
        )
        self.fleet = Fleet(
            self.folder,
            self.experiment,
            tunnel=options.tunnel,
            ssh_config=ssh_config,
            say=say,
            work_in=options.work_in,
            modules=modules.of_packages(settings.packed),
        )
        self.steering = Steering(
            self.folder, self.experiment, self.fleet, valid=self._valid_job, say=say
        )

    def _desk(
        self,
        searcher: str | Searcher,
        options: Mapping[str, Any] | None,
        points_to_evaluate: Iterable[Mapping[str, Any]] | None,
        num_trials: int | None,
        earlier: Mapping[str, Any] | None,
    ) -> Desk:
        """Make the desk, which makes the searcher, and stands between it and this scheduler."""
        return Desk(
            searcher,
            self.train_fn.space,
            self.objectives,
            seed=self.seed,
            options=options,
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

    def _say_how_it_begins(self, was_taken: bool, unused: str) -> None:
        """Say what a user might not expect.

        `was_taken`: an earlier scheduler was closed for this one. `unused`: a line about an
        argument that is not used.
        """
        say = self.progress.say
        if self._store.put_aside is not None:
            say(f"what another search had left in {self.folder} is in {self._store.put_aside.name}")
        if was_taken:
            say(f"the scheduler that had {self.folder} before, whose search has ended, is closed")
        if unused:
            say(unused)
        for line in self.train_fn.fixed:
            say(line)
        if self.desk.why:
            say(f"searcher='auto': {type(self.searcher).__name__}, as {self.desk.why}")

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
        # (Workers of the user's cluster may come later, when the job that starts them begins.)
        workers_are_to_come = client is not None and not self.manager.remotes
        if not workers_are_to_come:
            self.manager.check(resource)

    # What the searcher and the rule need to know

    def _needed_soon(self) -> int:
        """How many trials may be launched at once: one a slot, and not more than are left."""
        slots = self.manager.room_for(self.experiment.settings.resource)
        total = self.experiment.source.total
        return slots if total is None else min(slots, total - self.ledger.counts.launched - 1)

    def _wake(self) -> None:
        """Have slots filled: the searcher, in whose thread this is called, has a suggestion."""
        loop().loop.call_soon_threadsafe(self.experiment.wake)

    # Nodes

    def add_remote(self, ip_addrs: Addresses) -> None:
        """Add nodes, also while trials run; uploaded files get there too.

            scheduler.add_remote(['gpu3', 'me@gpu4:2222'])

        Raises NodeError if a node cannot be brought up (the others are then up).
        """
        self._check_open()
        loop().call(self.fleet.add(nodes_of(ip_addrs)))

    def remove_remote(self, ip_addrs: Addresses) -> None:
        """Take nodes away; trials that run on them are ended, and run again elsewhere.

        Raises ResourceError for a node that is not there.
        """
        self._check_open()
        loop().call(self.fleet.remove(nodes_of(ip_addrs)))

    def upload_files(self, files: Source | Iterable[Source]) -> None:
        """Put files, folders and modules where every trial finds them, on every node.

            scheduler.upload_files(['data.txt', 'images/', helper])

        From then on each trial, on this machine too, runs in a folder of its own in which nothing
        but the uploads is linked: `open('data.txt')` and `import helper` do the same everywhere,
        and `open('model.pt', 'wb')` makes a file of the trial's own. (All trials of a node see what
        a trial changes in an uploaded file or folder.) Nodes that are added later get the files as
        well. Raises UploadError.
        """
        self._check_open()
        loop().call(self.fleet.upload(collect(files)))

    # The end

    def close(self) -> None:
        """Stop what runs, leave nothing behind on any node, and let go of the log."""
        if self._closed or self.pid != os.getpid():  # (in a forked child it is the parent's)
            return
        loop().refuse_inside()
        self._closed = True
        registry.remove(self)
        if loop().error is not None:  # the log's descriptors may be other files by now
            self.progress.stop()
            self.desk.close()
            return
        # (After a second Ctrl-C: what nodes are not told to end, they end by themselves.)
        bound_s = HURRY_S if self._hurries else CLOSE_BOUND_S
        try:
            loop().call(self._close(), bound_s)
        except (concurrent.futures.TimeoutError, TimeoutError):  # (two classes before Python 3.11)
            if not self._hurries:
                why = self._store.trouble or "a node, the disk or the rule did not answer"
                self.progress.say(f"closed after {bound_s:g} s, without waiting any longer: {why}")
        finally:
            self.progress.stop()
            self.desk.close()
            with contextlib.suppress(concurrent.futures.TimeoutError):  # the rule hangs
                loop().run(self._store.close, bound_s)

    def shutdown(self) -> None:
        """`close()` by the name that AutoGluon has for it."""
        self.close()

    async def _close(self) -> None:
        experiment = self.experiment
        await self.steering.close()
        if not experiment.is_idle:
            if left := len(experiment.running):
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
