"""How a user runs a search: starts it, waits for its end, and runs single trials beside it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from ..core import reach
from ..core import returned as returned_value
from ..core.decorators import TrainFunction
from ..core.ends import INTERRUPTED
from ..core.loop import loop
from ..core.phrases import counted
from ..core.progress import Snapshot
from ..core.snapshot import take_snapshot
from ..core.words import Status
from ..errors import DistsearchError, ResourceError, SpaceError, TrialFailed
from ..space import differences
from . import interrupts
from .default_rule import DefaultRule
from .options import check_bounds, check_number, complete
from .state import Resumable

CHECKPOINT_S = 30.0  # so long a trial has after Ctrl-C for its next checkpoint
INTERRUPT_BOUND_S = CHECKPOINT_S + 15.0
DISK_PATIENCE_S = 3.0  # so long Ctrl-C and close() wait for a log that cannot be written
LOOK_S = 0.2
HEARD_S = 10.0  # a rule that takes longer over one answer is taken for hanging


class Running(DefaultRule, Resumable):
    """The part of every scheduler that runs its search, in the loop's thread, and waits for it."""

    num_trials: int | None
    time_out: float | None
    _given: TrainFunction
    _given_space: Mapping[str, Any]
    _hurries: bool

    @property
    def is_running(self) -> bool:
        """Whether trials run or are still to be launched."""
        return not self._closed and not self.experiment.is_idle

    @property
    def has_ended(self) -> bool:
        """Whether the search has begun, and is over or closed."""
        return self.experiment.has_begun and not self.is_running

    def _check_function(self) -> None:
        """Raise SpaceError where arguments of the train function were changed since the start.

        Where its code, or that of a helper, was changed (in a notebook), the user is told.
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

            scheduler.run(num_trials=20, time_out=3600)
            scheduler.join_jobs()

        At most `num_trials` trials are launched, and after `time_out` seconds those that run are
        stopped. Both default to the scheduler's own. Called again after the end, the search goes on
        with more trials. Raises ResourceError for a search that would never end, DistsearchError
        while it runs, SpaceError where the train function's arguments were changed.
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
            return False  # a rule of the user's own may end by itself
        has_no_end = self.searcher.endless and self.train_fn.space.size == math.inf
        return has_no_end and self.experiment.settings.max_reward is None

    def join_jobs(self, timeout: float | None = None) -> bool:
        """Wait until all trials have ended, for `timeout` seconds in total; True if they have.

        Otherwise a line says what is left. Ctrl-C ends the search in order and raises
        KeyboardInterrupt: nothing more is started, trials that save checkpoints have 30 s for their
        next one, and the command that goes on with the search is printed. SIGTERM does the same and
        raises SystemExit(143). Raises SearchFailed when the first trials all failed alike, and
        whatever the searcher or a rule of your own raised.
        """
        self._check_open()
        if timeout is not None:
            check_number("timeout", timeout, "a number from 0 on, or None", least=0)
            timeout = min(timeout, threading.TIMEOUT_MAX)
        waiting = loop().submit(self.experiment.wait())
        with interrupts.term_too():
            try:
                waiting.result(timeout)
            except concurrent.futures.TimeoutError:  # (not the built-in one before 3.11)
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
        try:
            loop().run(lambda: self.experiment.end(INTERRUPTED, after_save_s=CHECKPOINT_S), HEARD_S)
            self._wait_for_the_last(waiting)  # (close() ends what is left then)
        except concurrent.futures.TimeoutError:
            self.progress.say(f"{type(self).__name__} has not returned for {HEARD_S:g} s")
        except KeyboardInterrupt:
            self._hurries = True
            raise
        self.progress.stop()
        self.progress.say(self._how_to_go_on())

    def _wait_for_the_last(self, waiting: concurrent.futures.Future[None]) -> None:
        """Wait for trials that are to end, unless a full disk keeps them from hearing of that."""
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
        """Run one more trial, with this configuration, before the searcher's next; its task id.

            scheduler.add_job({"lr": 0.01})

        Raises SpaceError for a configuration outside the space, and for one with constants.
        """
        self._check_open()
        valid = self._valid_job(config)
        return loop().run(lambda: self.experiment.add(valid)).id

    def _valid_job(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The whole configuration of a further trial; raises SpaceError for one with constants."""
        self._check_function()
        if constants := list(self.train_fn.space.constants_of(config)[0]):
            raise SpaceError(
                f"{constants[0]!r} is a constant of this search, so that trials can be compared; "
                "leave it out, or call run_with_config, which takes other values for constants"
            )
        return self.train_fn.space.validate(config)

    def run_with_config(self, config: Mapping[str, Any]) -> Any:
        """Run one trial with this configuration, wait for it, and return what train_fn returned.

        For the final training, also with other constants:

            model = scheduler.run_with_config({**scheduler.get_best_config(), 'epochs': 100})

        This trial is never the best, and in no history, curve or count of the search
        (`Trial.is_final`). Numbers, text, bytes, arrays, tensors, and lists, tuples and dicts of
        these come back as they were. Other objects, such as models, come back as their text, of
        which a RuntimeWarning tells: keep them with `reporter.save`. Ctrl-C stops the trial. Raises
        SpaceError for a configuration that makes no sense, TrialFailed, with the traceback, if the
        trial fails or is stopped, NodeError if its node is lost right after its end.
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
