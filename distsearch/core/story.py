"""The story of a search, as figures need it: curves, attempts, each improvement of the best.

    story = Story.of(folder)        # reads the log of a search, which may be running
    story.catch_up()                # takes in what has happened since
    story.curves[3].times, story.best_so_far

Like the ledger, which it has inside, it is a fold over the log: the ledger knows how the search
stands, the story how it has come to that.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import StoreError
from . import store
from .ledger import Ledger
from .metrics import number

TOLD_EVERY = 20_000  # so many events are read between two calls of `hear`


@dataclass(slots=True)
class Curve:
    """What one trial has reported: `times` (epochs), and for each objective its values.

    `values[0][4]` is the first objective at `times[4]`, NaN where the report had no number for it.
    """

    values: tuple[array[float], ...]
    times: array[float] = field(default_factory=lambda: array("d"))
    attempt: int | None = None

    def add(self, time: float | None, values: list[float]) -> None:
        """Add a report; a report without a time has its running number as its time."""
        self.times.append(len(self.times) + 1.0 if time is None else time)
        for known, value in zip(self.values, values, strict=True):
            known.append(value)

    def go_on_from(self, time: float | None) -> None:
        """Leave out reports beyond this time: another attempt goes on from there."""
        kept = [n for n, at in enumerate(self.times) if time is not None and at < time]
        self.times = array("d", (self.times[n] for n in kept))
        self.values = tuple(array("d", (known[n] for n in kept)) for known in self.values)


@dataclass(slots=True)
class Span:
    """From when to when a process of a trial ran on a node, in Unix seconds; None: it runs."""

    trial: int
    node: str
    rank: int
    began: float
    ended: float | None = None


class Best(NamedTuple):
    """An improvement of the best: when (Unix seconds), after how many ended trials, by which."""

    at: float
    ended: int
    trial: int
    value: float


class NodeSeen(NamedTuple):
    """When a node came, and which slots it has; or when it went (no slots)."""

    at: float
    node: str
    cpus: int
    gpus: int


class Story:
    """What has happened in a search; only events of its log change it.

    `ledger`: how the search stands. `searched`: what is searched, by the last run of the driver.
    `began`: when the first run of the driver began, `last`: when the newest event came, in Unix
    seconds. `curves`: the reports of each trial. `spans`: of every process of every attempt.
    `best_so_far`: each improvement of the best (of one objective). `nodes`: which came and went.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.searched: Mapping[str, Any] = {}
        self.curves: dict[int, Curve] = {}
        self.spans: list[Span] = []
        self.best_so_far: list[Best] = []
        self.nodes: list[NodeSeen] = []
        self.began = self.last = 0.0
        self._ledger: Ledger | None = None
        self._running: dict[int, list[Span]] = {}
        self._ended = 0
        self._first: store.Event | None = None
        self._catching = threading.Lock()  # several threads may ask for figures

    @classmethod
    def of(cls, folder: Path, hear: Callable[[int], None] | None = None) -> Story:
        """The story of the search in a folder so far.

        `hear(count)` is called now and then, with the number of events that were read. Raises
        StoreError when the folder holds no search, or its log is damaged.
        """
        if (folder / store.FILE).is_file():
            store.verify(folder)
        story = cls(folder)
        story.catch_up(hear)
        if story._ledger is None:
            raise StoreError(f"the log in {folder} does not say what was searched")
        return story

    @property
    def ledger(self) -> Ledger:
        """How the search stands."""
        assert self._ledger is not None
        return self._ledger

    def lines(self, objective: int) -> dict[int, list[tuple[float, float]]]:
        """The curves {id: [(time, value), ...]} of all trials but the final ones, without NaN."""
        trials = self.ledger.trials
        return {
            number: [
                (time, value)
                for time, value in zip(curve.times, curve.values[objective], strict=True)
                if not math.isnan(value)
            ]
            for number, curve in sorted(self.curves.items())
            if not trials[number].is_final
        }

    def catch_up(self, hear: Callable[[int], None] | None = None) -> bool:
        """Take in what has happened since the last call; False if nothing has.

        Raises StoreError when the folder has another search now, or none.
        """
        with self._catching:
            self._check_same()
            before = 0 if self._ledger is None else self._ledger.last_id
            for event in store.read(self.folder, after=before):
                self._take(event)
                if hear is not None and event.id % TOLD_EVERY == 0:
                    hear(event.id)
            return self._ledger is not None and self._ledger.last_id > before

    def _check_same(self) -> None:
        if not (self.folder / store.FILE).is_file():  # (SQLite would make an empty file)
            raise StoreError(f"{self.folder} holds no experiment: there is no {store.FILE} in it")
        if self._first is None:
            return
        if next(store.read(self.folder, "experiment"), None) != self._first:
            raise StoreError(f"the search in {self.folder} was started anew (resume=False)")

    def _take(self, event: store.Event) -> None:
        if event.kind == "experiment":
            if self._ledger is None:
                self._ledger, self._first = Ledger.described(event.body), event
                self.began = event.time
            self.searched = event.body
        if self._ledger is None:  # (an event `warm` may come before `experiment`)
            return
        self.last = event.time
        ledger, best = self._ledger, self._ledger.best
        known = None if best is None else (best.id, best.best_reward)
        trial = ledger.apply(event)
        if trial is None:
            if event.kind == "node":
                self._note_node(event)
            return
        kind = event.kind
        if kind == "report":
            self._report(event, ledger)
            best = ledger.best
            if best is not None and best.id == trial.id and not trial.is_final:
                assert best.best_reward is not None
                if known != (best.id, best.best_reward):
                    new = Best(event.time, self._ended, best.id, best.best_reward)
                    self.best_so_far.append(new)
        elif kind == "started":
            self._running[trial.id] = [
                Span(trial.id, place["node"], place["rank"], event.time)
                for place in event.body["places"]
            ]
            self.spans += self._running[trial.id]
        elif kind in ("ended", "paused", "lost"):
            for span in self._running.pop(trial.id, ()):
                span.ended = event.time
            self._ended += kind == "ended" and not trial.is_final

    def _report(self, event: store.Event, ledger: Ledger) -> None:
        body, names = event.body, ledger.objectives.names
        assert event.trial is not None
        curve = self.curves.get(event.trial)
        if curve is None:
            curve = Curve(tuple(array("d") for _ in names), attempt=event.attempt)
            self.curves[event.trial] = curve
        time = _finite(body.get(ledger.time_attr))
        if curve.attempt != event.attempt:
            curve.attempt = event.attempt
            curve.go_on_from(time)
        values = [_finite(body.get(name)) for name in names]
        curve.add(time, [math.nan if value is None else value for value in values])

    def _note_node(self, event: store.Event) -> None:
        body = event.body
        if "came" in body:
            gpus = len(body.get("gpus", ()))
            seen = NodeSeen(event.time, body["came"], body.get("num_cpus", 0), gpus)
        else:
            seen = NodeSeen(event.time, body["went"], 0, 0)
        self.nodes.append(seen)


def _finite(value: Any) -> float | None:
    known = number(value)
    return known if known is not None and math.isfinite(known) else None
