"""The one background thread of the process: an asyncio loop in which all of distsearch happens.

future = loop().submit(coroutine)          # from any other thread
result = loop().call(coroutine, timeout_s=10)

While another thread of the process forks, the loop stands still: see `forks.py`. Where the loop
ends, as its descriptors were closed by others, whoever waits for it or calls it hears of that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import DistsearchError, shown
from ..resource.lacks import with_remedy
from .forks import WAIT_S

T = TypeVar("T")


class LoopThread:
    """An asyncio loop in a daemon thread."""

    def __init__(self) -> None:
        self.error: DistsearchError | None = None  # why the loop has ended, if it has
        self._awaited: set[concurrent.futures.Future[Any]] = set()
        self._ending = threading.Lock()
        try:
            self.loop = asyncio.new_event_loop()
        except OSError as error:  # too many open files, most likely
            reason = with_remedy(str(error), error.errno)
            raise DistsearchError(f"no search can run in this program: {reason}") from error
        self.thread = threading.Thread(target=self._run, name="distsearch", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        except BaseException as error:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """Tell all who wait for the loop that it has ended."""
        with self._ending:
            self.error = DistsearchError(
                f"the background thread of distsearch has ended ({shown(error)}), most likely as "
                "this program has closed descriptors that it had not opened, as os.closerange() "
                "does. Start the program again: it goes on with the search"
            )
            awaited = list(self._awaited)
        for future in awaited:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                future.set_exception(self.error)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine in the loop; its result comes in the future.

        Raises DistsearchError where the loop has ended.
        """
        try:
            self.refuse_inside()  # (the loop would wait for itself)
            with self._ending:
                if self.error is not None:
                    raise self.error
                future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
                self._awaited.add(future)
        except BaseException:
            coroutine.close()
            raise
        future.add_done_callback(self._awaited.discard)
        return future

    def refuse_inside(self) -> None:
        """Raise RuntimeError in the loop's own thread."""
        if threading.current_thread() is self.thread:
            raise RuntimeError("this cannot be called from a rule or a callback of the search")

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine in the loop and wait for its result."""
        return self.submit(coroutine).result(timeout_s)

    def run(self, function: Callable[[], T], timeout_s: float | None = None) -> T:
        """Call a function in the loop's thread and wait for its result."""
        if threading.current_thread() is self.thread:
            return function()

        async def call() -> T:
            return function()

        return self.call(call(), timeout_s)


class Rest:
    """A time in which the loop stands still, from `begin()` to `end()`."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._has_begun = threading.Event()
        self._is_over = threading.Event()

    def begin(self) -> None:
        """Return when the loop stands still, or is busy for 5 s with what it does."""
        if self._thread.loop.is_running():
            self._thread.loop.call_soon_threadsafe(self._stand_still)
            self._has_begun.wait(WAIT_S)

    def end(self) -> None:
        """Let the loop go on."""
        self._is_over.set()

    def _stand_still(self) -> None:
        self._has_begun.set()
        self._is_over.wait(WAIT_S)


_the_loop: list[LoopThread] = []
_rests: dict[int, Rest] = {}  # by the thread that forks
_lock = threading.Lock()


def loop() -> LoopThread:
    """The process's loop, started at the first call (and anew in a forked child)."""
    with _lock:
        if not _the_loop:
            _the_loop.append(LoopThread())
        return _the_loop[0]


def _stand_still() -> None:
    """Before a fork: have the loop's thread hold no lock, for which the child would wait."""
    for thread in _the_loop:
        if threading.current_thread() is not thread.thread:
            rest = _rests[threading.get_ident()] = Rest(thread)
            rest.begin()


def _go_on() -> None:
    """In the parent, after a fork: let the loop go on."""
    rest = _rests.pop(threading.get_ident(), None)
    if rest is not None:
        rest.end()


def _forget() -> None:
    """In a forked child: forget the loop, whose thread is the parent's, and may hold a lock."""
    global _lock
    _the_loop.clear()
    _rests.clear()
    _lock = threading.Lock()


os.register_at_fork(before=_stand_still, after_in_parent=_go_on, after_in_child=_forget)
