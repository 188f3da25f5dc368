"""SIGTERM, sent by whoever shuts a machine or a job down, ends a search as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def term_too() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt in this block, and SystemExit(143) out of it.

    Not outside of the main thread, and not where the program handles SIGTERM itself.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _on_term)
    try:
        yield
    except Terminated:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_term(number: int, frame: Any) -> None:
    raise Terminated
