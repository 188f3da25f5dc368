"""A tree that grows in a thread of its own, while suggestions go on from the one before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ..core.forks import undisturbed
from .regions import Tree
from .worth import Scale


@dataclass(frozen=True)
class Grown:
    """A tree, the scale of the scores that it was grown from, and what else was learned."""

    tree: Tree
    scale: Scale
    learned: Any


class Growth:
    """What grows once it is started, or at the latest when it is needed.

        growth = Growth(lambda: grown_from(results), count=40, since=43)
        growth.start()
        growth.result()      # waits if it has not grown yet; raises what growing raised

    `count`: so many rewards it is grown from; `since`: the number of the suggestion from which on
    it is used, however soon it has grown.
    """

    def __init__(self, grow: Callable[[], Grown], *, count: int, since: int) -> None:
        self.count, self.since = count, since
        self._grow = grow
        self._is_begun = False
        self._grown: Future[Grown] = Future()

    def start(self) -> None:
        """Let it grow aside, unless it does already."""
        if not self._is_begun:
            self._is_begun = True
            threading.Thread(target=self._work, name="distsearch-tree", daemon=True).start()

    def result(self) -> Grown:
        """What has grown."""
        if not self._is_begun:
            self._is_begun = True
            self._work()
        return self._grown.result()

    def _work(self) -> None:
        try:
            with undisturbed():
                self._grown.set_result(self._grow())
        except BaseException as error:  # it is raised where the tree is needed
            self._grown.set_exception(error)


class OneThread:
    """While anybody is inside, BLAS and OpenMP use one thread; afterwards as many as before.

    What a single limit restores is wrong where two overlap: the later one would keep the limit.
    """

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController  # which sets an environment variable

        self._controller = ThreadpoolController()
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = self._controller.limit(limits=1)
                self._limit.__enter__()
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._limit is not None:
                self._limit.__exit__(kind, error, trace)
