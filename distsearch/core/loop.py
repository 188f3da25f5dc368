"""The one background thread of the process: an asyncio loop in which all of distsearch happens.

future = loop().submit(coroutine)          # from any other thread
result = loop().call(coroutine, timeout_s=10)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """An asyncio loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="distsearch", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine in the loop; its result comes in the future."""
        if threading.current_thread() is self.thread:  # whoever waits for it here waits for ever
            coroutine.close()
            raise RuntimeError("this cannot be called from a rule or a callback of the search")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

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


_the_loop: list[LoopThread] = []
_lock = threading.Lock()


def loop() -> LoopThread:
    """The process's loop, started at the first call (and anew in a forked child)."""
    with _lock:
        if not _the_loop:
            _the_loop.append(LoopThread())
        return _the_loop[0]


def _forget() -> None:
    """In a forked child: the thread of the loop is the parent's, which may have had the lock."""
    global _lock
    _the_loop.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
