"""Runs a slow searcher in a thread of its own, so that neither the loop nor slots wait for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..core.forks import undisturbed
from ..core.words import Launch, Wait
from ..errors import LineageError
from .base import Config, Reward, Searcher, Suggested, launch_of

CHEAP = 0.01  # a suggestion that takes less of the time between launches is not made ahead
RECENT = 64  # so many launches tell how fast launches come
CLOSE_BOUND_S = 10.0


@dataclass(frozen=True)
class Result:
    """A reward of a trial (by the searcher's number): at a rung, or the best (`time` is None)."""

    number: int
    config: Config
    reward: Reward | None
    more: tuple[Any, ...] = ()  # further arguments of `tell`
    time: float | None = None


@dataclass(frozen=True)
class Suggestion:
    """A suggestion (None: none is left), and how many results the searcher knew by then."""

    suggested: Suggested | None
    told: int


class Ahead:
    """The owner of a slow searcher: hands over results, and keeps suggestions ready.

        ahead = Ahead(searcher, soon=lambda: 4, ready=wake)
        ahead.next(trial_id=0)               # a Launch, Wait() while it thinks, None: none is left
        ahead.tell(0, config, 0.9)

    `soon()` says how many suggestions may be needed at once. `ready()` is called, in the searcher's
    thread, when a suggestion has come for which `next` has answered Wait(). All methods are called
    in one other thread, which also asks the searcher while no thread can be started for it.

    As many suggestions as may be needed are made ahead of time; but none as long as making one
    takes less than 1% of the time between launches: it is then made on demand, and knows more.
    Suggestions are used in the order in which they were made. The searcher does not see the ids of
    trials, but the running numbers of its suggestions; trials that it did not suggest are -1, -2,
    ... to it.

    How many results a suggestion knew depends on timing, so the log keeps that number with the
    launch; by it `replay` leads the searcher through the same asks and tells again.
    """

    def __init__(
        self, searcher: Searcher, *, soon: Callable[[], int], ready: Callable[[], None]
    ) -> None:
        self.searcher = searcher
        self._soon = soon
        self._call_when_ready = ready
        self._changed = threading.Condition()
        # These are shared by both threads.
        self._tells: deque[Result] = deque()
        self._prepared: deque[Suggestion] = deque()
        self._wanted = 0  # so many suggestions are to be prepared
        self._somebody_waits = False
        self._error: Exception | None = None
        self._closed = False
        self._cost_s = 0.0  # what a suggestion takes, in seconds, lately
        # Used in the searcher's thread; before that is started, in the other thread.
        self._told = 0
        self._asked = 0
        # Used in the other thread.
        self._thread: threading.Thread | None = None
        self._number_of: dict[int, int] = {}  # the searcher's number of each trial
        self._launched = 0
        self._strangers = 0
        self._launches: deque[float] = deque(maxlen=RECENT)  # their times, in seconds

    def next(self, trial_id: int) -> Launch | Wait | None:
        """The searcher's next trial, Wait() if it is still thinking, None if there is none left.

        Raises what the searcher raised.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            if not self._prepared:
                self._somebody_waits = True
                if self._start_or_wake():
                    return Wait(thinking=True)
                self._suggest_here()
            suggestion = self._prepared.popleft()
            self._wanted = self._worth_preparing()
            self._start_or_wake()
        suggested = suggestion.suggested
        if suggested is None:
            return None
        self._note_launch(trial_id)
        launch = launch_of(suggested)
        return replace(launch, parents=self._trials_of(launch), told=suggestion.told)

    def _trials_of(self, launch: Launch) -> tuple[int, ...]:
        """The ids of the parents, which the searcher has named by its own numbers."""
        trial_of = {number: trial_id for trial_id, number in self._number_of.items()}
        unknown = [parent for parent in launch.parents if parent not in trial_of]
        if unknown:
            raise LineageError(
                f"{type(self.searcher).__name__} named the parent {unknown[0]!r}, which it has "
                "neither suggested nor been told of; parents are earlier trials"
            )
        return tuple(trial_of[parent] for parent in launch.parents)

    def tell(self, trial_id: int, config: Config, reward: Reward | None, *more: Any) -> None:
        """Hand over a result; the searcher hears it before its next suggestion."""
        self._hand_over(Result(self._number(trial_id), dict(config), reward, more))

    def observe(self, trial_id: int, config: Config, reward: float | None, time: float) -> None:
        """Hand over a reward at a rung; the searcher hears it before its next suggestion."""
        self._hand_over(Result(self._number(trial_id), dict(config), reward, time=time))

    def replay(self, trial_id: int, config: Config, told: int | None) -> bool:
        """Let the searcher suggest again what it suggested when it knew `told` results (None: all).

        Only before the first `next`. False if it suggests something else.
        """
        while self._tells and (told is None or self._told < told):
            self._hear(self._tells.popleft())
        number, self._asked = self._asked, self._asked + 1
        self._note_launch(trial_id)
        return self.searcher.replay(number, config)

    def close(self) -> None:
        """Let the thread end, after the suggestion that it is making."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_BOUND_S)

    def _number(self, trial_id: int) -> int:
        if trial_id not in self._number_of:
            self._strangers += 1
            self._number_of[trial_id] = -self._strangers
        return self._number_of[trial_id]

    def _hand_over(self, result: Result) -> None:
        with self._changed:
            self._tells.append(result)
            if self._thread is not None:
                self._changed.notify()

    def _note_launch(self, trial_id: int) -> None:
        self._number_of[trial_id] = self._launched
        self._launched += 1

    def _worth_preparing(self) -> int:
        """How many suggestions to keep ready; launches before the first result tell nothing."""
        if self._told:
            self._launches.append(time.monotonic())
        if len(self._launches) < 2:
            return 0
        between_s = (self._launches[-1] - self._launches[0]) / (len(self._launches) - 1)
        return 0 if self._cost_s < CHEAP * between_s else self._soon()

    def _start_or_wake(self) -> bool:
        """Have the searcher's thread go on; False where no thread can be started for it now."""
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._work, name="distsearch-searcher", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        self._changed.notify()
        return True

    def _suggest_here(self) -> None:
        """Do what the searcher's thread would do next, where there is no such thread."""
        self._somebody_waits = False
        while self._tells:
            self._hear(self._tells.popleft())
        self._prepare()

    # The searcher's thread

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._tells or self._lacks)
                if self._closed:
                    return
                tells = list(self._tells)
                self._tells.clear()
                lacks = self._lacks
            try:
                with undisturbed():
                    for tell in tells:
                        self._hear(tell)
                    if lacks:
                        self._prepare()
            except Exception as error:  # the search ends with it
                with self._changed:
                    self._error = error
                self._call_when_ready()
                return

    @property
    def _lacks(self) -> bool:
        is_exhausted = bool(self._prepared) and self._prepared[-1].suggested is None
        wanted = max(self._wanted, self._somebody_waits)
        return len(self._prepared) < wanted and not is_exhausted

    def _hear(self, result: Result) -> None:
        number, config, reward = result.number, result.config, result.reward
        if result.time is None:
            self.searcher.tell(number, config, reward, *result.more)
        else:
            assert not isinstance(reward, tuple)  # rules with rungs rank by one reward
            self.searcher.observe(number, config, reward, result.time)
        self._told += 1

    def _prepare(self) -> None:
        begin = time.monotonic()
        suggested = self.searcher.ask(self._asked)
        self._asked += suggested is not None
        with self._changed:
            cost_s = time.monotonic() - begin
            self._cost_s += 0.3 * (cost_s - self._cost_s)
            self._prepared.append(Suggestion(suggested, self._told))
            somebody_waits, self._somebody_waits = self._somebody_waits, False
        if somebody_waits:
            self._call_when_ready()
