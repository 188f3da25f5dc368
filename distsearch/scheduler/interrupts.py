"""SIGTERM, which a machine sends that is shut down, ends a search as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """Raised in place of KeyboardInterrupt where SIGTERM came."""


@contextlib.contextmanager
def term_too() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt inside this block, which leaves it as SystemExit(143).

    Nothing changes outside of the main thread, and where the program handles SIGTERM itself.
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


def is_interactive() -> bool:
    """Whether somebody types what runs: in a notebook, in IPython, at Python's own prompt."""
    ipython: Any = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or (ipython is not None and ipython.get_ipython() is not None)


def _on_term(number: int, frame: Any) -> None:
    raise Terminated
