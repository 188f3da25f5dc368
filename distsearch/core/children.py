"""Children: trials that wait, without a slot or a thread, for the weights of their parents."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .ledger import Ledger
from .lineage import is_committed, nearest_ancestor
from .words import Status, Trial


class Children:
    """The children that wait, and what becomes of them when a parent is lost.

        children = Children(ledger, "nearest_ancestor", parent_retries=3, log=..., say=...,
                            give_up=..., start=queue.put)
        if not children.can_start(trial):
            children.add(trial)
        children.start_ready(of=parent)          # it has saved, or ended

    `policy` is one of `lineage.POLICIES`. `log(kind, trial, body)` makes an event. `give_up(child,
    reason)` ends a child that can never start, `start(trial)` has a child start, or a lost parent
    run once more.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: str,
        parent_retries: int,
        *,
        log: Callable[[str, Trial, dict[str, Any]], object],
        say: Callable[[str], None],
        give_up: Callable[[Trial, str], None],
        start: Callable[[Trial], None],
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._parent_retries = parent_retries
        self._log, self._say = log, say
        self._give_up, self._start = give_up, start
        self._waiting: dict[int, Trial] = {}
        # The arguments of calls of `start_ready` that are to be served, one after the other.
        self._looks: deque[tuple[Trial | None, bool]] = deque()
        self._told: set[str] = set()  # kinds of lost parents that the user has heard of

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Trial]:
        return iter(list(self._waiting.values()))

    def __contains__(self, trial: object) -> bool:
        return isinstance(trial, Trial) and trial.id in self._waiting

    def add(self, child: Trial) -> None:
        """Let a trial wait for its parents."""
        self._waiting[child.id] = child

    def remove(self, child: Trial) -> None:
        """Let a trial wait for its parents no longer, if it does."""
        self._waiting.pop(child.id, None)

    def clear(self) -> list[Trial]:
        """Let no child wait any more; returns those that did."""
        left = list(self)
        self._waiting.clear()
        return left

    def start_ready(self, of: Trial | None = None, stuck: bool = False) -> None:
        """Start the children (of one trial, or all) that can start; end those that never can.

        `stuck`: nothing else is left to run, so that a paused parent will not go on.
        """
        if not self._waiting:
            return
        self._looks.append((of, stuck))
        if len(self._looks) > 1:  # called while a child is ended, whose own children come next
            return
        while self._looks:
            for child in self._ready(*self._looks[0]):
                self._start(child)
            self._looks.popleft()

    def _ready(self, of: Trial | None, stuck: bool) -> Iterator[Trial]:
        for child in self:
            if child.id not in self._waiting or (of is not None and of.id not in child.parents):
                continue  # this child has ended with another parent that was looked at before
            if self.can_start(child, stuck):
                del self._waiting[child.id]
                yield child

    def can_start(self, child: Trial, stuck: bool = False) -> bool:
        """Whether a child can start; then it is logged from whose weights it goes on."""
        parents = [self._ledger.trials[parent] for parent in child.parents]
        unready = [parent for parent in parents if not is_committed(parent, child.wait_for)]
        lost = [
            parent
            for parent in unready
            if parent.status.is_end or (stuck and parent.status is Status.PAUSED)
        ]
        if self._policy == "retry":
            lost = [parent for parent in lost if not self._has_run_again(parent)]
        if lost and self._policy in ("fail", "retry"):
            self._waiting.pop(child.id, None)
            self._give_up(child, f"its {_why_lost(lost[0])}")
            return False
        if len(lost) < len(unready):
            return False
        self._settle(child, lost)
        return True

    def _settle(self, child: Trial, lost: list[Trial]) -> None:
        """Log from whose weights a child goes on: its parents', or those that stand in for them."""
        stand_ins: dict[int, int | None] = {parent.id: None for parent in lost}
        if self._policy == "nearest_ancestor":
            stand_ins = {one.id: nearest_ancestor(self._ledger.trials, one) for one in lost}
        inherits = [stand_ins.get(parent, parent) for parent in child.parents]
        body: dict[str, Any] = {"from": inherits}
        if lost:
            body.update(policy=self._policy, reason="; ".join(map(_why_lost, lost)))
            self._tell_of_orphan(child, lost[0], stand_ins[lost[0].id])
        self._log("inherits", child, body)

    def _tell_of_orphan(self, child: Trial, parent: Trial, stand_in: int | None) -> None:
        """Tell the user that a parent is lost, once for each kind of end: many may be alike."""
        kind = parent.status.value
        if kind in self._told:
            return
        self._told.add(kind)
        goes_on = "starts from scratch" if stand_in is None else f"goes on from trial {stand_in}"
        self._say(
            f"trial {child.id}: its {_why_lost(parent)}, so it {goes_on} (on_parent_failure="
            f"{self._policy!r}; further ones like it only in the log)"
        )

    def _has_run_again(self, parent: Trial) -> bool:
        """Let a lost parent run once more for its children; False if that makes no sense.

        It makes sense where the parent has failed, not too often, or where what it had saved went
        with its node. A parent that has ended without ever saving would not save then either.
        """
        weights_lost = parent.saves_first is not None and parent.status is Status.FINISHED
        if not parent.attempt or not (parent.status.is_failure or weights_lost):
            return False
        failed = sum(n for status, n in parent.failures.items() if status.is_failure)
        if failed + weights_lost > self._parent_retries:
            return False
        self._log("again", parent, {"reason": parent.reason, "weights_lost": weights_lost})
        self._start(parent)
        return True

    def needed_parents(self) -> set[int]:
        """The trials from whose weights a child may go on that has not saved yet."""
        new = [trial for trial in self._ledger.open.values() if trial.saved_step is None]
        needed = {one for trial in new for one in (*trial.parents, *(trial.inherits or ()))}
        if self._policy == "nearest_ancestor":
            trials = self._ledger.trials
            parents = {one for child in self for one in child.parents}
            needed |= {nearest_ancestor(trials, trials[parent]) for parent in parents}
        return {one for one in needed if one is not None}


def _why_lost(parent: Trial) -> str:
    if not parent.status.is_failure:
        return f"parent {parent.id} is {parent.status.value} and has no checkpoint"
    return f"parent {parent.id} {parent.status.value}: {parent.reason.partition(chr(10))[0][:200]}"
