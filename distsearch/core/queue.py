"""The trials that are to start: in which order, and not before their last attempt is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from .words import Trial


class Queue:
    """First in, first out; a trial whose last attempt is not over for sure comes in after that.

        queue.put(trial)
        queue.pop()                      # the next one that may start, or None
        queue.begins(trial)              # an attempt of it begins,
        queue.ends(trial)                # and is over
        queue.ends(trial, 35.0)          # the same, but a lost node may go on for so many seconds

    So no trial ever has two attempts at a time, whoever wants it to go on: the loss of a node, the
    rule that resumes a paused one, a child for whose sake it runs again, or a new `run()`.
    `on_ready` is called when a trial has become ready later than it was put. One that `is_held`
    does not come in, whoever puts it: it is paused by request.
    """

    def __init__(
        self, on_ready: Callable[[], None], is_held: Callable[[Trial], bool] = lambda trial: False
    ) -> None:
        self._on_ready = on_ready
        self._is_held = is_held
        self._ready: dict[int, Trial] = {}
        self._later: dict[int, Trial] = {}  # to be put once their last attempts are over
        # Trials with an attempt that is not over; of a lost node with the timer of its lease.
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
        """Take the next trial that may start, of those that suit."""
        for trial in self._ready.values():
            if suits(trial):
                return self._ready.pop(trial.id)
        return None

    def remove(self, trial: Trial) -> None:
        """Have a trial not start, if it was to."""
        for trials in (self._ready, self._later):
            trials.pop(trial.id, None)

    def clear(self) -> list[Trial]:
        """Have none of them start; which these were."""
        left = list(self)
        self._ready.clear()
        self._later.clear()
        return left

    def begins(self, trial: Trial) -> None:
        """Take note that an attempt of a trial begins."""
        assert trial.id not in self._busy, f"trial {trial.id} has an attempt already"
        self._busy[trial.id] = None

    def ends(self, trial: Trial, after_s: float = 0.0) -> None:
        """Take note that the attempt of a trial is over, or will be after so many seconds."""
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
        """Let go of the timers: nothing will start any more."""
        for timer in self._busy.values():
            if timer is not None:
                timer.cancel()
        self._busy.clear()
