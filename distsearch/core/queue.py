"""The trials that are to start: in which order, and not before their last attempt is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from .words import Trial


class Queue:
    """First in, first out; a trial waits aside while its last attempt may still run.

        queue.put(trial)
        queue.pop()                      # the next trial that may start, or None
        queue.begins(trial)              # an attempt of the trial begins
        queue.ends(trial)                # the attempt is over
        queue.ends(trial, 35.0)          # it is over after 35 s: a lost node may go on with it

    So no trial ever has two attempts at a time, for whatever reason it is to go on: its node was
    lost, the rule resumes it, it runs again for a child's sake, or there is a new `run()`.
    `on_ready()` is called when a trial has become ready after it was put. A trial that `is_held`
    (paused by request) is not taken in, whoever puts it.
    """

    def __init__(
        self, on_ready: Callable[[], None], is_held: Callable[[Trial], bool] = lambda trial: False
    ) -> None:
        self._on_ready = on_ready
        self._is_held = is_held
        self._ready: dict[int, Trial] = {}
        self._later: dict[int, Trial] = {}  # ready once their last attempts are over
        # The trials whose attempt may still run, with a timer for the lease of a lost node.
        self._busy: dict[int, asyncio.TimerHandle | None] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    def __iter__(self) -> Iterator[Trial]:
        return iter([*self._ready.values(), *self._later.values()])

    def __contains__(self, trial: object) -> bool:
        return isinstance(trial, Trial) and (trial.id in self._ready or trial.id in self._later)

    @property
    def has_ready(self) -> bool:
        """Whether there is a trial that may start now."""
        return bool(self._ready)

    def put(self, trial: Trial) -> None:
        """Have a trial start as soon as it can, unless it is held."""
        if trial in self or self._is_held(trial):
            return
        (self._later if trial.id in self._busy else self._ready)[trial.id] = trial

    @property
    def ready(self) -> list[Trial]:
        """The trials that may start now, in their order."""
        return list(self._ready.values())

    def pop(self, suits: Callable[[Trial], bool] = lambda trial: True) -> Trial | None:
        """Take the next trial that may start and suits; None if there is none."""
        for trial in self._ready.values():
            if suits(trial):
                return self._ready.pop(trial.id)
        return None

    def remove(self, trial: Trial) -> None:
        """Take a trial out of the queue, if it is there."""
        for trials in (self._ready, self._later):
            trials.pop(trial.id, None)

    def clear(self) -> list[Trial]:
        """Take all trials out of the queue; returns them."""
        left = list(self)
        self._ready.clear()
        self._later.clear()
        return left

    def begins(self, trial: Trial) -> None:
        """Take note that an attempt of a trial begins."""
        assert trial.id not in self._busy, f"trial {trial.id} has an attempt already"
        self._busy[trial.id] = None

    def ends(self, trial: Trial, after_s: float = 0.0) -> None:
        """Take note that the attempt of a trial is over, or will be after `after_s` seconds."""
        if after_s:
            loop = asyncio.get_running_loop()
            self._busy[trial.id] = loop.call_later(after_s, self._ends_now, trial)
        else:
            self._free(trial)

    def _ends_now(self, trial: Trial) -> None:
        self._free(trial)
        self._on_ready()

    def _free(self, trial: Trial) -> None:
        timer = self._busy.pop(trial.id, None)
        if timer is not None:
            timer.cancel()
        if self._later.pop(trial.id, None) is not None and not trial.status.is_end:
            self._ready[trial.id] = trial

    def close(self) -> None:
        """Cancel the timers: nothing will start any more."""
        for timer in self._busy.values():
            if timer is not None:
                timer.cancel()
        self._busy.clear()
