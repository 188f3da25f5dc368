"""One search as panels see it: its story, and what several of them need of it, computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..core.results import Results
from ..core.story import Story
from ..plots import parameters

Value = TypeVar("Value")
AFRESH = 1.1  # importance is computed anew when there are so many times more results


class View:
    """A search that is looked at, by several threads: `lock` is held by who asks for more than one
    thing at a moment.

        view = View(Story.of(folder), "digits")
        view.table(None), view.importance(None)

    `name` tells it from the others that are looked at, `folder` is that which the user has named
    (of a coevolution the one above its search).
    """

    def __init__(self, story: Story, name: str, folder: Path | None = None) -> None:
        self.story, self.name = story, name
        self.folder = story.folder if folder is None else folder
        self.lock = threading.RLock()
        self._known: dict[Any, tuple[int, Any]] = {}
        self._importance: dict[str | None, tuple[int, list[parameters.Importance]]] = {}

    @property
    def results(self) -> Results:
        """Its results so far."""
        return Results(self.story.ledger, self.story.folder, self.story.searched)

    @property
    def revision(self) -> int:
        """The number of the newest event that it knows."""
        return self.story.ledger.last_id

    def once(self, key: Any, make: Callable[[], Value]) -> Value:
        """What `make` gives, made anew only when something has happened since."""
        with self.lock:
            revision, value = self._known.get(key, (-1, None))
            if revision != self.revision:
                revision, value = self.revision, make()
                self._known[key] = (revision, value)
            known: Value = value
            return known

    def catch_up(self) -> bool:
        """Take in what has happened since; whether anything has. Raises as `Story.catch_up`."""
        with self.lock:
            return self.story.catch_up()

    def table(self, objective: str | None = None) -> parameters.Table:
        """The trials that have a result; raises NothingReported when there is none."""
        return self.once(("table", objective), lambda: parameters.table(self.story, objective))

    def importance(self, objective: str | None = None) -> list[parameters.Importance]:
        """How much each parameter matters; made anew when there are a tenth more results.

        Raises as `parameters.importance` does.
        """
        table = self.table(objective)
        count, found = self._importance.get(objective, (0, []))
        if len(table.ids) > AFRESH * count:
            found = parameters.importance(table)
            self._importance[objective] = len(table.ids), found
        return found

    def ranked(self, objective: str | None = None) -> list[str]:
        """The parameters, the most important first, where that is known already."""
        names = [scale.name for scale in self.table(objective).scales]
        known = [one.name for one in self._importance.get(objective, (0, []))[1]]
        return [*(n for n in known if n in names), *(n for n in names if n not in known)]
