"""A tree that grows in a thread of its own, while suggestions come from the tree before it."""

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
    """A tree, the scale of its trials' scores, and what else was learned."""

    tree: Tree
    scale: Scale
    learned: Any


class Growth:
    """A tree that grows from when it is started, or at the latest from when it is needed.

        growth = Growth(lambda: grown_from(results), count=40, since=43)
        growth.start()
        growth.result()      # waits until the tree has grown; raises what growing raised

    `count`: from how many rewards it grows. `since`: the number of the first suggestion that uses
    the tree, however soon it has grown.
    """

    def __init__(self, grow: Callable[[], Grown], *, count: int, since: int) -> None:
        self.count, self.since = count, since
        self._grow = grow
        self._is_begun = False
        self._grown: Future[Grown] = Future()

    def start(self) -> None:
        """Let the tree grow in a thread, unless it does so already, or no thread can be started."""
        if not self._is_begun:
            self._is_begun = True
            try:
                threading.Thread(target=self._work, name="distsearch-tree", daemon=True).start()
            except RuntimeError:  # `result` lets it grow then
                self._is_begun = False

    def result(self) -> Grown:
        """The tree, once it has grown."""
        if not self._is_begun:
            self._is_begun = True
            self._work()
        return self._grown.result()

    def _work(self) -> None:
        try:
            with undisturbed():
                self._grown.set_result(self._grow())
        except BaseException as error:  # (raised where the tree is needed)
            self._grown.set_exception(error)


class OneThread:
    """While any thread is inside, BLAS and OpenMP use one thread; then as many as before.

    Two limits of threadpoolctl that overlap would restore the wrong number: the later one would
    restore the limit of the earlier one.
    """

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController  # (the import sets an environment variable)

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
