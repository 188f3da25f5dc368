"""Where the trial for a free slot comes from: the queue, the rule's paused trials, or new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .children import Children
from .ledger import Ledger
from .queue import Queue
from .rule import Rule
from .words import Launch, Status, Trial, Wait

MOST_CHILDREN = 256  # while so many wait for parents, the rule is asked for no new trials
RESPITE_S = 0.05


class Source:
    """Says which trial takes a free slot; asks the rule, as long as that makes sense.

        source.begin_run(num_trials=20)
        trial = source.next("gpu1")       # for a free slot of gpu1; None: no trial now
        source.something_happened()       # the rule may know more by now

    `launch(launch)` makes a trial, `wake()` has slots filled. The rule is not asked for new trials
    when it has no more, when there are enough, and while it waits for something to happen; nor for
    paused trials once it has said that none is to go on now.
    """

    def __init__(
        self,
        rule: Rule,
        ledger: Ledger,
        queue: Queue,
        children: Children,
        *,
        launch: Callable[[Launch], Trial],
        wake: Callable[[], None],
    ) -> None:
        self._rule = rule
        self._ledger = ledger
        self._queue = queue
        self._children = children
        self._launch = launch
        self._wake = wake
        self.num_trials: int | None = None  # so many the present run() may launch
        self.is_exhausted = True  # the rule has no more new trials, or is not asked
        self._serves_given_only = True
        self._waits = False  # the rule launches nothing new before something happens
        self._thinks = False  # the rule will call wake() when it has a new trial
        self._resumes_nobody = True  # no trial is paused, or the rule lets none go on now
        self._launched = 0  # new trials that count for the present run()
        self._suits: Callable[[Trial], bool] = lambda trial: True
        self._restored = 0  # new trials of an earlier driver that no run() has counted yet

    def restored(self) -> None:
        """Take note of the trials of an earlier driver, which the ledger has by now."""
        self._restored = self._ledger.counts.suggested

    def begin_run(self, num_trials: int | None) -> bool:
        """Begin a run() of so many new trials; True if trials of an earlier driver count, too."""
        is_resumed = self._restored > 0
        self.num_trials = num_trials
        self._launched = self._restored
        if num_trials is not None:  # the others belong to the program's next run()
            self._launched = min(self._restored, num_trials)
        self._restored -= self._launched
        self.is_exhausted = self._serves_given_only = False
        self.something_happened()
        return is_resumed

    def serve_given_only(self) -> None:
        """Ask the rule for nothing until the next run(): only trials that the user gives run."""
        self.is_exhausted = self._serves_given_only = self._resumes_nobody = True

    def something_happened(self) -> None:
        """Take note that the rule may have a trial now, where it had none before."""
        self._waits = self._thinks = False
        self._resumes_nobody = self._serves_given_only or self._ledger.counts.paused == 0

    @property
    def is_open(self) -> bool:
        """Whether the rule may still launch new trials."""
        enough = self.num_trials is not None and self._launched >= self.num_trials
        return not (self.is_exhausted or enough)

    @property
    def why_closed(self) -> str:
        """Why the rule launches no more new trials in this run(), in words; '' while it may."""
        asked = "" if self.num_trials is None else f" of num_trials={self.num_trials}"
        if self._serves_given_only or self.is_open:
            return ""
        if self.is_exhausted:
            return f"there are no more configurations to try ({self._launched}{asked})"
        return f"num_trials={self.num_trials} are launched"

    @property
    def has_more(self) -> bool:
        """Whether a free slot may be of use now."""
        return self._queue.has_ready or self.may_have_another

    @property
    def may_have_another(self) -> bool:
        """Whether the rule may have a trial for a free slot, beside those in the queue."""
        return not self._resumes_nobody or (not self._waits and self.is_open)

    @property
    def is_thinking(self) -> bool:
        """Whether the rule will have new trials, though nothing runs now."""
        return self._thinks and self.is_open

    @property
    def expects_more(self) -> bool:
        """Whether trials will start, unless all is paused."""
        return self.has_more or self.is_thinking or self.has_queued

    @property
    def has_queued(self) -> bool:
        """Whether trials are in the queue, be it that they cannot start yet."""
        return len(self._queue) > 0

    @property
    def state(self) -> dict[str, Any]:
        """What the rule has answered last, to be shown: see `live.py`."""
        return {
            "waits": self._waits,
            "thinks": self.is_thinking,
            "open": self.is_open,
            "why_closed": self.why_closed,
            "launched": self._launched,
            "num_trials": self.num_trials,
        }

    @property
    def total(self) -> int | None:
        """How many trials there will be at most, if that is known."""
        launched = self._ledger.counts.launched
        if self.is_exhausted and launched:
            return launched
        if self.num_trials is None:
            return self._rule.planned
        return launched - self._launched + self.num_trials

    def next(self, node: str, suits: Callable[[Trial], bool] = lambda trial: True) -> Trial | None:
        """The trial for a free slot of a node: from the queue, a paused one, or a new one.

        `suits(trial)`: whether a trial of the queue may run on that node. Raises what the rule
        raises.
        """
        self._suits = suits
        return self._queue.pop(suits) or self._next_resumed() or self._next_new(node)

    def _next_resumed(self) -> Trial | None:
        named: set[int] = set()
        while not self._resumes_nobody:
            trial_id = self._rule.next_resume()
            trial = None if trial_id is None else self._ledger.trials[trial_id]
            if trial is None or trial in self._queue or trial.id in named:  # named twice
                self._resumes_nobody = True
            elif trial.status.is_end or self._goes_on(trial):  # the trial could not pause any more
                named.add(trial.id)
            else:
                self._queue.put(trial)
                if ready := self._queue.pop(self._suits):  # (not while its last attempt may run)
                    return ready
        return None

    def _goes_on(self, trial: Trial) -> bool:
        """Whether a trial that the rule had paused goes on already, by request."""
        is_to_pause = trial.id in self._ledger.decided
        return trial.status is not Status.PAUSED and not is_to_pause

    def _next_new(self, node: str) -> Trial | None:
        """The next new trial that can start; children whose parents are not ready are set aside."""
        while self.is_open and not self._waits:
            if trial := self._queue.pop(self._suits):  # `can_start` may have put a parent there
                return trial
            if len(self._children) >= MOST_CHILDREN:
                self._waits = True
                return None
            launch = self._ask_rule(node)
            if launch is None:
                return None
            trial = self._launch(launch)
            if not trial.parents or self._children.can_start(trial):
                return trial
            if trial.status.is_end:  # the parent is lost; the rule may name such parents for ever
                self._waits = self._thinks = True
                asyncio.get_running_loop().call_later(RESPITE_S, self._wake)
            else:
                self._children.add(trial)
        return None

    def _ask_rule(self, node: str) -> Launch | None:
        answer = self._rule.next_launch_on(node)
        if isinstance(answer, Launch):
            self._launched += 1
        elif isinstance(answer, Wait):
            self._waits, self._thinks = True, answer.thinking
        elif answer is None:
            self.is_exhausted = True
        else:
            name = f"{type(self._rule).__name__}.next_launch"
            raise TypeError(f"{name} returned {answer!r}; return Launch(...), Wait() or None")
        if not isinstance(answer, Launch) or not self.is_open:
            # The rule may have kept paused trials waiting for new ones, which will not come.
            self._resumes_nobody = self._serves_given_only or self._ledger.counts.paused == 0
        return answer if isinstance(answer, Launch) else None
