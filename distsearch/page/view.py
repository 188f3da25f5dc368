"""One search as panels see it: its story, and what several of them need of it, computed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..core.results import Results
from ..core.story import Story
from ..plots import parameters

Value = TypeVar("Value")
RESTS = 20.0  # a view rests so many times as long as its making took
AFRESH = 1.1  # importance is computed anew when there are so many times more results


class _Known(NamedTuple):
    """What was made of a search at a revision, and until when it serves though it is outdated."""

    revision: int
    rests_until: float
    value: Any


class View:
    """A search that several threads look at; who asks for several things holds `lock`.

        view = View(Story.of(folder), "digits", folder, "runs/digits")
        view.table(None), view.importance(None)

    `name` tells it from the others that are looked at, `folder` is that which the user has named
    (of a coevolution the one above its search), and `shown` how.
    """

    def __init__(self, story: Story, name: str, folder: Path, shown: str) -> None:
        self.story, self.name, self.folder, self.shown = story, name, folder, shown
        self.lock = threading.RLock()
        self._known: dict[Any, _Known] = {}
        self._is_behind = False
        self.settled = 0
        self._importance: dict[str | None, tuple[int, list[parameters.Importance]]] = {}

    @property
    def results(self) -> Results:
        """The results of the search so far."""
        return Results(self.story.ledger, self.story.folder, self.story.searched)

    @property
    def revision(self) -> int:
        """The number of the newest event that is known."""
        return self.story.ledger.last_id

    def once(self, key: Any, make: Callable[[], Value], *, seldom: bool = False) -> Value:
        """What `make` returns, made anew only when something has happened since.

        `seldom`: and not before it has rested for twenty times as long as it took; see `settle`.
        """
        with self.lock:
            known = self._known.get(key)
            began = time.monotonic()
            if known is not None and known.revision != self.revision:
                if seldom and began < known.rests_until:
                    self._is_behind = True
                else:
                    known = None
            if known is None:
                value = make()
                ended = time.monotonic()
                known = _Known(self.revision, ended + RESTS * (ended - began), value)
                self._known[key] = known
            found: Value = known.value
            return found

    def settle(self) -> bool:
        """Forget what is outdated, as nothing happens for the moment; whether there was anything.

        `settled` counts how often there was.
        """
        with self.lock:
            was_behind, self._is_behind = self._is_behind, False
            if was_behind:
                self._known.clear()
                self.settled += 1
            return was_behind

    def catch_up(self) -> bool:
        """Take in what has happened since; whether anything has. Raises as `Story.catch_up`."""
        with self.lock:
            return self.story.catch_up()

    def table(self, objective: str | None = None) -> parameters.Table:
        """The trials that have a result; raises NothingReported when there is none."""
        key = ("table", objective)
        return self.once(key, lambda: parameters.table(self.story, objective), seldom=True)

    def importance(self, objective: str | None = None) -> list[parameters.Importance]:
        """How much each parameter matters; made anew when there are a tenth more results.

        Figures that were drawn before that was known are shown anew: see `settle`. Raises as
        `parameters.importance` does.
        """
        table = self.table(objective)
        count, found = self._importance.get(objective, (0, []))
        if len(table.ids) > AFRESH * count:
            found = parameters.importance(table)
            with self.lock:
                self._importance[objective] = len(table.ids), found
                self._is_behind = True
        return found

    def known_importance(self, objective: str | None = None) -> list[parameters.Importance]:
        """How much each parameter matters, if somebody has asked for that already."""
        return self._importance.get(objective, (0, []))[1]

    def ranked(self, objective: str | None = None) -> list[str]:
        """The parameters, the most important first, where that is known already."""
        return parameters.ranked(self.table(objective), self.known_importance(objective))
