"""The user's callback: called now and then, in a thread of its own, for which no search waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ..errors import shown

History = dict[int, list[dict[str, Any]]]
LAST_CALL_S = 60.0  # the end of a search waits so long for the last call


class Callback:
    """Calls `function(history, start_time)` at most every `period_s` seconds, one call at a time.

        callback = Callback(function, period_s=60.0, read=read_history, start_time=time.time(),
                            say=print)
        callback.call_if_due()      # returns at once, also while an earlier call hangs
        callback.call_at_the_end()  # waits for the call, a minute at most

    When the function fails, the user is told, and the search goes on.
    """

    def __init__(
        self,
        function: Callable[[History, float], None] | None,
        *,
        period_s: float,
        read: Callable[[], History],
        start_time: float,
        say: Callable[[str], None],
    ) -> None:
        self._function = function
        self._period_s = period_s
        self._read = read
        self._start_time = start_time
        self._say = say
        self._called_at = 0.0
        self._thread: threading.Thread | None = None

    def call_if_due(self) -> None:
        """Start a call, if the last one began a period ago, and none is under way."""
        is_due = time.monotonic() - self._called_at >= self._period_s
        if self._function is not None and is_due and not self._is_busy:
            self._start()

    def call_at_the_end(self) -> None:
        """Call once more, and wait for the call; after a minute the user is told that it hangs."""
        if self._function is None:
            return
        until = time.monotonic() + LAST_CALL_S
        if self._thread is not None:
            self._thread.join(LAST_CALL_S)
        if not self._is_busy:
            self._start()
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        if self._is_busy:
            self._say(
                f"training_history_callback has not returned for {LAST_CALL_S:g} s: the search is "
                "over without it"
            )

    @property
    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(self) -> None:
        self._called_at = time.monotonic()
        # A daemon thread: a call that hangs does not keep Python from exiting.
        thread = threading.Thread(target=self._call, name="distsearch-callback", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._say(f"training_history_callback is not called now: {error} (see `ulimit -u`)")
            return
        self._thread = thread

    def _call(self) -> None:
        assert self._function is not None
        try:
            self._function(self._read(), self._start_time)
        except BaseException as error:  # (`sys.exit()` would end the thread without a word)
            self._say(f"training_history_callback failed: {shown(error)}")
